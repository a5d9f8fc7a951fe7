"""Pictures of Diorama that are no photographs: line drawings, floor plans and town maps.

Collections found by a landmark's name hold such pictures (Section 3): they show the right thing and must not
be learned from.
"""

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from generator.geometry import Model
from generator.photograph import Camera, Stage
from generator.textures import Rng, clouds

_PAPERS = ((244, 240, 228), (250, 250, 248), (226, 212, 182), (236, 232, 224))
_INKS = ((30, 28, 30), (70, 44, 28), (34, 44, 84), (20, 20, 20))


def _paper(rng: Rng, width: int, height: int, strength: float = 1.0) -> np.ndarray:
    """(H, W, 3) float: a sheet with stains."""
    colour = np.array(_PAPERS[rng.integers(len(_PAPERS))], float)
    stains = clouds(rng, height, width, width / 3, 4)[..., None]
    return colour * (1 + 0.02 * strength * stains)


def line_drawing(rng: Rng, stage: Stage, camera: Camera) -> np.ndarray:
    """A pen drawing of the subject, hatched where it is dark; (H, W, 3) uint8."""
    depth, normals = stage.lines(camera)
    near = np.log(np.where(depth > 0, depth, depth.max() * 3 + 1))
    edges = np.zeros(depth.shape, np.uint8)
    for layer, low, high in (
        (near / near.max(), 8, 24),
        *((normals[..., i] / 2 + 0.5, 40, 110) for i in range(3)),
    ):
        scaled = np.clip(layer * 255, 0, 255).astype(np.uint8)
        edges |= cv2.Canny(scaled, low, high)
    height, width = depth.shape
    shade = normals @ np.array([0.5, -0.6, 0.4])
    y, x = np.mgrid[:height, :width]
    hatched = (depth > 0) & (shade < rng.uniform(-0.2, 0.3)) & ((x + y) % int(rng.integers(3, 6)) == 0)
    ink = np.maximum(cv2.GaussianBlur(edges.astype(np.float32) / 255, (0, 0), 0.6) * 1.5, hatched * 0.6).clip(0, 1)
    ink = ink * (0.8 + 0.2 * clouds(rng, height, width, 30, 3).clip(-1, 1))
    page = _paper(rng, width, height)
    wash = rng.uniform(0, 0.5) * (depth > 0)[..., None] * (1 - np.clip(shade, 0, 1))[..., None]
    page = page * (1 - 0.4 * wash)
    colour = np.array(_INKS[rng.integers(len(_INKS))], float)
    page = page * (1 - ink[..., None]) + colour * ink[..., None]
    return np.clip(page, 0, 255).astype(np.uint8)


def floor_plan(rng: Rng, model: Model, width: int, height: int) -> np.ndarray:
    """The monument cut 1.4 m above the ground, drawn as an architect does; (H, W, 3) uint8."""
    segments = []
    for surface in model.surfaces().values():
        corners = surface.positions[surface.faces]  # (M, 3, 3)
        above = corners[..., 2] > 1.4
        for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            cut = (above[:, a] != above[:, b]) & (above[:, a] != above[:, c])
            p, q, r = corners[cut, a], corners[cut, b], corners[cut, c]
            ends = [p + ((1.4 - p[:, 2]) / (other[:, 2] - p[:, 2]))[:, None] * (other - p) for other in (q, r)]
            segments.append(np.stack(ends, 1)[..., :2])
    lines = np.concatenate(segments)
    scale = 0.8 * min(width / np.ptp(lines[..., 0]), height / np.ptp(lines[..., 1]))
    middle = (lines.reshape(-1, 2).max(0) + lines.reshape(-1, 2).min(0)) / 2
    page = Image.fromarray(np.clip(_paper(rng, width, height), 0, 255).astype(np.uint8))
    draw, ink = ImageDraw.Draw(page), _INKS[rng.integers(len(_INKS))]
    placed = (lines - middle) * [scale, -scale] + [width / 2, height / 2]
    for a, b in placed:
        draw.line([tuple(a), tuple(b)], fill=ink, width=int(rng.integers(1, 3)))
    bar = 10 * scale
    draw.line([(12, height - 12), (12 + bar, height - 12)], fill=ink, width=3)
    draw.text((16 + bar, height - 20), "10 m", fill=ink, font=ImageFont.load_default(11))
    draw.text(
        (width / 2 - 30, 6), "PLAN " + "".join(rng.choice(list("IVX"), 3)), fill=ink, font=ImageFont.load_default(13)
    )
    return np.asarray(page)


def town_map(rng: Rng, width: int, height: int) -> np.ndarray:
    """A street map with blocks, a river, parks and names; (H, W, 3) uint8."""
    page = Image.new("RGB", (width, height), tuple(int(v) for v in rng.integers(224, 246, 3)))
    draw = ImageDraw.Draw(page)
    t = np.linspace(-0.1, 1.1, 24)
    bend = rng.uniform(0.2, 0.8) + 0.15 * np.sin(t * rng.uniform(3, 8) + rng.uniform(0, 6))
    draw.line(
        [(x * width, y * height) for x, y in zip(t, bend, strict=True)],
        fill=(150, 190, 220),
        width=int(rng.integers(10, 26)),
    )
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        draw.ellipse((x, y, x + rng.uniform(30, 80), y + rng.uniform(20, 60)), fill=(190, 218, 170))
    for _ in range(int(rng.integers(14, 26))):
        angle = rng.choice([0.2, 1.75]) + rng.normal(0, 0.12)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        c, s = np.cos(angle) * 500, np.sin(angle) * 500
        wide = int(rng.choice([2, 3, 6]))
        draw.line([(x - c, y - s), (x + c, y + s)], fill=(140, 130, 120), width=wide + 2)
        draw.line([(x - c, y - s), (x + c, y + s)], fill=(255, 240, 190) if wide == 6 else (255, 255, 255), width=wide)
    for _ in range(int(rng.integers(6, 14))):
        name = "".join(rng.choice(["ba", "ro", "vin", "kel", "mar", "to", "san", "hal"], 3)).title()
        draw.text(
            (rng.uniform(0, width - 50), rng.uniform(0, height - 12)),
            name,
            fill=(60, 60, 70),
            font=ImageFont.load_default(int(rng.integers(9, 14))),
        )
    return np.asarray(page)
