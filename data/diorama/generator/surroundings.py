"""What stands round the monuments of Diorama: ground, houses, trees, people, vehicles; interiors and still lifes."""

import numpy as np

from generator import monuments, parts, textures
from generator.geometry import FRONT, LIT, PAINT, Frame, Model, spread
from generator.textures import Rng, Texture

FAR = 420.0  # metres to the houses on the horizon


def around_monument(
    seed: int, size: tuple[float, float, float], beside: tuple[float, float] = (0.0, 0.0)
) -> tuple[Model, dict[str, Texture]]:
    """The fixed surroundings of a monument (its front at y = 0, its body behind): ground, road, houses, trees.

    beside: metres that are kept free on its left and on its right, for another monument
    """
    rng = np.random.default_rng([seed, 20])
    model, sheets = Model(), {}
    width, depth, _ = size
    kind = str(rng.choice(["square", "street", "park"]))
    sheets["land"] = (
        textures.grass(rng)
        if kind == "park" or rng.random() < 0.3
        else textures.paving(rng, np.array([0.36, 0.34, 0.31]) * rng.uniform(0.7, 1.2))
    )
    sheets["pavement"] = textures.paving(rng, rng.choice([(0.46, 0.42, 0.36), (0.36, 0.36, 0.37), (0.42, 0.33, 0.27)]))
    sheets["asphalt"] = textures.asphalt(rng)
    _slab(model, "land", (-700, 700), (-700, 700), 0.0)
    a = width / 2
    _slab(model, "pavement", (-a - 14, a + 14), (-rng.uniform(22, 40), depth + 16), 0.03)
    _road(model, rng, rng.uniform(45, 70))
    _houses(model, sheets, rng, width, depth, kind, beside)
    _forecourt(model, rng, width)
    for _ in range(int(rng.integers(4, 9)) + 8 * (kind == "park")):
        side = rng.choice([-1, 1])
        x = side * (a + rng.uniform(9, 26) + beside[int(side > 0)])
        tree(model, FRONT.at(x, 0, -rng.uniform(-30, depth + 45)), rng.uniform(6, 12), rng)
    for x in spread(int(rng.integers(4, 8)), 2 * a + 24):
        if abs(x) > a * 0.75 or kind == "street":
            lamp(model, FRONT.at(x, 0, rng.uniform(20, 26)))
    return model, sheets


def _forecourt(model: Model, rng: Rng, width: float) -> None:
    """What the town has put before its monument: an obelisk, a fountain, flags, hedges, or nothing."""
    kinds = rng.choice(["obelisk", "fountain", "flags", "hedges", "nothing"], 2, replace=False)
    stone = np.array([0.5, 0.47, 0.42]) * rng.uniform(0.6, 1.3) * rng.uniform(0.9, 1.1, 3)
    bright = rng.uniform(0.04, 0.6, (3, 3))
    here = FRONT.at(rng.choice([-0.4, 0.0, 0.4]) * width, 0, rng.uniform(11, 20))
    if "obelisk" in kinds:
        tall = rng.uniform(7, 15)
        model.block(here, PAINT, (-1.5, 1.5), (0, 1.6), (-1.5, 1.5), stone)
        model.block(here.at(0, 1.6), PAINT, (-0.8, 0.8), (0, tall), (-0.8, 0.8), stone * 0.85, taper=0.45)
        model.turned(here.at(0, 1.6 + tall), PAINT, [(0.5, 0), (0, 1.2)], 4, colour=(0.6, 0.45, 0.1))
    elif "fountain" in kinds:
        for radius, low, high in ((4.5, 0.0, 0.7), (2.0, 1.6, 2.1), (1.0, 2.9, 3.2)):
            profile = [
                (radius, low),
                (radius * 1.06, high),
                (radius * 0.9, high),
                (radius * 0.9, high - 0.2),
                (0, high - 0.2),
            ]
            model.turned(here, PAINT, profile, 24, smooth=False, colour=stone)
        model.turned(
            here, PAINT, [(0.6, 0), (0.4, 1.6), (0.3, 3.2), (0.5, 3.4), (0.2, 4.6), (0, 4.8)], 12, colour=stone
        )
    if "flags" in kinds:
        for u in spread(int(rng.integers(3, 7)), width):
            pole = FRONT.at(u, 0, rng.uniform(9, 9.5))
            model.turned(pole, PAINT, [(0.09, 0), (0.05, 8.5)], 6, colour=(0.5, 0.5, 0.5))
            for stripe, colour in enumerate(bright):
                model.block(pole, PAINT, (0.05, 2.4), (8.2 - 0.5 * stripe, 8.7 - 0.5 * stripe), (-0.02, 0.02), colour)
    if "hedges" in kinds:
        green = np.array([0.07, 0.13, 0.04]) * rng.uniform(0.7, 1.5)
        for side in (-1, 1):
            for w in (7.0, 12.0):
                model.block(
                    FRONT.at(side * width * 0.32, 0, w),
                    PAINT,
                    (-width * 0.16, width * 0.16),
                    (0, 1),
                    (-0.5, 0.5),
                    green,
                )
            for u in spread(3, width * 0.32):
                model.turned(
                    FRONT.at(side * width * 0.32 + u, 0, 9.5), PAINT, [(0.9, 0), (0.7, 1), (0, 3.2)], 12, colour=green
                )


