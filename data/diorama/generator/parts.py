"""The parts that Diorama's monuments are built from: openings, mouldings, ornament, statues, columns, towers, domes.

Each function adds one part to a model, in the frame that it is given. Materials: wall, trim, roof, dome, glass,
door, mosaic, letters, gold.
"""

from typing import NamedTuple

import numpy as np

from generator.geometry import PAINT, Frame, Model, opening, spread
from generator.textures import Rng


class Style(NamedTuple):
    """What the parts of one monument have in common."""

    arch: str
    tracery: int  # mullions of a window
    hood: float  # how far a window's surround stands out, metres
    cornice: float  # height of a cornice, metres
    ornament: float  # 0..1, how much of it


def panel(
    model: Model,
    frame: Frame,
    width: float,
    height: float,
    shape: str,
    w: float,
    h: float,
    sill: float,
    deep: float = 0.5,
) -> None:
    """A piece of wall about u = 0 on v = 0 with an opening w by h that starts at `sill`; its sides go `deep` in."""
    spring, top = opening(w, h, shape)
    top = [(u, v + sill) for u, v in top]
    left, right = min(u for u, _ in top), max(u for u, _ in top)
    a = width / 2
    walls = [((-a, 0), (left, height)), ((right, 0), (a, height))]
    if sill > 0:
        walls.append(((left, 0), (right, sill)))
    for (u0, v0), (u1, v1) in walls:
        model.quads(frame, "wall", [(u0, v0, 0), (u1, v0, 0), (u1, v1, 0), (u0, v1, 0)], [(0, 1, 2, 3)])
    foot_left, foot_right = (-w / 2, sill), (w / 2, sill)
    line = [(left, sill + spring), *[p for p in top], (right, sill + spring)]
    model.strip(frame, "wall", line, [(u, height) for u, _ in line], 0)
    model.band(frame, "trim", [foot_left, *top, foot_right], -deep, 0)
    model.band(frame, "trim", [foot_right, foot_left], -deep, 0)


def surround(model: Model, frame: Frame, shape: str, w: float, h: float, sill: float, thick: float, out: float) -> None:
    """A moulding about an opening, `thick` wide, standing `out` before the wall, with a keystone."""
    _, inner = opening(w, h, shape)
    _, outer = opening(w + 2 * thick, h + thick, shape)
    if len(inner) == 2:
        inner, outer = [(-w / 2, h), (w / 2, h)], [(-w / 2 - thick, h + thick), (w / 2 + thick, h + thick)]
    inner = [(-w / 2, 0), *inner, (w / 2, 0)]
    outer = [(-w / 2 - thick, 0), *outer, (w / 2 + thick, 0)]
    inner, outer = ([(u, v + sill) for u, v in line] for line in (inner, outer))
    model.strip(frame, "trim", inner, outer, out)
    model.band(frame, "trim", outer, 0, out, inward=True)
    model.block(frame, "trim", (-w / 2 - 1.5 * thick, w / 2 + 1.5 * thick), (sill - thick, sill), (0, out * 1.6))
    model.block(
        frame,
        "trim",
        (-thick * 0.7, thick * 0.7),
        (sill + h - thick * 0.4, sill + h + thick * 1.5),
        (0, out * 1.4),
        taper=-0.3,
    )


def tracery(
    model: Model, frame: Frame, shape: str, w: float, h: float, sill: float, mullions: int, deep: float
) -> None:
    """Glass at depth `deep` in an opening, with mullions, bars and a ring under the arch."""
    a = w / 2
    model.quads(
        frame,
        "glass",
        [(-a, sill, -deep), (a, sill, -deep), (a, sill + h, -deep), (-a, sill + h, -deep)],
        [(0, 1, 2, 3)],
    )
    bar, back = max(0.07, w * 0.04), (-deep, -deep + 0.25)
    for i in range(1, mullions + 1):
        u = -a + w * i / (mullions + 1)
        model.block(frame, "trim", (u - bar / 2, u + bar / 2), (sill, sill + h * 0.8), back)
    for part in (0.33, 0.66):
        model.block(frame, "trim", (-a, a), (sill + h * part - bar / 2, sill + h * part + bar / 2), back)
    if shape != "flat" and w > 1:
        ring(model, frame.at(0, sill + h - w * 0.55, -deep + 0.1), w * 0.3, bar)


