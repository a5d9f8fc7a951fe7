"""Photographing one subject of Diorama: from where, in which light, with what in front, on which film."""

from dataclasses import replace

import numpy as np

from generator import drawings, monuments, surroundings
from generator.contents import GOOD, JUNK, OK, TEST, Shot, Subject
from generator.geometry import FRONT, Model
from generator.photograph import (
    Camera,
    Film,
    Light,
    Seen,
    Stage,
    add_passers_by,
    add_scaffold,
    add_screen,
    add_stalls,
)
from generator.textures import Rng, Texture

LONGER = 512  # pixels of the longer side
SAMPLES = 4  # rays a pixel
NEIGHBOURS = 0.4  # of the monuments have another one beside them
TRIES = 80  # views looked at for one that shows as much as is wanted
# Visible part of a monument that makes a picture good, ok, junk. Oxford draws the line between ok and junk at a
# quarter; pictures near that line, where two people would disagree, are not taken.
VISIBLE = {GOOD: (0.60, 1.0), OK: (0.28, 0.57), JUNK: (0.03, 0.22)}
LEAST_FILLED = {GOOD: 0.08, OK: 0.08, JUNK: 0.02}  # part of the frame that the monument takes
TRUTH = (
    "path",
    "label",
    "monument",
    "profile",
    "copy_of",
    "grade",
    "visible",
    "fills",
    "x1",
    "y1",
    "x2",
    "y2",
    "light",
    "sun_azimuth",
    "sun_elevation",
    "camera_x",
    "camera_y",
    "camera_z",
    "target_x",
    "target_y",
    "target_z",
    "fov",
    "azimuth",
    "distance",
    "width",
    "height",
    "quality",
)


