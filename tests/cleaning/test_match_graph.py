from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.linalg import eigh

from rmaclib.cleaning import (
    CleanSettings,
    GraphError,
    GraphSettings,
    MatchGraph,
    components,
    kept_components,
    kept_edges,
    load_graph,
    parts,
    save_graph,
    select,
)
from rmaclib.cleaning.graph import sparsest_cut


def graph(count, *edges, least=8):
    """Edges are (i, j, inliers)."""
    array = np.array(edges, np.int32).reshape(-1, 3)
    return MatchGraph(tuple(f"{n}.jpg" for n in range(count)), ("",) * count, np.full((count, 2), 100, np.int32),
                      array[:, :2], array[:, 2], np.tile(np.eye(2, 3), (len(array), 1, 1)),
                      np.tile(np.float32([10, 10, 50, 60]), (len(array), 2, 1)), len(array), {"mark": 2},
                      {"verification": {"min_inliers": least}})


def by_search(count, pairs):
    """Components by walking: a set of frozensets."""
    left, groups = set(range(count)), set()
    while left:
        group, front = set(), {left.pop()}
        while front:
            group |= front
            front = {b for a, b in [*pairs, *((b, a) for a, b in pairs)] if a in front} - group
        groups.add(frozenset(group))
        left -= group
    return groups


@given(st.integers(1, 12).flatmap(lambda count: st.tuples(
    st.just(count), st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=14))))
def test_components_equal_a_search(case):
    count, pairs = case
    component = components(count, np.array(pairs, int).reshape(-1, 2))
    groups = {frozenset(np.flatnonzero(component == number).tolist()) for number in set(component)}
    assert groups == by_search(count, pairs)
    sizes = np.bincount(component)
    assert (np.diff(sizes) <= 0).all()
    first = [np.flatnonzero(component == number)[0] for number in range(len(sizes))]
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


def test_a_threshold_under_that_of_the_graph_is_an_error():
    with pytest.raises(ValueError, match="at least 12, the min_inliers of this graph, got 10"):
        kept_components(graph(2, (0, 1, 20), least=12), GraphSettings(threshold=10))


def test_saved_and_loaded(tmp_path):
    made = graph(3, (0, 1, 20), (1, 2, 9))
    save_graph(tmp_path / "a.npz", made)
    save_graph(tmp_path / "b.npz", made)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = load_graph(tmp_path / "a.npz")
    for name, value in vars(made).items():
        assert np.array_equal(getattr(loaded, name), value), name
    assert (loaded.names, loaded.rejected) == (made.names, made.rejected)
    assert loaded.affines.dtype == np.float64 and loaded.pairs.dtype == np.int32


