"""Photographs of Diorama's models: light, camera, rendering with Mitsuba 3, and what a camera does to a picture.

Mitsuba's `scalar_rgb` variant runs on any processor and gives the same picture for the same seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from generator import surroundings
from generator.geometry import FRONT, LIT, Frame, Model, Surface
from generator.textures import Rng, Texture, clouds

LIGHTS = ("sun", "haze", "overcast", "dusk", "night", "fog", "snow", "flash", "inside")
# Weather that changes what is seen more than it changes the sky: the sky that goes with it.
_SKIES = {"fog": "overcast", "snow": "overcast", "flash": "dusk"}


class Camera(NamedTuple):
    """Where a picture is taken from: eye and target in metres, horizontal field of view and roll in degrees."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    fov: float
    roll: float
    width: int
    height: int


class Light(NamedTuple):
    """kind: one of LIGHTS; sun: azimuth (from the front, toward +x) and elevation in degrees; seed: of the clouds."""

    kind: str
    azimuth: float
    elevation: float
    seed: int


@dataclass(frozen=True)
class Film:
    """What happens between lens and file.

    exposure: stops; warmth, tint: of the white balance, about 0 (toward yellow, toward magenta); smoothing: strength
    of the camera's own noise reduction; blur: in pixels; noise: spread in grey levels; quality: of the JPEG; haze:
    metres at which contrast falls to a third
    """

    exposure: float = 0.0
    warmth: float = 0.0
    tint: float = 0.0
    saturation: float = 1.0
    contrast: float = 1.0
    smoothing: float = 3.0
    blur: float = 0.4
    noise: float = 2.0
    quality: int = 80
    haze: float = 1e5


class Seen(NamedTuple):
    """What a picture shows of its subject: box (x1, y1, x2, y2) in pixels (None: nothing in the frame), the part of
    its outline that is in the frame and not hidden (0..1), and the part of the frame that it fills."""

    box: tuple[int, int, int, int] | None
    visible: float
    fills: float


def _mitsuba():
    try:
        import mitsuba
    except ImportError as error:
        raise ImportError("rendering Diorama needs Mitsuba 3: pip install 'rmaclib[diorama]'") from error
    mitsuba.set_variant("scalar_rgb")
    return mitsuba