class Studio:
    """A subject, built and ready to be photographed."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.kind = subject, subject.kind
        self.niche, self.beside = None, 0.0  # metres to the middle of the neighbour, negative on the left
        if self.kind == "monument":
            monument = monuments.build(subject.seed, subject.family, subject.palette)
            self.model, self.size, self.niche = monument.model, monument.size, monument.niche
            neighbours, free = self._neighbours()
            around = surroundings.around_monument(subject.seed, monument.size, free)
            self.stage = Stage([(monument.model, monument.textures), around, *neighbours], 0)
        elif self.kind == "interior":
            model, sheets, self.size = surroundings.interior(subject.seed, subject.palette)
            self.stage = Stage([(model, sheets)], 0)
        elif self.kind != "map":
            maker = {"street": surroundings.street, "park": surroundings.park, "still_life": surroundings.still_life}
            self.stage = Stage([maker[self.kind](subject.seed)])

    def _neighbours(self) -> tuple[list[tuple[Model, dict[str, Texture]]], tuple[float, float]]:
        """Another monument beside this one, for some, and the metres that are kept free for it on either side."""
        rng = np.random.default_rng([self.subject.seed, 52])
        if rng.random() > NEIGHBOURS:
            return [], (0.0, 0.0)
        family, palette = str(rng.choice(list(monuments.FAMILIES))), int(rng.integers(len(monuments.PALETTES)))
        other = monuments.build(self.subject.seed + 5000, family, palette)
        side, gap = int(rng.choice([-1, 1])), rng.uniform(5, 14)
        self.beside = side * (self.size[0] / 2 + gap + other.size[0] / 2)
        model = other.model.placed(FRONT.at(self.beside, 0, -rng.uniform(-4, 12), rng.normal(0, 0.15)), "beside")
        sheets = {f"beside:{name}": sheet for name, sheet in other.textures.items()}
        free = gap + other.size[0]
        return [(model, sheets)], (free, 0.0) if side < 0 else (0.0, free)

    def make(self, shot: Shot) -> tuple[np.ndarray, Film, dict]:
        """Pixels (H, W, 3) uint8, how the film was, and the truth: a value for each name in TRUTH but the path."""
        rng = np.random.default_rng([shot.seed, 50])
        film = _film(rng)
        if shot.view in ("plan", "drawing"):
            return self._drawn(shot, rng, film)
        camera, extras, light = self._chosen(shot, rng)
        if light.kind in ("haze", "fog"):
            reach = float(np.linalg.norm(np.subtract(camera.eye, camera.target)))
            film = replace(
                film, haze=float(rng.uniform(220, 700) if light.kind == "haze" else reach * rng.uniform(1, 2.2))
            )
        pixels, seen = self.stage.photograph(camera, light, film, extras, SAMPLES, shot.seed)
        if shot.query:
            seen = seen._replace(box=self.stage.part(rng, camera, extras))
        return pixels, film, self._truth(shot, film, camera, light, seen)

    def _drawn(self, shot: Shot, rng: Rng, film: Film) -> tuple[np.ndarray, Film, dict]:
        camera = _frame(rng)
        if shot.view == "drawing":
            camera = self._front(rng, camera, "whole")
            pixels = drawings.line_drawing(rng, self.stage, camera)
        elif self.kind == "map":
            pixels = drawings.town_map(rng, camera.width, camera.height)
        else:
            pixels = drawings.floor_plan(rng, self.model, camera.width, camera.height)
        return pixels, film, self._truth(shot, film, camera if shot.view == "drawing" else None, None, None)

    def _chosen(self, shot: Shot, rng: Rng) -> tuple[Camera, Model, Light]:
        """Camera, things in front and light; looked for until as much of the subject is seen as is wanted."""
        shared = np.random.default_rng([shot.group, self.subject.seed, 51]) if shot.group >= 0 else rng
        light = _light(shared, self.kind)
        if shot.group >= 0:
            camera = self._moved(rng, shared, shot)
            return camera, self._crowd(rng, camera, 0), light
        low, high = VISIBLE.get(shot.wanted, (0.0, 1.0))
        for _ in range(TRIES):
            camera = self._camera(rng, self._format(rng, shot), shot)
            hide = {OK: 0.45, JUNK: 0.8}.get(shot.wanted, 0.0) if rng.random() < 0.45 else 0.0
            extras = self._crowd(rng, camera, hide)
            if shot.view == "front" and rng.random() < 0.07 and not shot.query:
                add_scaffold(extras, rng, self.size)
            if not shot.wanted:
                return camera, extras, light
            seen = self.stage.look(camera, extras)
            if low <= seen.visible <= high and seen.fills > LEAST_FILLED[shot.wanted]:
                return camera, extras, light
        raise RuntimeError(f"{shot.path}: none of {TRIES} views of {self.subject.name} came out {shot.wanted!r}")

    def _format(self, rng: Rng, shot: Shot) -> Camera:
        if self.kind == "monument" and shot.view != "detail" and rng.random() < 0.6:
            return _frame(rng, self.size[0] / self.size[2] - 0.5)
        return _frame(rng)

    def _crowd(self, rng: Rng, camera: Camera, hide: float) -> Model:
        """People and vehicles, and with `hide` something large that hides about that part of the view."""
        crowd = Model()
        if self.kind == "interior":
            add_passers_by(crowd, rng, camera, int(rng.integers(0, 5)), 0)
        elif self.kind != "still_life":
            if rng.random() < 0.2:
                add_stalls(crowd, rng, camera, int(rng.integers(1, 7)))
            add_passers_by(crowd, rng, camera, int(rng.choice([0, 2, 5, 9, 16])), int(rng.choice([0, 0, 1, 2])))
        if hide:
            add_screen(crowd, rng, camera, hide * rng.uniform(0.8, 1.25))
        return crowd

    def _moved(self, rng: Rng, shared: Rng, shot: Shot) -> Camera:
        """A camera a few steps from where its group's stands."""
        camera = self._camera(shared, self._format(shared, shot), shot)
        eye, target = np.array(camera.eye), np.array(camera.target)
        reach = float(np.linalg.norm(target - eye))
        turn = np.radians(rng.normal(0, 9))
        c, s = np.cos(turn), np.sin(turn)
        back = (eye - target) * rng.uniform(0.8, 1.15)
        if self.kind in ("monument", "still_life", "park"):
            back = np.array([c * back[0] - s * back[1], s * back[0] + c * back[1], back[2]])
        eye = target + back + rng.normal(0, 0.015 * reach, 3) * [1, 1, 0.2]
        target = target + rng.normal(0, 0.05 * reach, 3) * [1, 1, 0.5]
        eye[2] = max(eye[2], 1.2)
        return camera._replace(
            eye=tuple(eye.tolist()),
            target=tuple(target.tolist()),
            fov=float(np.clip(camera.fov * rng.uniform(0.75, 1.2), 12, 85)),
        )

    def _camera(self, rng: Rng, frame: Camera, shot: Shot) -> Camera:
        if self.kind == "monument":
            return (
                self._detail(rng, frame)
                if shot.view == "detail"
                else self._front(rng, frame, self._composition(rng, shot), shot.view)
            )
        if self.kind == "interior":
            width, length, height = self.size
            eye = (rng.uniform(-0.12, 0.12) * width, rng.uniform(1.3, 0.25 * length), rng.uniform(1.5, 2.2))
            ahead = (rng.uniform(-0.12, 0.12) * width, length * rng.uniform(0.75, 1), height * rng.uniform(0.12, 0.42))
            return frame._replace(eye=eye, target=ahead, fov=rng.uniform(48, 78), roll=rng.normal(0, 1))
        if self.kind == "street":
            eye = (rng.uniform(-3.5, 3.5), rng.uniform(-12, 40), rng.uniform(1.5, 2.4))
            turn = np.radians(rng.normal(0, 22))
            ahead = (eye[0] + 30 * np.sin(turn), eye[1] + 30 * np.cos(turn), rng.uniform(2, 8))
            return frame._replace(eye=eye, target=ahead, fov=rng.uniform(35, 65), roll=rng.normal(0, 1))
        if self.kind == "park":
            turn, reach = np.radians(rng.normal(0, 25)), rng.uniform(9, 17)
            eye = (reach * np.sin(turn), 4 - reach * np.cos(turn), rng.uniform(1.3, 2))
            return frame._replace(
                eye=eye,
                target=(rng.uniform(-2, 2), 5, rng.uniform(1.2, 2.8)),
                fov=rng.uniform(35, 60),
                roll=rng.normal(0, 1),
            )
        turn, reach = np.radians(rng.normal(0, 22)), rng.uniform(15, 24)
        eye = (reach * np.sin(turn), 4 - reach * np.cos(turn), rng.uniform(5, 12))
        return frame._replace(
            eye=eye,
            target=(rng.uniform(-2, 2), 4, rng.uniform(1.3, 2.2)),
            fov=rng.uniform(32, 55),
            roll=rng.normal(0, 2),
        )

    def _composition(self, rng: Rng, shot: Shot) -> str:
        """How the monument lies in the frame: whole, far, pair (with its neighbour), cut (by the border), part, bit."""
        if shot.view == "rear" or shot.group >= 0:
            return "whole"
        chances = {
            GOOD: {"whole": 0.76, "far": 0.15, "pair": 0.09} if shot.part == TEST else {"whole": 0.85, "far": 0.15},
            OK: {"part": 0.65, "cut": 0.25, "far": 0.1},
            JUNK: {"bit": 0.55, "cut": 0.45},
        }[shot.wanted or GOOD]
        if shot.query:
            chances = {"whole": 0.9, "far": 0.1}
        chosen = str(rng.choice(list(chances), p=list(chances.values())))
        return "far" if chosen == "pair" and not self.beside else chosen

    def _front(self, rng: Rng, frame: Camera, composition: str, view: str = "front") -> Camera:
        """A view of the front or rear: from close with a wide lens to five times as far with a long one."""
        width, depth, height = self.size
        # fill: width of the monument over that of the frame; across, up: the middle of the frame on the monument,
        # as parts of its width and height
        (least, most), (across, up) = {
            "whole": ((0.85, 1.5), (rng.normal(0, 0.08), rng.uniform(0.36, 0.5))),
            "far": ((0.3, 0.7), (rng.normal(0, 0.5), rng.uniform(0.2, 0.7))),
            "pair": ((0.4, 0.7), (rng.uniform(0.5, 1.0) * self.beside / width, rng.uniform(0.3, 0.6))),
            "cut": ((0.9, 1.6), (rng.choice([-1, 1]) * rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7))),
            "part": ((1.3, 2.4), (rng.uniform(-0.4, 0.4), rng.uniform(0.15, 0.85))),
            "bit": ((2.2, 3.8), (rng.uniform(-0.45, 0.45), rng.uniform(0.1, 0.9))),
        }[composition]
        azimuth = np.radians(np.clip(rng.normal(0, 18), -55, 55)) + (np.pi if view == "rear" else 0)
        size = min(max(width, height), 45.0)
        nearest = 1.6 if composition in ("far", "pair") else 0.85
        reach = size * nearest * (5 / nearest) ** (rng.random() if view == "front" else rng.uniform(0, 0.35))
        wall = 0.0 if view == "front" else depth + 3.0  # distances count from the wall that is seen
        eye = np.array([reach * np.sin(azimuth), wall - reach * np.cos(azimuth), rng.uniform(1.5, 1.8)])
        if rng.random() < 0.2:
            eye[2] += reach * rng.uniform(0.03, 0.18)  # from a window or a hill
        wide = width * abs(np.cos(azimuth)) + 0.4 * depth * abs(np.sin(azimuth))
        half = max(wide / 2, height / 2 * frame.width / frame.height) / rng.uniform(least, most)
        target = np.array([across * width, wall + (0.1 if view == "front" else -0.1) * depth, height * up])
        fov = 2 * np.degrees(np.arctan(half / np.linalg.norm(target - eye)))
        return frame._replace(
            eye=tuple(eye.tolist()),
            target=tuple(target.tolist()),
            fov=float(np.clip(fov, 6, 80)),
            roll=float(rng.normal(0, 1.5)),
        )

    def _detail(self, rng: Rng, frame: Camera) -> Camera:
        """The statues and mosaics of the niche, close."""
        here = self.niche
        turn, reach = np.radians(rng.normal(0, 16)), rng.uniform(8, 15)
        eye = here.origin + reach * (np.cos(turn) * here.w + np.sin(turn) * here.u)
        eye[2] = rng.uniform(1.4, 1.9)
        target = here.origin + rng.normal(0, 0.5) * here.u + np.array([0, 0, rng.normal(0, 0.25)])
        fov = 2 * np.degrees(np.arctan(rng.uniform(2.8, 4.6) / reach))
        return frame._replace(
            eye=tuple(eye.tolist()), target=tuple(target.tolist()), fov=float(fov), roll=float(rng.normal(0, 1.5))
        )

    def _truth(self, shot: Shot, film: Film, camera: Camera | None, light: Light | None, seen: Seen | None) -> dict:
        row = dict.fromkeys(TRUTH, "")
        row |= {
            "label": shot.label,
            "monument": self.subject.name,
            "profile": shot.view,
            "copy_of": shot.source,
            "grade": shot.wanted,
            "quality": film.quality,
        }
        if camera is not None:
            away = np.subtract(camera.eye, camera.target)
            row |= dict(
                zip(
                    ("camera_x", "camera_y", "camera_z", "target_x", "target_y", "target_z"),
                    np.round([*camera.eye, *camera.target], 2).tolist(),
                    strict=True,
                )
            )
            row |= {
                "fov": round(camera.fov, 2),
                "width": camera.width,
                "height": camera.height,
                "azimuth": round(float(np.degrees(np.arctan2(away[0], -away[1]))), 1),
                "distance": round(float(np.linalg.norm(away)), 2),
            }
        if light is not None:
            row |= {
                "light": light.kind,
                "sun_azimuth": round(light.azimuth, 1),
                "sun_elevation": round(light.elevation, 1),
            }
        if seen is not None and self.kind == "monument":
            row |= {"visible": round(seen.visible, 3), "fills": round(seen.fills, 3)}
            if seen.box is not None:
                row |= dict(zip(("x1", "y1", "x2", "y2"), seen.box, strict=True))
        return row


