"""Triangles for Diorama: blocks, panels with openings, turned solids, gathered by material.

Lengths are metres. A `Frame` places local coordinates (u to the right, v upward, w outward) in the world
(x, y, z upward); walls, columns and roofs are described in the frame of the side that they stand on.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

Outline = list[tuple[float, float]]

PAINT = "paint"  # a material that takes its colour from the faces
LIT = "daylight"  # a material that shines by itself: the windows of an interior
REAR_SHIFT = (5.3, 3.7)  # metres, no part of the length of a texture
OWN = ("wall", "mosaic", "letters")  # materials that have a texture for every side of a monument


class Frame(NamedTuple):
    """A right-handed frame: origin (3,) and the world directions (3,) of u, v, w."""

    origin: np.ndarray
    u: np.ndarray
    v: np.ndarray
    w: np.ndarray

    def at(self, u: float, v: float, w: float = 0.0, turn: float = 0.0) -> "Frame":
        """The frame moved to (u, v, w) and turned about its own v by `turn` radians, counter-clockwise from above."""
        origin = self.origin + u * self.u + v * self.v + w * self.w
        c, s = np.cos(turn), np.sin(turn)
        return Frame(origin, c * self.u - s * self.w, self.v, s * self.u + c * self.w)

    def world(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) local points in the world."""
        return self.origin + np.asarray(points) @ np.stack([self.u, self.v, self.w])


# Looking at the front of a monument: u to the right, v up, w toward the viewer (who stands at negative y).
FRONT = Frame(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), np.array([0, -1.0, 0]))


class Surface(NamedTuple):
    """Triangles of one material: positions and normals (N, 3), texture coordinates in metres (N, 2), faces (M, 3),
    and a colour per face (M, 3) where the material takes its colour from the faces."""

    positions: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    colours: np.ndarray