class Stage:
    """Models set up for rendering; `subject` says which of them is the thing that is looked at.

    models: (model, textures) each; subject: index into models, None where there is none
    """

    def __init__(self, models: Sequence[tuple[Model, dict[str, Texture]]], subject: int | None = None) -> None:
        self.mi = _mitsuba()
        self.shapes = [self._shapes(*pair) for pair in models]
        self.subject = subject
        corners = (
            [surface.positions for surface in models[subject][0].surfaces().values()] if subject is not None else []
        )
        self.bounds = (np.concatenate(corners).min(0), np.concatenate(corners).max(0)) if corners else None
        self._alone = self._still = None  # scenes for depths only, made when first needed

    def _shapes(self, model: Model, sheets: dict[str, Texture]) -> list:
        return [
            self._shape(
                name, surface, self._material(name, sheets.get(name)), sheets[name].metres if name in sheets else 1.0
            )
            for name, surface in model.surfaces().items()
        ]

    def _material(self, name: str, sheet: Texture | None) -> dict:
        base = name.split(":")[-1].split("/")[0]
        if base == "window":
            return {"type": "plastic", "diffuse_reflectance": {"type": "rgb", "value": [0.015, 0.018, 0.02]}}
        if sheet is None:
            colour = {"type": "mesh_attribute", "name": "face_color"}
        else:
            pixels = np.clip(sheet.albedo[::-1], 0, 1).astype(np.float32)  # row 0 is the top, v = 0 the bottom
            colour = {
                "type": "bitmap",
                "bitmap": self.mi.Bitmap(np.ascontiguousarray(pixels * (6 if base == LIT else 1))),
                "raw": True,
                "wrap_mode": "repeat" if base == "letters" else "mirror",
            }
        if base == "glass":
            return {"type": "plastic", "diffuse_reflectance": colour}
        if base == "gold":
            return {"type": "roughplastic", "alpha": 0.25, "diffuse_reflectance": colour}
        return {"type": "diffuse", "reflectance": colour}

    def _shape(self, name: str, surface: Surface, material: dict, metres: float):
        mi = self.mi
        properties = mi.Properties()
        properties["bsdf"] = mi.load_dict({"type": "twosided", "bsdf": material})
        if name == LIT:
            properties["emitter"] = mi.load_dict(
                {
                    "type": "area",
                    "radiance": {"type": "bitmap", "bitmap": material["reflectance"]["bitmap"], "raw": True},
                }
            )
        mesh = mi.Mesh(name, len(surface.positions), len(surface.faces), properties, True, True)
        values = mi.traverse(mesh)
        values["vertex_positions"] = surface.positions.astype(np.float32).ravel()
        values["vertex_normals"] = surface.normals.astype(np.float32).ravel()
        values["vertex_texcoords"] = (surface.uv / metres).astype(np.float32).ravel()
        values["faces"] = surface.faces.astype(np.uint32).ravel()
        values.update()
        mesh.add_attribute("face_color", 3, surface.colours.astype(np.float32).ravel())
        return mesh

    def photograph(
        self, camera: Camera, light: Light, film: Film, extras: Model | None = None, samples: int = 16, seed: int = 0
    ) -> tuple[np.ndarray, Seen | None]:
        """A picture, (height, width, 3) uint8, and what it shows of the subject.

        extras: things of this picture only (people, vehicles); samples: rays per pixel
        """
        scene = self._scene(light, extras, {"type": "path", "max_depth": 3})
        sensor = self._sensor(camera, samples * (2 if light.kind in ("night", "inside") else 1))
        radiance = np.array(self.mi.render(scene, sensor=sensor, seed=seed))[..., :3]
        depth = self._depth_with(camera, extras)
        seen = None if self.subject is None else self._seen(camera, depth)
        rng = np.random.default_rng([seed, 40])
        if light.kind == "snow":
            radiance = _snowed(rng, radiance, depth, self._normals(camera, extras))
        if light.kind == "flash":
            radiance = _flashed(rng, radiance, depth)
        return develop(rng, radiance, depth, light, film), seen

    def look(self, camera: Camera, extras: Model | None = None) -> Seen:
        """What a picture would show of the subject, without making it; looked at with half as many pixels."""
        small = camera._replace(width=camera.width // 2, height=camera.height // 2)
        seen = self._seen(small, self._depth_with(small, extras), 1)
        return seen._replace(box=seen.box and tuple(2 * corner for corner in seen.box))

    def part(self, rng: Rng, camera: Camera, extras: Model | None = None) -> tuple[int, int, int, int]:
        """A box about a part of what is seen of the subject, a tower or a portal, as people draw for a query."""
        _, mine = self._outlines(camera, self._depth_with(camera, extras))
        total = np.pad(mine.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        rows, columns = np.nonzero(mine.any(1))[0], np.nonzero(mine.any(0))[0]
        x1, y1, x2, y2 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        best, most = (0, 0, camera.width, camera.height), -1.0
        for _ in range(60):
            w, h = (max(min(_LEAST, side), round(side * rng.uniform(0.45, 1.0))) for side in (x2 - x1, y2 - y1))
            x, y = int(rng.integers(x1, x2 - w + 1)), int(rng.integers(y1, y2 - h + 1))
            filled = (total[y + h, x + w] - total[y, x + w] - total[y + h, x] + total[y, x]) / (w * h)
            if filled > most:
                best, most = (x, y, x + int(w), y + int(h)), filled
            if filled > 0.75:
                break
        return best

    def lines(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Depth (H, W), 0 for nothing, and normals (H, W, 3) of the subject alone, for drawings."""
        scene = self._scene_of(self.shapes[self.subject], None, {"type": "aov", "aovs": "d:depth,n:sh_normal"})
        image = np.array(self.mi.render(scene, sensor=self._sensor(camera, 4), seed=0))
        return image[..., 0], image[..., 1:4]

    def _normals(self, camera: Camera, extras: Model | None) -> np.ndarray:
        """Normals (H, W, 3) of what is seen."""
        scene = self._scene(None, extras, {"type": "aov", "aovs": "n:sh_normal"})
        return np.array(self.mi.render(scene, sensor=self._sensor(camera, 2), seed=0))[..., :3]

    # ---- the scene

    def _scene_of(self, shapes: list, light: Light | None, integrator: dict):
        world = {"type": "scene", "integrator": integrator}
        world |= {f"shape{i}": shape for i, shape in enumerate(shapes)}
        if light is not None:
            world |= self._lights(light)
        return self.mi.load_dict(world)

    def _scene(self, light: Light | None, extras: Model | None, integrator: dict):
        shapes = [shape for group in self.shapes for shape in group]
        if extras is not None:
            shapes += self._shapes(extras, {})
        return self._scene_of(shapes, light, integrator)

    def _sensor(self, camera: Camera, samples: int, wider: float = 1.0, shrink: int = 1):
        mi = self.mi
        up = np.array([0, 0, 1.0])
        forward = np.subtract(camera.target, camera.eye)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, up)
        roll = np.radians(camera.roll)
        up = np.cross(right, forward) * np.cos(roll) + right * np.sin(roll)
        fov = 2 * np.degrees(np.arctan(np.tan(np.radians(camera.fov) / 2) * wider))
        return mi.load_dict(
            {
                "type": "perspective",
                "fov": float(fov),
                "fov_axis": "x",
                "near_clip": 0.05,
                "far_clip": 2000.0,
                "to_world": mi.ScalarTransform4f().look_at(list(camera.eye), list(camera.target), up.tolist()),
                "film": {
                    "type": "hdrfilm",
                    "width": camera.width // shrink,
                    "height": camera.height // shrink,
                    "rfilter": {"type": "box"},
                },
                "sampler": {"type": "multijitter" if samples > 1 else "independent", "sample_count": samples},
            }
        )

    def _depth(self, scene, camera: Camera, wider: float = 1.0, shrink: int = 1) -> np.ndarray:
        """Distance along a ray through each pixel, 0 for the sky; the same rays for every scene."""
        return np.array(
            self.mi.render(
                scene,
                sensor=self._sensor(camera, 1, wider, shrink),
                seed=1,
                integrator=self.mi.load_dict({"type": "depth"}),
            )
        )[..., 0]

    def _depth_with(self, camera: Camera, extras: Model | None) -> np.ndarray:
        """Distances in the whole scene: those of what stands still, or of something nearer in front."""
        if self._still is None:
            self._still = self._scene_of([shape for group in self.shapes for shape in group], None, {"type": "depth"})
        depth = self._depth(self._still, camera)
        if extras is None or not extras.surfaces():
            return depth
        front = self._depth(self._scene_of(self._shapes(extras, {}), None, {"type": "depth"}), camera)
        return np.where((front > 0) & ((depth == 0) | (front < depth)), front, depth)

    def _seen(self, camera: Camera, depth: np.ndarray, shrink: int = 2) -> Seen:
        """depth: of the whole scene

        shrink: how much coarser than the picture the subject's whole outline is drawn
        """
        inside, mine = self._outlines(camera, depth)
        # The whole outline: a wider view at a lower resolution.
        total = (self._depth(self._subject_alone(), camera, _WIDER, shrink) > 0).sum() * (_WIDER * shrink) ** 2
        if not inside.any() or total == 0:
            return Seen(None, 0.0, 0.0)
        rows, columns = np.nonzero(inside.any(1))[0], np.nonzero(inside.any(0))[0]
        box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        return Seen(box, float(min(1.0, mine.sum() / total)), float(mine.mean()))

    def _outlines(self, camera: Camera, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the subject would be, alone, and where it is visible, both (H, W); depth: of the whole scene.

        It is visible where alone it is just as far away.
        """
        alone = self._depth(self._subject_alone(), camera)
        return alone > 0, (alone > 0) & (np.abs(depth - alone) < 1e-3 * alone)

    def _subject_alone(self):
        """The scene of the subject without anything else, for depths."""
        if self._alone is None:
            self._alone = self._scene_of(self.shapes[self.subject], None, {"type": "depth"})
        return self._alone

    def _lights(self, light: Light) -> dict:
        mi = self.mi
        if light.kind == "inside":
            return self._lamps(light)
        sky, sun = sky_of(light)
        turn = mi.ScalarTransform4f().rotate([1, 0, 0], 90)
        lights = {"sky": {"type": "envmap", "bitmap": mi.Bitmap(sky), "to_world": turn}}
        if max(sun) > 0:
            lights["sun"] = {
                "type": "directional",
                "direction": (-_toward(light)).tolist(),
                "irradiance": {"type": "rgb", "value": list(sun)},
            }
        if light.kind == "night" and self.bounds is not None:
            lights |= self._floodlights(light)
        return lights

    def _lamps(self, light: Light) -> dict:
        """Lamps along a room, and a little light from everywhere."""
        low, high = self.bounds
        rng = np.random.default_rng([light.seed, 41])
        warm = np.array([1.0, rng.uniform(0.72, 0.92), rng.uniform(0.45, 0.8)])
        power = float(np.prod(high - low) ** (2 / 3))
        lights = {"air": {"type": "constant", "radiance": {"type": "rgb", "value": [0.25, 0.28, 0.32]}}}
        for i, part in enumerate(np.linspace(0.08, 0.92, 5)):
            place = [
                float((low[0] + high[0]) / 2 + rng.uniform(-0.1, 0.1) * (high - low)[0]),
                float(low[1] + part * (high - low)[1]),
                float(low[2] + rng.uniform(0.25, 0.55) * (high - low)[2]),
            ]
            lights[f"lamp{i}"] = {
                "type": "point",
                "position": place,
                "intensity": {"type": "rgb", "value": (warm * power * rng.uniform(0.05, 0.2)).tolist()},
            }
        return lights

    def _floodlights(self, light: Light) -> dict:
        """Spots on the ground about the subject, warm, some cooler, aimed at its upper half."""
        mi, (low, high) = self.mi, self.bounds
        rng = np.random.default_rng([light.seed, 41])
        reach, lights = max(high - low), {}
        for i, angle in enumerate(np.linspace(0, 2 * np.pi, 9)[:-1] + rng.uniform(-0.2, 0.2)):
            middle = (low + high) / 2
            half = (high - low) / 2 + reach * 0.3 + 6
            origin = [middle[0] + half[0] * np.sin(angle), middle[1] - half[1] * np.cos(angle), 0.6]
            target = [
                middle[0] + (high - low)[0] * 0.25 * np.sin(angle),
                middle[1],
                low[2] + (high - low)[2] * rng.uniform(0.3, 0.6),
            ]
            distance = np.linalg.norm(np.subtract(target, origin))
            colour = np.array([1.0, 0.78, 0.5]) if rng.random() < 0.8 else np.array([0.8, 0.9, 1.0])
            lights[f"flood{i}"] = {
                "type": "spot",
                "cutoff_angle": 62.0,
                "beam_width": 30.0,
                "to_world": mi.ScalarTransform4f().look_at(origin, target, [0, 0, 1]),
                "intensity": {"type": "rgb", "value": (colour * distance**2 * rng.uniform(0.3, 0.9)).tolist()},
            }
        return lights


_WIDER = 3.0  # how much wider than the picture a subject's whole outline is drawn
_LEAST = 110  # pixels of a side of a query's box, where the subject is that large


def _toward(light: Light) -> np.ndarray:
    """The direction of the sun."""
    a, e = np.radians([light.azimuth, light.elevation])
    return np.array([np.sin(a) * np.cos(e), -np.cos(a) * np.cos(e), np.sin(e)])


def sky_of(light: Light, height: int = 384) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Radiance of the sky, (height, 2 · height, 3) float32 by longitude and latitude, and the sun's irradiance."""
    rng = np.random.default_rng([light.seed, 42])
    width = 2 * height
    theta = (np.arange(height) + 0.5) / height * np.pi
    phi = (np.arange(width) + 0.5) / width * 2 * np.pi
    up = np.cos(theta)[:, None]
    x, y = np.sin(theta)[:, None] * np.sin(phi), np.sin(theta)[:, None] * np.cos(phi)
    direction = np.stack([x, y, np.broadcast_to(up, x.shape)], -1)
    near = np.clip(direction @ _toward(light), 0, 1)[..., None]  # 1 at the sun
    kind = _SKIES.get(light.kind, light.kind)
    zenith, horizon, sun = {
        "sun": ((0.16, 0.32, 0.72), (0.55, 0.68, 0.90), (7.6, 6.8, 5.6)),
        "haze": ((0.42, 0.52, 0.70), (0.84, 0.84, 0.84), (4.2, 3.7, 3.0)),
        "overcast": ((0.72, 0.76, 0.82), (0.58, 0.61, 0.66), (0.0, 0.0, 0.0)),
        "dusk": ((0.12, 0.17, 0.36), (0.74, 0.50, 0.38), (1.9, 1.1, 0.6)),
        "night": ((0.006, 0.009, 0.024), (0.06, 0.05, 0.045), (0.0, 0.0, 0.0)),
    }[kind]
    fade = np.clip(up, 0, 1)[..., None] ** 0.45
    sky = (1 - fade) * np.array(horizon) + fade * np.array(zenith)
    sky = sky * (1 + (0.5 * near**8 + 2.0 * near**200) * (kind not in ("night", "overcast")))
    # Clouds on a flat layer overhead: small and dense toward the horizon.
    field = clouds(rng, 1024, 1024, rng.uniform(60, 160), 6)
    safe = np.clip(up, 0.03, 1)
    u, v = (np.clip(c / (safe + 0.12) * 150 + 512, 0, 1023).astype(np.float32) for c in (x, y))
    cover = cv2.remap(field.astype(np.float32), u, v, cv2.INTER_LINEAR)
    level = {
        "sun": rng.uniform(0.2, 1.6),
        "haze": rng.uniform(0.3, 1.2),
        "overcast": -0.6,
        "dusk": rng.uniform(-0.3, 1.0),
        "night": 0.6,
    }[kind]
    cloud = np.clip((cover - level) * 1.3, 0, 1)[..., None] * np.clip(up * 6, 0, 1)[..., None]
    bright = np.array(
        {
            "sun": (1.0, 1.0, 1.02),
            "haze": (0.9, 0.9, 0.9),
            "overcast": (0.92, 0.94, 0.97),
            "dusk": (0.46, 0.32, 0.32),
            "night": (0.02, 0.018, 0.02),
        }[kind]
    )
    shade = np.clip(1.05 - 0.35 * cover, 0.45, 1.2)[..., None]
    sky = sky * (1 - cloud) + bright * shade * cloud
    if kind == "overcast":
        sky = sky * (1 + 0.12 * cover[..., None])
    below = (up < 0)[..., None]
    sky = np.where(below, np.array(horizon) * 0.35, sky)
    return np.ascontiguousarray(sky.astype(np.float32)), sun


def _snowed(rng: Rng, radiance: np.ndarray, depth: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Snow on what looks upward, and flakes in the air."""
    height, width = depth.shape
    patches = 0.12 * clouds(rng, height, width, 40, 4)
    lies = np.clip((normals[..., 2] - rng.uniform(0.25, 0.5) + patches) / 0.25, 0, 1) * (depth > 0)
    light = cv2.blur(radiance.mean(-1), (3, 3))
    usual = np.median(light[lies > 0.5]) if (lies > 0.5).any() else 1.0
    white = np.quantile(light, 0.9) * 0.85 * np.clip((light / usual) ** 0.4, 0.3, 1.3)
    lies, white = lies[..., None], white[..., None] * np.array([0.95, 0.98, 1.04])
    radiance = radiance * (1 - lies) + white * lies
    flakes = np.zeros((height, width), np.float32)
    for _ in range(int(rng.choice([0, 0, 200, 500, 900]))):
        place = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(flakes, place, int(rng.choice([1, 1, 1, 2])), float(rng.uniform(0.2, 0.8)), -1)
    flakes = cv2.GaussianBlur(flakes, (0, 0), 0.8)[..., None]
    return radiance * (1 - flakes) + np.quantile(radiance, 0.9) * flakes


def _flashed(rng: Rng, radiance: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The camera's own flash: bright near by, nothing far off."""
    height, width = depth.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    reach = rng.uniform(0.7, 1.4) * (np.quantile(depth[depth > 0], 0.3) if (depth > 0).any() else 8.0)
    strength = np.where(depth > 0, (reach / np.maximum(depth, 2.0)) ** 2, 0.0) * np.exp(-0.7 * (x**2 + y**2))
    return radiance * (1 + np.minimum(5 * strength, 8.0))[..., None]


def develop(rng: Rng, radiance: np.ndarray, depth: np.ndarray, light: Light, film: Film) -> np.ndarray:
    """Haze, exposure, tone curve, white balance, lens and sensor: (H, W, 3) radiance to uint8."""
    height, width = depth.shape
    if film.haze < 1e4:
        veil = np.array(
            {"night": (0.02, 0.018, 0.018), "dusk": (0.42, 0.34, 0.32), "fog": (0.74, 0.76, 0.79)}.get(
                light.kind, (0.75, 0.8, 0.86)
            )
        )
        clear = np.exp(-np.where(depth > 0, depth, 4 * film.haze) / film.haze)[..., None]
        clear = np.where(depth[..., None] > 0, clear, np.maximum(clear, 0.35))
        radiance = radiance * clear + veil * (1 - clear)
    luminance = radiance @ np.array([0.21, 0.72, 0.07])
    # Single bright pixels are the renderer's, not the scene's.
    calm = cv2.medianBlur(luminance.astype(np.float32), 3)
    radiance = radiance * np.minimum(1, (2.5 * calm + 0.02) / (luminance + 1e-6))[..., None]
    luminance = np.minimum(luminance, 2.5 * calm + 0.02)
    # Metered like a camera: on the middle, and not to burn out what is bright; at night less is made of the dark.
    weights = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]) + 0.1
    weights = weights * np.where(depth > 0, 1.0, 0.25)
    key = np.exp(np.average(np.log(luminance + 1e-3), weights=weights))
    bright = np.quantile(luminance[depth > 0], 0.98) if (depth > 0).any() else key
    gain = min(0.20 / key, 0.7 / bright)
    if light.kind == "night":
        gain = 0.5 / max(bright, 0.05)
    exposed = radiance * gain * 2.0**film.exposure
    exposed = exposed * np.array([1 + 0.12 * film.warmth, 1 - 0.1 * film.tint, 1 - 0.12 * film.warmth])
    toned = exposed * (2.51 * exposed + 0.03) / (exposed * (2.43 * exposed + 0.59) + 0.14)  # a film's S-shaped curve
    picture = np.clip(toned, 0, 1) ** (1 / 2.2)
    grey = (picture @ np.array([0.3, 0.59, 0.11]))[..., None]
    picture = grey + (picture - grey) * film.saturation
    picture = np.clip(0.5 + (picture - 0.5) * film.contrast, 0, 1)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    picture = picture * (1 - 0.13 * (x**2 + y**2))[..., None]
    still = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    # What phones do to their noise; here it takes off the renderer's.
    picture = cv2.fastNlMeansDenoisingColored(still, None, film.smoothing, film.smoothing, 3, 11) / 255.0
    if film.blur > 0.2:
        picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), film.blur)
    grain = cv2.GaussianBlur(rng.standard_normal((height, width, 3)).astype(np.float32), (0, 0), 0.5)
    picture = picture + grain * film.noise / 255 * 1.6
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


