"""Graph files that are damaged, or whose parts don't fit together, are named; settings that can't be are errors."""

import json
import random
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from rmaclib.cleaning import (
    CleanSettings,
    GraphError,
    MatchGraph,
    clean_settings,
    load_graph,
    save_graph,
    select,
)
from rmaclib.foundation.errors import InputError


@pytest.fixture
def graph():
    pairs = np.array([[0, 1], [0, 2], [1, 2]], np.int32)
    return MatchGraph(("a.jpg", "b.jpg", "c.jpg", "d.jpg"), ("", "", "", "no keypoints"),
                      np.full((4, 2), 100, np.int32), pairs, np.array([12, 20, 30], np.int32),
                      np.tile(np.eye(2, 3), (3, 1, 1)), np.tile(np.float32([10, 10, 50, 60]), (3, 2, 1)), 6,
                      {"mark": 2}, {"verification": {"min_inliers": 10}, "pairs": "all", "files": "f"})


ODD = {
    "sizes": [np.zeros((4, 2), np.int32), np.full((3, 2), 9, np.int32), np.full((4, 2), 9.0),
              np.full((4, 2), -1, np.int32), np.full((4,), 9, np.int32)],
    "pairs": [np.zeros((3, 2), np.int32), np.array([[0, 1], [0, 9], [1, 2]], np.int32),
              np.array([[-1, 1], [0, 2], [1, 2]], np.int32), np.array([[1, 0], [0, 2], [1, 2]], np.int32),
              np.array([[0, 1], [0, 1], [1, 2]], np.int32), np.array([[0, 1]], np.int32), np.zeros((3, 3), np.int32),
              np.array([[0, 1], [0, 2], [1, 2]], np.int64), np.zeros(3, np.int32), np.int32(3)],
    "inliers": [np.array([12, 20], np.int32), np.array([12, 20, 9], np.int32), np.array([12.0, 20, 30]),
                np.array([12, -20, 30], np.int32), np.array([[12], [20], [30]], np.int32)],
    "affines": [np.full((3, 2, 3), np.nan), np.full((3, 2, 3), np.inf), np.zeros((3, 2, 3)), np.zeros((3, 3, 3)),
                np.tile(np.eye(2, 3) * 1e300, (3, 1, 1)), np.tile(np.eye(2, 3) * 1e-300, (3, 1, 1)),
                np.tile(np.eye(2, 3, dtype=np.float32), (3, 1, 1)), np.zeros((2, 2, 3))],
    "rectangles": [np.full((3, 2, 4), np.nan, np.float32), np.zeros((3, 2, 4), np.float32),
                   np.zeros((3, 4), np.float32), np.tile([10.0, 10, 50, 60], (3, 2, 1)),
                   np.full((3, 2, 4), np.inf, np.float32)],
}
ODD_META = [("names", ["a", "b"]), ("names", "abcd"), ("names", [1, 2, 3, 4]), ("names", None), ("reasons", []),
            ("reasons", [None] * 4), ("compared", -1), ("compared", 1.5), ("compared", True), ("compared", "6"),
            ("rejected", []), ("rejected", {"mark": "2"}), ("rejected", {"mark": -1}), ("settings", []),
            ("settings", {}), ("settings", {"verification": 3}), ("settings", {"verification": {}}),
            ("settings", {"verification": {"min_inliers": "10"}}), ("more", 1), ("names", ["a", "b", "c", "d", "e"])]


def write(path, meta, arrays):
    np.savez(path, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)


@pytest.fixture
def parts(graph, tmp_path):
    save_graph(tmp_path / "000000.npz", graph)
    with np.load(tmp_path / "000000.npz") as file:
        return json.loads(file["meta"].tobytes()), {name: file[name] for name in ODD}


@pytest.mark.parametrize("name, number", [(name, number) for name, odd in ODD.items() for number in range(len(odd))])
def test_arrays_that_do_not_fit_are_errors(parts, tmp_path, name, number):
    meta, arrays = parts
    write(tmp_path / "000001.npz", meta, arrays | {name: ODD[name][number]})
    with pytest.raises(GraphError, match=rf"000001.npz: expected a match graph .*({name}|inliers)"):
        load_graph(tmp_path / "000001.npz")