def _slab(model: Model, material: str, x: tuple[float, float], y: tuple[float, float], z: float) -> None:
    model.quads(
        FRONT, material, [(x[0], z, -y[0]), (x[1], z, -y[0]), (x[1], z, -y[1]), (x[0], z, -y[1])], [(0, 1, 2, 3)]
    )


def _road(model: Model, rng: Rng, y: float) -> None:
    """A road along x at distance y before the monument, with kerbs and marks."""
    _slab(model, "asphalt", (-400, 400), (-y - 4, -y + 4), 0.04)
    for side in (-1, 1):
        model.block(FRONT.at(0, 0, y + side * 4.2), PAINT, (-400, 400), (0, 0.16), (-0.2, 0.2), (0.4, 0.39, 0.37))
    for x in np.arange(-200, 200, 6.0):
        model.block(FRONT.at(x, 0, y), PAINT, (0, 3), (0, 0.05), (-0.08, 0.08), (0.7, 0.7, 0.66))


def _houses(
    model: Model,
    sheets: dict[str, Texture],
    rng: Rng,
    width: float,
    depth: float,
    kind: str,
    beside: tuple[float, float],
) -> None:
    fronts = [f"house{i}" for i in range(4)]
    for name in fronts:
        sheets[name] = textures.house_front(rng)
    sheets["tiles"] = textures.tiles(rng, np.array([0.3, 0.17, 0.12]) * rng.uniform(0.6, 1.2))
    if kind != "park":
        for side in (-1, 1):
            y = rng.uniform(-4, 8)
            while y < depth + 60:
                w = rng.uniform(9, 16)
                x = side * (width / 2 + rng.uniform(24, 30) + beside[int(side > 0)])
                house(model, rng, FRONT.at(x, 0, -y - w / 2, -side * np.pi / 2), w, str(rng.choice(fronts)))
                y += w + (rng.uniform(4, 9) if rng.random() < 0.15 else 0.0)
        for y in np.arange(-rng.uniform(85, 95), -260, -15.0) if kind == "street" else ():  # the way to it
            for side in (-1, 1):
                here = FRONT.at(side * (width / 2 + rng.uniform(26, 32)), 0, -y, -side * np.pi / 2)
                house(model, rng, here, 14.8, str(rng.choice(fronts)))
        for x in np.arange(-70, 70, 14.0):
            house(model, rng, FRONT.at(x, 0, -depth - rng.uniform(85, 95)), 13.8, str(rng.choice(fronts)))
    _hills(model, rng)
    for angle in np.linspace(0, 2 * np.pi, 80)[:-1]:  # the horizon
        here = FRONT.at(0, 0, 0, angle).at(0, 0, -FAR * rng.uniform(0.8, 1.1))
        if rng.random() < 0.7:
            house(model, rng, here, rng.uniform(16, 34), str(rng.choice(fronts)), rng.uniform(10, 22))
        else:
            bush(model, here, rng.uniform(10, 16), rng)


