import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaclib.search.expansion import augment, expand_queries, rank_weights


def unit(array):
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return unit(rng.normal(size=(6, 16))), unit(rng.normal(size=(40, 16)))


def nearest(vector, database, k, without=None):
    order = sorted(range(len(database)), key=lambda n: (-(vector @ database[n]), n))
    return [n for n in order if n != without][:k]


def slow_augment(database, k, alpha=None):
    """Row by row, the weights spelled out."""
    means = []
    for number, own in enumerate(database):
        near = nearest(own, database, k, without=number)
        if alpha is None:
            weights = [1] + [(len(near) - place) / len(near) for place in range(len(near))]
            rows = [own, *database[near]]
            means.append(sum(w * row for w, row in zip(weights, rows, strict=True)) / sum(weights))
        else:
            total = own + sum(max(own @ database[n], 0)**alpha * database[n] for n in near)
            means.append(total / np.linalg.norm(total))
    return np.array(means)


def slow_expand(queries, database, k, alpha=0.0):
    means = []
    for query in queries:
        near = nearest(query, database, k)
        means.append(unit(query + sum(max(query @ database[n], 0)**alpha * database[n] for n in near)))
    return np.array(means)


def test_rank_weights_by_hand():
    np.testing.assert_allclose(rank_weights(4), np.array([1, 1, 0.75, 0.5, 0.25]) / 3.5)
    np.testing.assert_allclose(rank_weights(1), [0.5, 0.5])
    assert rank_weights(0).tolist() == [1]
    weights = rank_weights(20)
    assert len(weights) == 21 and weights.sum() == pytest.approx(1)


def test_augment_by_hand():
    """Three directions; the nearest of (1, 0) is (0.8, 0.6), and the mean of the two is shorter than 1."""
    database = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    np.testing.assert_allclose(augment(database, 1), [[0.9, 0.3], [0.9, 0.3], [0.4, 0.8]], atol=1e-7)


@pytest.mark.parametrize("alpha", [None, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("k", [1, 5, 20, 100])
def test_augment_equals_a_plain_loop(vectors, k, alpha):
    _, database = vectors
    expected = slow_augment(database, k, alpha)
    np.testing.assert_allclose(augment(database, k, alpha), expected, atol=1e-6)
    np.testing.assert_allclose(augment(database.astype(np.float32), k, alpha), expected, atol=1e-6)


@pytest.mark.parametrize("alpha", [None, 3.0])
def test_augment_works_in_blocks(alpha):
    """2,000 vectors with 50 neighbours of 256 dimensions: more than are gathered at a time."""
    rng = np.random.default_rng(1)
    database = unit(rng.normal(size=(2000, 256))).astype(np.float32)
    neighbours = rng.integers(0, 2000, (2000, 50))
    augmented = augment(database, 50, alpha, neighbours)
    for row in (0, 1309, 1310, 1311, 1999):
        near = database[neighbours[row]].astype(float)
        if alpha is None:
            expected = rank_weights(50) @ np.concatenate([database[row:row + 1], near])
        else:
            expected = unit(database[row] + np.maximum(near @ database[row], 0)**alpha @ near)
        np.testing.assert_allclose(augmented[row], expected, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("k", [1, 5, 100])
def test_expansion_equals_a_plain_loop(vectors, k, alpha):
    queries, database = vectors
    np.testing.assert_allclose(expand_queries(queries, database, k, alpha), slow_expand(queries, database, k, alpha),
                               atol=1e-6)


def test_both_as_in_the_headline_setting(vectors):
    """Database first; then the query finds its neighbour in it by dot product, lengths counting."""
    queries, database = vectors
    augmented = augment(database, 20)
    expected = slow_expand(queries, slow_augment(database, 20), 1)
    np.testing.assert_allclose(expand_queries(queries, augmented, 1), expected, atol=1e-6)
    assert (np.linalg.norm(augmented, axis=1) < 0.9).all()


def test_neighbours_that_are_given_are_used(vectors, tmp_path):
    _, database = vectors
    near = np.array([nearest(own, database, 7, without=number) for number, own in enumerate(database)])
    np.save(tmp_path / "database.npy", database.astype(np.float32))
    mapped = np.load(tmp_path / "database.npy", mmap_mode="r")
    np.testing.assert_allclose(augment(mapped, 5, neighbours=near), augment(database, 5), atol=1e-6)
    far = near[:, ::-1]
    assert np.abs(augment(mapped, 5, neighbours=far) - augment(database, 5)).max() > 0.01
    for wrong in (near[:-1], near[:, 0], near + 40, near - 40):
        with pytest.raises(ValueError, match="neighbours: expected"):
            augment(mapped, 5, neighbours=wrong)


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_a_database_of_copies_stays_as_it_is(count, k, seed):
    row = unit(np.random.default_rng(seed).normal(size=(1, 5)))
    database = np.repeat(row, count, 0)
    for averaged in (augment(database, k), augment(database, k, 2.0), expand_queries(database, database, k)):
        np.testing.assert_allclose(averaged, database, atol=1e-6)


def test_opposite_neighbours_do_not_count_with_alpha():
    database = np.array([[1, 0], [-1, 0]], np.float32)
    np.testing.assert_allclose(augment(database, 1, 1.0), database)
    np.testing.assert_allclose(expand_queries(database[:1], database[1:], 1, 1.0), database[:1])


@pytest.mark.parametrize("options", [{"k": 0}, {"k": 1, "alpha": -1.0}, {"k": 1, "alpha": float("nan")}])
def test_bad_options(vectors, options):
    queries, database = vectors
    with pytest.raises(ValueError, match="k of at least 1 and alpha of at least 0"):
        augment(database, **options)
    with pytest.raises(ValueError, match="k of at least 1 and alpha of at least 0"):
        expand_queries(queries, database, **options)
    with pytest.raises(ValueError, match="finite"):
        expand_queries(queries * np.nan, database)
