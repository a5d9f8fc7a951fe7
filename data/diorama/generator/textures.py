"""Textures for Diorama: stone, brick, plaster, tiles, paving, mosaic, inscriptions, house fronts.

Every texture is an albedo image, (side, side, 3) float32 in 0..1, that covers a square of `metres` and follows
from its generator alone. No two walls share one, so that pictures match only where they show the same wall.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Rng = np.random.Generator
SIDE = 1024  # pixels


class Texture(NamedTuple):
    """An albedo image and the length in metres that it covers."""

    albedo: np.ndarray
    metres: float


def smooth_noise(rng: Rng, height: int, width: int, cell: float, stretch: float = 1.0) -> np.ndarray:
    """Noise about 0 with spread about 1 that changes over `cell` pixels (`stretch` times more slowly downward)."""
    rows, columns = int(height / (cell * stretch)) + 3, int(width / cell) + 3
    coarse = rng.standard_normal((rows, columns), np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def clouds(rng: Rng, height: int, width: int, cell: float, octaves: int = 4, stretch: float = 1.0) -> np.ndarray:
    """Noise of several scales, from `cell` pixels downward."""
    total = np.zeros((height, width), np.float32)
    for i in range(octaves):
        total += np.float32(0.55**i / 1.2) * smooth_noise(rng, height, width, max(1.0, cell / 2**i), stretch)
    return total


def _weathered(rng: Rng, albedo: np.ndarray, strength: float) -> np.ndarray:
    """Soot, washed streaks and grain over a wall; strength 0..1."""
    side = len(albedo)
    half = side // 2  # what changes slowly is drawn at half the resolution
    soot = clouds(rng, half, half, half / 7, 4)
    streaks = clouds(rng, half, half, half / 50, 3, stretch=7)
    spots = np.clip(clouds(rng, half, half, half / 22, 4) - 0.95, 0, 1)
    strength = np.float32(strength)
    tone = 1 + strength * (np.float32(0.13) * soot + np.float32(0.10) * streaks) - strength * np.float32(0.45) * spots
    for cell in (half / 20, half / 40):  # mottled: patches with edges, where damp, lichen and repairs end
        field = clouds(rng, half, half, cell, 3)
        edges = np.quantile(field[::8, ::8], np.sort(rng.uniform(0.05, 0.95, 5)))
        level = sum((field > np.float32(edge)).astype(np.uint8) for edge in edges)
        tones = 1 + strength * rng.permutation([0.08, 0.04, 0.0, -0.04, -0.08, -0.14])
        tone *= tones.astype(np.float32)[level]
    tone, soot, streaks = (
        cv2.resize(field, (side, side), interpolation=cv2.INTER_LINEAR) for field in (tone, soot, streaks)
    )
    tone += np.float32(0.04) * rng.standard_normal((side, side), np.float32)
    tone = np.clip(tone, 0.25, 1.5)
    aged = np.array(albedo, np.float32) * tone[..., None]
    aged[..., 0] *= 1 + strength * 0.05 * soot
    aged[..., 2] *= 1 - strength * 0.05 * streaks
    return aged


def _masonry(rng: Rng, colour, course: float, spread: float, metres: float, mortar: float, ratio: float) -> np.ndarray:
    """Courses of blocks of unequal length, each block with a tone of its own. course: height in metres."""
    pixels = SIDE / metres
    heights = (
        course * rng.uniform(0.8, 1.25, int(metres / course * 1.4) + 4)
        if course > 0.15
        else np.full(int(metres / course) + 2, course)
    )
    ends = np.cumsum(heights) * pixels
    row = np.searchsorted(ends, np.arange(SIDE), side="right")
    column = np.empty((SIDE, SIDE), int)
    edge = np.zeros((SIDE, SIDE), bool)
    x = np.arange(SIDE)
    for r in np.unique(row):
        lengths = course * ratio * rng.uniform(0.6, 1.5, int(metres / course / ratio * 2) + 6)
        cuts = np.cumsum(lengths) * pixels - rng.uniform(0, course * ratio) * pixels
        block = np.searchsorted(cuts, x, side="right")
        inside = row == r
        column[inside] = block
        edge[inside] = np.diff(block, prepend=block[0]) > 0
    edge |= (np.diff(row, prepend=row[0]) > 0)[:, None]
    tones = rng.normal(1, spread, (row.max() + 1, column.max() + 1))
    odd = rng.random(tones.shape) < 0.06
    tones[odd] *= rng.uniform(0.55, 1.3, odd.sum())
    hues = 1 + 0.35 * spread * rng.standard_normal((*tones.shape, 3))
    blocks = (np.asarray(colour) * tones[..., None] * hues).astype(np.float32)
    albedo = blocks[row[:, None], column]
    width = max(1, round(0.02 * pixels))
    joints = cv2.dilate(edge.astype(np.uint8), np.ones((width, width), np.uint8)) > 0
    albedo[joints] = np.asarray(colour) * mortar
    return albedo


def stone(rng: Rng, colour, course: float = 0.5, metres: float = 24.0, age: float = 1.0) -> Texture:
    """Dressed stone in courses."""
    return Texture(_weathered(rng, _masonry(rng, colour, course, 0.10, metres, 0.62, 1.9), age), metres)


def brick(rng: Rng, colour, metres: float = 12.0) -> Texture:
    """Brickwork with light joints and repaired patches."""
    albedo = _masonry(rng, colour, 0.11, 0.13, metres, 1.25, 2.6)
    patches = clouds(rng, SIDE, SIDE, SIDE / 5, 3)[..., None]
    return Texture(_weathered(rng, albedo * (1 + 0.12 * np.sign(patches) * (np.abs(patches) > 0.9)), 0.9), metres)


def plaster(rng: Rng, colour, metres: float = 24.0, age: float = 1.0) -> Texture:
    """Plaster with flaked patches and cracks."""
    albedo = np.ones((SIDE, SIDE, 1), np.float32) * np.asarray(colour, np.float32)
    flaked = np.clip((clouds(rng, SIDE, SIDE, SIDE / 9, 5) - 1.0) * 8, 0, 1)[..., None]
    albedo = albedo * (1 - flaked) + flaked * np.array([0.52, 0.42, 0.34]) * np.mean(colour) * 1.3
    field = clouds(rng, SIDE, SIDE, SIDE / 6, 4)
    cracks = (np.abs(field) < 0.012) & (clouds(rng, SIDE, SIDE, SIDE / 4, 2) > 0.4)
    albedo[cracks] *= 0.55
    return Texture(_weathered(rng, albedo, 1.1 * age), metres)


def marble(rng: Rng, colour, metres: float = 16.0) -> Texture:
    """Veined slabs."""
    albedo = _masonry(rng, colour, 1.1, 0.05, metres, 0.8, 1.5)
    veins = np.exp(-np.abs(clouds(rng, SIDE, SIDE, SIDE / 8, 5)) * 18)[..., None]
    return Texture(_weathered(rng, albedo * (1 - 0.4 * veins), 0.6), metres)


def tiles(rng: Rng, colour, metres: float = 12.0) -> Texture:
    """Roof tiles or slates in rows, with moss."""
    albedo = _masonry(rng, colour, 0.28, 0.16, metres, 0.45, 0.9)
    moss = np.clip(clouds(rng, SIDE, SIDE, SIDE / 10, 4) - 0.7, 0, 1)[..., None] * rng.uniform(0, 0.8)
    return Texture(_weathered(rng, albedo * (1 - moss) + moss * np.array([0.16, 0.19, 0.08]), 0.8), metres)


def metal(rng: Rng, colour, metres: float = 16.0) -> Texture:
    """Sheets of copper or lead with seams and runs."""
    albedo = np.ones((SIDE, SIDE, 1), np.float32) * np.asarray(colour, np.float32)
    seams = np.arange(SIDE) % (SIDE // 20) < 4
    albedo[:, seams] *= 0.7
    runs = clouds(rng, SIDE, SIDE, SIDE / 60, 4, stretch=9)[..., None]
    return Texture(_weathered(rng, albedo * np.clip(1 + 0.13 * runs, 0.3, 1.6), 0.7), metres)


def paving(rng: Rng, colour, metres: float = 40.0) -> Texture:
    """Slabs or cobbles, with worn paths, puddle stains and chewing gum."""
    course = rng.choice([0.35, 0.6, 1.2])
    albedo = _masonry(rng, colour, course, 0.08, metres, 0.7, rng.choice([1.0, 1.6]))
    worn = clouds(rng, SIDE, SIDE, SIDE / 6, 5)[..., None]
    gum = (rng.random((SIDE, SIDE, 1)) < 0.003) * 0.4
    return Texture(albedo * np.clip(1 + 0.14 * worn - gum, 0.3, 1.5), metres)


def asphalt(rng: Rng, metres: float = 40.0) -> Texture:
    """A road surface with patches."""
    grain = 0.03 * rng.standard_normal((SIDE, SIDE), np.float32)
    tone = 0.13 + 0.02 * clouds(rng, SIDE, SIDE, SIDE / 6, 5) + grain * 0.6
    patch = clouds(rng, SIDE, SIDE, SIDE / 4, 2) > 1.1
    tone[patch] *= 0.7
    return Texture(np.clip(tone, 0.03, 1)[..., None] * np.array([1, 1, 1.03]), metres)


def grass(rng: Rng, metres: float = 40.0) -> Texture:
    """A lawn with bare and dry patches."""
    base = np.array([0.10, 0.17, 0.05]) * rng.uniform(0.8, 1.2)
    dry = np.clip(clouds(rng, SIDE, SIDE, SIDE / 7, 5) * 0.5, 0, 1)[..., None]
    blades = 1 + 0.22 * rng.standard_normal((SIDE, SIDE, 1)) + 0.15 * smooth_noise(rng, SIDE, SIDE, 5)[..., None]
    return Texture(np.clip((base * (1 - dry) + np.array([0.27, 0.24, 0.12]) * dry) * blades, 0.01, 1), metres)


def mosaic(rng: Rng, colours: np.ndarray, metres: float = 8.0) -> Texture:
    """Small stones in a figured pattern of several colours."""
    cells = 128
    angle = np.arctan2(*(np.mgrid[:cells, :cells] - cells / 2))
    radius = np.hypot(*(np.mgrid[:cells, :cells] - cells / 2))
    wave = np.sin(radius / rng.uniform(2.5, 5) + 2 * np.sin(angle * rng.integers(3, 9)))
    pattern = wave + 1.2 * clouds(rng, cells, cells, cells / 8, 3)
    index = np.digitize(pattern, np.quantile(pattern, np.linspace(0, 1, len(colours) + 1)[1:-1]))
    colours = 0.45 * colours + 0.55 * colours.mean(1, keepdims=True) * np.array([1.05, 1.0, 0.9])  # faded
    picture = colours[index] * rng.uniform(0.75, 1.2, (cells, cells, 1))
    albedo = cv2.resize(picture.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    grid = (np.arange(SIDE) % (SIDE // cells)) < 1
    albedo[grid] *= 0.6
    albedo[:, grid] *= 0.6
    return Texture(np.clip(albedo, 0.01, 1), metres)


_SYLLABLES = "PAX DOM REX VIA LUX SOL MAR TER AQVA NOS ARS VRB FID GLO HON IVS LEX MVN OPVS SAL VER".split()


def inscription(rng: Rng, colour, metres: float = 16.0) -> Texture:
    """Lines of carved capitals on stone."""
    base = _weathered(rng, np.ones((SIDE, SIDE, 1), np.float32) * np.asarray(colour, np.float32), 0.7)
    sheet = Image.new("L", (SIDE, SIDE), 0)
    draw = ImageDraw.Draw(sheet)
    size = SIDE // 16
    font = ImageFont.load_default(size=size)
    for line in range(16):
        text = " ".join("".join(rng.choice(_SYLLABLES, rng.integers(1, 3))) for _ in range(12))
        draw.text((-rng.integers(0, 60), line * size - size * 0.12), text, fill=255, font=font)
    carved = np.asarray(sheet, np.float32)[..., None] / 255
    return Texture(base * (1 - 0.7 * carved), metres)


def house_front(rng: Rng, metres: float = 16.0) -> Texture:
    """The painted front of a town house: windows in rows over shops; covers `metres` each way."""
    pixels = SIDE / metres
    colour = rng.choice(
        [
            (0.62, 0.55, 0.44),
            (0.6, 0.42, 0.33),
            (0.5, 0.5, 0.48),
            (0.66, 0.62, 0.55),
            (0.55, 0.3, 0.24),
            (0.45, 0.48, 0.42),
        ]
    ) * rng.uniform(0.75, 1.1)
    wall = brick(rng, colour).albedo if rng.random() < 0.35 else plaster(rng, colour).albedo
    sheet = Image.fromarray((np.clip(wall, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(sheet)
    storeys, bays = int(rng.integers(4, 6)), int(rng.integers(4, 7))
    height, width = metres / storeys, metres / bays
    trim = tuple((np.clip(np.asarray(colour) * rng.uniform(1.1, 1.5), 0, 1) * 255).astype(int))
    frame = tuple(int(v) for v in rng.choice([(225, 220, 210), (70, 50, 40), (50, 70, 60)]))

    def box(u0, v0, u1, v1, fill):  # metres from the lower left corner
        draw.rectangle((u0 * pixels, SIDE - v1 * pixels, u1 * pixels, SIDE - v0 * pixels), fill=fill)

    for storey in range(storeys):
        box(0, storey * height - 0.1, metres, storey * height + 0.1, trim)
        for bay in range(bays):
            u, v, w = bay * width + width * 0.25, storey * height + height * 0.22, width * 0.5
            h = height * 0.6
            if storey == 0:
                awning = tuple(int(x) for x in rng.integers(40, 150, 3))
                box(u - w * 0.3, 0, u + w * 1.3, height * 0.66, (34, 32, 36))
                box(u - w * 0.25, height * 0.6, u + w * 1.25, height * 0.78, awning)
                for _ in range(8):  # goods in the window
                    x, y = u + rng.uniform(-0.2, 1.1) * w, rng.uniform(0.3, height * 0.5)
                    box(
                        x,
                        y,
                        x + 0.25,
                        y + rng.uniform(0.2, 0.6),
                        tuple(int(c) for c in rng.integers(50, 190) + rng.integers(-30, 40, 3)),
                    )
                continue
            box(u - 0.12, v - 0.15, u + w + 0.12, v + h + 0.15, trim)
            glass = int(rng.integers(18, 70))
            box(u, v, u + w, v + h, (glass, glass + 4, glass + 10))
            if rng.random() < 0.4:  # a blind or a curtain
                box(
                    u,
                    v + h * rng.uniform(0.3, 0.8),
                    u + w,
                    v + h,
                    tuple(int(c) for c in rng.integers(150, 215) + rng.integers(-15, 15, 3)),
                )
            box(u + w / 2 - 0.04, v, u + w / 2 + 0.04, v + h, frame)
            box(u, v + h * 0.6, u + w, v + h * 0.6 + 0.07, frame)
    albedo = np.asarray(sheet, np.float32) / 255
    return Texture(_weathered(rng, albedo, 0.6), metres)


def glass(rng: Rng, metres: float = 8.0) -> Texture:
    """Dark panes in leads, some tinted."""
    n = 64
    panes = 0.02 + 0.08 * rng.random((n, n, 3)) * rng.uniform(0.4, 1.2, (n, n, 1))
    albedo = cv2.resize(panes.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    leads = (np.arange(SIDE) % (SIDE // n)) < 2
    albedo[leads] = albedo[:, leads] = 0.05
    return Texture(albedo, metres)


WALLS: dict[str, Callable[..., Texture]] = {"stone": stone, "brick": brick, "plaster": plaster, "marble": marble}


# ---- what sets one building apart from the next: a pattern in a second colour all over its walls or roofs


class Dress(NamedTuple):
    """A pattern and its second colour, as parts of the first one; scale: metres of one repetition."""

    pattern: str
    tint: tuple[float, float, float]
    scale: float
    motif: int  # seed of what repeats


def dressed(texture: Texture, dress: Dress) -> Texture:
    """The texture with the pattern in it."""
    side = len(texture.albedo)
    along = (np.arange(side, dtype=np.float32) + 0.5) / side * texture.metres / dress.scale
    u, v = np.meshgrid(along, along)
    inside = PATTERNS[dress.pattern](np.random.default_rng([dress.motif, 60]), u, v)
    share = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 0.8)[..., None]
    factor = 1 + share * (np.asarray(dress.tint, np.float32) - 1)
    return texture._replace(albedo=np.clip(texture.albedo * factor, 0.01, 0.95))


def _stripes(rng: Rng, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return v % 1 < rng.uniform(0.3, 0.6)


def _lattice(rng: Rng, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    width, steep = rng.uniform(0.12, 0.25), rng.uniform(0.6, 1.6)
    return ((u + steep * v) % 1 < width) | ((u - steep * v) % 1 < width)


def _chequer(rng: Rng, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    tall = rng.uniform(0.5, 2)
    return (np.floor(2 * u) + np.floor(2 * v * tall)) % 2 == 0


def _scales(rng: Rng, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    row = np.floor(2 * v)
    x, y = (u + 0.5 * (row % 2)) % 1 - 0.5, 2 * v - row
    reach = np.hypot(x, y)
    low = rng.uniform(0.25, 0.38)
    return (reach > low) & (reach < low + rng.uniform(0.08, 0.16))


def _timber(rng: Rng, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    x, y, beam = u % 1, (v / 1.3) % 1, 0.09
    braces = np.abs((x + (np.floor(u) % 2) * (1 - 2 * x)) - y) < beam * 0.8
    chosen = rng.random((64, 64))[np.floor(v / 1.3).astype(int) % 64, np.floor(u).astype(int) % 64] < rng.uniform(
        0.2, 0.8
    )
    return (x < beam) | (y < beam) | (braces & chosen)


def _zigzag(rng: Rng, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    wave = np.abs(u * rng.integers(2, 5) % 1 - 0.5) * rng.uniform(0.3, 0.8)
    return ((v + wave) % 1) < rng.uniform(0.25, 0.5)


def _rosettes(rng: Rng, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    x, y = u % 1 - 0.5, v % 1 - 0.5
    angle, reach = np.arctan2(y, x), np.hypot(x, y)
    petals = int(rng.integers(3, 9))
    edge = 0.3 + 0.12 * np.cos(petals * angle + rng.uniform(0, 6)) * rng.uniform(0.4, 1)
    return (reach < edge) & (np.sin(reach * rng.uniform(20, 50) + rng.uniform(0, 6)) > rng.uniform(-0.6, 0.2))


def _motif(rng: Rng, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A small figure of random cells, mirrored, repeated: no two buildings have the same."""
    half = rng.random((12, 6)) < 0.45
    cells = np.concatenate([half, half[:, ::-1]], 1)
    return cells[np.floor(12 * (v % 1)).astype(int) % 12, np.floor(12 * (u % 1)).astype(int) % 12]


def _patches(rng: Rng, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Panels of unequal size."""
    columns, rows = (np.sort(rng.uniform(0, 1, count)) for count in rng.integers(2, 5, 2))
    return (np.searchsorted(columns, u % 1) + np.searchsorted(rows, v % 1)) % 2 == 0


PATTERNS: dict[str, Callable[..., np.ndarray]] = {
    "stripes": _stripes,
    "lattice": _lattice,
    "chequer": _chequer,
    "scales": _scales,
    "timber": _timber,
    "zigzag": _zigzag,
    "rosettes": _rosettes,
    "motif": _motif,
    "patches": _patches,
}