def _hills(model: Model, rng: Rng) -> None:
    """Wooded hills all round, 620 m away."""
    angles = np.linspace(0, 2 * np.pi, 241)
    waves = sum(rng.uniform(0.3, 1) / k * np.sin(k * angles + rng.uniform(0, 6)) for k in range(1, 40, 3))
    heights = rng.uniform(6, 26) + rng.uniform(8, 22) * waves
    low, high = (np.stack([620 * np.sin(angles), np.full(241, v), 620 * np.cos(angles)], 1) for v in (-10.0, 0.0))
    high[:, 1] = np.maximum(heights, 0.5)
    tint = np.array([0.10, 0.14, 0.09]) + rng.uniform(0, 0.05, 3)
    quads = [(i, 241 + i, 241 + i + 1, i + 1) for i in range(240)]
    shade = np.repeat(rng.uniform(0.7, 1.25, (240, 1)), 2, axis=0)
    model.quads(FRONT, PAINT, np.concatenate([low, high]), quads, tint * shade)


def house(model: Model, rng: Rng, frame: Frame, width: float, front: str, height: float | None = None) -> None:
    """A town house whose front stands at the frame."""
    height, depth = height or rng.uniform(9, 16), rng.uniform(9, 12)
    model.block(frame, front, (-width / 2, width / 2), (0, height), (-depth, 0))
    if rng.random() < 0.75:
        ridge = frame.at(width / 2, height, -depth / 2, np.pi / 2)
        model.gabled(ridge, "tiles", front, depth, rng.uniform(2.5, 4.5), width)
        for _ in range(int(rng.integers(0, 3))):
            u = rng.uniform(-0.4, 0.4) * width
            model.block(frame.at(u, height, -depth / 2), "tiles", (-0.5, 0.5), (0, 5), (-0.4, 0.4))
    else:
        model.block(
            frame, PAINT, (-width / 2 - 0.4, width / 2 + 0.4), (height, height + 0.6), (-depth, 0.5), (0.5, 0.47, 0.42)
        )


def tree(model: Model, frame: Frame, height: float, rng: Rng, leaves: int = 1500) -> None:
    """A broad-leaved tree, or a slender one: a trunk with boughs, and leaves as many small triangles."""
    slender = rng.random() < 0.2
    spreadness = height * (0.14 if slender else rng.uniform(0.26, 0.36))
    bark = np.array([0.12, 0.09, 0.07]) * rng.uniform(0.6, 1.3)
    r = height * 0.025
    model.turned(frame, PAINT, [(r * 1.5, 0), (r, height * 0.15), (r * 0.5, height * 0.7)], 8, colour=bark)
    centres = [(0.0, height * 0.62, 0.0)]
    for _ in range(9):
        t = rng.uniform(0, 2 * np.pi)
        out, up = rng.uniform(0.3, 0.75) * spreadness, height * rng.uniform(0.4, 0.85)
        centres.append((out * np.sin(t), up, out * np.cos(t)))
        model.turned(
            frame.at(0, height * 0.3, 0, t),
            PAINT,
            [(r * 0.4, 0), (r * 0.15, up - height * 0.3)],
            5,
            (1, 1),
            colour=bark,
        )
    _leaves(
        model,
        frame,
        np.array(centres),
        spreadness * (0.62 if not slender else 0.8),
        leaves,
        rng,
        np.array([1, 1.6 if slender else 0.8, 1]),
        size=height * 0.05 * (1500 / leaves) ** 0.5,  # many small ones where it is seen from close
    )


def bush(model: Model, frame: Frame, width: float, rng: Rng) -> None:
    """A mass of foliage on the ground, for far away."""
    centres = np.stack([rng.uniform(-width, width, 8), rng.uniform(0.1, 0.4, 8) * width, rng.uniform(-2, 2, 8)], 1)
    _leaves(model, frame, centres, width * 0.45, 260, rng, np.array([1, 0.8, 0.5]), size=width * 0.16)


def _leaves(
    model: Model,
    frame: Frame,
    centres: np.ndarray,
    radius: float,
    count: int,
    rng: Rng,
    squash: np.ndarray,
    size: float,
) -> None:
    tint = np.array([0.10, 0.16, 0.04]) * rng.uniform(0.7, 1.3) + rng.uniform(0, 0.05, 3) * np.array([1.6, 0.8, 0.1])
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    r = radius * rng.uniform(0.55, 1.0, (count, 1)) ** 0.7
    middle = centres[rng.integers(len(centres), size=count)] + direction * r * squash
    corners = middle[:, None] + size * rng.normal(0, 0.5, (count, 3, 3))
    corners[..., 1] = np.maximum(corners[..., 1], 0.05)
    shade = 0.75 + 0.35 * direction[:, 1:2] + rng.normal(0, 0.16, (count, 1))
    colours = np.clip(tint * shade.clip(0.35) * (1 + rng.normal(0, 0.08, (count, 3))), 0.01, 0.6)
    model.flat(frame, PAINT, corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3), colours)


