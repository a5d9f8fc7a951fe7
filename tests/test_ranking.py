import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaclib.ranking import normalise_rows, rank, rank_others


def slow_rank(queries, database):
    """Cosine similarity pair by pair in float64, ties by index."""
    def cosine(a, b):
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or 1)
    return [sorted(range(len(database)), key=lambda n, q=q: (-cosine(q, database[n]), n)) for q in queries]


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return rng.normal(size=(7, 16)), rng.normal(size=(50, 16)) * rng.uniform(0.1, 9, size=(50, 1))


def test_it_is_the_cosine_order(vectors):
    order = rank(*vectors)
    assert order.shape == (7, 50) and order.dtype == np.int64
    np.testing.assert_array_equal(order, slow_rank(*vectors))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_floats_and_memory_maps(vectors, tmp_path, dtype):
    queries, database = (array.astype(dtype) for array in vectors)
    np.save(tmp_path / "d.npy", database)
    order = rank(queries, np.load(tmp_path / "d.npy", mmap_mode="r"))
    np.testing.assert_array_equal(order, slow_rank(queries.astype(float), database.astype(float)))


@pytest.mark.parametrize("block", [1, 50, 120, 10**6])
@pytest.mark.parametrize("top", [1, 3, 49, 50, 80, None])
def test_blocks_and_tops_cut_the_same_order(vectors, top, block):
    np.testing.assert_array_equal(rank(*vectors, top, block), rank(*vectors)[:, :top])


@settings(max_examples=50)
@given(st.lists(st.sampled_from([(1, 0), (0, 1), (2, 0), (-1, 0), (0, 0)]), min_size=1, max_size=30),
       st.integers(1, 30))
def test_ties_rank_by_index(rows, top):
    database = np.array(rows, dtype=np.float32)
    queries = np.array([(1, 0), (0, 3), (0, 0)], dtype=np.float32)
    expected = np.array(slow_rank(queries, database))[:, :top]
    np.testing.assert_array_equal(rank(queries, database, top), expected)


def test_no_query_gives_no_row():
    assert rank(np.zeros((0, 4)), np.ones((5, 4)), 2).shape == (0, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_named(vectors, value):
    queries, database = vectors
    database[3, 5] = value
    with pytest.raises(ValueError, match="finite database vectors, found NaN or infinity in row 3"):
        rank(queries, database)
    with pytest.raises(ValueError, match="finite query vectors, found NaN or infinity in row 3"):
        rank(database, queries)


@pytest.mark.parametrize("queries, database", [
    ((3,), (5, 3)), ((2, 3), (5, 4)), ((2, 3), (0, 3)), ((2, 3), (3,))])
def test_other_shapes_are_errors(queries, database):
    with pytest.raises(ValueError, match=r"expected vectors of shapes \(Q, D\) and \(N, D\) with N > 0"):
        rank(np.zeros(queries), np.zeros(database))


@pytest.mark.parametrize("options", [{"top": 0}, {"block": 0}, {"top": -1}])
def test_top_and_block_are_at_least_one(vectors, options):
    with pytest.raises(ValueError, match="top and block of at least 1"):
        rank(*vectors, **options)


def test_dot_products_count_the_lengths():
    database = np.array([(1, 0), (3, 3), (0, 9)], np.float32)
    queries = np.array([(1, 0), (0, 2)], np.float32)
    assert rank(queries, database).tolist() == [[0, 1, 2], [2, 1, 0]]
    assert rank(queries, database, similarity="dot").tolist() == [[1, 0, 2], [2, 1, 0]]
    with pytest.raises(ValueError, match="similarity: expected one of"):
        rank(queries, database, similarity="euclid")


@pytest.mark.parametrize("top", [1, 5, 49, 90])
def test_the_others_of_each_row(vectors, top):
    _, database = vectors
    expected = [[n for n in row if n != own][:top] for own, row in enumerate(slow_rank(database, database))]
    np.testing.assert_array_equal(rank_others(database, top), expected)


def test_copies_have_each_other_and_never_themselves():
    others = rank_others(np.ones((4, 3)), 2)
    assert others.shape == (4, 2) and all(row not in others[row] for row in range(4))
    assert rank_others(np.ones((1, 3)), 2).shape == (1, 0)


def test_rows_are_normalised():
    rows = normalise_rows(np.array([[3e38, 4e38], [3e-40, 4e-40], [0, 0]]))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.6, 0.8], [0, 0]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"expected \(N, D\), got shape \(3,\)"):
        normalise_rows(np.ones(3))
    with pytest.raises(ValueError, match="found NaN or infinity in row 1"):
        normalise_rows(np.array([[1, 0], [np.inf, 0]]))
