import io
import math
import os
import pickle
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rmaclib import images
from rmaclib.foundation.errors import InputError
from rmaclib.images import ImageError, crop_pixels, fit, fitted_size, read_image, read_size, resized_size

RED, WHITE = (255, 0, 0), (255, 255, 255)


def save(folder, image, name="picture.png", **options):
    image.save(folder / name, **options)
    return folder / name


def test_exif_orientation_is_applied(tmp_path):
    upright = Image.new("RGB", (40, 24), "white")
    upright.paste("red", (0, 0, 20, 12))
    turns = {1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
             4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
             7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}
    for orientation, turn in turns.items():  # stored turned, tagged with how to turn it back
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = upright if turn is None else upright.transpose(turn)
        path = save(tmp_path, stored, f"{orientation}.png", exif=exif)
        assert read_size(path) == (40, 24)
        assert np.array_equal(np.asarray(read_image(path)), np.asarray(upright)), orientation


def test_palette_transparency_and_grey(tmp_path):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    clear.putpixel((1, 0), (0, 0, 0, 51))  # 20 % black on white: 204
    pixels = np.asarray(read_image(save(tmp_path, clear)))
    assert tuple(pixels[0, 0]) == RED and tuple(pixels[0, 1]) == (204,) * 3 and tuple(pixels[3, 3]) == WHITE

    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 1), 1)
    assert tuple(np.asarray(read_image(save(tmp_path, palette)))[0, 0]) == RED
    path = save(tmp_path, palette, "clear.png", transparency=1)  # entry 1 is transparent
    assert tuple(np.asarray(read_image(path))[1, 1]) == WHITE

    grey = Image.new("LA", (4, 4), (100, 0))
    assert tuple(np.asarray(read_image(save(tmp_path, grey)))[0, 0]) == WHITE
    assert np.asarray(read_image(save(tmp_path, Image.new("1", (4, 4), 1)))).min() == 255


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32896, 65535]] * 2, dtype=np.uint16)
    for name in ("deep.png", "deep.tif"):
        pixels = np.asarray(read_image(save(tmp_path, Image.fromarray(values), name)))
        assert pixels.shape == (2, 4, 3) and pixels[0, :, 0].tolist() == [0, 1, 128, 255]


def test_cmyk(tmp_path):
    path = save(tmp_path, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "ink.jpg", quality=95)
    red, green, blue = np.asarray(read_image(path))[8, 8]
    assert red > 240 and green < 15 and blue < 15