def add_passers_by(model: Model, rng: Rng, camera: Camera, people: int, vehicles: int) -> None:
    """People and vehicles on the ground between a camera and what it looks at."""
    ahead = _ground_frame(camera)
    distance = float(np.hypot(*np.subtract(camera.target, camera.eye)[:2]))
    for _ in range(people):
        w = -max(6.0, distance * rng.uniform(0.2, 0.9))
        u = -w * np.tan(np.radians(camera.fov / 2)) * rng.uniform(-1.1, 1.1)
        surroundings.person(model, ahead.at(u, 0, w), rng)
    for _ in range(vehicles):
        w = -max(14.0, distance * rng.uniform(0.35, 0.8))
        u = -w * np.tan(np.radians(camera.fov / 2)) * rng.uniform(-1, 1)
        kind = str(rng.choice(["car", "car", "car", "van"]))
        surroundings.car(model, ahead.at(u, 0, w, rng.uniform(-0.2, 0.2) + np.pi * rng.integers(2)), rng, kind)


def add_stalls(model: Model, rng: Rng, camera: Camera, count: int) -> None:
    """A market on the ground between a camera and what it looks at: stalls and umbrellas."""
    ahead = _ground_frame(camera)
    distance = float(np.hypot(*np.subtract(camera.target, camera.eye)[:2]))
    for _ in range(count):
        w = -max(9.0, distance * rng.uniform(0.3, 0.85))
        u = -w * np.tan(np.radians(camera.fov / 2)) * rng.uniform(-1, 1)
        surroundings.stall(model, ahead.at(u, 0, w, rng.normal(0, 0.4)), rng)


