import sys

import numpy as np
import pytest
from cleaning_pictures import save, texture
from PIL import Image

from rmaclib.cleaning import KeypointSettings, extract_keypoints, root_sift
from rmaclib.images import ImageError


def test_root_sift_by_hand():
    descriptors = np.zeros((2, 128), np.uint8)
    descriptors[0, :2] = 1, 3
    normalised = root_sift(descriptors)
    assert normalised.dtype == np.float32
    assert normalised[0, :2] == pytest.approx([0.5, 0.75**0.5])
    assert np.all(normalised[1] == 0)  # a zero descriptor stays zero, and gives no NaN


@pytest.fixture
def blob(tmp_path):
    """A picture of 300 × 200 pixels with one blob, of scale 6 around (200, 90)."""
    y, x = np.mgrid[:200, :300]
    pixels = 60 + 180 * np.exp(-((x - 200)**2 + (y - 90)**2) / (2 * 6**2))
    return save(tmp_path / "blob.png", pixels.astype(np.uint8))


@pytest.mark.parametrize("size", [300, 150, 400, 600])
def test_points_and_covered_squares_are_in_pixels_of_the_original(blob, size):
    """At the stored size, reduced to half and enlarged, a blob is found where it is, in a square of twelve scales."""
    features = extract_keypoints(blob, KeypointSettings(size=size))
    assert features.size == (300, 200) and features.sides.dtype == np.float32
    distance = np.abs(features.points - [200, 90]).max(1)
    assert distance.min() < 0.5
    assert features.sides[distance.argmin()] == pytest.approx(12 * 6, rel=0.15)


def test_the_strongest_are_kept(tmp_path):
    path = save(tmp_path / "a.png", texture(0))
    many, few = (extract_keypoints(path, KeypointSettings(count=count)) for count in (300, 20))
    assert len(few.points) == len(few.descriptors) == 20 < len(many.points)
    assert few.descriptors.dtype == np.uint8
    assert {tuple(point) for point in few.points} <= {tuple(point) for point in many.points}


def test_a_flat_picture_has_none_and_a_broken_file_is_named(tmp_path):
    Image.new("RGB", (60, 40), "white").save(tmp_path / "flat.png")
    features = extract_keypoints(tmp_path / "flat.png")
    assert features.points.shape == (0, 2) and features.descriptors.shape == (0, 128) and features.size == (60, 40)
    (tmp_path / "bad.jpg").write_text("no picture")
    with pytest.raises(ImageError, match="bad.jpg"):
        extract_keypoints(tmp_path / "bad.jpg")


def test_hessian_affine_keypoints(tmp_path):
    pytest.importorskip("kornia")
    settings = KeypointSettings("hessian-affine", size=max(texture(0).shape), count=60)
    features = extract_keypoints(save(tmp_path / "a.png", texture(0)), settings)
    assert 30 < len(features.points) <= 60
    assert features.descriptors.dtype == np.uint8 and features.descriptors.max() > 60
    assert (features.points >= 0).all() and (features.points <= features.size).all()
    # Of a picture rotated by 90 degrees most points are the same, with similar descriptors: shape and direction follow.
    turned = extract_keypoints(save(tmp_path / "b.png", np.rot90(texture(0)).copy()), settings)
    expected = np.stack([features.points[:, 1], features.size[0] - 1 - features.points[:, 0]], 1)
    distance = np.linalg.norm(expected[:, None] - turned.points[None], axis=2)
    again = distance.min(1) < 2
    assert again.mean() > 0.5
    alike = (root_sift(features.descriptors) @ root_sift(turned.descriptors).T)
    assert np.mean([distance[row, alike[row].argmax()] < 2 for row in np.flatnonzero(again)]) > 0.7
    flat = extract_keypoints(save(tmp_path / "flat.png", np.full((64, 64), 9, np.uint8)), settings)
    assert len(flat.points) == 0


def test_without_kornia_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.feature", None)
    monkeypatch.setitem(sys.modules, "kornia", None)
    with pytest.raises(ImportError, match=r"rmaclib\[hessian\]"):
        extract_keypoints(save(tmp_path / "a.png", texture(0)), KeypointSettings("hessian-affine"))


@pytest.mark.parametrize("values, message", [
    ({"detector": "surf"}, "'sift' or 'hessian-affine', got 'surf'"), ({"size": 8}, "at least 16"),
    ({"count": 1}, "at least 3"),
])
def test_bad_settings(values, message):
    with pytest.raises(ValueError, match=message):
        KeypointSettings(**values)
