from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rmaclib.backbones import create_backbone
from rmaclib.datasets.types import LabelledImages
from rmaclib.images import ImageError
from rmaclib.learning import Squares, Views, random_crop, random_side, random_square
from rmaclib.learning.errors import UnreadableError
from rmaclib.learning.views import why_unreadable


def single(folder, picture, box=None):
    Image.fromarray(picture).save(folder / "one.png")
    return LabelledImages("one", folder, ("one.png",), (folder / "one.png",), (0,), (box,))


def pixels(view):
    return view.permute(1, 2, 0).numpy()


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)


def test_small_images_are_as_they_are_and_larger_ones_resized(tmp_path, picture):
    images = single(tmp_path, picture)
    views = Views(images, [0], 100)
    assert views.sizes == [(32, 64)] and len(views) == 1
    assert views[0].dtype == torch.uint8 and np.array_equal(pixels(views[0]), picture)
    small = Views(images, [0], 20)
    assert small.sizes == [(10, 20)]
    assert np.array_equal(pixels(small[0]), Image.fromarray(picture).resize((20, 10), Image.Resampling.BICUBIC))


def test_images_keep_their_shape(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (213, 448, 3), dtype=np.uint8)
    images = single(tmp_path, picture)
    (view,), (size,) = Views(images, [0], 320), Views(images, [0], 320).sizes
    assert size == tuple(view.shape[1:]) == (152, 320)  # 213 · 320 / 448 = 152.1
    assert Views(images, [0], 500).sizes == [(213, 448)]


def test_each_image_may_have_its_own_size(tmp_path, picture):
    images = single(tmp_path, picture)
    views = Views(images, [0, 0, 0], [20, 100, 48])
    assert views.sizes == [tuple(view.shape[1:]) for view in map(views.__getitem__, range(3))] == [
        (10, 20), (32, 64), (24, 48)]
    assert np.array_equal(pixels(views[2]), pixels(Views(images, [0], 48)[0]))
    with pytest.raises(ValueError):
        Views(images, [0, 0, 0], [20, 100])


def test_sides_are_drawn_evenly_in_steps_of_the_stride_down_from_the_largest():
    random = np.random.default_rng(0)
    sides = [random_side(300, 448, 32, random) for _ in range(5000)]
    lengths, counts = np.unique(sides, return_counts=True)
    assert lengths.tolist() == [320, 352, 384, 416, 448] and counts == pytest.approx([1000] * 5, rel=0.1)
    assert {random_side(64, 96, 32, random) for _ in range(50)} == {64, 96}
    assert {random_side(smallest, 100, 32, random) for smallest in (69, 100) for _ in range(20)} == {100}


def test_images_are_cut_or_padded_to_whole_cells_right_and_below(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (213, 448, 3), dtype=np.uint8)
    images, whole = single(tmp_path, picture), Image.fromarray(picture).resize((320, 152), Image.Resampling.BICUBIC)
    # The map of one network has no cell for a rest of less than a stride, that of the other has.
    cutting, padding = (create_backbone(name, pretrained=False) for name in ("efficientnet_lite0", "resnet50"))
    cut, padded = (Views(images, [0], 320, backbone=backbone) for backbone in (cutting, padding))
    assert cut.sizes == [tuple(cut[0].shape[1:])] == [(128, 320)]
    assert np.array_equal(pixels(cut[0]), np.array(whole)[:128])
    assert padded.sizes == [tuple(padded[0].shape[1:])] == [(160, 320)]
    assert np.array_equal(pixels(padded[0])[:152], whole)
    assert (pixels(padded[0])[152:] == (124, 116, 104)).all()  # the mean colour of ImageNet


def test_a_mirrored_image_is_cut_afterwards(tmp_path):
    cutting, picture = create_backbone("efficientnet_lite0", pretrained=False), np.zeros((64, 75, 3), np.uint8)
    picture[:, :, 0] = np.arange(75)
    images = single(tmp_path, picture)
    firsts = {int(Views(images, [0], 80, backbone=cutting, flip=True, seed=(update,))[0][0, 0, 0])
              for update in range(10)}
    assert firsts == {0, 74}  # columns 0 ... 63, or 74 ... 11
    small = Views(single(tmp_path, picture[:20, :40]), [0], 80, backbone=cutting)
    assert small.sizes == [(32, 32)] and (pixels(small[0])[20:] == 128).all()


def test_mirrored_half_of_the_time_and_the_same_for_the_same_seed(tmp_path, picture):
    images, mirrored = single(tmp_path, picture), []
    for update in range(40):
        view = pixels(Views(images, [0], 64, flip=True, seed=(1, update))[0])
        assert np.array_equal(view, picture) or np.array_equal(view, picture[:, ::-1])
        assert np.array_equal(view, pixels(Views(images, [0], 64, flip=True, seed=(1, update))[0]))
        mirrored.append(np.array_equal(view, picture[:, ::-1]))
    assert 10 < sum(mirrored) < 30