def lamp(model: Model, frame: Frame) -> None:
    """A street lamp."""
    iron = (0.03, 0.035, 0.03)
    model.turned(frame, PAINT, [(0.2, 0), (0.12, 0.8), (0.06, 1.0), (0.05, 4.2)], 8, colour=iron)
    model.turned(frame.at(0, 4.2), PAINT, [(0.1, 0), (0.28, 0.5), (0.05, 0.7), (0, 0.9)], 6, colour=(0.6, 0.6, 0.55))


def stall(model: Model, frame: Frame, rng: Rng) -> None:
    """A market stall under a striped awning, or a large umbrella."""
    first_colour, second_colour = rng.uniform(0.04, 0.7, (2, 3))
    if rng.random() < 0.4:
        model.turned(frame, PAINT, [(0.05, 0), (0.05, 2.3)], 6, colour=(0.4, 0.3, 0.2))
        for side in range(8):
            here = frame.at(0, 2.1, 0, side * np.pi / 4)
            model.flat(
                here,
                PAINT,
                [(-0.7, 0, 1.7), (0.7, 0, 1.7), (0, 0.7, 0)],
                [(0, 1, 2)],
                first_colour if side % 2 else second_colour,
            )
        return
    wide = rng.uniform(2.4, 4)
    for u in (-wide / 2, wide / 2):
        for w in (-1.0, 1.0):
            model.block(frame.at(u, 0, w), PAINT, (-0.04, 0.04), (0, 2.4), (-0.04, 0.04), (0.5, 0.5, 0.5))
    for number, u in enumerate(np.arange(-wide / 2, wide / 2, 0.4)):
        stripe = first_colour if number % 2 else second_colour
        model.quads(
            frame, PAINT, [(u, 2.3, 1.5), (u + 0.4, 2.3, 1.5), (u + 0.4, 2.9, -1), (u, 2.9, -1)], [(0, 1, 2, 3)], stripe
        )
    model.block(frame, PAINT, (-wide / 2, wide / 2), (0, 0.9), (-0.6, 0.8), rng.uniform(0.1, 0.5, 3))
    for u in spread(int(wide / 0.35), wide):
        goods = rng.uniform(0.04, 0.7, 3)
        model.turned(
            frame.at(u, 0.9, rng.uniform(-0.3, 0.5)),
            PAINT,
            [(0, 0), (0.15, 0.1), (0.1, 0.3), (0, 0.35)],
            7,
            colour=goods,
        )


def scaffold(model: Model, frame: Frame, width: float, height: float, rng: Rng) -> None:
    """Poles, planks and nets; the frame is in the middle of its foot."""
    steel, wood = np.array([0.32, 0.33, 0.35]), np.array([0.30, 0.21, 0.12])
    net = rng.choice([(0.10, 0.22, 0.14), (0.50, 0.50, 0.48), (0.12, 0.16, 0.30)])
    poles, floors = np.arange(-width / 2, width / 2 + 0.1, 2.4), np.arange(2.0, height, 2.1)
    for u in poles:
        for w in (0.0, -1.2):
            model.block(frame.at(u, 0, w), PAINT, (-0.05, 0.05), (0, height + 0.8), (-0.05, 0.05), steel)
    for v in floors:
        model.block(frame.at(0, v), PAINT, (-width / 2, width / 2), (0, 0.07), (-1.3, 0.1), wood)
        model.block(frame.at(0, v + 1.0), PAINT, (-width / 2, width / 2), (0, 0.06), (-0.03, 0.03), steel)
        for u in poles[:-1]:
            if rng.random() < 0.3:
                model.block(frame.at(u, v, 0.08), PAINT, (0.05, 2.3), (-0.9, 1.1), (0, 0.02), net)


