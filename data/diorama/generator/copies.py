"""Pictures of Diorama that are made of other pictures: near-duplicates and postcards.

A search by a landmark's name finds the same photograph again and again, cut, brightened, saved once more, or
printed with a border and a caption (Section 3 of the paper).
"""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from generator.textures import Rng

Box = tuple[int, int, int, int]


def copied(rng: Rng, kind: str, pixels: np.ndarray, caption: str) -> tuple[np.ndarray, np.ndarray]:
    """A postcard or near_duplicate of a picture.

    pixels: (H, W, 3) uint8
    returns: pixels as large as the original, and (scale, right, down): where a point of the original went
    """
    return _postcard(rng, pixels, caption) if kind == "postcard" else _near_duplicate(rng, pixels)


def box_in_copy(box: Box, place: np.ndarray, width: int, height: int) -> Box | None:
    """Where a box of the original lies in the copy, cut at its borders; None: outside."""
    scale, right, down = place
    x1, y1, x2, y2 = (value * scale + shift for value, shift in zip(box, (right, down, right, down), strict=True))
    cut = max(0, round(x1)), max(0, round(y1)), min(width, round(x2)), min(height, round(y2))
    return cut if cut[0] < cut[2] and cut[1] < cut[3] else None


def _near_duplicate(rng: Rng, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture a little cut, its light and colours changed a little."""
    height, width = pixels.shape[:2]
    part = rng.uniform(0.8, 0.97)
    x, y = rng.uniform(0, 1 - part) * width, rng.uniform(0, 1 - part) * height
    scale = 1 / part
    moved = cv2.warpAffine(
        pixels,
        np.array([[scale, 0, -x * scale], [0, scale, -y * scale]]),
        (width, height),
        flags=cv2.INTER_AREA,
        borderMode=cv2.BORDER_REPLICATE,
    )
    toned = 255 * (moved / 255.0) ** rng.uniform(0.8, 1.25) * rng.uniform(0.94, 1.06, 3)
    return np.clip(toned, 0, 255).astype(np.uint8), np.array([scale, -x * scale, -y * scale])


def _postcard(rng: Rng, pixels: np.ndarray, caption: str) -> tuple[np.ndarray, np.ndarray]:
    """The picture printed on a card: a border, a caption, faded or of one colour."""
    height, width = pixels.shape[:2]
    border, below = rng.uniform(0.03, 0.07) * min(width, height), rng.uniform(0.09, 0.16) * height
    scale = min((width - 2 * border) / width, (height - border - below) / height)
    right, down = (width - scale * width) / 2, border
    inner = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = inner @ np.array([0.3, 0.59, 0.11], np.float32)
    if rng.random() < 0.5:
        inner = grey[..., None] * np.array(rng.choice([(1.0, 0.9, 0.72), (0.96, 0.96, 0.95), (0.82, 0.9, 1.0)]))
    else:
        inner = 0.55 * inner + 0.45 * grey[..., None] * np.array([1.1, 1.0, 0.85])
    card = np.empty((height, width, 3), np.float32)
    card[:] = np.array(rng.choice([(246, 243, 234), (236, 226, 204), (250, 250, 250)])) + rng.normal(0, 1.5, 3)
    x, y = round(right), round(down)
    card[y : y + inner.shape[0], x : x + inner.shape[1]] = 0.9 * inner + 18
    page = Image.fromarray(np.clip(card, 0, 255).astype(np.uint8))
    size = max(9, round(below * rng.uniform(0.4, 0.6)))
    ink = tuple(int(value) for value in rng.choice([(40, 34, 30), (120, 30, 24), (36, 48, 96)]))
    ImageDraw.Draw(page).text(
        (width * rng.uniform(0.05, 0.3), height - 0.85 * below),
        f"{caption.title()}  {rng.integers(1898, 1975)}",
        fill=ink,
        font=ImageFont.load_default(size),
    )
    return np.asarray(page), np.array([scale, right, down])