class Model:
    """Gathers triangles by material.

    side: the part of the monument that is being built ("front", "rear", …); the materials in OWN are kept apart for
    every side, because each side gets a texture of its own
    """

    def __init__(self) -> None:
        self.side = ""
        self._pieces: dict[str, list[tuple]] = defaultdict(list)

    def surfaces(self) -> dict[str, Surface]:
        """Material → all its triangles."""
        result = {}
        for material, pieces in self._pieces.items():
            start = np.cumsum([0] + [len(piece[0]) for piece in pieces[:-1]])
            faces = [piece[3] + first for piece, first in zip(pieces, start, strict=True)]
            columns = [np.concatenate([piece[i] for piece in pieces]) for i in (0, 1, 2)]
            colours = np.concatenate([piece[4] for piece in pieces])
            result[material] = Surface(*columns, np.concatenate(faces), colours)
        return result

    def placed(self, frame: Frame, prefix: str) -> "Model":
        """A copy that stands at another frame instead of FRONT; its textured materials are named prefix:material."""
        turn = np.stack([frame.u, -frame.w, frame.v])  # rows: where x, y and z of the world go
        moved = Model()
        for material, pieces in self._pieces.items():
            name = material if material == PAINT else f"{prefix}:{material}"
            moved._pieces[name] = [
                (points @ turn + frame.origin, normals @ turn, *rest) for points, normals, *rest in pieces
            ]
        return moved

    def rename(self, material: str, name: str) -> None:
        """Give a material's triangles to another material."""
        self._pieces[name] += self._pieces.pop(material, [])

    def flat(self, frame: Frame, material: str, points, faces, colour=(1.0, 1.0, 1.0)) -> None:
        """Flat triangles; points (N, 3) local, faces (M, 3), counter-clockwise from outside.

        The texture is laid on along the axis that a face looks to most, so that stones keep their size.
        colour: one for all faces, or (M, 3)
        """
        corners = np.asarray(points, float)[np.asarray(faces)]  # (M, 3, 3)
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        lengths = np.linalg.norm(normals, axis=1)
        corners, normals = corners[lengths > 1e-9], normals[lengths > 1e-9]
        colours = np.broadcast_to(np.asarray(colour, float), (len(lengths), 3))[lengths > 1e-9]
        if not len(corners):
            return
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        along = np.abs(normals).argmax(1)
        across = np.array([[2, 1], [0, 2], [0, 1]])[along]  # (M, 2): the two other axes
        uv = np.take_along_axis(corners, across[:, None, :].repeat(3, 1), 2)
        self._add(
            frame,
            material,
            corners.reshape(-1, 3),
            normals.repeat(3, 0),
            uv.reshape(-1, 2),
            np.arange(3 * len(corners)).reshape(-1, 3),
            colours,
        )

    def _add(self, frame: Frame, material: str, points, normals, uv, faces, colours) -> None:
        name = f"{material}/{self.side}" if self.side and material in OWN else material
        turn = np.stack([frame.u, frame.v, frame.w])
        # What stands elsewhere shows another part of the texture, and so does the rear of what is symmetric.
        shift = np.array([frame.origin @ frame.u, frame.origin @ frame.v])
        shift += REAR_SHIFT if self.side == "rear" else 0.0
        self._pieces[name].append((frame.world(points), normals @ turn, uv + shift, faces, colours))

    def block(
        self,
        frame: Frame,
        material: str,
        u: tuple[float, float],
        v: tuple[float, float],
        w: tuple[float, float],
        colour=(1.0, 1.0, 1.0),
        taper: float = 0.0,
    ) -> None:
        """A box between two values of u, v and w; `taper` (0 to 1) draws its top together."""
        (u0, u1), (v0, v1), (w0, w1) = u, v, w
        du, dw = taper * (u1 - u0) / 2, taper * (w1 - w0) / 2
        points = [
            (u0, v0, w0),
            (u1, v0, w0),
            (u1, v0, w1),
            (u0, v0, w1),
            (u0 + du, v1, w0 + dw),
            (u1 - du, v1, w0 + dw),
            (u1 - du, v1, w1 - dw),
            (u0 + du, v1, w1 - dw),
        ]
        quads = [(3, 2, 6, 7), (1, 0, 4, 5), (0, 3, 7, 4), (2, 1, 5, 6), (7, 6, 5, 4), (0, 1, 2, 3)]
        self.quads(frame, material, points, quads, colour)

    def quads(self, frame: Frame, material: str, points, quads, colour=(1.0, 1.0, 1.0)) -> None:
        """Four-sided faces."""
        faces = [half for a, b, c, d in quads for half in ((a, b, c), (a, c, d))]
        self.flat(frame, material, points, faces, colour)

    def strip(self, frame: Frame, material: str, lower: Outline, upper: Outline, w: float) -> None:
        """The area between two lines with as many points, at depth w, seen from outside."""
        n = len(lower)
        points = [(a, b, w) for a, b in [*lower, *upper]]
        self.quads(frame, material, points, [(i, i + 1, n + i + 1, n + i) for i in range(n - 1)])

    def band(
        self,
        frame: Frame,
        material: str,
        outline: Outline,
        w0: float,
        w1: float,
        inward: bool = False,
        colour=(1.0, 1.0, 1.0),
    ) -> None:
        """The surface swept by an open outline from depth w0 to w1 (w0 < w1); inward: seen from the other side."""
        n = len(outline)
        points = [(a, b, w) for w in (w0, w1) for a, b in outline]
        quads = [(i, n + i, n + i + 1, i + 1) if inward else (i, i + 1, n + i + 1, n + i) for i in range(n - 1)]
        self.quads(frame, material, points, quads, colour)

    def solid(
        self, frame: Frame, material: str, outline: Outline, w0: float, w1: float, colour=(1.0, 1.0, 1.0)
    ) -> None:
        """A convex counter-clockwise outline, swept from w0 to w1."""
        n = len(outline)
        points = [(a, b, w) for w in (w0, w1) for a, b in outline]
        faces = [(n, n + i, n + i + 1) for i in range(1, n - 1)] + [(0, i + 1, i) for i in range(1, n - 1)]
        self.flat(frame, material, points, faces, colour)
        self.band(frame, material, [*outline, outline[0]], w0, w1, colour=colour)

    def turned(
        self,
        frame: Frame,
        material: str,
        profile: Iterable[tuple[float, float]],
        sides: int = 20,
        squash: tuple[float, float] = (1.0, 1.0),
        smooth: bool = True,
        colour=(1.0, 1.0, 1.0),
        ribs: float = 0.0,
    ) -> None:
        """A solid of revolution about v; profile: (radius, height) upward.

        sides: corners of the circle; squash: scale in u and w; ribs: depth of flutes, as a part of the radius
        """
        profile = np.array(list(profile), float)
        angles = np.linspace(0, 2 * np.pi, sides + 1)
        wave = 1 - ribs * (np.arange(sides + 1) % 2)
        radius = profile[:, :1] * wave  # (P, sides + 1)
        points = np.stack(
            [
                radius * np.sin(angles) * squash[0],
                np.repeat(profile[:, 1:], sides + 1, 1),
                radius * np.cos(angles) * squash[1],
            ],
            -1,
        )
        p, s = np.meshgrid(np.arange(len(profile) - 1), np.arange(sides), indexing="ij")
        a = (p * (sides + 1) + s).ravel()
        b, c, d = a + 1, a + sides + 2, a + sides + 1
        faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
        points = points.reshape(-1, 3)
        if not smooth or ribs:
            self.flat(frame, material, points, faces, colour)
            return
        normals = np.zeros_like(points)
        corner = points[faces]
        weighted = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        for i in range(3):
            np.add.at(normals, faces[:, i], weighted)
        seam = normals.reshape(len(profile), sides + 1, 3)
        seam[:, 0] += seam[:, -1]
        seam[:, -1] = seam[:, 0]
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = np.where(length > 1e-9, normals / np.maximum(length, 1e-9), (0.0, 1.0, 0.0))
        climb = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])
        uv = np.stack(
            [
                np.broadcast_to(angles * profile[:, 0].max(), radius.shape),
                np.broadcast_to(climb[:, None], radius.shape),
            ],
            -1,
        ).reshape(-1, 2)
        self._add(
            frame, material, points, normals, uv, faces, np.broadcast_to(np.asarray(colour, float), (len(faces), 3))
        )

    def pyramid(
        self, frame: Frame, material: str, width: float, height: float, sides: int = 4, depth: float | None = None
    ) -> None:
        """A pyramid over a regular polygon `width` wide (a rectangle width by depth for four sides)."""
        if sides == 4:
            a, b = width / 2, (depth or width) / 2
            base = [(-a, 0, b), (a, 0, b), (a, 0, -b), (-a, 0, -b)]
        else:
            angles = (np.arange(sides) + 0.5) * 2 * np.pi / sides
            base = [(np.sin(t) * width / 2, 0, np.cos(t) * width / 2) for t in angles]
        faces = [(i, (i + 1) % sides, sides) for i in range(sides)]
        self.flat(frame, material, [*base, (0, height, 0)], faces)

    def gabled(
        self, frame: Frame, material: str, wall: str, width: float, height: float, depth: float, eaves: float = 0.4
    ) -> None:
        """A gabled roof whose ridge runs along w, from w = 0 back to -depth; its gables are of material `wall`."""
        a, e = width / 2, eaves
        drop = height * e / a
        points = [
            (-a - e, -drop, e),
            (0, height, e),
            (a + e, -drop, e),
            (-a - e, -drop, -depth - e),
            (0, height, -depth - e),
            (a + e, -drop, -depth - e),
        ]
        self.quads(frame, material, points, [(0, 1, 4, 3), (1, 2, 5, 4)])
        under = [(x, y - 0.25, z) for x, y, z in points]
        self.quads(
            frame,
            material,
            [*points, *under],
            [
                (6, 9, 10, 7),
                (7, 10, 11, 8),
                (0, 6, 7, 1),
                (1, 7, 8, 2),
                (4, 10, 9, 3),
                (5, 11, 10, 4),
                (0, 3, 9, 6),
                (2, 8, 11, 5),
            ],
        )
        gable = [(-a, 0, 0), (a, 0, 0), (0, height, 0), (-a, 0, -depth), (a, 0, -depth), (0, height, -depth)]
        self.flat(frame, wall, gable, [(0, 1, 2), (3, 5, 4)])