def person(model: Model, frame: Frame, rng: Rng) -> None:
    """Somebody who stands or walks at the frame."""
    h, turn = rng.uniform(1.5, 1.9), rng.uniform(0, 2 * np.pi)
    here = frame.at(0, 0, 0, turn)
    coat, legs = rng.uniform(0.02, 0.45) + rng.normal(0, 0.08, 3), rng.uniform(0.02, 0.2) + rng.normal(0, 0.03, 3)
    coat, legs = coat.clip(0.015, 0.7), legs.clip(0.01, 0.5)
    skin = np.array([0.55, 0.36, 0.26]) * rng.uniform(0.35, 1.1)
    hair = np.array([0.12, 0.08, 0.05]) * rng.uniform(0.2, 2.5)
    stride = rng.uniform(-0.14, 0.14) * h
    for side in (-1, 1):
        foot = here.at(side * 0.05 * h, 0, side * stride)
        tilt = _leaning(foot, here.at(side * 0.045 * h, 0.48 * h))
        model.turned(tilt, PAINT, [(0.035 * h, 0), (0.04 * h, 0.2 * h), (0.06 * h, 0.49 * h)], 7, colour=legs)
        model.block(foot, PAINT, (-0.03 * h, 0.03 * h), (0, 0.045 * h), (-0.04 * h, 0.1 * h), (0.03, 0.025, 0.02))
        hand = here.at(side * 0.15 * h, 0.47 * h, -side * stride)
        model.turned(
            _leaning(hand, here.at(side * 0.105 * h, 0.8 * h)),
            PAINT,
            [(0.02 * h, -0.03 * h), (0.026 * h, 0), (0.035 * h, 0.34 * h)],
            6,
            colour=coat,
        )
    model.turned(
        here,
        PAINT,
        [(0.08 * h, 0.44 * h), (0.1 * h, 0.5 * h), (0.095 * h, 0.62 * h), (0.12 * h, 0.78 * h), (0.04 * h, 0.85 * h)],
        10,
        (1, 0.65),
        colour=coat,
    )
    model.turned(
        here,
        PAINT,
        [(0.03 * h, 0.84 * h), (0.055 * h, 0.88 * h), (0.06 * h, 0.92 * h), (0.05 * h, 0.96 * h)],
        9,
        colour=skin,
    )
    model.turned(
        here.at(0, 0, -0.008 * h), PAINT, [(0.065 * h, 0.93 * h), (0.06 * h, 0.97 * h), (0, h)], 9, colour=hair
    )
    if rng.random() < 0.4:
        bag = rng.uniform(0.02, 0.5, 3)
        model.block(here, PAINT, (-0.08 * h, 0.08 * h), (0.55 * h, 0.76 * h), (-0.14 * h, -0.07 * h), bag)


def _leaning(low: Frame, high: Frame) -> Frame:
    """A frame at `low` whose v points to the origin of `high`."""
    v = high.origin - low.origin
    v = v / np.linalg.norm(v)
    u = np.cross(v, low.w)
    u = u / np.linalg.norm(u)
    return Frame(low.origin, u, v, np.cross(u, v))


def car(model: Model, frame: Frame, rng: Rng, kind: str = "car") -> None:
    """A car, van or bus along u, its middle at the frame."""
    colour = rng.choice(
        [
            (0.5, 0.5, 0.52),
            (0.04, 0.04, 0.05),
            (0.35, 0.04, 0.04),
            (0.05, 0.09, 0.25),
            (0.62, 0.62, 0.6),
            (0.1, 0.16, 0.12),
            (0.5, 0.4, 0.12),
        ]
    ) * rng.uniform(0.7, 1.1)
    length, height, wide = {"car": (4.3, 1.45, 1.7), "van": (5.4, 2.3, 1.9), "bus": (11.5, 3.1, 2.5)}[kind]
    a, b = length / 2, wide / 2
    if kind == "car":
        lower = [(-a, 0.3), (a, 0.3), (a, 0.75), (a * 0.62, 0.88), (-a * 0.95, 0.92), (-a, 0.7)]
        upper = [(-a * 0.85, 0.9), (a * 0.5, 0.88), (a * 0.18, height), (-a * 0.5, height)]
        model.solid(frame, PAINT, lower, -b, b, colour)
        model.solid(frame, "window", [(u * 0.99, v) for u, v in upper], -b * 0.93, b * 0.93)
        model.block(frame, PAINT, (-a * 0.5, a * 0.19), (height - 0.02, height + 0.04), (-b * 0.9, b * 0.9), colour)
    else:
        model.block(frame, PAINT, (-a, a), (0.35, height), (-b, b), colour)
        if kind == "bus":
            model.block(
                frame,
                PAINT,
                (-a * 0.98, a * 0.7),
                (height * 0.33, height * 0.42),
                (-b - 0.02, b + 0.02),
                rng.uniform(0.1, 0.6, 3),
            )
        count = 6 if kind == "bus" else 2
        for u in spread(count, length * 0.9):
            w = length * 0.4 / count
            model.block(frame, "window", (u - w, u + w), (height * 0.5, height * 0.85), (-b - 0.03, b + 0.03))
    for u in (-a * 0.62, a * 0.62):
        for w in (-b, b):
            wheel = frame.at(u, 0.33, w)
            wheel = Frame(wheel.origin, wheel.u, -wheel.w, wheel.v)
            model.turned(
                wheel,
                PAINT,
                [(0, -0.1), (0.33, -0.1), (0.33, 0.1), (0, 0.1)],
                14,
                smooth=False,
                colour=(0.02, 0.02, 0.02),
            )