@pytest.mark.parametrize("key, value", ODD_META)
def test_metadata_that_does_not_fit_is_an_error(parts, tmp_path, key, value):
    meta, arrays = parts
    write(tmp_path / "000001.npz", meta | {key: value}, arrays)
    with pytest.raises(GraphError, match=r"000001.npz: expected a match graph"):
        load_graph(tmp_path / "000001.npz")


def test_compressed_files_are_not_unpacked(parts, tmp_path):
    meta, arrays = parts
    write(tmp_path / "a.npz", meta, arrays)
    with zipfile.ZipFile(tmp_path / "a.npz") as file, zipfile.ZipFile(tmp_path / "b.npz", "w") as packed:
        for part in file.infolist():
            packed.writestr(part.filename, file.read(part), zipfile.ZIP_DEFLATED)
    with pytest.raises(GraphError, match="b.npz"):
        load_graph(tmp_path / "b.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(GraphError, match="folder.npz"):
        load_graph(tmp_path / "folder.npz")


def test_every_mutation_is_an_error_or_the_same(graph, tmp_path):
    save_graph(tmp_path / "000000.npz", graph)
    whole, draw = (tmp_path / "000000.npz").read_bytes(), random.Random(0)
    expected = select(graph, CleanSettings()).boxes
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        (tmp_path / "x.npz").write_bytes(changed[:draw.choice([None, None, draw.randrange(len(changed))])])
        try:
            loaded = load_graph(tmp_path / "x.npz")
        except GraphError as error:
            assert "x.npz" in str(error)
        else:
            assert np.array_equal(select(loaded, CleanSettings()).boxes, expected, equal_nan=True)


def test_a_graph_without_edges_loads(graph, tmp_path):
    save_graph(tmp_path / "a.npz", replace(graph, **{name: getattr(graph, name)[:0] for name in list(ODD)[1:]}))
    assert len(load_graph(tmp_path / "a.npz").pairs) == 0


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("part, field, value", [
    ("keypoints", "size", INF), ("keypoints", "size", 512.5), ("keypoints", "size", "512"), ("keypoints", "size", 8),
    ("keypoints", "count", 10**12), ("keypoints", "count", True), ("keypoints", "detector", "surf"),
    ("matching", "ratio", NAN), ("matching", "ratio", [0.8]), ("matching", "rough_dim", 0),
    ("matching", "rough_ratio", 2),
    ("verification", "tolerance", 0), ("verification", "min_inliers", 2.5), ("verification", "max_scale", INF),
    ("verification", "marks", "yes"), ("verification", "caption", 0.5), ("graph", "threshold", NAN),
    ("graph", "threshold", 2), ("graph", "largest", 1.5), ("graph", "conductance", NAN), ("graph", "conductance", -1),
    ("graph", "min_images", 0), ("boxes", "merge", "mean"), ("boxes", "alpha", NAN), ("boxes", "max_rounds", -1),
    ("boxes", "tolerance", -INF),
])
def test_settings_that_cannot_be_are_errors_of_file_and_field(part, field, value):
    with pytest.raises(InputError, match=f"s.yml: {part}: {field}: expected "):
        clean_settings({part: {field: value}}, "s.yml")


@pytest.mark.parametrize("mapping, message", [
    ({"exhaustive": 0}, "exhaustive: expected at least 1, got 0"), ({"neighbours": 1.5}, "neighbours: expected"),
    ({"graph": 3}, "graph: expected `name: value`, got 3"), ({"graph": None}, "graph: expected"),
    ({"matching": {"ratio": 0.9}}, "rough_ratio: expected at least ratio"), ({3: 4}, "unknown key 3"),
])
def test_other_settings_are_errors(mapping, message):
    with pytest.raises(InputError, match=message):
        clean_settings(mapping, "s.yml")
