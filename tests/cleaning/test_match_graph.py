import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmaclib.cleaning import GraphError, GraphSettings, MatchGraph, components, kept_components, load_graph, save_graph


def graph(count, *edges, least=8):
    """Edges are (i, j, inliers)."""
    array = np.array(edges, np.int32).reshape(-1, 3)
    return MatchGraph(tuple(f"{n}.jpg" for n in range(count)), ("",) * count, np.full((count, 2), 100, np.int32),
                      array[:, :2], array[:, 2], np.tile(np.eye(2, 3), (len(array), 1, 1)),
                      np.tile(np.float32([10, 10, 50, 60]), (len(array), 2, 1)), len(array), {"mark": 2},
                      {"verification": {"min_inliers": least}})


def by_search(count, pairs):
    """Components by walking: a set of frozensets."""
    left, found = set(range(count)), set()
    while left:
        group, front = set(), {left.pop()}
        while front:
            group |= front
            front = {b for a, b in [*pairs, *((b, a) for a, b in pairs)] if a in front} - group
        found.add(frozenset(group))
        left -= group
    return found


@given(st.integers(1, 12).flatmap(lambda count: st.tuples(
    st.just(count), st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=14))))
def test_components_equal_a_search(case):
    count, pairs = case
    found = components(count, np.array(pairs, int).reshape(-1, 2))
    assert {frozenset(np.flatnonzero(found == number).tolist()) for number in set(found)} == by_search(count, pairs)
    sizes = np.bincount(found)
    assert (np.diff(sizes) <= 0).all()
    first = [np.flatnonzero(found == number)[0] for number in range(len(sizes))]
    assert all(a < b for a, b, x, y in zip(first, first[1:], sizes, sizes[1:], strict=False) if x == y)


def test_components_of_nothing():
    assert components(0, np.zeros((0, 2), int)).shape == (0,)
    assert components(3, np.zeros((0, 2), int)).tolist() == [0, 1, 2]


def test_weak_edges_are_cut_and_the_largest_kept():
    made = graph(7, (0, 1, 20), (1, 2, 9), (2, 3, 30), (3, 4, 12), (5, 6, 50))
    kept = {t: kept_components(made, GraphSettings(threshold=t)).tolist() for t in (8, 10, 15, 40, 60)}
    assert kept[8] == [0, 0, 0, 0, 0, -1, -1]
    assert kept[10] == [-1, -1, 0, 0, 0, -1, -1]
    assert kept[15] == [0, 0, -1, -1, -1, -1, -1]  # three pairs: the first is kept
    assert kept[40] == [-1] * 5 + [0, 0]
    assert kept[60] == [-1] * 7  # an image without a verified pair is no class


def test_several_components_are_kept():
    made = graph(7, (0, 1, 20), (2, 3, 20), (3, 4, 20))
    assert kept_components(made, GraphSettings(largest=3)).tolist() == [1, 1, 0, 0, 0, -1, -1]
    assert kept_components(made, GraphSettings(largest=9, min_images=1)).tolist() == [1, 1, 0, 0, 0, 2, 3]
    assert kept_components(made, GraphSettings(largest=2, min_images=3)).tolist() == [-1, -1, 0, 0, 0, -1, -1]


def test_a_threshold_under_what_the_graph_holds_is_refused():
    with pytest.raises(ValueError, match="at least 12, the min_inliers of this graph, got 10"):
        kept_components(graph(2, (0, 1, 20), least=12), GraphSettings(threshold=10))


def test_saved_and_loaded(tmp_path):
    made = graph(3, (0, 1, 20), (1, 2, 9))
    save_graph(tmp_path / "a.npz", made)
    save_graph(tmp_path / "b.npz", made)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found = load_graph(tmp_path / "a.npz")
    for name, value in vars(made).items():
        assert np.array_equal(getattr(found, name), value), name
    assert (found.names, found.rejected) == (made.names, made.rejected)
    assert found.affines.dtype == np.float64 and found.pairs.dtype == np.int32


def test_other_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_graph(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("x")
    np.savez(tmp_path / "other.npz", a=1)
    for name in ("text.npz", "other.npz"):
        with pytest.raises(GraphError, match=f"{name}: expected a match graph"):
            load_graph(tmp_path / name)


@pytest.mark.parametrize("values", [{"threshold": 2}, {"largest": 0}, {"min_images": 0}])
def test_bad_settings(values):
    with pytest.raises(ValueError, match="expected"):
        GraphSettings(**values)