def test_other_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_graph(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("x")
    np.savez(tmp_path / "other.npz", a=1)
    for name in ("text.npz", "other.npz"):
        with pytest.raises(GraphError, match=f"{name}: expected a match graph"):
            load_graph(tmp_path / name)


@pytest.mark.parametrize("values", [{"threshold": 2}, {"largest": 0}, {"min_images": 0}, {"min_matches": 0},
                                    {"conductance": 1}, {"conductance": -0.1}])
def test_bad_settings(values):
    with pytest.raises(ValueError, match="expected"):
        GraphSettings(**values)


def clique(*nodes, weight=20):
    return [(a, b, weight) for a, b in combinations(nodes, 2)]


def conductance(pairs, weights, side):
    """By definition, an edge at a time."""
    between, volumes = 0.0, [0.0, 0.0]
    for (a, b), weight in zip(pairs.tolist(), weights.tolist(), strict=True):
        between += weight * (side[a] != side[b])
        volumes[int(side[a])] += weight
        volumes[int(side[b])] += weight
    return between / min(volumes)


@st.composite
def connected(draw):
    """A connected graph of 2 to 7 nodes: count, pairs, weights."""
    count = draw(st.integers(2, 7))
    tree = {(draw(st.integers(0, node - 1)), node) for node in range(1, count)}
    more = draw(st.sets(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=8))
    pairs = np.array(sorted(tree | {(min(pair), max(pair)) for pair in more if pair[0] != pair[1]}))
    return count, pairs, np.array(draw(st.lists(st.integers(3, 90), min_size=len(pairs), max_size=len(pairs))), float)


@given(connected())
def test_a_cut_against_all_cuts(case):
    """Its conductance is what the definition says of its side, no less than the best of all cuts, and no more than
    Cheeger's inequality allows."""
    count, pairs, weights = case
    value, side = sparsest_cut(count, pairs, weights)
    assert 0 < side.sum() < count
    assert value == pytest.approx(conductance(pairs, weights, side))
    best = min(conductance(pairs, weights, np.array(sides)) for sides in product([False, True], repeat=count)
               if 0 < sum(sides) < count)
    assert best - 1e-9 <= value <= 2 * best**0.5 + 1e-9


@given(connected())
def test_the_order_is_that_of_the_normalised_laplacian(case):
    """The best prefix of the order of the generalised eigenvector (D - W) v = l D v, where that is unique."""
    count, pairs, weights = case
    joined = np.zeros((count, count))
    joined[tuple(pairs.T)] = weights
    joined += joined.T
    degrees = np.diag(joined.sum(1))
    values, vectors = eigh(degrees - joined, degrees)
    assume(count == 2 or values[2] - values[1] > 1e-3)
    assume(np.diff(np.sort(vectors[:, 1])).min() > 1e-6)
    order = np.argsort(vectors[:, 1])
    best = min(conductance(pairs, weights, np.isin(np.arange(count), order[:size])) for size in range(1, count))
    assert sparsest_cut(count, pairs, weights)[0] == pytest.approx(best)


def test_parts_by_hand():
    # Two groups of four that one weak pair joins: 10 of 2 * 6 * 20 + 10 at the nodes of either.
    edges = np.array([*clique(0, 2, 4, 6), *clique(1, 3, 5, 7), (0, 1, 10)])
    assert sparsest_cut(8, edges[:, :2], edges[:, 2])[0] == pytest.approx(10 / 250)
    assert parts(8, edges[:, :2], edges[:, 2], 0.039).tolist() == [0] * 8
    assert parts(8, edges[:, :2], edges[:, 2], 0.041).tolist() == [0, 1] * 4
    assert parts(8, edges[:, :2], edges[:, 2], 0).tolist() == [0] * 8
    # A third group, joined by two weak pairs, is cut off too; a pair and a single node stay as they are.
    edges = np.array([*edges, *clique(8, 9, 10, 11, 12), (7, 8, 3), (6, 9, 3), (13, 14, 5)])
    assert parts(16, edges[:, :2], edges[:, 2], 0.05).tolist() == [1, 2] * 4 + [0] * 5 + [3, 3, 4]


@given(connected(), st.floats(0.01, 0.9))
def test_no_part_has_a_cut_as_thin(case, limit):
    count, pairs, weights = case
    part = parts(count, pairs, weights, limit)
    for number in set(part):
        nodes = np.flatnonzero(part == number)
        inner = (part[pairs] == number).all(1)
        local = np.searchsorted(nodes, pairs[inner])
        assert len(set(components(len(nodes), local))) == 1
        if len(nodes) > 1:
            assert sparsest_cut(len(nodes), local, weights[inner])[0] >= limit


def test_edges_between_kept_parts_are_none():
    made = graph(8, *clique(0, 1, 2, 3), *clique(4, 5, 6, 7), (0, 4, 9))
    settings = GraphSettings(threshold=8, conductance=0.05, largest=2)
    kept = kept_components(made, settings)
    assert kept.tolist() == [0] * 4 + [1] * 4
    assert kept_edges(made, settings, kept).tolist() == [True] * 12 + [False]
    alone = kept_components(made, GraphSettings(threshold=8, conductance=0.05))
    assert alone.tolist() == [0] * 4 + [-1] * 4 and kept_edges(made, settings, alone).sum() == 6


def test_images_with_too_few_matches_are_dropped():
    made = graph(6, *clique(0, 1, 2), (2, 3, 20), (4, 5, 30))
    assert kept_components(made, GraphSettings(min_matches=2)).tolist() == [0, 0, 0, -1, -1, -1]
    assert kept_components(made, GraphSettings(min_matches=3)).tolist() == [-1] * 6
    # The largest part is chosen first: nothing else takes its place, however few of its images remain.
    chain = graph(8, (0, 1, 20), (1, 2, 20), (2, 3, 20), (3, 4, 20), *clique(5, 6, 7))
    assert kept_components(chain, GraphSettings(min_matches=2)).tolist() == [-1] * 8
    assert kept_components(chain, GraphSettings(min_matches=2, largest=2)).tolist() == [-1] * 5 + [0] * 3
    star = graph(4, (0, 1, 20), (0, 2, 20), (0, 3, 20))
    assert kept_components(star, GraphSettings(min_matches=2)).tolist() == [-1] * 4
    selection = select(made, CleanSettings(graph=GraphSettings(min_matches=2)))
    assert selection.reasons == ("", "", "", "too few matches", "other part of the graph", "other part of the graph")
    assert np.isnan(selection.boxes[3:]).all() and np.isfinite(selection.boxes[:3]).all()