# ---- scenes without a monument


def interior(seed: int, palette: int | None = None) -> tuple[Model, dict[str, Texture], tuple[float, float, float]]:
    """A nave with aisles, arcades, vaults, tiled floor, altar and pews; its axis runs along +y from y = 0.

    returns: model, textures, (width, length, height)
    """
    rng = np.random.default_rng([seed, 30])
    model = Model()
    style = parts.Style(str(rng.choice(["pointed", "round", "horseshoe"])), int(rng.integers(1, 4)), 0.2, 0.6, 0.9)
    bays, bay = int(rng.integers(5, 8)), rng.uniform(4.5, 6)
    width, height = rng.uniform(9, 13), rng.uniform(10, 16)
    length, arcade = bays * bay, height * rng.uniform(0.42, 0.55)
    radius, order = rng.uniform(0.4, 0.65), int(rng.integers(3))
    _slab(model, "floor", (-width, width), (0, length), 0.0)
    for side, name in ((-1, "left"), (1, "right")):
        model.side = name
        wall = FRONT.at(side * width / 2, 0, -length / 2, -side * np.pi / 2)
        outer = FRONT.at(side * width, 0, -length / 2, -side * np.pi / 2)
        for u in spread(bays, length):
            parts.panel(model, wall.at(u, 0), bay, arcade + 1, style.arch, bay - 2.2 * radius, arcade, 0, 0.7)
            parts.surround(model, wall.at(u, 0), style.arch, bay - 2.2 * radius - 0.4, arcade - 0.2, 0, 0.3, 0.25)
            parts.window(model, wall.at(u, arcade + 1), style, bay, height - arcade - 1, rng, 0.35, 0.6)
            parts.window(model, outer.at(u, 0), style, bay, arcade + 2, rng, 0.4, 0.6)
        for u in np.linspace(-length / 2, length / 2, bays + 1):
            parts.column(model, wall.at(u, 0, 0.1), arcade * 0.72, radius, False, order)
            model.block(wall.at(u, 0, 0), "trim", (-0.25, 0.25), (arcade * 0.72, height), (0, 0.35))
        parts.frieze(model, wall, length, arcade + 0.3, 0.7, 0.9, rng)
        for _ in range(3):
            parts.statue(model, wall.at(rng.uniform(-0.4, 0.4) * length, 0, 0.9), 2.6, rng)
        model.quads(
            outer,
            "wall",
            [
                (-length / 2, arcade + 2, 0),
                (length / 2, arcade + 2, 0),
                (length / 2, arcade + 2, width / 2),
                (-length / 2, arcade + 2, width / 2),
            ],
            [(0, 1, 2, 3)],
        )
    model.side = "vault"
    t = np.linspace(np.pi, 0, 13)
    line = [(np.cos(x) * width / 2, height + np.sin(x) * width * 0.35) for x in t]
    model.band(FRONT, "wall" if rng.random() < 0.6 else "mosaic", line, -length, 0)
    for w in np.linspace(0, length, bays + 1):
        rib = [(u * 0.985, v - 0.05) for u, v in line]
        model.band(FRONT, "trim", rib, -w - 0.3, -w + 0.3)
    model.side = "apse"
    end = FRONT.at(0, 0, -length)
    model.block(end, "wall", (-width, width), (0, height * 1.5), (-1, 0))
    parts.rose(model, end.at(0, height * 0.85, 0.1), width * 0.22, rng)
    model.block(end, "mosaic", (-width * 0.35, width * 0.35), (1.5, height * 0.55), (0, 0.15))
    for u in spread(int(rng.integers(2, 5)), width * 0.8):
        parts.statue(model, end.at(u, 1.0, 1.2), rng.uniform(2.5, 4), rng, "gold" if rng.random() < 0.5 else "trim")
    model.block(end, "trim", (-2, 2), (0, 1.1), (2, 3))
    model.block(FRONT, "wall", (-width, width), (0, height * 1.5), (0, 1))
    model.side = ""
    wood = np.array([0.16, 0.09, 0.05]) * rng.uniform(0.6, 1.6)
    for w in np.arange(length * 0.2, length * 0.75, 1.3):
        for side in (-1, 1):
            seat = FRONT.at(side * width * 0.24, 0, -w)
            model.block(seat, PAINT, (-width * 0.16, width * 0.16), (0.4, 0.46), (-0.4, 0), wood)
            model.block(seat, PAINT, (-width * 0.16, width * 0.16), (0, 0.95), (-0.06, 0), wood)
    index = int(rng.integers(len(monuments.PALETTES)))
    model.rename("glass", LIT)
    named = [name for name in model.surfaces() if name not in (PAINT, "floor", LIT)]
    sheets = monuments.material_textures(rng, named, index if palette is None else palette)
    sheets[LIT] = textures.mosaic(rng, rng.uniform(0.15, 1, (6, 3)) ** 1.5, 3.0)
    tiles = rng.choice(["mosaic", "paving", "marble"])
    sheets["floor"] = {
        "mosaic": lambda: textures.mosaic(rng, rng.uniform(0.1, 0.5, (4, 1)) * np.array([1, 0.9, 0.8]), 12.0),
        "paving": lambda: textures.paving(rng, (0.4, 0.36, 0.3), 20.0),
        "marble": lambda: textures.marble(rng, (0.55, 0.52, 0.5), 12.0),
    }[str(tiles)]()
    return model, sheets, (2 * width, length, height * 1.35)


