"""The drawn collection: layout, labels, repeatability. Pictures are small: the file runs in seconds."""

import json
import time

import numpy as np
import pytest
from PIL import Image

from rmaclib.datasets import drawn, monuments
from rmaclib.datasets.drawn import draw_collection, draw_landmark, draw_training, draw_view

SMALL = dict(landmarks=2, views=5, distractors=4, longer=96)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return draw_collection(tmp_path_factory.mktemp("drawn") / "test", seed=3, **SMALL)


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    return draw_training(tmp_path_factory.mktemp("drawn") / "train", seed=3, landmarks=3, views=5, longer=96)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def read_lists(folder):
    """{query prefix: {list: lines}} of an Oxford-layout folder."""
    found = {}
    for path in sorted((folder / "gt").glob("*.txt")):
        prefix, _, kind = path.stem.rpartition("_")
        found.setdefault(prefix, {})[kind] = path.read_text().splitlines()
    return found


def test_same_seed_same_bytes(collection, training, tmp_path):
    assert contents(draw_collection(tmp_path / "a", seed=3, **SMALL)) == contents(collection)
    again = draw_training(tmp_path / "b", seed=3, landmarks=3, views=5, longer=96)
    assert contents(again) == contents(training)


def test_other_seed_other_pictures(collection, tmp_path):
    other = draw_collection(tmp_path / "a", seed=4, **SMALL)
    pictures = {p.read_bytes() for p in (collection / "jpg").iterdir()}
    assert len(pictures) == 2 * 5 + 4  # no picture twice
    assert not pictures & {p.read_bytes() for p in (other / "jpg").iterdir()}


def test_collection_is_an_oxford_layout(collection):
    lists = read_lists(collection)
    landmarks = {prefix[:-2] for prefix in lists}
    assert len(landmarks) == 2 and set(lists) == {f"{name}_{k}" for name in landmarks for k in (1, 2)}
    names = {p.stem for p in (collection / "jpg").glob("*.jpg")}
    listed = set()
    for prefix, kinds in lists.items():
        assert set(kinds) == {"query", "good", "ok", "junk"}
        shown = kinds["good"] + kinds["ok"] + kinds["junk"]
        assert len(shown) == len(set(shown)) == 5  # disjoint, and every view is in one of them
        assert all(name.startswith(prefix[:-2] + "_") for name in shown)
        assert kinds["ok"] and kinds["junk"]
        listed |= set(shown)
    assert names - listed == {f"distractor_{i:06d}" for i in range(4)} and listed < names


def test_queries(collection):
    lists = read_lists(collection)
    queries = set()
    for kinds in lists.values():
        (line,) = kinds["query"]
        tagged, *numbers = line.split()
        assert tagged.startswith("oxc1_")
        name = tagged.removeprefix("oxc1_")
        assert name in kinds["good"]
        x1, y1, x2, y2 = map(int, numbers)
        with Image.open(collection / "jpg" / f"{name}.jpg") as image:
            assert image.mode == "RGB" and max(image.size) == 96
            assert 0 <= x1 < x2 <= image.width and 0 <= y1 < y2 <= image.height
        queries.add(name)
    assert len(queries) == 4


def test_training_lists(training):
    lines = {}
    for part in ("train", "val"):
        for line in (training / f"annotation_full_{part}.txt").read_text().splitlines():
            name, label = line.split()
            lines[name] = (part, int(label))
    assert set(lines) == {str(p.relative_to(training)) for p in training.glob("images/*/*.jpg")}
    assert len(lines) == 15 and {label for _, label in lines.values()} == {0, 1, 2}
    folders = {name.split("/")[1]: label for name, (_, label) in lines.items()}
    assert len(folders) == 3
    assert all(folders[name.split("/")[1]] == label for name, (_, label) in lines.items())
    assert [part for part, _ in lines.values()].count("val") == 1
    wrong = json.loads((training / drawn.MARKER).read_text())["wrong_labels"]
    assert len(wrong) == 2 and all(lines[name][0] == "train" for name in wrong)


@pytest.mark.parametrize("seed", range(3))
def test_training_monuments_are_not_the_test_ones(seed):
    test, train, distractors = (
        drawn._landmarks(seed, 6, first) for first in (drawn.TEST, drawn.TRAINING, drawn.DISTRACTORS)
    )
    assert len({m.seed for m in test + train + distractors}) == 18
    assert len({m.name for m in test + train + distractors}) == 18
    assert len({m.style for m in test}) == len({m.palette for m in test}) == 6