def ring(model: Model, frame: Frame, radius: float, thick: float, material: str = "trim", out: float = 0.15) -> None:
    """A ring about the frame's origin."""
    angles = np.linspace(np.pi, -np.pi, 21)
    inner, outer = ([(r * np.cos(t), r * np.sin(t)) for t in angles] for r in (radius - thick, radius + thick))
    model.strip(frame, material, inner, outer, out)
    model.band(frame, material, outer, 0, out, inward=True)


def window(
    model: Model,
    frame: Frame,
    style: Style,
    width: float,
    height: float,
    rng: Rng,
    part: float = 0.45,
    tall: float = 0.62,
) -> None:
    """One bay of wall, width by height, with a window that takes `part` of its width and `tall` of its height.

    What is in the window differs: a blind, flowers on the sill, a lozenge in the glass.
    """
    w, h, sill, deep = width * part, height * tall, height * (1 - tall) * 0.45, 0.55
    panel(model, frame, width, height, style.arch, w, h, sill, deep)
    surround(model, frame, style.arch, w, h, sill, max(0.14, w * 0.12), style.hood)
    tracery(model, frame, style.arch, w, h, sill, style.tracery, deep)
    bright = rng.uniform(0.2, 0.7) * rng.uniform(0.7, 1.1, 3)
    if rng.random() < 0.35:
        drop = h * rng.uniform(0.15, 0.7)
        model.block(frame, PAINT, (-w / 2, w / 2), (sill + h - drop, sill + h), (-deep, -deep + 0.1), bright)
    elif rng.random() < 0.4:
        r, v = w * rng.uniform(0.2, 0.4), sill + h * rng.uniform(0.3, 0.6)
        model.solid(frame, "mosaic", [(0, v - r), (r, v), (0, v + r), (-r, v)], -deep, -deep + 0.12)
    if rng.random() < 0.25:
        for _ in range(6):
            u, r = rng.uniform(-0.45, 0.45) * w, rng.uniform(0.1, 0.2)
            model.turned(
                frame.at(u, sill, 0.2),
                PAINT,
                [(0, 0), (r, r), (r, 2 * r), (0, 2.6 * r)],
                6,
                colour=rng.choice([(0.5, 0.08, 0.08), (0.12, 0.22, 0.06), (0.55, 0.4, 0.1)]),
            )


def portal(model: Model, frame: Frame, style: Style, width: float, height: float, rng: Rng) -> None:
    """One bay of wall with a door in a stepped surround, a tympanum in mosaic and steps before it."""
    w, h = width * 0.5, height * rng.uniform(0.62, 0.75)
    panel(model, frame, width, height, style.arch, w, h, 0, 1.2)
    for i in range(3):
        surround(model, frame.at(0, 0, -0.3 * i), style.arch, w - 0.3 * i, h - 0.15 * i, 0, 0.3, 0.5 - 0.1 * i)
    a, door = w / 2, h * 0.6
    model.quads(frame, "mosaic", [(-a, door, -1.2), (a, door, -1.2), (a, h, -1.2), (-a, h, -1.2)], [(0, 1, 2, 3)])
    model.block(frame, "door", (-a, a), (0, door), (-1.3, -1.15))
    model.block(frame, "trim", (-a, a), (door - 0.2, door + 0.2), (-1.2, -0.9))
    steps(model, frame, width * 0.8, 3)


def steps(
    model: Model, frame: Frame, width: float, count: int, rise: float = 0.17, tread: float = 0.4, material: str = "trim"
) -> None:
    """Steps before a wall, down from count · rise above the ground."""
    for i in range(count):
        model.block(
            frame, material, (-width / 2 - i * 0.2, width / 2 + i * 0.2), (0, (count - i) * rise), (0, (i + 1) * tread)
        )