def _frame(rng: Rng, shape: float = 1.4) -> Camera:
    """A camera that has its format only: 4:3 or 3:2, landscape or portrait, as suits the width over height `shape`."""
    shorter = round(LONGER * float(rng.choice([3 / 4, 2 / 3])))
    size = (LONGER, shorter) if rng.random() < np.clip(0.25 + 0.32 * shape, 0.15, 0.95) else (shorter, LONGER)
    return Camera((0, 0, 0), (0, 1, 0), 50.0, 0.0, *size)


def _light(rng: Rng, kind: str) -> Light:
    clouds = int(rng.integers(2**31))
    if kind == "interior":
        return Light("inside", 0.0, 0.0, clouds)
    chances = {
        "sun": 0.58,
        "haze": 0.04,
        "overcast": 0.2,
        "dusk": 0.06,
        "night": 0.03,
        "fog": 0.03,
        "snow": 0.04,
        "flash": 0.02,
    }
    hour = str(rng.choice(list(chances), p=list(chances.values())))
    if kind != "monument" and hour in ("night", "flash", "fog"):
        hour = "overcast"
    elevation = rng.uniform(4, 12) if hour == "dusk" else rng.uniform(22, 60)
    return Light(hour, float(rng.uniform(-100, 100)), float(elevation), clouds)


def _film(rng: Rng) -> Film:
    """What cameras, their owners and web sites do to colours and sharpness differs more than the light does."""
    black_and_white = rng.random() < 0.05
    soft = rng.random() < 0.12
    return Film(
        exposure=float(np.clip(rng.normal(0.05, 0.45), -1.0, 0.9)),
        warmth=float(rng.normal(0, 1.0)),
        tint=float(rng.normal(0, 0.5)),
        saturation=0.0 if black_and_white else float(rng.uniform(0.55, 1.5)),
        contrast=float(rng.uniform(0.85, 1.3)),
        smoothing=float(rng.uniform(2, 4)),
        blur=float(rng.uniform(0.9, 1.6) if soft else rng.uniform(0.3, 0.7)),
        noise=float(rng.choice([0.3, 0.6, 1.0, 2.0])),
        quality=int(rng.integers(50, 75)),
    )
