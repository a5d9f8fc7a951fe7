"""Kinds of files whose names are those of pictures, most of them bad."""

import io
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

GOOD, BAD, QUIET = "good", "bad", "quiet"


@dataclass(frozen=True)
class Kind:
    """make(path, random) writes a file; name: of the file, {} for a number

    expected: GOOD: a picture that has to be read; BAD: has to be left out with a reason; QUIET: has to be left out, and
      may be passed over, such as a folder
    """

    name: str
    make: Callable
    expected: str = BAD


def _random_picture(random, width=90, height=70, mode="RGB") -> Image.Image:
    grey = random.integers(0, 256, (7, 9, 4), dtype=np.uint8)
    return Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def _encoded(random, form="JPEG", mode="RGB", **options) -> bytes:
    stream = io.BytesIO()
    _random_picture(random, mode=mode).save(stream, form, **options)
    return stream.getvalue()


def _bytes(data: bytes) -> Callable:
    return lambda path, random: path.write_bytes(data)


def _saved(form: str, mode: str, **options) -> Callable:
    return lambda path, random: path.write_bytes(_encoded(random, form, mode, **options))


def _of_size(width: int, height: int) -> Callable:
    return lambda path, random: Image.new("RGB", (width, height), "red").save(path, "PNG")


def _cut(share: float | None) -> Callable:
    def make(path, random):
        data = _encoded(random)
        path.write_bytes(data[:int(len(data) * (share or random.uniform(0.02, 0.95)))])
    return make


def _cut_png(path, random):
    data = _encoded(random, "PNG")
    path.write_bytes(data[:int(len(data) * random.uniform(0.05, 0.8))])


def _flipped_png(path, random):
    data = bytearray(_encoded(random, "PNG"))
    data[len(data) // 2] ^= 0x55  # the checksum of a chunk doesn't fit then
    path.write_bytes(data)


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _sixteen_bits(path, random):
    values = random.integers(0, 65536, (60, 80), dtype=np.uint16)
    Image.fromarray(values).save(path, "PNG")


def _floats(path, random):
    Image.fromarray(random.random((60, 80), dtype=np.float32)).save(path, "TIFF")


def _transparent_palette(path, random):
    _random_picture(random, mode="P").save(path, "PNG", transparency=3)


def _animation(path, random):
    first, *others = (_random_picture(random, mode="P") for _ in range(4))
    first.save(path, "GIF", save_all=True, append_images=others)


def _orientation(path, random):
    exif = Image.Exif()
    exif[0x0112] = int(random.integers(1, 9))
    _random_picture(random).save(path, "JPEG", exif=exif)


def _broken_exif(path, random):
    data = _encoded(random)
    block = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff" + random.bytes(40)
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:])


def _zip(path, random):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("picture.jpg", _encoded(random))


def _sparse(path, random):
    path.touch()
    os.truncate(path, 4 * 2**30)


def _linked(target: str) -> Callable:
    return lambda path, random: path.symlink_to(target)


def _loop(path, random):
    path.symlink_to(path.name)


def _linked_folder(path, random):
    path.symlink_to(path.parent)


_JPEG = _saved("JPEG", "RGB")

KINDS: dict[str, Kind] = {
    "empty": Kind("{}.jpg", _bytes(b"")),
    "cut in the header": Kind("{}.jpg", _cut(0.02)),
    "cut in the middle": Kind("{}.jpg", _cut(0.5)),
    "cut anywhere": Kind("{}.jpg", _cut(None)),
    "cut PNG": Kind("{}.png", _cut_png),
    "damaged PNG": Kind("{}.png", _flipped_png),
    "a JPEG called PNG": Kind("{}.png", _JPEG, GOOD),
    "text": Kind("{}.jpg", _bytes(b"this is no picture\n" * 20)),
    "a web page": Kind("{}.jpg", _bytes(b"<!doctype html><title>404</title><p>Not found")),
    "a vector drawing": Kind("{}.png", _bytes(b'<svg xmlns="http://www.w3.org/2000/svg"><circle r="5"/></svg>')),
    "an archive": Kind("{}.jpg", _zip),
    "NUL bytes": Kind("{}.jpg", _bytes(bytes(4096))),
    "noise": Kind("{}.jpg", lambda path, random: path.write_bytes(random.bytes(3000))),
    "1×1": Kind("{}.png", _of_size(1, 1)),
    "1×300": Kind("{}.png", _of_size(1, 300)),
    "2×5000": Kind("{}.png", _of_size(2, 5000), GOOD),
    "a bomb's header": Kind("{}.png", _bytes(_png(60000, 60000, bytes(1000)))),
    "a header of 0×0": Kind("{}.png", _bytes(_png(0, 0))),
    "huge": Kind("{}.png", _bytes(_png(40000, 3000, bytes(40000 * 3 + 1) * 300))),
    "16 bits": Kind("{}.png", _sixteen_bits, GOOD),
    "CMYK": Kind("{}.jpg", _saved("JPEG", "CMYK"), GOOD),
    "floating point": Kind("{}.tif", _floats),
    "transparent palette": Kind("{}.png", _transparent_palette, GOOD),
    "one bit": Kind("{}.bmp", _saved("BMP", "1"), GOOD),
    "animation": Kind("{}.gif", _animation, GOOD),
    "broken EXIF": Kind("{}.jpg", _broken_exif, GOOD),
    "rotated by EXIF": Kind("{}.JPG", _orientation, GOOD),
    "a name of two lines": Kind("two\nlines {}.jpg", _JPEG),
    "a name that is no UTF-8": Kind("latin \udce9 {}.jpg", _JPEG),
    "a very long name": Kind("{}" + 240 * "n" + ".jpg", _JPEG, GOOD),
    "a name like markup": Kind("[red]:x: [bold] {}.jpg", _JPEG, GOOD),
    "a bad file with a name like markup": Kind("[bold]:x:[blue] {}.jpg", _bytes(b"no picture")),
    "a leading dash": Kind("-rf {}.jpg", _JPEG, GOOD),
    "blanks and commas": Kind(" a, b  {} 7.jpg", _JPEG, GOOD),
    "a named pipe": Kind("{}.jpg", lambda path, random: os.mkfifo(path), QUIET),
    "a link to nothing": Kind("{}.jpg", _linked("nothing.jpg")),
    "a link to itself": Kind("{}.jpg", _loop),
    "a link to its folder": Kind("{}.jpg", _linked_folder, QUIET),
    "a folder": Kind("{}.jpg", lambda path, random: path.mkdir(), QUIET),
    "a link to a device": Kind("{}.jpg", _linked("/dev/zero"), QUIET),
    "sparse, 4 GB": Kind("{}.jpg", _sparse),
    "hidden": Kind(".{}.jpg", _bytes(b"no picture"), QUIET),
}


def fill(folders: list[Path], count: int) -> dict[str, tuple[str, Path]]:
    """Write files of all kinds in turn, spread over folders: path -> (kind, path)."""
    random, files = np.random.default_rng(5), {}
    for number in range(count):
        name, kind = list(KINDS.items())[number % len(KINDS)]
        path = folders[number % len(folders)] / kind.name.format(f"x{number}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.make(path, random)
        files[str(path)] = name, path
    return files


def is_named_in(text: str, path: Path) -> bool:
    """Whether a report names a file, as it is or with escapes for what a line of text can't contain."""
    name = os.fsencode(path.name)
    part = max(name.replace(b"\n", b"\xff").decode("ascii", "replace").split("\ufffd"), key=len)
    return part in text