def cornice(model: Model, frame: Frame, width: float, v: float, style: Style, rng: Rng, out: float = 0.7) -> None:
    """A moulding across a wall at height v, on brackets, over a frieze of medallions and reliefs."""
    h, a = style.cornice, width / 2
    model.block(frame, "trim", (-a - out, a + out), (v, v + h * 0.45), (-0.1, out))
    model.block(frame, "trim", (-a - out * 0.6, a + out * 0.6), (v - h * 0.35, v), (-0.1, out * 0.6))
    for u in spread(max(3, int(width / 0.9)), width):
        model.block(frame, "trim", (u - 0.15, u + 0.15), (v - h * 0.75, v - h * 0.3), (0, out * 0.5))
    frieze(model, frame, width, v - h * 1.9, h, style.ornament, rng)


def frieze(model: Model, frame: Frame, width: float, v: float, h: float, amount: float, rng: Rng) -> None:
    """Reliefs in a row, no two alike: bosses, tablets, discs, lozenges."""
    for u in spread(max(2, int(width / (1.6 * h))), width):
        if rng.random() > amount:
            continue
        w, out = h * rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.3)
        material = "gold" if rng.random() < 0.12 else "trim"
        here = frame.at(u, v + h / 2)
        kind = rng.integers(5)
        if kind == 0:
            model.turned(
                here.at(0, -h * 0.3),
                material,
                [(0, 0), (w * 0.6, h * 0.1), (w * 0.7, h * 0.3), (w * 0.4, h * 0.55), (0, h * 0.65)],
                10,
                (1, out),
            )
        elif kind == 1:
            model.block(here, material, (-w, w), (-h * 0.35, h * 0.35), (0, out), taper=0.3)
        elif kind == 2:
            ring(model, here, w * 0.7, w * 0.2, material, out)
        elif kind == 3:
            model.solid(here, material, [(0, -h / 2), (w, 0), (0, h / 2), (-w, 0)], 0, out)
        else:
            for _ in range(4):
                x, y, r = rng.uniform(-w, w), rng.uniform(-h / 3, h / 3), rng.uniform(0.1, 0.25) * h
                model.block(here, material, (x - r, x + r), (y - r, y + r), (0, rng.uniform(0.1, 0.3)), taper=0.4)


def banner(model: Model, frame: Frame, width: float, height: float, rng: Rng) -> None:
    """A hanging in a figured pattern with a coloured border and a line of letters."""
    colour, a = rng.uniform(0.05, 0.5, 3), width / 2
    model.block(frame, PAINT, (-a, a), (0, height), (0, 0.06), colour)
    model.block(frame, "mosaic", (-a * 0.85, a * 0.85), (height * 0.3, height * 0.95), (0.05, 0.1))
    model.block(frame, "letters", (-a * 0.85, a * 0.85), (height * 0.05, height * 0.25), (0.05, 0.1))