def opening(width: float, height: float, shape: str, steps: int = 8) -> tuple[float, Outline]:
    """The upper edge of an opening about u = 0 that stands on v = 0.

    shape: flat, round, pointed, horseshoe
    returns: height where the sides end, and the line of the top from the left side to the right one
    """
    a = width / 2
    if shape == "flat":
        return height, [(-a, height), (a, height)]
    if shape == "round" or height < 1.2 * width:
        t = np.linspace(np.pi, 0, 2 * steps + 1)
        return height - a, list(zip((a * np.cos(t)).tolist(), (height - a + a * np.sin(t)).tolist(), strict=True))
    if shape == "horseshoe":
        t = np.linspace(np.pi * 1.15, -np.pi * 0.15, 2 * steps + 1)
        r = a / np.cos(np.pi * 0.15)
        top = height - r
        return top - r * np.sin(np.pi * 0.15), list(
            zip((r * np.cos(t)).tolist(), (top + r * np.sin(t)).tolist(), strict=True)
        )
    # pointed: two arcs about the opposite feet
    rise = width * np.sqrt(3) / 2
    t = np.linspace(0, np.pi / 3, steps + 1)
    right = [(-a + width * np.cos(x), height - rise + width * np.sin(x)) for x in t]
    left = [(-x, y) for x, y in right]
    return height - rise, [*left, *right[::-1][1:]]


def spread(count: int, width: float) -> Sequence[float]:
    """Middles of `count` equal fields across `width`, about 0."""
    return [(i + 0.5) * width / count - width / 2 for i in range(count)]
