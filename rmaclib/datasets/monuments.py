"""Procedural 2-D monuments for the drawn collection: colours, textures, facades, styles.

Monuments are drawn in facade units (x and y from 0 to 100, y upward from the ground), which `Facade` alone
turns into pixels.
"""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from PIL.Image import Resampling

Points = list[tuple[float, float]]
RGB = tuple[int, int, int]
Rng = np.random.Generator

FACADE = 800  # side of a facade sheet in pixels; sharp up to pictures 400 pixels long


class Palette(NamedTuple):
    """Colours (0-255) of one monument; course: height of a row of stones in facade pixels, 0 = plaster."""

    name: str
    wall: RGB
    trim: RGB
    roof: RGB
    course: int


PALETTES = (
    Palette("sandstone", (218, 184, 132), (240, 220, 180), (128, 82, 62), 22),
    Palette("brick", (164, 84, 66), (232, 218, 198), (74, 80, 94), 12),
    Palette("marble", (232, 228, 220), (250, 247, 240), (88, 152, 132), 28),
    Palette("rose", (224, 156, 146), (250, 240, 230), (146, 72, 58), 0),
    Palette("granite", (138, 140, 148), (182, 182, 184), (66, 70, 84), 26),
    Palette("ochre", (230, 176, 80), (250, 238, 212), (90, 96, 106), 0),
    Palette("mint", (148, 188, 168), (246, 246, 236), (190, 152, 66), 0),
)


class Landmark(NamedTuple):
    """One monument: its seed, its style (a key of STYLES) and its colours; the seed fixes every measure."""

    seed: int
    style: str
    palette: Palette

    @property
    def name(self) -> str:
        return f"{self.palette.name}_{self.style}"


# ---- textures