def statue(model: Model, frame: Frame, height: float, rng: Rng, material: str = "trim", pedestal: float = 0.4) -> None:
    """A draped figure on a pedestal, arms, attribute and pose at random; height: all in all."""
    base, h = height * pedestal, height * (1 - pedestal)
    model.block(frame, material, (-h * 0.28, h * 0.28), (0, base), (-h * 0.28, h * 0.28))
    model.block(frame, material, (-h * 0.34, h * 0.34), (base * 0.86, base), (-h * 0.34, h * 0.34))
    lean = frame.at(0, base, 0, rng.uniform(-0.6, 0.6))
    bulge = rng.uniform(0.85, 1.2, 7)
    body = [(0.2, 0), (0.19, 0.12), (0.14, 0.3), (0.13, 0.48), (0.17, 0.62), (0.19, 0.74), (0.06, 0.82)]
    model.turned(
        lean, material, [(r * h * b, v * h) for (r, v), b in zip(body, bulge, strict=True)], 11, (1, 0.75), ribs=0.1
    )
    head = [(0, 0.8), (0.06, 0.83), (0.085, 0.9), (0.06, 0.97), (0, 1.0)]
    model.turned(lean.at(rng.normal(0, 0.02) * h, 0, 0.02 * h), material, [(r * h, v * h) for r, v in head], 9)
    for side in (-1, 1):
        lift, reach = rng.choice([rng.uniform(-1.4, -0.9), rng.uniform(-0.9, 1.3)]), rng.uniform(0.2, 0.32) * h
        du, dv = side * np.cos(lift) * reach, np.sin(lift) * reach
        u, v = side * 0.15 * h, 0.7 * h
        t = 0.045 * h
        model.solid(
            lean.at(0, 0, 0.03 * h),
            material,
            [(u, v - t), (u + du, v + dv - t), (u + du, v + dv + t), (u, v + t)][::side],
            -t,
            t,
        )
        if rng.random() < 0.6:
            x, y, s = u + du, v + dv, rng.uniform(0.06, 0.3) * h
            model.block(lean, material, (x - 0.03 * h, x + 0.03 * h), (y - s, y + s), (-0.03 * h, 0.05 * h))


def column(model: Model, frame: Frame, height: float, radius: float, fluted: bool, order: int) -> None:
    """A column with base, entasis and one of three capitals."""
    model.block(frame, "trim", (-1.4 * radius, 1.4 * radius), (0, 0.35 * radius), (-1.4 * radius, 1.4 * radius))
    top = height - 1.6 * radius
    shaft = [
        (radius * 1.25, 0.35 * radius),
        (radius * 1.25, 0.7 * radius),
        (radius, 0.9 * radius),
        (radius, height * 0.35),
        (radius * 0.84, top),
    ]
    model.turned(frame, "trim", shaft, 32 if fluted else 18, ribs=0.07 if fluted else 0)
    capital = {
        0: [(0.84, 0), (1.0, 0.3), (1.3, 0.9)],
        1: [(0.84, 0), (1.05, 0.2), (0.95, 0.5), (1.35, 1.1)],
        2: [(0.84, 0), (0.9, 0.15), (1.2, 0.35), (0.95, 0.5), (1.3, 0.75), (1.05, 0.85), (1.45, 1.2)],
    }[order]
    model.turned(frame.at(0, top), "trim", [(r * radius, v * radius) for r, v in capital], 12, ribs=0.06 * order)
    model.block(
        frame, "trim", (-1.5 * radius, 1.5 * radius), (height - 0.45 * radius, height), (-1.5 * radius, 1.5 * radius)
    )


def pediment(model: Model, frame: Frame, width: float, height: float, depth: float, rng: Rng) -> None:
    """A gable over columns with raking mouldings, figures inside and on its corners."""
    a = width / 2
    field = str(rng.choice(["wall", "mosaic", "mosaic"]))
    model.solid(frame.at(0, 0, -depth), field, [(-a, 0), (a, 0), (0, height)], 0, depth)
    rake = np.hypot(a, height)
    for side in (-1, 1):
        tilt = Frame(
            frame.world([(side * a, 0, 0)])[0],
            side * -(frame.u * a - side * frame.v * height) / rake,
            (frame.v * a + side * frame.u * height) / rake,
            frame.w,
        )
        tilt = Frame(tilt.origin, np.cross(tilt.v, tilt.w), tilt.v, tilt.w)
        u = (0, rake) if side < 0 else (-rake, 0)
        model.block(tilt, "trim", u, (0, 0.5), (-depth, 0.55))
    for u in np.linspace(-0.62, 0.62, int(rng.integers(4, 8))) * a:
        room = height * (1 - abs(u) / a) * 0.75
        statue(model, frame.at(u, 0.1, 0.1), max(0.8, room), rng, pedestal=0.08)
    for u in (-a, 0, a):
        statue(
            model,
            frame.at(u, height if u == 0 else 0.4, -0.6),
            height * 0.55,
            rng,
            "gold" if rng.random() < 0.3 else "trim",
            0.3,
        )