def test_every_style_can_be_drawn():
    facades = [monuments.draw_facade(draw_landmark(seed)) for seed in range(12)]  # two of each style
    assert all(min(facade.size) > monuments.FACADE * 0.3 for facade in facades)
    assert len({draw_landmark(seed).name for seed in range(42)}) == 42


def mean_visible(hidden):
    return np.mean([draw_view(draw_landmark(5), i, 96, 72, hidden)[2] for i in range(8)])


def test_hidden_lowers_the_visible_fraction():
    clear, partly, mostly = (mean_visible(hidden) for hidden in (0.0, 0.45, 1.0))
    assert 1 >= clear > 0.85 > partly > 0.4 > mostly >= 0


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_box_holds_the_monument(monkeypatch, hidden):
    """Drawn without anything around it, the monument fills the box and stays inside it."""
    monkeypatch.setattr(drawn, "_develop", lambda rng, layers, size: layers[1])  # the building alone
    for view_seed in range(6):
        layer, (x1, y1, x2, y2), _ = draw_view(draw_landmark(1), view_seed, 90, 120, hidden)
        ys, xs = np.nonzero(np.asarray(layer)[:, :, 3] > 127)
        assert layer.size == (180, 240)  # twice the size: what is drawn before it is reduced
        assert (x1, y1) == (xs.min() // 2, ys.min() // 2)
        assert (x2, y2) == (xs.max() // 2 + 1, ys.max() // 2 + 1)


def test_visible_fraction_counts_what_is_covered_or_outside():
    facade = Image.new("RGBA", (60, 60), (9, 9, 9, 255))
    front = Image.new("RGBA", (90, 90))
    move = np.array([[1, 0, 60], [0, 1, 0], [0, 0, 1.0]])  # its right half leaves the frame
    assert drawn._visible(facade, move, front) == pytest.approx(0.5)
    front.paste((0, 0, 0, 255), (60, 0, 90, 30))  # covers the upper half of the rest
    assert drawn._visible(facade, move, front) == pytest.approx(0.25)


def test_homography_maps_its_four_points():
    source = np.array([(0, 0), (9, 0), (9, 5), (0, 5.0)])
    target = np.array([(1, 2), (8, 1), (9, 7), (0, 6.0)])
    u, v, z = drawn._homography(source, target) @ np.vstack([source.T, np.ones(4)])
    np.testing.assert_allclose(np.stack([u / z, v / z], 1), target, atol=1e-9)


def test_complete_folder_is_left_alone(collection, monkeypatch):
    monkeypatch.setattr(drawn, "draw_view", None)  # any drawing would fail
    before = {p: p.stat().st_mtime_ns for p in collection.rglob("*")}
    assert draw_collection(collection, seed=3, **SMALL) == collection
    assert {p: p.stat().st_mtime_ns for p in collection.rglob("*")} == before


def test_other_content_is_never_overwritten(collection, tmp_path):
    with pytest.raises(FileExistsError, match="expected nothing there"):
        draw_collection(collection, seed=5, **SMALL)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="expected nothing there"):
        draw_training(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("draw", [draw_collection, draw_training])
def test_interrupted_drawing_leaves_nothing(draw, monkeypatch, tmp_path):
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draw_view(*arguments)

    monkeypatch.setattr(drawn, "draw_view", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "set", landmarks=2, views=3, longer=96)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", [{"landmarks": 0}, {"landmarks": 43}, {"views": 1}, {"longer": 63}])
@pytest.mark.parametrize("draw", [draw_collection, draw_training])
def test_settings_out_of_range(draw, setting, tmp_path):
    with pytest.raises(ValueError, match=next(iter(setting))):
        draw(tmp_path / "set", **setting)
    assert list(tmp_path.iterdir()) == []


def test_drawing_is_quick(tmp_path):
    """60 pictures of the default size take less than 15 s of one core; here a fifth, at half the speed."""
    start = time.process_time()
    draw_collection(tmp_path / "set", landmarks=2, views=5, distractors=2)
    assert time.process_time() - start < 2 * 15 / 5