def noise(rng: Rng, width: int, height: int, cell: int) -> np.ndarray:
    """Smooth noise about 0, spread about 1, that changes over `cell` pixels; (height, width) float32."""
    coarse = rng.standard_normal((height // cell + 2, width // cell + 2), np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Resampling.BICUBIC))


def to_image(pixels: np.ndarray) -> Image.Image:
    """(height, width, 3) values to an RGB image, cut to 0-255."""
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _material(rng: Rng, colour: RGB, course: int, spread: float) -> Image.Image:
    """A sheet of stones or tiles `course` pixels high (0: plaster) whose tones differ by `spread`."""
    grain = rng.standard_normal((FACADE, FACADE), np.float32)
    tone = 1 + 0.035 * noise(rng, FACADE, FACADE, 60) + 0.02 * grain
    if course:
        row = np.arange(FACADE) // course
        x = np.arange(FACADE) + (row % 2)[:, None] * course  # every second row starts half a stone later
        stones = rng.normal(1, spread, size=(FACADE, FACADE))
        tone *= stones[row[:, None], x // (2 * course)]
        joint = (np.arange(FACADE) % course < 2)[:, None] | (x % (2 * course) < 2)
        tone[joint] = 0.8
    return to_image(tone[:, :, None] * np.array(colour, np.float32))


# ---- facades


def _opening(x: float, y: float, w: float, h: float, shape: str) -> Points:
    """Outline of an opening w by h from its lower left corner (x, y); top: "flat", "round", "pointed"."""
    t = np.linspace(0, 1, 13)
    if shape == "round":
        top = np.stack([(1 - np.cos(np.pi * t)) / 2 * w, h - w / 2 + np.sin(np.pi * t) * w / 2], 1)
    elif shape == "pointed":
        top = np.stack([t * w, h - 0.8 * w * np.abs(2 * t - 1) ** 1.8], 1)
    else:
        top = np.array([(0, h), (w, h)])
    return [(x, y), *((x + a, y + b) for a, b in top), (x + w, y)]


def _profile(x: float, y: float, w: float, h: float, widths: Iterable[float]) -> Points:
    """Outline of a symmetric top w by h over (x, y); `widths`: relative, at equal steps upward."""
    half = np.array(list(widths)) * w / 2
    up = y + np.linspace(0, 1, len(half)) * h
    right = [(x + w / 2 + a, b) for a, b in zip(half, up, strict=True)]
    left = [(x + w / 2 - a, b) for a, b in zip(half, up, strict=True)]
    return right + left[::-1]


ROOF_WIDTHS = {  # relative widths from the eaves to the tip
    "spire": (1.08, 0.5, 0.28, 0.12, 0.0),
    "cone": (1.15, 0.0),
    "hip": (1.04, 0.72),
    "dome": tuple(np.sqrt(1 - np.linspace(0, 1, 16) ** 2.2)),
    "onion": (0.8, 1.0, 1.1, 1.12, 1.06, 0.92, 0.7, 0.46, 0.28, 0.16, 0.08, 0.03, 0.0),
}


class Facade:
    """A sheet to draw a monument on, in facade units; `image` is RGBA, clear where nothing was drawn."""

    def __init__(self, palette: Palette, rng: Rng):
        self.image = Image.new("RGBA", (FACADE, FACADE))
        self.sheets = {
            "wall": _material(rng, palette.wall, palette.course, 0.06),
            "trim": _material(rng, palette.trim, 0, 0.0),
            "roof": _material(rng, palette.roof, 11, 0.09),
            "glass": _material(rng, (58, 74, 96), 18, 0.22),
            "dark": _material(rng, (46, 36, 34), 0, 0.0),
            "hole": Image.new("RGB", (FACADE, FACADE)),  # shows the background instead
        }

    def fill(self, points: Points, sheet: str, tone: float = 1.0, curved: bool = False) -> None:
        """Fill an outline with a material; tone: brightness; curved: lit from the left like a cylinder."""
        pixels = [(a * FACADE / 100, FACADE - b * FACADE / 100) for a, b in points]
        xs, ys = zip(*pixels, strict=True)
        x1, y1, x2, y2 = int(min(xs)), int(min(ys)), int(max(xs)) + 1, int(max(ys)) + 1
        mask = Image.new("L", (x2 - x1, y2 - y1))
        ImageDraw.Draw(mask).polygon([(a - x1, b - y1) for a, b in pixels], fill=255)
        across = np.linspace(0, 1, x2 - x1)
        light = tone * (1.14 - 0.62 * np.abs(across - 0.3) ** 1.3) if curved else np.full(x2 - x1, tone)
        colour = np.asarray(self.sheets[sheet].crop((x1, y1, x2, y2))) * light[:, None]
        stuff = to_image(colour).convert("RGBA") if sheet != "hole" else (0, 0, 0, 0)
        self.image.paste(stuff, (x1, y1, x2, y2), mask)

    def block(self, x, y, w, h, sheet="wall", tone=1.0, curved=False) -> None:
        self.fill([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], sheet, tone, curved)

    def cornice(self, x, y, w, h=1.6) -> None:
        """A projecting ledge above y, with the shadow it throws on the wall below."""
        self.block(x, y - 0.8, w, 0.8, "wall", 0.66)
        self.block(x - 0.8, y, w + 1.6, h, "trim")
        self.block(x - 0.8, y, w + 1.6, h * 0.3, "trim", 0.8)

    def window(self, x, y, w, h, shape="flat") -> None:
        """A framed and recessed window with mullions and a sill."""
        self.fill(_opening(x - 0.5, y - 0.2, w + 1, h + 0.7, shape), "trim")
        self.fill(_opening(x, y, w, h, shape), "glass", 0.45)
        self.fill(_opening(x + 0.35, y, w - 0.35, h - 0.5, shape), "glass")
        self.block(x + w / 2 - 0.15, y, 0.4, h - 0.6, "trim")
        for level in (0.33, 0.62):
            self.block(x, y + h * level, w, 0.35, "trim")
        self.block(x - 0.8, y - 0.8, w + 1.6, 0.8, "trim", 0.92)

    def windows(self, x, y, w, h, columns, rows, shape="flat", fill=0.5) -> None:
        """A grid of windows over the wall (x, y, w, h); fill: the part of a cell's width its window takes."""
        for row in range(rows):
            for column in range(columns):
                cw, ch = w / columns, h / rows
                width, height = cw * fill, min(ch * 0.68, cw * fill * 2.4)
                left, low = x + column * cw + (cw - width) / 2, y + row * ch + (ch - height) / 2
                self.window(left, low, width, height, shape)

    def door(self, x, y, w, h, shape="round") -> None:
        """A portal of three steps inward and two leaves."""
        for i, (sheet, tone) in enumerate((("trim", 1.0), ("trim", 0.75), ("dark", 1.0))):
            inset = i * w * 0.09
            self.fill(_opening(x + inset, y, w - 2 * inset, h - inset, shape), sheet, tone)
        self.block(x + w / 2 - 0.15, y, 0.3, h * 0.6, "trim", 0.5)

    def disc(self, x, y, radius, sheet, tone=1.0) -> None:
        angle = np.linspace(0, 2 * np.pi, 40)
        self.fill([(x + radius * np.cos(a), y + radius * np.sin(a)) for a in angle], sheet, tone)

    def rose(self, x, y, radius, spokes) -> None:
        """A round window with spokes; with twelve it passes for a clock on a tower."""
        self.disc(x, y, radius, "trim")
        self.disc(x, y, radius * 0.82, "glass")
        for angle in np.arange(spokes) * 2 * np.pi / spokes:
            a, b = np.cos(angle) * radius * 0.85, np.sin(angle) * radius * 0.85
            across, along = -b * 0.06, a * 0.06
            self.fill([(x + across, y + along), (x + a, y + b), (x - across, y - along)], "trim")
        self.disc(x, y, radius * 0.25, "trim")

    def columns(self, x, y, w, h, count) -> None:
        """A row of columns, each with a base and a capital, before a wall in shadow."""
        self.block(x, y, w, h, "wall", 0.5)
        thick = min(w / count * 0.46, h * 0.13)
        for i in range(count):
            left = x + (w - thick * 1.5) * i / (count - 1) + thick * 0.25
            self.block(left, y, thick, h, "trim", curved=True)
            for low in (y, y + h - 1.4):
                self.block(left - thick * 0.25, low, thick * 1.5, 1.4, "trim", 0.95)

    def pediment(self, x, y, w, h) -> None:
        """A triangular gable with a frame and a sunken field."""
        self.fill([(x - 1, y), (x + w + 1, y), (x + w / 2, y + h)], "trim")
        low = y + h * 0.12
        self.fill([(x + w * 0.1, low), (x + w * 0.9, low), (x + w / 2, y + h * 0.84)], "wall", 0.72)
        self.disc(x + w / 2, y + h * 0.36, h * 0.15, "trim")

    def battlement(self, x, y, w) -> None:
        """A row of merlons above y."""
        count = max(3, int(w / 3.4))
        self.block(x - 0.8, y, w + 1.6, 1.8, "wall", 0.84)
        for i in range(count):
            self.block(x - 0.8 + (w + 1.6) * i / (count - 0.42), y + 1.8, (w + 1.6) / count * 0.58, 2.2)

    def roof(self, x, y, w, h, shape) -> None:
        """A roof of one of the ROOF_WIDTHS, with a finial where it ends in a tip."""
        if shape in ("dome", "onion", "spire", "cone"):
            self.block(x + w / 2 - 0.3, y + h * 0.9, 0.6, h * 0.1 + 3.5, "trim", 0.8)
            self.disc(x + w / 2, y + h + 1.2, 0.8, "trim", 0.9)
        self.fill(_profile(x, y, w, h, ROOF_WIDTHS[shape]), "roof", curved=shape != "hip")
        self.block(x - 0.6, y - 0.4, w + 1.2, 1.2, "trim")

    def tower(self, x, w, h, top, shape="round", levels=3, curved=False) -> None:
        """A tower from the ground to h; top: a key of ROOF_WIDTHS or "battlement"."""
        self.block(x, 0, w, h, "wall", 1.0, curved)
        for level in range(levels):
            low = h * level / levels
            if level:
                self.cornice(x, low, w, 1.0)
            self.windows(x, low + 1, w, h / levels - 2, 1 if w < 13 else 2, 1, shape, 0.4)
        if top == "battlement":
            self.battlement(x, h, w)
        else:
            self.roof(x, h, w, w * {"dome": 0.62, "onion": 1.15, "cone": 1.25, "spire": 2.0}[top], top)


# ---- styles: each composes one monument from a generator


def _church(f: Facade, r: Rng) -> None:
    w, h, side = r.uniform(28, 38), r.uniform(34, 42), r.uniform(12, 15.5)
    shape, top = r.choice(["pointed", "round"]), r.choice(["spire", "onion", "dome", "cone"])
    x, towers = 50 - w / 2, ((0,), (1,), (0, 1), (0, 1))[r.integers(4)]
    f.block(x, 0, w, h)
    f.fill([(x - 1.5, h), (x + w + 1.5, h), (50, h + w * 0.55)], "roof")
    f.fill([(x + 1, h), (x + w - 1, h), (50, h + w * 0.55 - 3)], "wall")
    f.rose(50, h - 2, w * r.uniform(0.15, 0.2), int(r.integers(6, 13)))
    f.door(50 - w * 0.13, 0, w * 0.26, h * 0.42, shape)
    for left in (x + w * 0.08, x + w * 0.74):
        f.window(left, h * 0.1, w * 0.17, h * 0.36, shape)
    f.cornice(x, h * 0.56, w, 1.2)
    for i in towers:
        f.tower(x + w - 2 if i else x - side + 2, side, r.uniform(46, 60), top, shape, int(r.integers(3, 5)))


def _temple(f: Facade, r: Rng) -> None:
    w, h, base, count = r.uniform(66, 88), r.uniform(24, 34), r.uniform(5, 9), int(r.integers(4, 10))
    x = 50 - w / 2
    if r.random() < 0.5:
        drum = w * r.uniform(0.32, 0.5)
        f.block(50 - drum / 2, base + h, drum, 20, curved=True)
        f.windows(50 - drum / 2, base + h + 11, drum, 9, 7, 1, "round", 0.4)
        f.roof(50 - drum / 2, base + h + 20, drum, drum * 0.45, "dome")
    for i in range(4):
        f.block(x - 5 + i * 1.5, base * i / 4, w + 10 - 3 * i, base / 4, "trim", 0.72 + 0.09 * i)
    f.columns(x, base, w, h, count)
    f.door(50 - w * 0.05, base, w * 0.1, h * 0.7, "flat")
    f.block(x, base + h, w, 4)
    f.cornice(x, base + h + 4, w)
    f.pediment(x, base + h + 5, w, w * r.uniform(0.14, 0.22))


def _castle(f: Facade, r: Rng) -> None:
    h, x, w = r.uniform(24, 34), 8.0, 84.0
    keep, high = r.uniform(20, 32), r.uniform(46, 60)
    left = r.uniform(18, 80 - keep)
    f.block(left, 0, keep, high)
    rows = 2 if high - h > 20 else 1
    f.windows(left, h + 4, keep, high - h - 5, int(r.integers(2, 4)), rows, "round", 0.34)
    f.battlement(left, high, keep)
    f.block(x, 0, w, h, "wall", 0.95)
    f.battlement(x, h, w)
    f.windows(x + 4, h * 0.45, w - 8, h * 0.5, 8, 1, "pointed", 0.22)
    top = r.choice(["cone", "battlement", "cone"])
    for middle in np.linspace(10, 90, int(r.integers(2, 5))):
        thick = r.uniform(11, 15)
        f.tower(middle - thick / 2, thick, h + r.uniform(6, 24), top, "pointed", 2, curved=True)
    gate = r.uniform(32, 56)
    f.block(gate - 3, 0, 18, h * 0.86, "wall", 1.08)
    f.battlement(gate - 3, h * 0.86, 18)
    f.door(gate, 0, 12, h * 0.62)


def _basilica(f: Facade, r: Rng) -> None:
    w, h, drum = r.uniform(56, 76), r.uniform(22, 30), r.uniform(28, 42)
    x, top = 50 - w / 2, r.choice(["dome", "onion"])
    slender = r.random() < 0.5  # minaret-like towers stand beside the body, or small domes on top of it
    f.block(50 - drum / 2, h, drum, 9, curved=True)
    f.windows(50 - drum / 2, h + 1, drum, 8, 8, 1, "round", 0.45)
    f.roof(50 - drum / 2, h + 9, drum, drum * (0.62 if top == "dome" else 0.9), top)
    for middle in (x + w * 0.1, x + w * 0.9):
        small = r.uniform(9, 12)
        if not slender:
            f.block(middle - small / 2, h, small, 5, curved=True)
            f.roof(middle - small / 2, h + 5, small, small * 0.8, top)
    f.block(x, 0, w, h)
    f.cornice(x, h, w)
    f.cornice(x, h * 0.6, w, 1.0)
    f.windows(x, h * 0.62, w, h * 0.36, int(r.integers(7, 11)), 1, "round", 0.42)
    arches = int(r.choice([3, 5]))
    for i in range(arches):
        f.door(x + w * (i + 0.16) / arches, 0, w / arches * 0.68, h * 0.52)
    if slender:
        for left in (x - 9, x + w + 3):
            f.tower(left, 6, r.uniform(58, 70), "cone", "round", 4, curved=True)


def _gate(f: Facade, r: Rng) -> None:
    w, h, attic = r.uniform(54, 78), r.uniform(38, 50), r.uniform(9, 15)
    x, three = 50 - w / 2, r.random() < 0.6
    centre, side = (w * 0.27, w * 0.14) if three else (w * 0.42, 0)
    holes = [_opening(50 - centre / 2, 0, centre, h * 0.76, "round")]
    if three:
        holes += [_opening(50 + s * w * 0.31 - side / 2, 0, side, h * 0.46, "round") for s in (-1, 1)]
    f.block(x, 0, w, h + attic)
    for edge in (0.02, 0.19, 0.75, 0.92) if three else (0.03, 0.2, 0.74, 0.91):
        f.block(x + w * edge, 0, w * 0.06, h, "trim", curved=True)
        f.block(x + w * edge - 0.8, 0, w * 0.06 + 1.6, 4, "trim", 0.9)
    f.cornice(x, h, w, 2.2)
    f.cornice(x, h + attic, w, 2.2)
    f.block(50 - w * 0.26, h + 4.5, w * 0.52, attic - 6.5, "trim", 0.86)
    for hole in holes:
        middle = np.mean(hole, axis=0)
        f.fill([tuple(middle + (p - middle) * (1.16, 1.06)) for p in np.array(hole)], "trim")
        f.fill(hole, "wall", 0.5)
        f.fill([(a * 0.9 + middle[0] * 0.1 + 0.4, b - 1.5 if b > 1 else b) for a, b in hole], "hole")
    if r.random() < 0.5:
        f.pediment(x + w * 0.1, h + attic + 2, w * 0.8, w * 0.18)
    else:
        for middle in np.linspace(x + 4, x + w - 4, 5):
            f.block(middle - 2, h + attic + 2, 4, 3, "trim", 0.9)
            statue = (1, 0.7, 1.0, 1.1, 0.4, 0.5, 0.3)
            f.fill(_profile(middle - 1.4, h + attic + 5, 2.8, 9, statue), "roof")


def _belltower(f: Facade, r: Rng) -> None:
    w, h, hall = r.uniform(15, 20), r.uniform(62, 68), r.uniform(16, 24)
    left, wide = r.uniform(22, 60), r.uniform(60, 80)
    shape, top = r.choice(["round", "pointed"]), r.choice(["spire", "hip", "onion", "dome"])
    f.roof(50 - wide / 2, hall, wide, 9, "hip")
    f.block(50 - wide / 2, 0, wide, hall)
    f.windows(50 - wide / 2, 1, wide, hall - 2, int(r.integers(6, 10)), 1, shape, 0.46)
    f.cornice(50 - wide / 2, hall, wide)
    f.block(left, 0, w, h, "wall", 1.05)
    f.door(left + w * 0.25, 0, w * 0.5, hall * 0.7, shape)
    for level in (hall, h - 28, h - 13, h):
        f.cornice(left, level, w, 1.4)
    f.windows(left, h - 13, w, 12, int(r.integers(2, 4)), 1, shape, 0.55)
    f.rose(left + w / 2, h - 20, w * 0.32, 12)
    f.windows(left, hall + 2, w, h - 31 - hall, 1, int(r.integers(1, 3)), shape, 0.3)
    f.block(left - 1, h + 1, w + 2, 2, "trim")
    f.roof(left, h + 3, w, {"spire": 25, "hip": 8, "onion": 18, "dome": 11}[top], top)


STYLES: dict[str, Callable[[Facade, Rng], None]] = {
    "church": _church,
    "temple": _temple,
    "castle": _castle,
    "basilica": _basilica,
    "belltower": _belltower,
    "gate": _gate,
}


def draw_landmark(seed: int) -> Landmark:
    """The monument of a seed (0 or more). Seeds that follow each other differ in style and in colours."""
    return Landmark(seed, list(STYLES)[seed % len(STYLES)], PALETTES[seed % len(PALETTES)])


@functools.lru_cache(maxsize=32)
def draw_facade(landmark: Landmark) -> Image.Image:
    """The monument from the front, RGBA, cut to its extent."""
    rng = np.random.default_rng([landmark.seed, 1])
    facade = Facade(landmark.palette, rng)
    STYLES[landmark.style](facade, rng)
    return facade.image.crop(facade.image.getbbox())
