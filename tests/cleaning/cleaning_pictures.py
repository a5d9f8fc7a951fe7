"""Small collections of textures, warped by known affines: the ground truth is exact."""

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 240, 180


def texture(seed, width=WIDTH, height=HEIGHT):
    """Grey blobs of several sizes, (H, W) uint8; another seed has nothing in common."""
    rng = np.random.default_rng(seed)
    total = sum(cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), sigma) * sigma for sigma in (1.5, 3, 6))
    return np.clip(128 + 40 * total, 0, 255).astype(np.uint8)


def turned(degrees, scale=1.0, shift=(0, 0), centre=(WIDTH / 2, HEIGHT / 2)):
    """(2, 3) map that turns about a centre, then scales and shifts."""
    affine = cv2.getRotationMatrix2D(centre, degrees, scale)
    affine[:, 2] += shift
    return affine


def warped(picture, affine, background=None):
    """The picture mapped by an affine, on a background."""
    height, width = picture.shape
    background = np.full_like(picture, 128) if background is None else background
    inside = cv2.warpAffine(np.full_like(picture, 255), affine, (width, height))
    return np.where(inside > 127, cv2.warpAffine(picture, affine, (width, height)), background)


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


VIEWS = (turned(0), turned(8, 0.8, (15, -10)), turned(-10, 0.9, (-12, 6)), turned(5, 0.7, (-20, 12)))