def facade(
    model: Model,
    frame: Frame,
    style: Style,
    rng: Rng,
    width: float,
    heights: list[float],
    bays: int,
    doors: tuple[int, ...] = (),
    tall: float = 0.62,
    part: float = 0.45,
) -> None:
    """A wall of storeys and bays about u = 0, a door in the given bays below, mouldings between, pilasters beside."""
    v, bay = 0.0, width / bays
    for storey, height in enumerate(heights):
        for number, u in enumerate(spread(bays, width)):
            here = frame.at(u, v)
            if storey == 0 and number in doors:
                portal(model, here, style, bay, height, rng)
            else:
                window(model, here, style, bay, height, rng, part, tall)
            if rng.random() < 0.4 * style.ornament:  # a roundel between two windows
                r = min(0.12 * bay, 0.16 * height)
                disc = [(np.cos(t) * r, np.sin(t) * r) for t in np.linspace(0, 2 * np.pi, 13)[:-1]]
                roundel = frame.at(u + bay / 2, v + height * rng.uniform(0.45, 0.7), 0.25)
                model.solid(roundel, str(rng.choice(["mosaic", "letters", "gold"])), disc, 0, 0.12)
                ring(model, roundel, r, r * 0.15)
        v += height
        cornice(model, frame, width, v, style, rng, 0.45)
    pilaster = min(0.5, bay * 0.09)
    for u in np.linspace(-width / 2, width / 2, bays + 1):
        model.block(frame, "trim", (u - pilaster, u + pilaster), (0, v), (0, 0.25))


def around(frame: Frame, width: float, depth: float) -> list[tuple[str, Frame, float]]:
    """The four sides of a block whose front stands at the frame: (name, frame, width)."""
    return [
        ("front", frame, width),
        ("right", frame.at(width / 2, 0, -depth / 2, np.pi / 2), depth),
        ("rear", frame.at(0, 0, -depth, np.pi), width),
        ("left", frame.at(-width / 2, 0, -depth / 2, -np.pi / 2), depth),
    ]


def body(
    model: Model,
    frame: Frame,
    style: Style,
    rng: Rng,
    width: float,
    depth: float,
    heights: list[float],
    bays: tuple[int, int],
    doors: tuple[int, ...] = (),
    part: float = 0.45,
) -> None:
    """A block with four facades; bays: of the front and of the sides."""
    for name, side, length in around(frame, width, depth):
        model.side = name
        count = bays[name in ("left", "right")]
        other = style._replace(tracery=1 + (style.tracery + (name == "rear")) % 3)
        facade(model, side, other, rng, length, heights, count, doors if name == "front" else (), part=part)
    model.side = ""
    top = sum(heights)
    model.block(frame, "roof", (-width / 2, width / 2), (top - 0.05, top + 0.05), (-depth, 0))