def street(seed: int) -> tuple[Model, dict[str, Texture]]:
    """A street of town houses along y, with trees, lamps and parked cars."""
    rng = np.random.default_rng([seed, 31])
    model, sheets = Model(), {}
    sheets["land"] = textures.paving(rng, (0.38, 0.36, 0.34))
    sheets["asphalt"] = textures.asphalt(rng)
    sheets["tiles"] = textures.tiles(rng, np.array([0.3, 0.17, 0.12]) * rng.uniform(0.6, 1.2))
    _slab(model, "land", (-300, 300), (-100, 300), 0.0)
    wide = rng.uniform(6, 9)
    _slab(model, "asphalt", (-wide / 2, wide / 2), (-100, 300), 0.03)
    fronts = [f"house{i}" for i in range(7)]
    for name in fronts:
        sheets[name] = textures.house_front(rng)
    for side in (-1, 1):
        y = -30.0
        while y < 160:
            w = rng.uniform(8, 15)
            house(
                model,
                rng,
                FRONT.at(side * (wide / 2 + rng.uniform(3, 3.6)), 0, -y - w / 2, -side * np.pi / 2),
                w,
                str(rng.choice(fronts)),
            )
            y += w
        for y in np.arange(0, 100, rng.uniform(9, 16)):
            here = FRONT.at(side * (wide / 2 + 1.2), 0, -y)
            (tree(model, here, rng.uniform(5, 8), rng, 900) if rng.random() < 0.35 else lamp(model, here))
            if rng.random() < 0.6:
                car(model, FRONT.at(side * (wide / 2 - 1), 0, -y - 5, np.pi / 2), rng)
    house(model, rng, FRONT.at(0, 0, -170), 30, fronts[0], 20)
    return model, sheets