def bomb(path, side=60_000):
    """A PNG whose header promises side × side pixels."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)))


def bad_files(folder):
    good = io.BytesIO()
    Image.effect_noise((200, 200), 50).convert("RGB").save(good, "JPEG")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(good.getvalue()[:len(good.getvalue()) // 2])
    (folder / "text.jpg").write_text("this is not a picture")
    save(folder, Image.new("RGB", (1, 300)), "thin.png")
    save(folder, Image.new("RGB", (300, 1)), "flat.png")
    bomb(folder / "bomb.png")
    bomb(folder / "small_bomb.png", side=10_000)
    save(folder, Image.new("F", (8, 8)), "float.tif")
    (folder / "folder.jpg").mkdir()
    return sorted([*folder.iterdir(), folder / "missing.jpg"])


def test_bad_files_raise_image_error_naming_the_file(tmp_path):
    for path in bad_files(tmp_path):
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert str(path) in str(caught.value), path
        assert caught.value.path == path
        # Raised anew: dask, once imported, sends the traceback along, and pytest's is too deep for pickle.
        again = pickle.loads(pickle.dumps(ImageError(caught.value.path, caught.value.reason)))
        assert str(again) == str(caught.value) and again.path == path


def test_size_of_bad_headers_raises_too(tmp_path):
    bad_files(tmp_path)
    for name in ("empty.jpg", "text.jpg", "thin.png", "bomb.png", "missing.jpg"):
        with pytest.raises(ImageError, match=name):
            read_size(tmp_path / name)


def test_images_of_too_many_pixels_are_not_decoded(tmp_path):
    side = math.isqrt(images.MAX_PIXELS)
    bomb(tmp_path / "largest.png", side)
    assert read_size(tmp_path / "largest.png") == (side, side)
    bomb(tmp_path / "larger.png", side + 1)
    for read in (read_image, read_size):
        with pytest.raises(ImageError, match=f"larger.png: {side + 1}×{side + 1} pixels, at most .*bomb"):
            read(tmp_path / "larger.png")


def test_resized_size():
    assert resized_size(1024, 768, 512) == (512, 384)
    assert resized_size(300, 400, 512) == (300, 400)  # never enlarging
    assert resized_size(300, 400, 512, enlarge=True) == (384, 512)
    assert resized_size(5000, 2, 100) == (100, 1)
    with pytest.raises(ValueError, match="at least 1"):
        resized_size(5, 5, 0)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1200), st.booleans())
def test_resized_size_keeps_shape(width, height, longer, enlarge):
    new = resized_size(width, height, longer, enlarge)
    assert min(new) >= 1
    if enlarge or max(width, height) > longer:
        assert max(new) == longer
        scale = longer / max(width, height)
        assert all(abs(n - o * scale) <= 0.5 or n == 1 for n, o in zip(new, (width, height), strict=True))
    else:
        assert new == (width, height)


def test_crop_orders_by_hand():
    image = Image.new("RGB", (200, 100), "white")
    image.paste("red", (50, 20, 150, 80))
    box = (50, 20, 150, 80)
    paper = fit(image, 100, box)  # halved first: the box becomes 50 × 30
    assert paper.size == (50, 30) and tuple(np.asarray(paper)[15, 25]) == RED
    other = fit(image, 50, box, order="crop-then-resize")  # cut first: 100 × 60, then halved
    assert other.size == (50, 30)
    assert fit(image, 100, box, order="crop-then-resize").size == (100, 60)
    with pytest.raises(ValueError, match="crop order"):
        fit(image, 100, box, order="both")


@given(st.integers(2, 300), st.integers(2, 300), st.integers(1, 200), st.booleans(),
       st.tuples(*[st.floats(-20, 320)] * 4), st.sampled_from(images.CROP_ORDERS))
def test_fitted_size_is_the_size_that_fit_gives(width, height, longer, enlarge, box, order):
    image = Image.new("RGB", (width, height))
    try:
        size = fitted_size(width, height, longer, box, order, enlarge)
    except ValueError as error:
        with pytest.raises(ValueError) as again:
            fit(image, longer, box, order, enlarge)
        assert str(again.value) == str(error)
    else:
        assert min(size) >= 1
        assert fit(image, longer, box, order, enlarge).size == size
    assert fit(image, longer, None, order, enlarge).size == fitted_size(width, height, longer, None, order, enlarge)


def test_crop_box_is_clipped_and_never_empty():
    assert crop_pixels((-5.2, 3.4, 1000, 7.6), 100, 50) == (0, 3, 100, 8)
    assert crop_pixels((10.1, 10.1, 10.2, 10.2), 100, 50) == (10, 10, 11, 11)
    for box in [(10, 10, 10, 20), (20, 10, 10, 20), (100, 0, 120, 10), (-9, -9, 0, 0), (float("nan"), 0, 5, 5)]:
        with pytest.raises(ValueError, match="box"):
            crop_pixels(box, 100, 50)


def test_no_other_than_a_regular_file_is_opened(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "gone.jpg")
    for path, reason in ((tmp_path / "folder.jpg", "found a folder"), (tmp_path / "pipe.jpg", "found a pipe"),
                         (tmp_path / "dead.jpg", "a link to a file that isn't there"),
                         (Path("/dev/zero"), "found a device"), ("a\0b.jpg", "null")):
        for read in (read_image, read_size):
            with pytest.raises(ImageError, match=reason):
                read(path)


def damaged_exif(folder):
    """A photograph whose EXIF data end too early: Pillow warns of it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(stream, "JPEG", exif=exif)
    content = bytearray(stream.getvalue())
    start = content.index(b"Exif\0\0") + 6
    content[start + 4:start + 8] = struct.pack(">I" if content[start:start + 2] == b"MM" else "<I", 24)
    (folder / "exif.jpg").write_bytes(content)
    return folder / "exif.jpg"


def test_pillow_never_warns(tmp_path):
    path = damaged_exif(tmp_path)
    with pytest.warns(UserWarning, match="EXIF"), Image.open(path) as image:
        image.getexif()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_size(path) == read_image(path).size == (30, 20)


def test_filters_of_warnings_stay_as_they_were_with_many_threads(tmp_path):
    path, before = damaged_exif(tmp_path), list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_image, [path] * 200))
    assert warnings.filters == before


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8, 0, 9])
@pytest.mark.parametrize("ending", ["jpg", "tif", "webp", "png"])
def test_both_readers_agree_on_the_size(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, Image.new("RGB", (30, 20), "red"), f"a.{ending}", exif=exif)
    assert read_size(path) == read_image(path).size == ((20, 30) if orientation in (5, 6, 8) else (30, 20))


@pytest.mark.parametrize("box", [(0, 0, float("inf"), float("inf")), (0, 0, float("nan"), 5), (0, 0, 5), "abcd", None,
                                 (0, 0, 10**400, 5), (float("-inf"), 0, 5, 5), (5, 5, 1, 9)])
def test_boxes_that_cannot_be_used_are_errors(box):
    with pytest.raises(InputError, match="box"):
        crop_pixels(box, 100, 50)
    for longer in (0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="longer side"):
            resized_size(10, 10, longer)