def test_a_crop_is_resized_to_the_size_of_the_whole(tmp_path):
    # Colours tell where a view was cut: red rises to the right, green downwards.
    ramp = np.zeros((96, 192, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(192), np.arange(96)[:, None]
    images = single(tmp_path, ramp, box=(120, 10, 180, 40))
    for update in range(20):
        view = pixels(Views(images, [0], 192, crop=0.4, seed=(2, update))[0]).astype(int)
        assert view.shape == (96, 192, 3)
        left, right, top, bottom = view[0, 0, 0], view[0, -1, 0], view[0, 0, 1], view[-1, 0, 1]
        assert left <= 121 and right >= 178 and top <= 11 and bottom >= 38  # the box is in it
        assert (right - left) / 191 == pytest.approx((bottom - top) / 95, abs=0.03)  # of the image's shape
        assert (right - left) / 191 >= 0.4**0.5 - 0.02


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), least=st.floats(0.01, 1), boxed=st.booleans())
def test_crops_stay_inside_keep_the_box_and_enough_of_the_area(seed, least, boxed):
    random = np.random.default_rng(seed)
    width, height = random.integers(2, 500, 2).tolist()
    box = None
    if boxed:  # boxes may reach beyond the image
        x1, x2 = np.sort(random.uniform(-20, width + 20, 2))
        y1, y2 = np.sort(random.uniform(-20, height + 20, 2))
        box = (x1, y1, x2, y2)
    left, top, right, bottom = random_crop(width, height, least, box, random)
    near = 1e-6 * max(width, height)
    assert -near <= left < right <= width + near and -near <= top < bottom <= height + near
    assert (right - left) * (bottom - top) >= least * width * height - near
    assert (right - left) * height == pytest.approx((bottom - top) * width)
    if boxed and x1 < width and y1 < height and x2 > 0 and y2 > 0:
        assert left <= max(0, x1) + near and right >= min(width, x2) - near
        assert top <= max(0, y1) + near and bottom >= min(height, y2) - near


def test_crops_are_spread_evenly():
    random = np.random.default_rng(0)
    crops = np.array([random_crop(100, 100, 0.25, None, random) for _ in range(2000)])
    areas = (crops[:, 2] - crops[:, 0]) ** 2 / 1e4
    assert np.quantile(areas, [0.25, 0.5, 0.75]) == pytest.approx([0.4375, 0.625, 0.8125], abs=0.03)
    places = crops[:, 0] / (100 - (crops[:, 2] - crops[:, 0]))
    assert np.quantile(places, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.04)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(2, 900), height=st.integers(2, 900))
def test_squares_are_inside_and_of_the_right_scale(seed, width, height):
    left, top, right, bottom = random_square(width, height, (256, 512), 224, np.random.default_rng(seed))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert right - left == pytest.approx(bottom - top, rel=1e-6)
    # 224 of 256 … 512 pixels of the shorter side.
    assert 224 / 512 - 1e-6 <= (right - left) / min(width, height) <= 224 / 256 + 1e-6


def test_squares_equal_resizing_then_cropping(tmp_path):
    smooth = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = np.array(Image.fromarray(smooth).resize((120, 90), Image.Resampling.BICUBIC))
    square = Squares(single(tmp_path, picture), [0], (45, 45), 45, seed=(4,))[0]
    left, top, right, bottom = random_square(120, 90, (45, 45), 45, np.random.default_rng([4, 0]))
    assert square.shape == (3, 45, 45) and right - left == pytest.approx(90) and top == 0
    small = Image.fromarray(picture).resize((60, 45), Image.Resampling.BICUBIC)
    expected = np.array(small).astype(int)[:, round(left / 2):round(left / 2) + 45]
    assert abs(pixels(square).astype(int) - expected).mean() < 4


def test_unreadable(tmp_path, picture):
    images, other = single(tmp_path, picture), tmp_path / "other.png"
    Image.fromarray(picture).save(other)
    views = Views(images, [0], 40)
    (tmp_path / "one.png").write_bytes((tmp_path / "one.png").read_bytes()[:300])
    with pytest.raises(ImageError, match="one.png"):
        views[0]
    (tmp_path / "one.png").unlink()
    with pytest.raises(UnreadableError, match=r"\[1, 2\]") as caught:
        Views(replace(images, names=("a", "b", "c"), paths=(other, *images.paths * 2), labels=(0,) * 3,
                      boxes=(None,) * 3), [0, 1, 2], 40)
    assert caught.value.places == [1, 2]
    assert "no such file" in why_unreadable(images.paths[0]) and "can be read now" in why_unreadable(other)