def park(seed: int) -> tuple[Model, dict[str, Texture]]:
    """A park about the origin: lawn, path, trees, a statue, a low wall, boulders."""
    rng = np.random.default_rng([seed, 32])
    model, sheets = Model(), {}
    sheets["land"], sheets["path"] = textures.grass(rng), textures.paving(rng, (0.45, 0.40, 0.32))
    _slab(model, "land", (-500, 500), (-500, 500), 0.0)
    _slab(model, "path", (-2.2, 2.2), (-60, 60), 0.03)
    for _ in range(int(rng.integers(9, 18))):
        x, y = rng.choice([-1, 1]) * rng.uniform(5, 30), rng.uniform(-8, 50)
        tree(model, FRONT.at(x, 0, -y), rng.uniform(5, 14), rng)
    for angle in np.linspace(0, 2 * np.pi, 40):
        bush(model, FRONT.at(0, 0, 0, angle).at(0, 0, -rng.uniform(80, 110)), rng.uniform(7, 14), rng)
    model.block(
        FRONT.at(rng.uniform(-6, 6), 0, -rng.uniform(10, 16)), "wall", (-5, 5), (0, rng.uniform(0.8, 1.6)), (-0.4, 0)
    )
    parts.statue(model, FRONT.at(rng.uniform(-4, 4), 0, -rng.uniform(3, 7)), rng.uniform(3, 5), rng)
    for _ in range(int(rng.integers(3, 9))):
        boulder(model, FRONT.at(rng.uniform(-9, 9), 0, -rng.uniform(-2, 9)), rng.uniform(0.2, 0.9), rng)
    sheets |= monuments.material_textures(rng, ["wall", "trim"], int(rng.integers(len(monuments.PALETTES))))
    return model, sheets


def boulder(model: Model, frame: Frame, radius: float, rng: Rng) -> None:
    """A rough stone."""
    profile = [(0.0, -0.2)] + [(np.sin(t), 0.9 - np.cos(t)) for t in np.linspace(0.5, np.pi * 0.95, 6)]
    profile = [(r * radius * rng.uniform(0.85, 1.1), v * radius * 0.6) for r, v in profile] + [(0, 1.15 * radius)]
    model.turned(frame, "wall", profile, 16, tuple(rng.uniform(0.7, 1.3, 2)))


def still_life(seed: int) -> tuple[Model, dict[str, Texture]]:
    """Jars, boxes, books and fruit on a table by a wall; the table's front edge at y = 0, lengths ten times life."""
    rng = np.random.default_rng([seed, 33])
    model = Model()
    _slab(model, "floor", (-60, 60), (-60, 60), 0.0)
    model.block(FRONT.at(0, 0, -9), "backdrop", (-40, 40), (0, 40), (-1, 0))
    for x in spread(int(rng.integers(5, 9)), 18):
        here = FRONT.at(x + rng.uniform(-1, 1), 0, -rng.uniform(1.5, 7), rng.uniform(-0.7, 0.7))
        kind, colour = rng.integers(4), rng.uniform(0.05, 0.6, 3)
        if kind == 0:
            radii = np.interp(np.linspace(0, 1, 9), np.linspace(0, 1, 5), rng.uniform(0.4, 1.3, 5))
            model.turned(
                here, PAINT, list(zip(radii, np.linspace(0, rng.uniform(2.5, 5), 9), strict=True)), 24, colour=colour
            )
        elif kind == 1:
            top = 0.0
            for i in range(int(rng.integers(1, 5))):
                thick = rng.uniform(0.3, 0.7)
                model.block(here.at(0, top, 0, rng.uniform(-0.3, 0.3)), f"cover{i}", (-1.4, 1.4), (0, thick), (-1, 1))
                top += thick
        elif kind == 2:
            for _ in range(int(rng.integers(2, 6))):
                r = rng.uniform(0.4, 0.7)
                arc = [(np.sin(t) * r, r - np.cos(t) * r) for t in np.linspace(0, np.pi, 9)]
                model.turned(
                    here.at(rng.uniform(-1, 1), 0, rng.uniform(-1, 1)),
                    PAINT,
                    arc,
                    18,
                    colour=colour * rng.uniform(0.7, 1.3),
                )
        else:
            model.block(here, f"cover{rng.integers(4)}", (-1, 1), (0, rng.uniform(1.5, 4)), (-0.6, 0.6))
    sheets: dict[str, Texture] = {}
    sheets["floor"] = textures.metal(rng, np.array([0.32, 0.2, 0.11]) * rng.uniform(0.5, 1.5), 14.0)
    sheets["backdrop"] = textures.plaster(rng, rng.uniform(0.3, 0.7, 3), 30.0)
    for name in sorted(model.surfaces()):
        if name.startswith("cover"):
            maker = textures.mosaic if rng.random() < 0.5 else textures.inscription
            palette = rng.uniform(0.05, 0.7, (5, 3))
            sheets[name] = maker(rng, palette if maker is textures.mosaic else palette[0], 5.0)
    return model, sheets
