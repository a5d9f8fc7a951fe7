"""The monuments of Diorama: naves, towers, domes, colonnades and what adorns them, in fourteen families.

A monument follows from its seed and family. All of one family share a composition and differ in every measure,
in the shapes of openings and in their ornament, as a region's churches do: they are each other's look-alikes.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from generator import textures
from generator.geometry import FRONT, PAINT, Frame, Model, spread
from generator.parts import (
    Style,
    around,
    banner,
    battlements,
    body,
    column,
    cornice,
    dome,
    facade,
    frieze,
    monument_group,
    panel,
    pediment,
    pinnacle,
    ring,
    rose,
    statue,
    steps,
    surround,
    tower,
    tracery,
    window,
)
from generator.textures import Rng, Texture

# What walls are of, and the albedo of walls, trims, roofs, domes.
PALETTES = (
    ("stone", (0.58, 0.50, 0.38), (0.66, 0.60, 0.48), (0.20, 0.21, 0.24), (0.26, 0.42, 0.36)),
    ("brick", (0.42, 0.19, 0.13), (0.60, 0.55, 0.46), (0.24, 0.13, 0.10), (0.25, 0.40, 0.34)),
    ("marble", (0.70, 0.69, 0.66), (0.74, 0.73, 0.70), (0.34, 0.18, 0.12), (0.62, 0.62, 0.60)),
    ("plaster", (0.66, 0.52, 0.28), (0.70, 0.68, 0.62), (0.36, 0.16, 0.10), (0.22, 0.36, 0.32)),
    ("stone", (0.42, 0.40, 0.38), (0.50, 0.48, 0.45), (0.16, 0.17, 0.19), (0.20, 0.22, 0.24)),
    ("plaster", (0.62, 0.38, 0.33), (0.72, 0.68, 0.60), (0.20, 0.20, 0.22), (0.30, 0.44, 0.38)),
    ("stone", (0.52, 0.36, 0.26), (0.58, 0.44, 0.33), (0.30, 0.17, 0.12), (0.55, 0.42, 0.16)),
    ("plaster", (0.68, 0.67, 0.62), (0.60, 0.56, 0.48), (0.38, 0.18, 0.11), (0.16, 0.30, 0.46)),
    ("stone", (0.55, 0.24, 0.16), (0.72, 0.68, 0.62), (0.22, 0.20, 0.20), (0.70, 0.68, 0.66)),
    ("plaster", (0.30, 0.42, 0.56), (0.74, 0.73, 0.70), (0.24, 0.24, 0.27), (0.62, 0.48, 0.14)),
    ("brick", (0.30, 0.26, 0.24), (0.62, 0.42, 0.30), (0.20, 0.34, 0.30), (0.28, 0.20, 0.16)),
    ("marble", (0.50, 0.60, 0.52), (0.70, 0.70, 0.66), (0.42, 0.22, 0.14), (0.18, 0.42, 0.44)),
    ("plaster", (0.70, 0.34, 0.16), (0.76, 0.70, 0.52), (0.30, 0.28, 0.26), (0.64, 0.30, 0.16)),
    ("stone", (0.64, 0.62, 0.58), (0.40, 0.38, 0.36), (0.26, 0.32, 0.24), (0.34, 0.34, 0.38)),
    ("plaster", (0.36, 0.46, 0.30), (0.72, 0.66, 0.54), (0.44, 0.24, 0.16), (0.48, 0.50, 0.46)),
    ("brick", (0.56, 0.44, 0.26), (0.36, 0.22, 0.16), (0.16, 0.18, 0.26), (0.22, 0.40, 0.56)),
)


class Monument(NamedTuple):
    """A monument: its triangles by material, the textures of these, its width, depth and height in metres.

    niche: frame in front of the detail that people photograph (a statue group on the rear or a side)
    """

    seed: int
    family: str
    model: Model
    textures: dict[str, Texture]
    size: tuple[float, float, float]
    niche: Frame


def build(seed: int, family: str, palette: int | None = None) -> Monument:
    """The monument of a seed; palette: index into PALETTES, from the seed by default."""
    rng = np.random.default_rng([seed, 10])
    style = Style(
        str(rng.choice(_ARCHES[family])),
        int(rng.integers(1, 4)),
        rng.uniform(0.15, 0.4),
        rng.uniform(0.5, 0.9),
        rng.uniform(0.5, 1),
    )
    model = Model()
    width, depth, height, niche = FAMILIES[family](rng, model, style)
    index = int(rng.integers(len(PALETTES))) if palette is None else palette
    surfaces = material_textures(np.random.default_rng([seed, 11]), model.surfaces(), index)
    return Monument(seed, family, model, surfaces, (width, depth, height), niche)


def material_textures(rng: Rng, names: Iterable[str], palette: int) -> dict[str, Texture]:
    """A texture for every material, named as in a model ("wall/front"), in the colours of PALETTES[palette]."""
    kind, wall, trim, roof, dome = PALETTES[palette]
    tint = rng.normal(1, 0.06, 3) * rng.uniform(0.85, 1.12)
    colours = np.clip(rng.uniform(0.04, 0.6, (5, 3)), 0, 0.7)
    course, age = rng.uniform(0.35, 0.8), rng.uniform(0.7, 1.3)
    dresses = {
        base: textures.Dress(
            str(rng.choice(list(textures.PATTERNS))),
            tuple(np.clip(rng.choice([0.45, 1.6]) * rng.uniform(0.8, 1.25, 3), 0.3, 2.2).tolist()),
            rng.uniform(low, high),
            int(rng.integers(2**31)),
        )
        for base, chance, low, high in (("wall", 0.75, 1.2, 4.5), ("roof", 0.6, 1.5, 4.0), ("dome", 0.5, 1.0, 3.0))
        if rng.random() < chance
    }
    makers: dict[str, Callable[[], Texture]] = {
        "wall": lambda: (
            textures.stone(rng, wall * tint, course, age=age)
            if kind == "stone"
            else textures.WALLS[kind](rng, wall * tint)
        ),
        "trim": lambda: textures.plaster(rng, trim * tint, 12.0, age=0.8),
        "roof": lambda: textures.tiles(rng, roof * tint),
        "dome": lambda: textures.metal(rng, dome * tint),
        "glass": lambda: textures.glass(rng),
        "door": lambda: textures.metal(rng, np.array([0.20, 0.12, 0.07]) * rng.uniform(0.5, 1.5), 5.0),
        "mosaic": lambda: textures.mosaic(rng, colours),
        "letters": lambda: textures.inscription(rng, trim * tint, 22.0),
        "gold": lambda: textures.metal(rng, np.array([0.62, 0.44, 0.12]), 9.0),
    }
    sheets = {name: makers[name.split("/")[0]]() for name in sorted(names) if name != PAINT}
    return {
        name: textures.dressed(sheet, dresses[base]) if (base := name.split("/")[0]) in dresses else sheet
        for name, sheet in sheets.items()
    }


# ---- families: each adds its parts and returns (width, depth, height, frame of its detail)


def cathedral(rng: Rng, model: Model, style: Style):
    """A nave between two towers, rose window, buttresses, gabled roof."""
    width, depth = rng.uniform(14, 20), rng.uniform(34, 50)
    height, tower_width = rng.uniform(13, 18), rng.uniform(6.5, 9)
    cap = str(rng.choice(["spire", "helm", "crown"]))
    levels = [height * 0.55, height * 0.45]
    body(model, FRONT, style, rng, width, depth, levels, (3, 6), (1,))
    gable = width * rng.uniform(0.45, 0.75)
    model.side = "front"
    model.gabled(FRONT.at(0, height + 0.3), "roof", "wall", width, gable, depth)
    rose(model, FRONT.at(0, height * 0.78, 0.3), width * 0.17, rng)
    statue(model, FRONT.at(0, height + gable, -0.5), 3.5, rng, "gold")
    for u in spread(5, width * 0.7):
        statue(model, FRONT.at(u, height * 0.56, 0.5), height * 0.13, rng)
    model.side = ""
    tall = height * rng.uniform(1.25, 1.8)
    last, top = tall * rng.uniform(0.28, 0.4), 0.0
    shorter = rng.uniform(0.8, 1) if rng.random() < 0.4 else 1.0
    for side, part in ((-1, 1.0), (1, shorter)):
        place = FRONT.at(side * (width + tower_width) / 2, 0, -tower_width / 2 + rng.uniform(0.5, 1.5))
        top = max(
            top,
            tower(
                model,
                place,
                style,
                rng,
                tower_width,
                [(tall - last) * 0.5 * part, (tall - last) * 0.5 * part, last * part],
                cap,
            ),
        )
    for name, side, length in around(FRONT, width, depth):
        model.side = name
        if name in ("left", "right"):
            for u in np.linspace(-0.45, 0.45, 7) * length:
                for w, v in ((2.2, height * 0.5), (1.1, height * 0.85)):
                    model.block(side, "wall", (u - 0.5, u + 0.5), (0, v), (0, w))
                pinnacle(model, side.at(u, height * 0.85, 0.6), 0.9, 3.5)
    model.side = ""
    if rng.random() < 0.5:
        top = max(
            top,
            height
            + gable * 0.5
            + tower(model, FRONT.at(0, height, -depth * 0.6), style, rng, 4.5, [gable + 2, 4.0], "spire"),
        )
    niche = monument_group(model, FRONT.at(-width * 0.2, 0, -depth - 2.5, np.pi), rng)
    return width + 2 * tower_width, depth, top, niche


def temple(rng: Rng, model: Model, style: Style):
    """A colonnade with a pediment before a long hall."""
    count = int(rng.choice([4, 6, 8]))
    radius = rng.uniform(0.55, 0.8)
    gap = radius * rng.uniform(4.6, 5.8)
    width, height = gap * count, radius * rng.uniform(15, 19)
    depth, base = width * rng.uniform(1.1, 1.7), rng.uniform(1.2, 2.6)
    fluted, order = bool(rng.random() < 0.6), int(rng.integers(3))
    ground = FRONT.at(0, base)
    model.block(FRONT, "trim", (-width / 2 - 2, width / 2 + 2), (0, base), (-depth - 4, 4))
    steps(model, FRONT.at(0, 0, 4), width * 0.8, int(base / 0.2), 0.2, 0.45)
    body(model, ground.at(0, 0, -2.5), style, rng, width - 2, depth, [height], (5, 7), (2,), part=0.38)
    for u in spread(count, width):
        for w in (2.4, 0.2):
            column(model, ground.at(u, 0, w), height, radius, fluted, order)
    for side in (-1, 1):
        for w in np.linspace(-depth, -3, int(depth / gap)):
            column(model, ground.at(side * width * 0.5, 0, w), height, radius, fluted, order)
    model.side = "front"
    for u in np.linspace(-width / 2, width / 2, count + 1)[1:-1:2]:
        if rng.random() < 0.8:
            banner(model, ground.at(u, height * 0.3, 2.6), gap * 0.6, height * 0.6, rng)
    for u in (-0.47 * width - 1, 0.47 * width + 1):  # on the podium, beside the steps
        model.block(FRONT.at(u, base * 0.15, 4), "mosaic", (-width * 0.06, width * 0.06), (0, base * 0.7), (0, 0.1))
    model.block(ground, "trim", (-width / 2 - 1, width / 2 + 1), (height, height + radius * 1.2), (-depth - 3, 3.2))
    model.block(
        ground,
        "letters",
        (-width / 2 - 0.9, width / 2 + 0.9),
        (height + radius * 1.2, height + radius * 3),
        (-depth - 3, 3.1),
    )
    cornice(model, ground.at(0, 0, 3.2), width + 2, height + radius * 3.4, style, rng, 0.8)
    top = height + radius * 3.8
    gable = width * rng.uniform(0.17, 0.26)
    pediment(model, ground.at(0, top, 3.2), width + 2.6, gable, 1.5, rng)
    model.gabled(ground.at(0, top, 1.6), "roof", "wall", width + 2.2, gable, depth + 4)
    model.side = ""
    total = base + top + gable
    if rng.random() < 0.4:
        total = base + top + dome(model, ground.at(0, top, -depth * 0.55), style, rng, width * 0.28, 0.6)
    for u in (-width / 2 - 1, width / 2 + 1):
        statue(model, FRONT.at(u, base, 3), rng.uniform(3, 4.5), rng)
    niche = monument_group(model, FRONT.at(width * 0.15, 0, -depth - 7, np.pi), rng)
    return width + 4, depth + 8, total, niche


def domed(rng: Rng, model: Model, style: Style):
    """A baroque church: a curved-up front of two orders, a large dome, small bell towers."""
    width, depth = rng.uniform(20, 28), rng.uniform(24, 32)
    low, high = rng.uniform(8, 11), rng.uniform(6, 8)
    body(model, FRONT, style, rng, width, depth, [low], (5, 5), (2,))
    inner = width * rng.uniform(0.5, 0.66)
    body(model, FRONT.at(0, low, -0.3), style, rng, inner, depth * 0.9, [high], (3, 4))
    order, radius = int(rng.integers(3)), rng.uniform(0.4, 0.55)
    model.side = "front"
    for u in np.linspace(-0.5, 0.5, 6) * width * 0.92:
        column(model, FRONT.at(u, 0, 0.9), low, radius, False, order)
    for u in np.linspace(-0.5, 0.5, 4) * inner * 0.92:
        column(model, FRONT.at(u, low, 0.6), high, radius * 0.8, False, order)
    for u in (-0.368, 0.368):  # hangings over the outer windows
        banner(model, FRONT.at(u * width, low * 0.22, 0.7), width * 0.115, low * 0.62, rng)
    for u in spread(3, inner):  # pictures in mosaic over the doors
        model.block(
            FRONT.at(u * 1.1, low * 0.8, 0.35), "mosaic", (-inner * 0.12, inner * 0.12), (0, low * 0.13), (0, 0.2)
        )
    model.block(FRONT, "letters", (-width * 0.48, width * 0.48), (low - 0.2, low + 0.8), (0, 1.5))
    pediment(model, FRONT.at(0, low + high + 0.3, 0.9), inner, inner * rng.uniform(0.2, 0.3), 1.5, rng)
    for side in (-1, 1):  # volutes
        ring(model, FRONT.at(side * (inner / 2 + 1.6), low + 1.9, 0), 1.5, 0.35, "trim", 0.7)
        statue(model, FRONT.at(side * width * 0.46, low + 0.4, 0), 3.6, rng)
    model.side = ""
    radius = width * rng.uniform(0.24, 0.32)
    top = low + high + dome(model, FRONT.at(0, low + high, -depth * 0.55), style, rng, radius, rng.uniform(0.5, 0.9))
    if rng.random() < 0.6:
        for side in (-1, 1):
            tower(model, FRONT.at(side * width * 0.42, low, -2.5), style, rng, 4.4, [high, high * 0.55], "dome")
    niche = monument_group(model, FRONT.at(0, 0, -depth - 2.5, np.pi), rng)
    return width, depth, top, niche


def townhall(rng: Rng, model: Model, style: Style):
    """A hall of many windows, stepped gables and a belfry with a clock."""
    width, depth = rng.uniform(26, 38), rng.uniform(14, 18)
    storeys = [rng.uniform(5, 6), rng.uniform(4, 5), rng.uniform(3.5, 4.5)]
    height = sum(storeys)
    bays = int(rng.integers(7, 11))
    body(model, FRONT, style, rng, width, depth, storeys, (bays, 4), (bays // 2,))
    rise = depth * rng.uniform(0.4, 0.65)
    turned = FRONT.at(width / 2, height + 0.3, -depth / 2, np.pi / 2)
    model.side = "front"
    model.gabled(turned, "roof", "wall", depth, rise, width)
    for u in spread(int(rng.integers(2, 5)), width * 0.9):  # dormers, or stepped gables
        w = rng.uniform(2.2, 3.2)
        for i in range(4):
            model.block(
                FRONT.at(u, height + 0.3),
                "wall",
                (-w * (1 - i * 0.24), w * (1 - i * 0.24)),
                (i * 1.1, (i + 1) * 1.1),
                (-1.5, 0.2),
            )
            pinnacle(model, FRONT.at(u + w * (1 - i * 0.24) - 0.2, height + 0.3 + (i + 1) * 1.1), 0.4, 1.0)
            pinnacle(model, FRONT.at(u - w * (1 - i * 0.24) + 0.2, height + 0.3 + (i + 1) * 1.1), 0.4, 1.0)
        window(model, FRONT.at(u, height + 0.6, 0.25), style, 1.8, 2.4, rng)
    for u in spread(int(rng.integers(3, 7)), width):
        statue(model, FRONT.at(u, storeys[0] + 0.3, 0.5), 2.2, rng)
    model.side = ""
    place = rng.choice([-0.36, 0.0, 0.36]) * width
    w = rng.uniform(5.5, 7.5)
    tall = height * rng.uniform(1.5, 2.1)
    top = tower(
        model,
        FRONT.at(place, 0, -w / 2 + rng.uniform(0.5, 2)),
        style,
        rng,
        w,
        [tall * 0.3, tall * 0.3, tall * 0.2, tall * 0.2],
        str(rng.choice(["spire", "helm", "crown"])),
        clock=True,
    )
    niche = monument_group(model, FRONT.at(-width * 0.25, 0, -depth - 2.5, np.pi), rng)
    return width, depth, top, niche


def castle(rng: Rng, model: Model, style: Style):
    """A gate between round towers, curtain walls, a keep."""
    gap, height = rng.uniform(8, 12), rng.uniform(9, 13)
    body(model, FRONT, style, rng, gap, 8, [height * 0.6, height * 0.4], (1, 1), (0,), part=0.3)
    battlements(model, FRONT.at(0, height), gap, 8, rng)
    radius = rng.uniform(3, 4.2)
    roofed = bool(rng.random() < 0.5)
    top = 0.0
    reach = rng.uniform(7, 12)
    places = [(-1, 0.0), (1, 0.0), (-1, reach), (1, reach)]
    for side, out in places:
        tall = height * rng.uniform(1.15, 1.7)
        here = FRONT.at(side * (gap / 2 + radius * 0.9 + out), 0, -radius + 1 - out * 0.2)
        model.turned(here, "wall", [(radius * 1.15, 0), (radius, 2), (radius * 0.97, tall)], 24)
        model.turned(
            here.at(0, tall),
            "wall",
            [
                (radius * 0.97, -0.8),
                (radius * 1.15, 0),
                (radius * 1.15, 1.2),
                (radius * 0.9, 1.2),
                (radius * 0.9, 0.2),
                (0, 0.3),
            ],
            24,
            smooth=False,
        )
        for i in range(12):
            t = here.at(0, tall + 1.2, 0, i * np.pi / 6).at(0, 0, radius * 1.02)
            model.block(t, "wall", (-0.5, 0.5), (0, 0.9), (-0.25, 0.25))
        for _ in range(int(rng.integers(4, 8))):
            t = here.at(0, 0, 0, rng.uniform(-1.5, 1.5)).at(0, rng.uniform(2.5, tall - 2.5), radius * 0.98)
            surround(model, t, style.arch, 0.6, 1.5, 0, 0.2, 0.15)
            tracery(model, t, style.arch, 0.6, 1.5, 0, 0, -0.03)
        top = max(top, tall + 2)
        if roofed:
            model.turned(here.at(0, tall + 0.8), "roof", [(radius * 0.95, 0), (0, radius * 2.2)], 20)
            top = max(top, tall + 0.8 + radius * 2.2)
        if out:
            wall = FRONT.at(side * (gap / 2 + out / 2 + radius), 0, -2.5)
            model.side = "front"
            model.block(wall, "wall", (-out / 2, out / 2), (0, height * 0.75), (-1.5, 0))
            for u in spread(8, out):
                model.block(wall, "wall", (u - 0.6, u + 0.6), (height * 0.75, height * 0.75 + 1), (-0.7, 0))
            frieze(model, wall, out, height * 0.62, 0.8, style.ornament, rng)
            model.side = ""
    keep = rng.uniform(9, 12)
    top = max(
        top,
        tower(
            model,
            FRONT.at(rng.uniform(-4, 4), 0, -18),
            style,
            rng,
            keep,
            [height * 0.6] * 3,
            str(rng.choice(["crown", "helm"])),
        ),
    )
    for u in (0.0, -gap / 2 - reach / 2 - radius, gap / 2 + reach / 2 + radius):
        banner(model, FRONT.at(u, height * 0.35, 0.4 if u == 0 else -2.3), 3, 4.6, rng)
    niche = monument_group(model, FRONT.at(0, 0, -18 - keep / 2 - 2.5, np.pi), rng)
    return gap + 2 * (reach + 2 * radius), 30, top, niche


def minarets(rng: Rng, model: Model, style: Style):
    """A domed hall behind a tall arched gate in mosaic, with slender towers."""
    width, depth = rng.uniform(24, 34), rng.uniform(24, 30)
    height = rng.uniform(8, 11)
    bays = int(rng.choice([5, 7]))
    body(model, FRONT, style, rng, width, depth, [height], (bays, 5))
    gate, tall = width * rng.uniform(0.26, 0.36), height * rng.uniform(1.3, 1.7)
    front = FRONT.at(0, 0, 1.8)
    model.side = "front"
    spring = tall * 0.8
    panel(model, front, gate, tall, style.arch, gate * 0.62, spring, 0, 1.7)
    for side in (-1, 1):
        model.block(front, "wall", tuple(sorted((side * gate / 2, side * (gate / 2 - 0.1)))), (0, tall), (-1.8, 0))
        model.quads(
            front,
            "mosaic",
            [
                (side * gate * 0.4 - gate * 0.07, 0.8, 0.05),
                (side * gate * 0.4 + gate * 0.07, 0.8, 0.05),
                (side * gate * 0.4 + gate * 0.07, tall, 0.05),
                (side * gate * 0.4 - gate * 0.07, tall, 0.05),
            ],
            [(0, 1, 2, 3)],
        )
    model.block(front, "letters", (-gate / 2, gate / 2), (spring + 0.3, tall - 0.3), (-0.5, 0.08))
    model.quads(
        front,
        "mosaic",
        [(-gate / 3, 3.5, -1.6), (gate / 3, 3.5, -1.6), (gate / 3, spring, -1.6), (-gate / 3, spring, -1.6)],
        [(0, 1, 2, 3)],
    )
    model.block(front, "door", (-gate * 0.18, gate * 0.18), (0, 3.5), (-1.75, -1.5))
    cornice(model, front, gate, tall, style, rng, 0.5)
    model.side = ""
    onion = bool(rng.random() < 0.5)
    radius = width * rng.uniform(0.2, 0.28)
    top = height + dome(
        model,
        FRONT.at(0, height, -depth * 0.5),
        style,
        rng,
        radius,
        0.55,
        "mosaic" if rng.random() < 0.35 else "dome",
        onion,
    )
    for side in (-1, 1):
        dome(model, FRONT.at(side * width * 0.36, height, -depth * 0.3), style, rng, width * 0.09, 0.3, "dome", onion)
    tallest = height * rng.uniform(2.3, 3.2)
    r = rng.uniform(1.1, 1.6)
    places = [(-1, 0), (1, 0)] + ([(-1, 1), (1, 1)] if rng.random() < 0.4 else [])
    for side, back in places:
        here = FRONT.at(side * (width / 2 + 1.2), 0, -back * depth)
        model.turned(here, "wall", [(r * 1.4, 0), (r * 1.4, height * 0.8), (r, height), (r * 0.85, tallest)], 16)
        for v in (0.55, 0.85):
            model.turned(here.at(0, tallest * v), "trim", [(r * 0.9, 0), (r * 1.7, 0.8), (r * 1.7, 1.7), (r, 1.8)], 16)
        model.turned(here.at(0, tallest * 0.7), "mosaic", [(r * 0.97, 0), (r * 0.97, 1.6)], 16)
        model.turned(
            here.at(0, tallest), "dome", [(r * 0.95, 0), (r, 0.5), (0.2, r * 3), (0.1, r * 4), (0, r * 4.2)], 14
        )
    niche = monument_group(model, FRONT.at(width * 0.2, 0, -depth - 2.5, np.pi), rng)
    return width + 3, depth, max(top, tallest), niche


def arch(rng: Rng, model: Model, style: Style):
    """A triumphal arch: three gates, columns, reliefs, an inscribed attic with a chariot's group."""
    width, depth = rng.uniform(22, 30), rng.uniform(8, 11)
    height, attic = rng.uniform(13, 17), rng.uniform(4, 6)
    radius, order = rng.uniform(0.6, 0.85), int(rng.integers(3))
    side_part, shape = rng.uniform(0.22, 0.28), "round"
    middle = width * (1 - 2 * side_part)
    for name, front in (("front", FRONT), ("rear", FRONT.at(0, 0, -depth, np.pi))):
        model.side = name
        panel(model, front, middle, height, shape, middle * 0.66, height * 0.84, 0, depth / 2)
        surround(model, front, shape, middle * 0.66, height * 0.84, 0, 0.7, 0.4)
        for side in (-1, 1):
            here = front.at(side * (width - side_part * width) / 2, 0)
            panel(model, here, side_part * width, height, shape, side_part * width * 0.5, height * 0.5, 0, depth / 2)
            surround(model, here, shape, side_part * width * 0.5, height * 0.5, 0, 0.4, 0.3)
            relief = here.at(0, height * 0.62)
            model.block(
                relief,
                "mosaic" if name == "rear" else "letters",
                (-side_part * width * 0.3, side_part * width * 0.3),
                (0, height * 0.14),
                (0, 0.12),
            )
            for _ in range(12):
                u, v = rng.uniform(-0.25, 0.25) * side_part * width, rng.uniform(0.16, 0.24) * height
                model.block(relief.at(u, v), "trim", (-0.3, 0.3), (-0.5, 0.5), (0, rng.uniform(0.15, 0.5)), taper=0.5)
        for u in (-0.48, -0.5 + side_part, 0.5 - side_part, 0.48):
            column(model, front.at(u * width, 0, 1.1), height, radius, True, order)
            statue(model, front.at(u * width, height + 0.5, 1.1), attic * 0.8, rng)
        cornice(model, front.at(0, 0, 0.4), width, height + 0.2, style, rng, 1.2)
        model.block(front, "wall", (-width / 2, width / 2), (height + 0.5, height + attic), (-depth / 2, 0.2))
        model.block(front, "letters", (-middle * 0.46, middle * 0.46), (height + 1, height + attic - 0.8), (0, 0.4))
        cornice(model, front.at(0, 0, 0.2), width, height + attic, style, rng, 0.7)
    for name, here in (
        ("left", FRONT.at(-width / 2, 0, -depth / 2, -np.pi / 2)),
        ("right", FRONT.at(width / 2, 0, -depth / 2, np.pi / 2)),
    ):
        model.side = name
        facade(model, here, style, rng, depth, [height], 1)
    model.side = ""
    model.block(FRONT, "roof", (-width / 2, width / 2), (height + attic - 0.1, height + attic + 0.3), (-depth, 0))
    for u in spread(int(rng.integers(3, 6)), middle * 0.9):
        statue(
            model,
            FRONT.at(u, height + attic + 0.3, -depth * 0.4),
            rng.uniform(3.5, 5),
            rng,
            "gold" if rng.random() < 0.4 else "dome",
        )
    niche = monument_group(model, FRONT.at(width * 0.5 + 6, 0, -depth - 4, np.pi), rng)
    return width, depth, height + attic + 5, niche