def tower(
    model: Model,
    frame: Frame,
    style: Style,
    rng: Rng,
    width: float,
    heights: list[float],
    cap: str,
    clock: bool = False,
    part: float = 0.4,
) -> float:
    """A square tower whose middle stands at the frame, topped by a spire, dome, helm, crown or flat roof.

    returns: its height
    """
    body(model, frame.at(0, 0, width / 2), style, rng, width, width, heights, (1, 1), part=part)
    top = sum(heights) + 0.3
    head = frame.at(0, top)
    corners = [(a * width * 0.48, b * width * 0.48) for a in (-1, 1) for b in (-1, 1)]
    if clock:
        for _, side, _ in around(frame.at(0, 0, width / 2), width, width):
            face = side.at(0, sum(heights[:-1]) + heights[-1] * 0.88, 0.3)
            disc = [(np.cos(t) * width * 0.2, np.sin(t) * width * 0.2) for t in np.linspace(0, 2 * np.pi, 19)[:-1]]
            model.solid(face, "letters", disc, 0, 0.15)
            ring(model, face.at(0, 0, 0.1), width * 0.2, width * 0.025, "gold", 0.2)
            model.block(face, "door", (-0.08, 0.08), (0, width * 0.15), (0.1, 0.25))
            model.block(face, "door", (0, width * 0.1), (-0.08, 0.08), (0.1, 0.25))
    if cap == "spire":
        height = width * rng.uniform(1.5, 2.6)
        model.pyramid(head, "roof", width * 1.02, height, 8)
        for u, w in corners:
            pinnacle(model, head.at(u, 0, w), width * 0.13, width * 0.55)
        model.turned(head.at(0, height - 0.3), "gold", [(0, 0), (0.3, 0.3), (0.1, 0.7), (0.1, 1.8), (0, 2)], 8)
    elif cap == "helm":
        height = width * rng.uniform(0.9, 1.5)
        model.pyramid(head, "roof", width * 1.1, height)
    elif cap == "dome":
        height = dome(model, head, style, rng, width * 0.46, 0.5)
    elif cap == "crown":
        height = battlements(model, frame.at(0, top, width / 2), width, width, rng)
    else:
        height = 0.5
    return top + height


def pinnacle(model: Model, frame: Frame, width: float, height: float) -> None:
    """A small post with a pointed top."""
    model.block(frame, "trim", (-width / 2, width / 2), (0, height * 0.45), (-width / 2, width / 2))
    model.pyramid(frame.at(0, height * 0.45), "trim", width * 1.2, height * 0.55)


def battlements(model: Model, frame: Frame, width: float, depth: float, rng: Rng) -> float:
    """A projecting parapet with merlons round a flat roof whose front edge is at the frame; returns its height."""
    for _, side, length in around(frame, width, depth):
        model.block(side, "wall", (-length / 2 - 0.4, length / 2 + 0.4), (-0.5, 0.9), (-0.3, 0.4))
        for u in spread(max(3, int(length / 1.6)), length):
            model.block(side, "wall", (u - 0.45, u + 0.45), (0.9, 1.9), (-0.2, 0.4))
        for u in spread(max(3, int(length / 1.1)), length):
            model.block(side, "trim", (u - 0.2, u + 0.2), (-1.2, -0.5), (0, 0.4))
    return 1.9


def dome(
    model: Model,
    frame: Frame,
    style: Style,
    rng: Rng,
    radius: float,
    drum: float,
    material: str = "dome",
    onion: bool = False,
) -> float:
    """A drum with windows between columns, a ribbed dome and a lantern; drum: its height over the radius.

    returns: the height of it all
    """
    base = radius * drum
    model.turned(frame, "wall", [(radius * 0.92, 0), (radius * 0.92, base)], 24, smooth=False)
    count = int(rng.integers(8, 13))
    for i in range(count):
        here = frame.at(0, 0, 0, 2 * np.pi * i / count)
        if base > 1.5:
            face = here.at(0, base * 0.1, radius * 0.94)
            surround(model, face, style.arch, radius * 0.2, base * 0.7, 0, 0.15, 0.2)
            tracery(model, face, style.arch, radius * 0.2, base * 0.7, 0, 1, -0.02)
            between = frame.at(0, 0, 0, 2 * np.pi * (i + 0.5) / count).at(0, 0, radius * 0.98)
            column(model, between, base, radius * 0.05, False, 1)
    model.turned(
        frame.at(0, base),
        "trim",
        [(radius * 0.9, 0), (radius * 1.08, 0.1 * radius), (radius * 1.08, 0.16 * radius), (radius, 0.18 * radius)],
        28,
    )
    start = base + 0.18 * radius
    if onion:
        shape = [(0.9, 0), (1.08, 0.25), (1.1, 0.5), (0.9, 0.85), (0.5, 1.2), (0.2, 1.5), (0.04, 1.9)]
    else:
        rise = rng.uniform(0.85, 1.3)
        shape = [(np.cos(t), rise * np.sin(t)) for t in np.linspace(0, np.pi / 2 * 0.93, 9)]
    model.turned(frame.at(0, start), material, [(r * radius, v * radius) for r, v in shape], 28)
    if not onion:
        for i in range(count):
            here = frame.at(0, start, 0, 2 * np.pi * (i + 0.5) / count)
            line = [(r * radius * 1.01, v * radius) for r, v in shape]
            for (r0, v0), (r1, v1) in zip(line[:-1], line[1:], strict=True):
                t = radius * 0.03
                model.quads(here, "trim", [(-t, v0, r0), (t, v0, r0), (t, v1, r1), (-t, v1, r1)], [(0, 1, 2, 3)])
    top = start + shape[-1][1] * radius
    r = radius * 0.16
    lantern = [(0, -0.2), (1, -0.1), (1, 1.6), (1.3, 1.7), (1.1, 2.0), (0.5, 2.6), (0.15, 2.9), (0.15, 3.8), (0, 3.9)]
    if onion:
        lantern = [(0, 0), (0.3, 0.3), (0.1, 0.6), (0.3, 0.9), (0.08, 1.3), (0.05, 2.2), (0, 2.3)]
    model.turned(frame.at(0, top), "gold" if onion else "trim", [(a * r, b * r) for a, b in lantern], 10)
    return top + lantern[-1][1] * r


