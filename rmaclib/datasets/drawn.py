"""A small landmark collection that the library draws itself (a stand-in for photographs, Sections 3, 5.1).

Monuments of `monuments` in views that differ by scale, crop, mild perspective, hour of the day and things in
front. No photograph, no download: tests and the published book may use and show every picture. Figures
measured on it say nothing about Oxford or Paris.

Everything follows from the seed: the same seed and the same Pillow give the same bytes.
"""

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.Image import Resampling

from rmaclib.datasets.monuments import PALETTES, STYLES, Landmark, Rng, draw_facade, draw_landmark, noise, to_image

Box = tuple[int, int, int, int]

DRAWING = 1  # raise it whenever the pictures change: older folders then no longer count as complete
MARKER = "drawn.json"  # written last: where it is, the folder is whole
OVERSAMPLING = 2  # pictures are drawn at twice their size, because ImageDraw does not smooth edges
GOOD, OK = 0.70, 0.35  # least visible fraction of a monument for the "good" and for the "ok" list
VIEW_LABELS = ("good", "good", "ok", "good", "junk", "good")  # repeated over the views of a landmark
HIDDEN = {"good": 0.0, "ok": 0.45, "junk": 1.0}  # what to ask of draw_view to get these labels
TRIES = 60  # views drawn at most to meet a wanted label; a handful is enough in practice

# First monument of each use, within the 10 000 of a seed. No two uses share one; as their remainders by 42
# (the styles times the palettes) lie far apart, small sets share no pair of style and colours either.
TEST, TRAINING, DISTRACTORS = 0, 525, 1000

HOURS = (  # sky at the top, sky at the horizon, gain of the light per channel
    ((70, 130, 210), (196, 220, 240), (1.04, 1.02, 1.00)),  # noon
    ((120, 164, 214), (246, 226, 200), (1.08, 1.00, 0.88)),  # morning
    ((92, 96, 156), (250, 172, 112), (1.06, 0.84, 0.70)),  # sunset
    ((168, 176, 186), (214, 218, 222), (0.86, 0.88, 0.92)),  # overcast
    ((46, 62, 112), (146, 140, 170), (0.66, 0.70, 0.88)),  # dusk
)


# ---- views


def _tree(draw: ImageDraw.ImageDraw, rng: Rng, x: float, y: float, w: float, h: float) -> None:
    """A tree at (x, y) with a crown w by h pixels: leaves in blobs, lighter toward the upper left."""
    thick, middle = w * 0.06, y - h * 0.75
    trunk = [(x - thick, y), (x + thick, y), (x + thick / 2, middle), (x - thick / 2, middle)]
    draw.polygon(trunk, (78, 58, 44))
    tint = rng.uniform((60, 96, 40), (104, 128, 60))
    crown = (x - w * 0.4, middle - h * 0.4, x + w * 0.4, middle + h * 0.4)
    draw.ellipse(crown, tuple((tint * 0.6).astype(int)))
    blobs = rng.uniform(-1, 1, size=(160, 2))
    blobs = blobs[np.hypot(*blobs.T) < 1]
    for a, b in blobs[np.argsort(-blobs.sum(1))]:
        colour = tint * (0.86 - 0.2 * (a + b) + rng.uniform(-0.1, 0.1))
        radius = w * rng.uniform(0.05, 0.11)
        cx, cy = x + a * w * 0.42, middle + b * h * 0.42
        draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), tuple(colour.astype(int)))


def _person(draw: ImageDraw.ImageDraw, rng: Rng, x: float, y: float, h: float) -> None:
    """Somebody h pixels tall who stands at (x, y)."""
    coat, legs = (tuple(rng.integers(least, most, 3).tolist()) for least, most in ((50, 200), (30, 90)))
    skin = tuple((np.array((236, 188, 158)) * rng.uniform(0.4, 1)).astype(int))
    draw.line([(x - h * 0.07, y), (x, y - h * 0.5), (x + h * 0.07, y)], legs, max(2, int(h * 0.08)))
    draw.rounded_rectangle((x - h * 0.13, y - h * 0.82, x + h * 0.13, y - h * 0.4), h * 0.08, coat)
    draw.ellipse((x - h * 0.075, y - h, x + h * 0.075, y - h * 0.84), skin)