def palace(rng: Rng, model: Model, style: Style):
    """A long front with a raised middle, balustrade of statues, corner pavilions."""
    width, depth = rng.uniform(32, 44), rng.uniform(14, 18)
    storeys = [rng.uniform(4.5, 5.5), rng.uniform(5, 6), rng.uniform(3.5, 4.5)]
    height = sum(storeys)
    bays = int(rng.choice([7, 9, 11]))
    body(model, FRONT, style, rng, width, depth, storeys, (bays, 4))
    middle = width * rng.uniform(0.2, 0.3)
    front = FRONT.at(0, 0, 2)
    body(model, front, style, rng, middle, 6, storeys, (3, 1), (1,))
    model.side = "front"
    for u in np.linspace(-0.48, 0.48, 4) * middle:
        column(model, front.at(u, storeys[0], 0.9), height - storeys[0], 0.5, bool(rng.random() < 0.5), 2)
    model.block(front, "trim", (-middle / 2, middle / 2), (storeys[0] - 0.3, storeys[0]), (0, 1.8))
    model.block(front, "letters", (-middle / 2, middle / 2), (height, height + 1.1), (-0.5, 1.2))
    crown = rng.uniform(0.18, 0.3) * middle
    pediment(model, front.at(0, height + 1.1, 1.2), middle + 1, crown, 2, rng)
    for u in spread(int(rng.integers(8, 13)), width):
        if abs(u) > middle / 2 + 0.5:
            statue(model, FRONT.at(u, height + 0.3, 0), rng.uniform(1.8, 2.6), rng)
    for u in spread(int(width / 0.7), width):
        model.turned(FRONT.at(u, height + 0.3, -0.2), "trim", [(0.08, 0), (0.16, 0.3), (0.07, 0.7), (0.12, 0.9)], 6)
    model.block(FRONT, "trim", (-width / 2, width / 2), (height + 1.2, height + 1.4), (-0.4, 0.1))
    model.side = ""
    for u in (-0.31, 0.31):
        banner(model, FRONT.at(u * width, storeys[0] * 0.9, 0.55), width * 0.06, storeys[1] * 1.3, rng)
    kind = str(rng.choice(["dome", "helm", "none"]))
    top = height + 1 + crown
    for side in (-1, 1):
        here = FRONT.at(side * (width / 2 - 4), 0, -3.2)
        if kind != "none":
            top = max(top, tower(model, here.at(0, 0, 0.3), style, rng, 8.5, [*storeys, 3.5], kind))
    model.gabled(
        FRONT.at(width / 2 - 8, height + 0.3, -depth / 2, np.pi / 2),
        "roof",
        "wall",
        depth - 1,
        depth * 0.25,
        width - 16,
    )
    if rng.random() < 0.5:
        top = max(top, height + dome(model, FRONT.at(0, height, -depth * 0.5), style, rng, middle * 0.36, 0.7))
    niche = monument_group(model, FRONT.at(0, 0, -depth - 2.5, np.pi), rng)
    return width, depth, top, niche


