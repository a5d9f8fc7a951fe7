import numpy as np
from search_vectors import DIM, numbered, sample

from rmaclib.ranking import normalise_rows
from rmaclib.search.segments import Neighbour, join_neighbours, merge_segments
from rmaclib.search.structures import Structure

FLAT = Structure("flat", "a test")


def made(vectors, first=0):
    return merge_segments([], vectors, numbered(len(vectors), first), FLAT)


def test_merging_loses_nothing():
    """Vectors that are merged again and again stay the same to the bit, in order; removed ones go."""
    vectors = sample(64)
    segment, counts = made(vectors[:1]), []
    first = segment.index.reconstruct(0)
    for number in range(1, 64):
        segment = merge_segments([segment], vectors[number:number + 1], [f"image {number}"], FLAT, counts.append)
    np.testing.assert_array_equal(segment.index.reconstruct(0), first)
    np.testing.assert_allclose(segment.index.reconstruct_n(0, 64), normalise_rows(vectors), atol=1e-7)
    assert segment.names == tuple(numbered(64)) and sum(counts) == sum(range(2, 65))
    segment.removed[[0, 5]] = True
    merged = merge_segments([made(sample(2, 1), 100), segment], np.zeros((0, DIM), np.float32), [], FLAT)
    assert merged.names == (*numbered(2, 100), *(name for name in numbered(64) if name not in ("image 0", "image 5")))
    np.testing.assert_array_equal(merged.index.reconstruct(2), segment.index.reconstruct(1))
    assert len(merged) == 64 and not merged.removed.any()


def test_removed_rows_are_not_searched():
    segment = made(sample(5))
    segment.removed[3] = True
    similarities, rows = segment.search(normalise_rows(sample(5)[3:4]), 5)
    assert sorted(rows[0]) == [-1, 0, 1, 2, 4] and (np.diff(similarities[0]) <= 0).all()
    assert segment.kept().tolist() == [0, 1, 2, 4] and len(segment) == 4
    assert segment.kept_names() == ["image 0", "image 1", "image 2", "image 4"]


def test_neighbours_of_segments_are_joined():
    """By falling similarity; equal ones by segment and row; rows of -1 are none."""
    segments = [made(sample(3)), made(sample(3, 1), 3)]
    results = [(np.array([[0.5, 0.25]]), np.array([[2, 0]])), (np.array([[0.75, 0.5, 0.9]]), np.array([[1, 0, -1]]))]
    expected = [Neighbour("image 4", 0.75), Neighbour("image 2", 0.5), Neighbour("image 3", 0.5),
                Neighbour("image 0", 0.25)]
    assert join_neighbours(segments, results, 9) == [expected]
    assert join_neighbours(segments, results, 3) == [expected[:3]]