def _lamp(draw: ImageDraw.ImageDraw, x: float, y: float, h: float) -> None:
    """A lamp post h pixels tall that stands at (x, y)."""
    iron, r = (40, 44, 46), h * 0.05
    draw.line([(x, y), (x, y - h)], iron, max(2, int(h * 0.025)))
    draw.line([(x - 2 * r, y - h), (x + 2 * r, y - h)], iron, max(2, int(h * 0.02)))
    for cx in (x - 2 * r, x + 2 * r):
        draw.ellipse((cx - r, y - h - r, cx + r, y - h + r), (250, 240, 206), iron)


def _sky(rng: Rng, w: int, h: int, top, low) -> np.ndarray:
    """A sky with clouds, from colour `top` to colour `low`; (h, w, 3)."""
    t = np.linspace(0, 1.2, h).clip(0, 1)[:, None, None]
    sky = (1 - t) * np.array(top) + t * np.array(low)
    clouds = noise(rng, w, h, h // 5) + 0.5 * noise(rng, w, h, h // 12) - rng.uniform(0, 1.5)
    cover = (clouds.clip(0, 1.4) * 0.5)[:, :, None]
    return sky * (1 - cover) + (np.array(low) * 0.6 + 95) * cover


def _land(rng: Rng, w: int, h: int, ground: float, shadow: tuple[float, float]) -> Image.Image:
    """Hills, and ground below row `ground`; RGBA. shadow: (centre, half width) of a building's shadow."""
    y, x = np.ogrid[:h, :w]
    hills = ground - h * (0.08 + 0.035 * noise(rng, w, 1, w // 4) + 0.008 * noise(rng, w, 1, w // 30))
    far = np.array((98, 118, 100)) + rng.uniform(0, 1) * np.array((40, 24, 44))  # from woods to bare hills
    near = np.array((110, 128, 76)) + rng.uniform(0, 1) * np.array((80, 50, 80))  # from grass to paving
    grain = 1 + 0.05 * noise(rng, w, h, max(4, w // 60)) + 0.03 * rng.standard_normal((h, w), np.float32)
    across, down = ((x - shadow[0]) / shadow[1]) ** 4, ((y - ground) / (0.035 * h)) ** 2
    grain *= 1 - 0.45 * np.exp(-across) * np.exp(-down)
    is_ground = (y >= ground)[:, :, None]
    nearer = (0.85 + 0.2 * (y - ground) / (h - ground))[:, :, None]
    land = to_image(np.where(is_ground, near * nearer, far) * grain[:, :, None])
    land.putalpha(Image.fromarray(((y >= hills) * 255).astype(np.uint8)))
    return land


def _develop(rng: Rng, layers: list[Image.Image], size: tuple[int, int]) -> Image.Image:
    """Stack layers (RGBA, back to front) on a sky, at some hour of the day; a noisy RGB photograph."""
    top, low, gain = HOURS[rng.integers(len(HOURS))]
    land = functools.reduce(Image.alpha_composite, layers)
    lit = to_image(np.asarray(land.convert("RGB")) * np.array(gain) * rng.uniform(0.85, 1.1))
    sky = to_image(_sky(rng, *land.size, top, low))
    photograph = Image.composite(lit, sky, land.getchannel("A")).resize(size, Resampling.BOX)
    return to_image(np.asarray(photograph) + rng.normal(0, rng.uniform(1, 5), size=(size[1], size[0], 3)))


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 3x3 map that takes four points (4, 2) to four others."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    return np.append(np.linalg.solve(np.array(rows), target.ravel()), 1).reshape(3, 3)


def _place(
    rng: Rng, landmark: Landmark, w: int, h: int, ground: float, out: float
) -> tuple[Image.Image, np.ndarray, Image.Image]:
    """Set a monument into a w by h frame: (layer RGBA, homography from its facade, facade at the drawn size).

    out: 0 for near the middle, else the part of its width (at most 0.8) that lies outside, left or right
    """
    facade = draw_facade(landmark)
    scale = np.exp(rng.uniform(np.log(0.6), np.log(1.6))) * 0.75 * min(w / facade.width, h / facade.height)
    facade = facade.resize((round(facade.width * scale), round(facade.height * scale)), Resampling.BOX)
    fw, fh = facade.size
    shade = np.linspace(1, rng.uniform(0.75, 1), fw)[:: rng.choice([-1, 1]), None] * [1, 1, 1]
    shaded = to_image(np.asarray(facade.convert("RGB")) * shade)
    shaded.putalpha(facade.getchannel("A"))
    middle = w * rng.uniform(0.4, 0.6)
    if out:
        middle = rng.choice([fw * (0.5 - out), w - fw * (0.5 - out)])
    corners = np.array([(0, 0), (fw, 0), (fw, fh), (0, fh)], float)
    yaw, pitch, squeeze = rng.uniform(-0.12, 0.12), rng.uniform(0, 0.08), rng.uniform(0.86, 1)
    rise = np.array([1 + yaw, 1 - yaw, 0.02 - yaw * 0.12, 0.02 + yaw * 0.12])  # nearer: taller, lower foot
    half = np.array([pitch - 1, 1 - pitch, 1, -1]) * squeeze / 2
    target = np.stack([middle + half * fw, ground + np.array([-1, -1, 1, 1]) * rise * fh], 1)
    matrix = _homography(corners, target)
    inverse = np.linalg.inv(matrix)
    coefficients = (inverse / inverse[2, 2]).ravel()[:8]  # PIL wants the map from the frame to the facade
    layer = shaded.transform((w, h), Image.Transform.PERSPECTIVE, coefficients, Resampling.BICUBIC)
    return layer, matrix, facade


def _visible(facade: Image.Image, matrix: np.ndarray, front: Image.Image) -> float:
    """The part of a facade's pixels that falls inside the frame and behind nothing of `front` (RGBA)."""
    ys, xs = np.nonzero(np.asarray(facade.getchannel("A"))[::3, ::3] > 127)
    u, v, z = matrix @ np.stack([xs * 3, ys * 3, np.ones_like(xs)])
    columns, rows = (u / z).astype(int), (v / z).astype(int)
    inside = (columns >= 0) & (columns < front.width) & (rows >= 0) & (rows < front.height)
    return float(np.sum(np.asarray(front)[rows[inside], columns[inside], 3] < 128) / len(xs))


def _front(rng: Rng, w: int, h: int, ground: float, trees) -> Image.Image:
    """Things in front, RGBA: the given trees (x, crown width, crown height) and a few lamps and people."""
    front = Image.new("RGBA", (w, h))
    draw = ImageDraw.Draw(front)
    for x, tree_w, tree_h in trees:
        _tree(draw, rng, x, ground + h * rng.uniform(0.02, 0.06), tree_w, tree_h)
    for _ in range(rng.integers(0, 3)):
        _lamp(draw, w * rng.uniform(0, 1), ground + h * 0.05, h * rng.uniform(0.2, 0.35))
    for _ in range(rng.integers(0, 6)):
        near = rng.uniform(0, 1)  # the nearer, the taller and the lower in the picture
        foot = ground + (h - ground) * (0.15 + 0.7 * near)
        _person(draw, rng, w * rng.uniform(0, 1), foot, h * (0.06 + 0.09 * near))
    return front


def draw_view(
    landmark: Landmark, view_seed: int, width: int, height: int, hidden: float = 0.0
) -> tuple[Image.Image, Box, float]:
    """One photograph-like view of a monument, width by height pixels.

    hidden: 0 (clear) to 1 (mostly behind trees or out of the frame), roughly
    returns: the picture (RGB), the box of the monument in the frame (things in front ignored), the part of
    the monument that is seen, 0 to 1
    """
    rng = np.random.default_rng([landmark.seed, 2, view_seed])
    w, h = width * OVERSAMPLING, height * OVERSAMPLING
    ground, out = h * rng.uniform(0.8, 0.9), 0.0
    if hidden and rng.random() < 0.35:
        out = rng.uniform(0.68, 0.8) * hidden ** 0.5
    building, matrix, facade = _place(rng, landmark, w, h, ground, out)
    fw, fh = facade.size
    x = (matrix @ (fw / 2, fh, 1))[0] / (matrix @ (fw / 2, fh, 1))[2]
    beside = x + rng.choice([-1, 1]) * rng.uniform(0.5, 0.75) * fw
    trees = [(beside, h * rng.uniform(0.12, 0.22), h * rng.uniform(0.2, 0.35))][: rng.integers(0, 2)]
    if hidden and not out:
        crown = fw * (0.25 + 0.65 * hidden), fh * (0.6 + 0.4 * hidden)
        trees += [(x + fw * rng.uniform(-0.15, 0.15), *crown) for _ in range(2)]
    front = _front(rng, w, h, ground, trees)
    solid = building.getchannel("A").point(lambda alpha: 255 * (alpha > 127))
    left, top, right, bottom = solid.getbbox()
    box = left // OVERSAMPLING, top // OVERSAMPLING, -(-right // OVERSAMPLING), -(-bottom // OVERSAMPLING)
    image = _develop(rng, [_land(rng, w, h, ground, (x, fw * 0.55)), building, front], (width, height))
    return image, box, _visible(facade, matrix, front)


def draw_scene(seed: int, width: int, height: int) -> Image.Image:
    """A park without a building, width by height pixels."""
    rng = np.random.default_rng([seed, 3])
    w, h = width * OVERSAMPLING, height * OVERSAMPLING
    ground = h * rng.uniform(0.6, 0.85)
    trees = rng.uniform((0, h * 0.2, h * 0.3), (w, h * 0.45, h * 0.5), size=(rng.integers(2, 7), 3))
    layers = [_land(rng, w, h, ground, (0, 1)), _front(rng, w, h, ground, trees)]
    return _develop(rng, layers, (width, height))


# ---- folders


def _frame(seed: int, longer: int) -> tuple[int, int]:
    """Width and height of a picture: landscape or portrait, 4:3 or 3:2."""
    rng = np.random.default_rng([seed, 4])
    shorter = round(longer * rng.choice([3 / 4, 2 / 3]))
    return (longer, shorter) if rng.random() < 0.65 else (shorter, longer)


def _view_labelled(landmark: Landmark, number: int, longer: int) -> tuple[Image.Image, Box, str]:
    """View `number` of a landmark, drawn again with another seed until it has the label of its turn."""
    wanted = VIEW_LABELS[number % len(VIEW_LABELS)]
    for view_seed in range(number * TRIES, (number + 1) * TRIES):
        size = _frame(landmark.seed + view_seed, longer)
        image, box, seen = draw_view(landmark, view_seed, *size, HIDDEN[wanted])
        if wanted == ("good" if seen >= GOOD else "ok" if seen >= OK else "junk"):
            return image, box, wanted
    raise RuntimeError(f"{landmark.name}, view {number}: none of {TRIES} drawings came out {wanted!r}")


def _save(image: Image.Image, path: Path, seed: int) -> None:
    image.save(path, quality=int(np.random.default_rng([seed, 5]).integers(75, 93)))


def _check_least(**settings: tuple[int, int]) -> None:
    """Raise ValueError for a setting (value, least value) that is too small."""
    for name, (value, least) in settings.items():
        if value < least:
            raise ValueError(f"{name}: expected {least} or more, got {value}")


def _landmarks(seed: int, count: int, first: int) -> list[Landmark]:
    """`count` monuments for one use; first: TEST or TRAINING."""
    limit = len(STYLES) * len(PALETTES)
    if count > limit:  # the names, style and colour, would repeat
        raise ValueError(f"landmarks: expected {limit} at most, got {count}")
    return [draw_landmark(seed * 10_000 + first + i) for i in range(count)]


def _write_folder(folder: Path, settings: dict, draw: Callable[[Path], dict]) -> Path:
    """Let `draw` fill a temporary folder, write the marker (settings and what `draw` returns) and rename it.

    Does nothing where `folder` was drawn with these settings; any other content raises FileExistsError.
    """
    folder, settings = Path(folder), {"drawing": DRAWING, **settings}

    def is_complete() -> bool:
        marker = folder / MARKER
        return marker.is_file() and json.loads(marker.read_text())["settings"] == settings

    if is_complete():
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: expected nothing there, or a folder drawn with {settings}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        whole = Path(work) / "whole"  # a folder inside: the temporary one is readable by its owner alone
        whole.mkdir()
        found = draw(whole)
        (whole / MARKER).write_text(json.dumps({"settings": settings, **found}, indent=1) + "\n")
        try:
            whole.rename(folder)
        except OSError:
            if not is_complete():  # somebody else may have finished the same folder meanwhile
                raise
    return folder


def draw_collection(
    folder: Path, seed: int = 0, landmarks: int = 6, views: int = 6, distractors: int = 8, longer: int = 320
) -> Path:
    """Draw a test collection in the layout of Oxford buildings (Section 5.1).

    folder/jpg/<landmark>_<NNNNNN>.jpg and distractor_<NNNNNN>.jpg; folder/gt/<landmark>_<k>_<list>.txt: k 1
    or 2, list query ("oxc1_<name> x1 y1 x2 y2" in pixels, ends exclusive), good (with the query), ok or junk.

    landmarks: 1 to 42; views: per landmark, 2 or more; distractors: every fourth has no building
    longer: longer side of a picture in pixels, 64 or more
    raises FileExistsError when `folder` holds anything else; ValueError for a setting out of its range
    """
    _check_least(landmarks=(landmarks, 1), views=(views, 2), longer=(longer, 64))
    _check_least(distractors=(distractors, 0))
    monuments, others = _landmarks(seed, landmarks, TEST), seed * 10_000 + DISTRACTORS

    def draw(whole: Path) -> dict:
        (whole / "jpg").mkdir()
        (whole / "gt").mkdir()
        for landmark in monuments:
            lists = {"good": [], "ok": [], "junk": []}
            queries = []
            for number in range(views):
                image, box, label = _view_labelled(landmark, number, longer)
                name = f"{landmark.name}_{number:06d}"
                _save(image, whole / "jpg" / f"{name}.jpg", landmark.seed + number)
                lists[label].append(name)
                queries.append(" ".join(map(str, (f"oxc1_{name}", *box))))
            for k in (1, 2):  # the first two views are good ones
                for label, lines in {"query": queries[k - 1 : k], **lists}.items():
                    text = "".join(f"{line}\n" for line in lines)
                    (whole / "gt" / f"{landmark.name}_{k}_{label}.txt").write_text(text)
        for i in range(distractors):
            size = _frame(others + i, longer)
            if i % 4 == 3:
                image = draw_scene(others + i, *size)
            else:
                image, _, _ = draw_view(draw_landmark(others + i), i, *size)
            _save(image, whole / "jpg" / f"distractor_{i:06d}.jpg", others + i)
        return {}

    settings = dict(seed=seed, landmarks=landmarks, views=views, distractors=distractors, longer=longer)
    return _write_folder(folder, {"kind": "collection", **settings}, draw)


def draw_training(folder: Path, seed: int = 0, landmarks: int = 6, views: int = 6, longer: int = 320) -> Path:
    """Draw a training set in the layout of the Landmarks lists (Section 3), of monuments no collection shows.

    folder/images/<landmark>/<NNN>.jpg; annotation_full_train.txt and annotation_full_val.txt with lines
    "images/<landmark>/<NNN>.jpg label", every tenth picture in val. Two pictures of the training list show
    something else than their label says; the marker file names them under "wrong_labels".

    landmarks: 2 to 42; views: per landmark, 2 or more; longer: longer side of a picture in pixels, 64 or more
    raises as draw_collection does
    """
    _check_least(landmarks=(landmarks, 2), views=(views, 2), longer=(longer, 64))
    monuments = _landmarks(seed, landmarks, TRAINING)

    def draw(whole: Path) -> dict:
        lists, wrong = {"train": [], "val": []}, []
        for label, landmark in enumerate(monuments):
            (whole / "images" / landmark.name).mkdir(parents=True)
            for number in range(views):
                name = f"images/{landmark.name}/{number:03d}.jpg"
                is_wrong = number == 1 and label in (0, landmarks - 1)
                shown = monuments[(label + 1) % landmarks] if is_wrong else landmark
                image, _, _ = _view_labelled(shown, number + views * is_wrong, longer)
                _save(image, whole / name, landmark.seed + number)
                index = label * views + number
                lists["val" if index % 10 == 5 and not is_wrong else "train"].append(f"{name} {label}\n")
                wrong += [name] * is_wrong
        for part, lines in lists.items():
            (whole / f"annotation_full_{part}.txt").write_text("".join(lines))
        return {"wrong_labels": wrong}

    settings = dict(seed=seed, landmarks=landmarks, views=views, longer=longer)
    return _write_folder(folder, {"kind": "training", **settings}, draw)