def belltower(rng: Rng, model: Model, style: Style):
    """A tall tower that stands by itself, a low hall at its foot."""
    width, storeys = rng.uniform(7, 11), int(rng.integers(4, 7))
    heights = (rng.uniform(5, 9, storeys) * np.linspace(1.1, 0.8, storeys)).tolist()
    cap = str(rng.choice(["spire", "helm", "dome", "crown"]))
    aside, hall = rng.choice([-1, 1]), rng.uniform(12, 22)
    foot = FRONT.at(-aside * hall / 2, 0)
    top = tower(
        model, foot.at(0, 0, -width / 2), style, rng, width, heights, cap, clock=True, part=rng.uniform(0.3, 0.6)
    )
    low = rng.uniform(5, 8)
    place = FRONT.at(aside * width / 2, 0, -1.5)
    body(model, place, style, rng, hall, width * 1.4, [low], (int(rng.integers(2, 6)), 2), (0,), part=0.5)
    roof = place.at(hall / 2, low + 0.3, -width * 0.7, np.pi / 2)
    model.gabled(roof, "roof", "wall", width * 1.4, width * rng.uniform(0.25, 0.7), hall)
    model.side = "front"
    for v in np.cumsum(heights)[:-1]:
        frieze(model, foot.at(0, 0, 0.1), width, v - 1.6, 1.1, style.ornament, rng)
    for u in (-width * 0.38, width * 0.38):
        statue(model, foot.at(u, heights[0], 0.6), rng.uniform(2, 3), rng)
    model.side = ""
    niche = monument_group(model, FRONT.at(0, 0, -width * 1.6 - 2.5, np.pi), rng)
    return width + hall, width * 1.6, top, niche


