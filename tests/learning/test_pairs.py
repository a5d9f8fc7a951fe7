from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from rmaclib.cleaning.graph import GraphSettings, MatchGraph, save_graph
from rmaclib.datasets.types import LabelledImages
from rmaclib.learning import LearningError, Relations, verified_pairs


def graph(folder, label, names, edges, least=10):
    """Writes a match graph with the given edges {(i, j): inliers}."""
    pairs = np.array(sorted(edges), np.int32).reshape(-1, 2)
    count = len(pairs)
    save_graph(folder / "graphs" / f"{label:06d}.npz", MatchGraph(
        tuple(names), ("",) * len(names), np.full((len(names), 2), 100, np.int32), pairs,
        np.array([edges[tuple(pair)] for pair in pairs.tolist()], np.int32),
        np.tile(np.eye(2, 3), (count, 1, 1)), np.tile(np.float32([0, 0, 9, 9]), (count, 2, 1)), 10, {},
        {"verification": {"min_inliers": least}}))


def listed(names, labels):
    return LabelledImages("c", Path("."), tuple(names), tuple(map(Path, names)), tuple(labels), (None,) * len(names))


def pairs_of(matrix):
    return {(i, j) for i, j in np.argwhere(matrix.toarray()).tolist() if i < j}


def test_relations_by_label():
    relations = Relations(np.array([0, 1, 0, 2, 1]))
    chosen = np.array([2, 0, 1, 3])
    assert relations.relevant(chosen).tolist() == [[False, True, False, False], [True] + [False] * 3,
                                                   [False] * 4, [False] * 4]
    assert relations.irrelevant(chosen).tolist() == [[False, False, True, True], [False, False, True, True],
                                                     [True, True, False, True], [True, True, True, False]]


def test_relations_by_verified_pairs():
    verified = csr_array((np.ones(2, bool), ([0, 2], [2, 0])), shape=(4, 4))
    relations = Relations(np.array([0, 0, 0, 1]), verified)
    every = np.arange(4)
    assert np.argwhere(relations.relevant(every)).tolist() == [[0, 2], [2, 0]]
    # Of one label and not verified: neither relevant nor irrelevant.
    assert np.argwhere(relations.irrelevant(every)).tolist() == [[0, 3], [1, 3], [2, 3], [3, 0], [3, 1], [3, 2]]
    with pytest.raises(ValueError, match="each of 3 images"):
        Relations(np.zeros(3), verified)


def test_verified_pairs(tmp_path):
    # The weak edge and the second component don't count; two labels in two files.
    graph(tmp_path, 0, "abcdef", {(0, 1): 20, (1, 2): 12, (0, 3): 9, (4, 5): 30}, least=9)
    graph(tmp_path, 3, "gh", {(0, 1): 15})
    images = listed("hgfedcba", [3, 3, 0, 0, 0, 0, 0, 0])
    assert pairs_of(verified_pairs(images, tmp_path)) == {(0, 1), (6, 7), (5, 6)}
    assert pairs_of(verified_pairs(images, tmp_path, GraphSettings(threshold=16))) == {(6, 7)}
    assert pairs_of(verified_pairs(images, tmp_path, GraphSettings(largest=2))) == {(0, 1), (6, 7), (5, 6), (2, 3)}
    matrix = verified_pairs(images, tmp_path).toarray()
    assert (matrix == matrix.T).all() and not matrix.diagonal().any()


def test_a_graph_that_is_a_link_to_nothing_is_named(tmp_path):
    graph(tmp_path, 0, "ab", {(0, 1): 20})
    (tmp_path / "graphs/000001.npz").symlink_to("nowhere")
    with pytest.raises(LearningError, match="000001.npz: expected a match graph of a cleaning run"):
        verified_pairs(listed("ab", [0, 0]), tmp_path)


def test_pairs_are_those_of_the_settings_that_it_was_cleaned_with(tmp_path):
    graph(tmp_path, 0, "abcde", {(0, 1): 20, (1, 2): 12, (3, 4): 30}, least=12)
    images = listed("abcde", [0] * 5)
    with pytest.raises(ValueError, match="at least 12"):
        verified_pairs(images, tmp_path)
    (tmp_path / "settings.json").write_text('{"graph": {"threshold": 12, "largest": 2}}')
    assert pairs_of(verified_pairs(images, tmp_path)) == {(0, 1), (1, 2), (3, 4)}
    (tmp_path / "settings.json").write_text('{"graph": {"threshhold": 12}}')
    with pytest.raises(LearningError, match="settings.json: expected the settings"):
        verified_pairs(images, tmp_path)


def test_the_names_of_a_clean_list_are_paths_from_its_folder(tmp_path):
    graph(tmp_path / "clean", 0, ["images/a.jpg", "images/b.jpg", "../other/c.jpg"], {(0, 1): 20, (1, 2): 20})
    names = ["../data/other/c.jpg", "../data/images/b.jpg", "../data/images/a.jpg", "../data/images/b.jpg.jpg"]
    images = LabelledImages("c", tmp_path, tuple(names), tuple(tmp_path / "clean" / name for name in names), (0,) * 4,
                            (None,) * 4)
    assert pairs_of(verified_pairs(images, tmp_path / "clean")) == {(0, 1), (1, 2)}


def test_images_are_looked_up_by_name_and_label(tmp_path):
    graph(tmp_path, 0, "abc", {(0, 1): 20, (1, 2): 20})
    # c is not in the list, b is there twice, once under another label.
    assert pairs_of(verified_pairs(listed("bab", [0, 0, 1]), tmp_path)) == {(0, 1)}
    assert pairs_of(verified_pairs(listed("bab", [0, 0, 0]), tmp_path)) == {(0, 1), (1, 2)}
    with pytest.raises(LearningError, match="joins two images of c; .* such as x"):
        verified_pairs(listed("xy", [0, 0]), tmp_path)
    with pytest.raises(LearningError, match="expected match graphs"):
        verified_pairs(listed("ab", [0, 0]), tmp_path / "nowhere")
    with pytest.raises(ValueError, match="at least 10"):
        verified_pairs(listed("ab", [0, 0]), tmp_path, GraphSettings(threshold=9))