def add_scaffold(model: Model, rng: Rng, size: tuple[float, float, float]) -> None:
    """A scaffold before a part of the front, with planks and here and there a net."""
    width = size[0] * rng.uniform(0.25, 0.6)
    height = min(size[2] * rng.uniform(0.35, 0.8), 26.0)
    middle = rng.uniform(-0.5, 0.5) * (size[0] - width)
    surroundings.scaffold(model, FRONT.at(middle, 0, 3.2), width, height, rng)


def add_screen(model: Model, rng: Rng, camera: Camera, share: float) -> None:
    """Something large close to the camera, a tree or a bus, that hides about `share` of the view's width."""
    ahead = _ground_frame(camera)
    half = np.tan(np.radians(camera.fov / 2))
    up = camera.target[2] - camera.eye[2]
    distance = float(np.hypot(*np.subtract(camera.target, camera.eye)[:2]))
    if rng.random() < 0.35 and abs(up) < distance * 0.6:
        w = 11.5 / (2 * half * share * 1.2)
        w = min(w, distance * 0.5)
        surroundings.car(model, ahead.at(rng.uniform(-0.3, 0.3) * w * half, 0, -w), rng, "bus")
    else:
        w = min(distance * 0.45, rng.uniform(9, 16) / max(half, 0.2))
        wide = 2 * w * half * share
        middle = camera.eye[2] + up * w / distance
        height = max(wide * 1.5, (middle + wide * 0.5) * 1.25)
        surroundings.tree(
            model, ahead.at(rng.uniform(-0.5, 0.5) * (1 - share) * 2 * w * half, 0, -w), height, rng, 14_000
        )


def _ground_frame(camera: Camera) -> Frame:
    """A frame on the ground under the camera whose -w is the way it looks and whose u is its right."""
    forward = np.subtract(camera.target, camera.eye)
    turn = np.arctan2(forward[0], forward[1])
    return FRONT._replace(origin=np.array([camera.eye[0], camera.eye[1], 0.0])).at(0, 0, 0, -turn)