def pagoda(rng: Rng, model: Model, style: Style):
    """Storeys one on the other, each smaller, each under a wide roof."""
    count, width = int(rng.integers(3, 8)), rng.uniform(14, 22)
    shrink, rise = rng.uniform(0.78, 0.9), rng.uniform(3.4, 5)
    eaves, sides = rng.uniform(1.2, 2.8), rng.choice([4, 4, 8])
    posts, v, w = int(rng.integers(3, 7)), rng.uniform(0.8, 2.2), width
    model.block(FRONT, "trim", (-width * 0.62, width * 0.62), (0, v), (-width * 1.12, width * 0.12))
    steps(model, FRONT.at(0, 0, width * 0.12), width * 0.35, max(2, int(v / 0.2)), 0.2, 0.45)
    for level in range(count):
        here = FRONT.at(0, v, -(width - w) / 2)
        body(model, here, style, rng, w, w, [rise], (posts, posts), (posts // 2,) if level == 0 else (), part=0.55)
        for u in spread(posts + 1, w * 1.1):
            column(model, here.at(u, 0, eaves * 0.5), rise, 0.22 + 0.02 * w, False, int(rng.integers(3)))
        v += rise
        edge, tall = w + 2 * eaves, rise * rng.uniform(0.35, 0.6)
        model.pyramid(
            FRONT.at(0, v, -width / 2),
            "roof",
            edge * (1 if sides == 4 else 1.08),
            tall * (2.2 if level == count - 1 else 1.6),
            sides,
        )
        model.block(FRONT.at(0, v, -width / 2), "trim", (-edge / 2, edge / 2), (-0.3, 0.1), (-edge / 2, edge / 2))
        v += tall
        w *= shrink
    model.side = "front"
    model.block(FRONT, "letters", (-width * 0.2, width * 0.2), (4.2, 5.6), (0.2, 0.6))
    model.side = ""
    model.turned(FRONT.at(0, v, -width / 2), "gold", [(0.7, 0), (0.3, 1), (0.6, 1.8), (0.15, 2.8), (0, 4.5)], 10)
    niche = monument_group(model, FRONT.at(width * 0.1, 0, -width * 1.15 - 2.5, np.pi), rng)
    return width + 2 * eaves, width, v + 4.5, niche


def rotunda(rng: Rng, model: Model, style: Style):
    """A round hall in a ring of columns under a dome, a porch before it."""
    radius, base = rng.uniform(8, 12), rng.uniform(1, 2.4)
    height, count = rng.uniform(9, 14), int(rng.integers(12, 22))
    middle = FRONT.at(0, base, -radius - 2)
    fluted, order = bool(rng.random() < 0.5), int(rng.integers(3))
    model.turned(
        FRONT.at(0, 0, -radius - 2),
        "trim",
        [(radius + 3.4, 0), (radius + 3.4, base), (0, base + 0.02)],
        40,
        smooth=False,
    )
    model.side = "front"
    model.turned(middle, "wall", [(radius, 0), (radius, height)], 40)
    model.side = ""
    for i in range(count):
        here = middle.at(0, 0, 0, 2 * np.pi * i / count)
        column(model, here.at(0, 0, radius + 1.8), height * 0.8, rng.uniform(0.5, 0.52), fluted, order)
        face = middle.at(0, height * 0.2, 0, 2 * np.pi * (i + 0.5) / count).at(0, 0, radius + 0.05)
        surround(model, face, style.arch, 1.3, height * 0.4, 0, 0.25, 0.25)
        tracery(model, face, style.arch, 1.3, height * 0.4, 0, style.tracery, -0.03)
    model.turned(
        middle.at(0, height * 0.8),
        "letters",
        [(radius + 1.2, 0), (radius + 2.4, 0), (radius + 2.4, height * 0.12), (radius, height * 0.14)],
        40,
        smooth=False,
    )
    high = rng.uniform(0.2, 0.6)
    top = (
        base
        + height
        + dome(
            model, middle.at(0, height), style, rng, radius * rng.uniform(0.75, 1), high, onion=bool(rng.random() < 0.2)
        )
    )
    porch, gap = rng.uniform(9, 14), rng.uniform(0.55, 0.75)
    front = FRONT.at(0, base, 2.5)
    for u in spread(int(rng.choice([4, 6])), porch):
        column(model, front.at(u, 0), height * 0.8, gap, fluted, order)
    pediment(model, front.at(0, height * 0.8, 0.8), porch + 1.4, porch * rng.uniform(0.16, 0.28), 4, rng)
    model.block(FRONT, "trim", (-porch / 2 - 1, porch / 2 + 1), (0, base), (-2, 4))
    steps(model, FRONT.at(0, 0, 4), porch, int(base / 0.2), 0.2, 0.45)
    niche = monument_group(model, FRONT.at(radius * 0.3, 0, -2 * radius - 8, np.pi), rng)
    return 2 * radius + 5, 2 * radius + 6, top, niche


def stepped(rng: Rng, model: Model, style: Style):
    """A stepped pyramid with a stair up its front and a shrine on top."""
    count, width = int(rng.integers(4, 8)), rng.uniform(26, 38)
    rise, inset = rng.uniform(2.4, 4), rng.uniform(1.6, 2.6)
    v = 0.0
    for level in range(count):
        w = width - 2 * inset * level
        model.side = "front"
        model.block(
            FRONT.at(0, v, -inset * level), "wall", (-w / 2, w / 2), (0, rise), (-w, 0), taper=rng.uniform(0, 0.05)
        )
        frieze(model, FRONT.at(0, v, -inset * level), w, rise * 0.35, rise * 0.4, style.ornament, rng)
        model.side = ""
        model.block(
            FRONT.at(0, v + rise, -inset * level), "trim", (-w / 2 - 0.3, w / 2 + 0.3), (-0.4, 0), (-w - 0.3, 0.3)
        )
        v += rise
    stair, many = width * rng.uniform(0.16, 0.3), count * 9
    for i in range(many):
        out = inset * count * (1 - i / many)
        model.block(
            FRONT.at(0, 0, -inset * count),
            "trim",
            (-stair / 2, stair / 2),
            (v * i / many, v * (i + 1) / many),
            (-1, out + 1),
        )
    for side in (-1, 1):
        for i in range(0, count, 2):
            statue(model, FRONT.at(side * (stair / 2 + 1), rise * (i + 1) - 0.4, -inset * i), rng.uniform(2, 3.4), rng)
    shrine = width - 2 * inset * count
    shrine = max(6.0, shrine * 0.7)
    here = FRONT.at(0, v, -width / 2 + shrine / 2)
    body(model, here, style, rng, shrine, shrine, [rng.uniform(4, 6)], (3, 2), (1,))
    if rng.random() < 0.5:
        top = v + 5 + dome(model, here.at(0, 5, -shrine / 2), style, rng, shrine * 0.45, 0.3)
    else:
        model.pyramid(here.at(0, 5, -shrine / 2), "roof", shrine * 1.2, shrine * rng.uniform(0.5, 1.1))
        top = v + 5 + shrine
    niche = monument_group(model, FRONT.at(width * 0.1, 0, -width - 2.5, np.pi), rng)
    return width, width, top, niche


def shikhara(rng: Rng, model: Model, style: Style):
    """Ribbed towers like beehives, a high one among low ones, over a platform with a pillared porch."""
    radius, base = rng.uniform(5, 7.5), rng.uniform(1.4, 3)
    tall = radius * rng.uniform(3.2, 4.6)
    count = int(rng.choice([2, 4]))
    bulge, ribs = rng.uniform(0.95, 1.15), rng.uniform(0.05, 0.16)

    def beehive(here: Frame, r: float, h: float) -> float:
        line = [(r * bulge * np.cos(t * 1.25) ** 0.8 if t else r, h * t / 1.15) for t in np.linspace(0, 1.15, 12)]
        model.turned(here, "roof", line, 24, ribs=ribs)
        for v in np.linspace(0.1, 0.8, 6):
            wide = float(np.interp(v * h, [y for _, y in line], [x for x, _ in line]))
            model.turned(here.at(0, v * h), "trim", [(wide, 0), (wide * 1.08, 0.2), (wide, 0.5)], 24)
        model.turned(here.at(0, h), "gold", [(r * 0.35, -0.3), (r * 0.4, 0.4), (r * 0.15, 0.9), (0.1, 2), (0, 2.4)], 12)
        return h + 2.4

    width = radius * 2 + count * radius * 1.1 + 6
    model.block(FRONT, "trim", (-width / 2, width / 2), (0, base), (-radius * 4, 3))
    steps(model, FRONT.at(0, 0, 3), width * 0.3, int(base / 0.2), 0.2, 0.45)
    body(model, FRONT.at(0, base, -2), style, rng, radius * 2.4, radius * 3, [radius * 1.1], (3, 3), (1,))
    top = base + radius * 1.1 + beehive(FRONT.at(0, base + radius * 1.1, -radius * 1.7), radius, tall)
    for i in range(count):
        side, out = (-1, 1)[i % 2], 1 + i // 2
        here = FRONT.at(side * radius * (0.6 + 1.1 * out), base, -radius * 1.2)
        body(model, here.at(0, 0, radius * 0.5), style, rng, radius, radius, [radius * 0.7], (1, 1))
        beehive(here.at(0, radius * 0.7), radius * 0.5, tall * rng.uniform(0.3, 0.55) / out**0.3)
    model.side = "front"
    for u in spread(4, radius * 2.6):
        column(model, FRONT.at(u, base, 1.2), radius, 0.4, False, int(rng.integers(3)))
    model.block(FRONT, "letters", (-radius * 1.35, radius * 1.35), (base + radius, base + radius * 1.25), (-2, 1.8))
    for u in spread(int(rng.integers(4, 9)), width):
        statue(model, FRONT.at(u, base, 2.4), rng.uniform(1.6, 2.8), rng, "gold" if rng.random() < 0.3 else "trim")
    model.side = ""
    niche = monument_group(model, FRONT.at(0, 0, -radius * 4 - 2.5, np.pi), rng)
    return width, radius * 4, top, niche


def modern(rng: Rng, model: Model, style: Style):
    """Slabs and drums of a new building: bands of glass, fins, a tower, a canopy."""
    width, depth = rng.uniform(24, 36), rng.uniform(12, 18)
    storeys, rise = int(rng.integers(3, 6)), rng.uniform(3.4, 4.4)
    height = storeys * rise
    for name, side, length in around(FRONT, width, depth):
        model.side = name
        model.block(side, "wall", (-length / 2, length / 2), (0, height), (-0.5, 0))
        share, fins = rng.uniform(0.4, 0.75), int(length / rng.uniform(1.5, 4))
        for storey in range(storeys):
            v = storey * rise + rise * (1 - share) / 2
            model.block(side, "glass", (-length * 0.47, length * 0.47), (v, v + rise * share), (0, 0.06))
        for u in spread(fins, length * 0.96):
            model.block(side, "trim", (u - 0.12, u + 0.12), (rise * 0.8, height + 0.4), (0, rng.uniform(0.5, 0.55)))
        if name == "front":
            lean = rng.choice([-1, 1]) * width * rng.uniform(0.1, 0.3)
            model.block(side, "mosaic", (lean - width * 0.13, lean + width * 0.13), (rise, height * 0.95), (0.1, 0.7))
            model.block(side, "letters", (-width * 0.45, width * 0.45), (height + 0.2, height + 1.6), (-0.3, 0.3))
    model.side = ""
    model.block(FRONT, "roof", (-width / 2 - 0.8, width / 2 + 0.8), (height, height + 0.4), (-depth - 0.8, 0.8))
    aside = rng.choice([-1, 1]) * width * rng.uniform(0.2, 0.42)
    kind, tall = rng.integers(3), height * rng.uniform(1.5, 2.6)
    if kind == 0:
        r = rng.uniform(3, 4.5)
        model.turned(
            FRONT.at(aside, 0, -depth / 2), "wall", [(r, 0), (r, tall), (0, tall + rng.uniform(0, 3))], 28, smooth=False
        )
        for v in np.arange(height, tall, 2.2):
            model.turned(FRONT.at(aside, v, -depth / 2), "glass", [(r * 1.01, 0.5), (r * 1.01, 1.7)], 28)
    elif kind == 1:
        model.block(
            FRONT.at(aside, 0, -depth / 2), "wall", (-3.5, 3.5), (0, tall), (-3.5, 3.5), taper=rng.uniform(0, 0.5)
        )
        for v in np.arange(height, tall * 0.9, 2.4):
            model.block(FRONT.at(aside, v, -depth / 2), "glass", (-2.6, 2.6), (0, 1.2), (-3.6, 3.6))
    else:
        model.turned(
            FRONT.at(aside, height, -depth / 2),
            "dome",
            [(depth * 0.45 * np.cos(x), depth * 0.55 * np.sin(x)) for x in np.linspace(0, np.pi / 2, 10)],
            26,
            ribs=0.04,
        )
        tall = height + depth * 0.55
    canopy = width * rng.uniform(0.2, 0.4)
    model.block(FRONT, "trim", (-canopy / 2, canopy / 2), (rise * 0.9, rise), (0, 5))
    for u in (-canopy * 0.45, canopy * 0.45):
        model.turned(FRONT.at(u, 0, 4.6), "trim", [(0.2, 0), (0.2, rise * 0.9)], 10)
    model.block(FRONT, "door", (-canopy * 0.3, canopy * 0.3), (0, rise * 0.75), (0, 0.15))
    for _ in range(int(rng.integers(1, 4))):
        statue(model, FRONT.at(rng.uniform(-0.45, 0.45) * width, 0, rng.uniform(5, 8)), rng.uniform(3, 5), rng)
    niche = monument_group(model, FRONT.at(width * 0.2, 0, -depth - 2.5, np.pi), rng)
    return width, depth, max(tall, height + 2), niche


_ARCHES = {
    "cathedral": ["pointed", "round"],
    "temple": ["flat", "round"],
    "domed": ["round", "flat"],
    "townhall": ["flat", "pointed", "round"],
    "castle": ["pointed", "round"],
    "minarets": ["horseshoe", "pointed"],
    "arch": ["round"],
    "palace": ["flat", "round"],
    "belltower": ["round", "pointed", "horseshoe"],
    "pagoda": ["flat", "round"],
    "rotunda": ["round", "flat", "pointed"],
    "stepped": ["flat", "pointed"],
    "shikhara": ["pointed", "horseshoe"],
    "modern": ["flat"],
}
FAMILIES: dict[str, Callable] = {
    function.__name__: function
    for function in (
        cathedral,
        temple,
        domed,
        townhall,
        castle,
        minarets,
        arch,
        palace,
        belltower,
        pagoda,
        rotunda,
        stepped,
        shikhara,
        modern,
    )
}