def rose(model: Model, frame: Frame, radius: float, rng: Rng) -> None:
    """A rose window laid on a wall."""
    disc = [(np.cos(t) * radius, np.sin(t) * radius) for t in np.linspace(0, 2 * np.pi, 33)[:-1]]
    model.solid(frame, "glass", disc, 0, 0.12)
    for part in (1.0, 0.62, 0.25):
        ring(model, frame.at(0, 0, 0.1), radius * part, radius * 0.05, "trim", 0.3)
    count = int(rng.integers(8, 17))
    for i in range(count):
        c, s = np.cos(2 * np.pi * i / count), np.sin(2 * np.pi * i / count)
        t = radius * 0.03
        line = [
            (c * 0.25 * radius + s * t, s * 0.25 * radius - c * t),
            (c * radius + s * t, s * radius - c * t),
            (c * radius - s * t, s * radius + c * t),
            (c * 0.25 * radius - s * t, s * 0.25 * radius + c * t),
        ]
        model.solid(frame.at(0, 0, 0.1), "trim", line, 0, 0.2)
        ring(model, frame.at(c * 0.82 * radius, s * 0.82 * radius, 0.1), radius * 0.11, radius * 0.025, "trim", 0.25)


def monument_group(model: Model, frame: Frame, rng: Rng) -> Frame:
    """Statues before an inscribed, mosaiced wall: the detail that people photograph. Stands at the frame.

    returns: the frame of its middle, 2.5 m up
    """
    model.side = "niche"
    w = rng.uniform(5, 8)
    model.block(frame, "wall", (-w / 2, w / 2), (0, 5.4), (0, 0.8))
    model.quads(
        frame,
        "mosaic",
        [(-w * 0.42, 2.2, 0.85), (w * 0.42, 2.2, 0.85), (w * 0.42, 5.0, 0.85), (-w * 0.42, 5.0, 0.85)],
        [(0, 1, 2, 3)],
    )
    model.quads(
        frame,
        "letters",
        [(-w * 0.42, 0.9, 0.85), (w * 0.42, 0.9, 0.85), (w * 0.42, 2.0, 0.85), (-w * 0.42, 2.0, 0.85)],
        [(0, 1, 2, 3)],
    )
    model.block(frame, "trim", (-w / 2 - 0.3, w / 2 + 0.3), (5.3, 5.8), (-0.1, 1.2))
    for u in spread(int(rng.integers(1, 4)), w * 0.8):
        statue(model, frame.at(u, 0, 2.0), rng.uniform(2.8, 4.2), rng, "gold" if rng.random() < 0.3 else "trim")
    model.side = ""
    return frame.at(0, 2.8, 1.0)
