import numpy as np
import pytest

from rmaclib.search.crowd import STRENGTH, crowd
from rmaclib.search.ranking import unit_rows

REAL = unit_rows(np.random.default_rng(0).normal(size=(40, 24)))


def test_it_repeats_and_is_cut_into_blocks():
    blocks = list(crowd(REAL, 50, seed=3, rows=20))
    assert [len(block) for block in blocks] == [20, 20, 10]
    again = np.concatenate(list(crowd(REAL, 50, seed=3, rows=20)))
    np.testing.assert_array_equal(np.concatenate(blocks), again)
    assert not np.array_equal(again[:20], next(crowd(REAL, 50, seed=4, rows=20)))
    np.testing.assert_allclose(np.linalg.norm(again, axis=1), 1, atol=1e-6)


def test_near_and_far_ones_around_each():
    """The cosine to the one it was made from lies between that of no perturbation and of the strongest."""
    made = next(crowd(REAL, 2000))
    nearest = (made @ REAL.T).max(1)
    least = 1 / np.sqrt(1 + 4 * STRENGTH**2) - 0.35
    assert (nearest > least).all() and nearest.max() > 0.9999 and np.quantile(nearest, 0.1) < 0.8


def test_bad_arguments():
    for vectors, count in ((REAL[:2], 5), (REAL, -1)):
        with pytest.raises(ValueError, match="at least 3 vectors"):
            next(crowd(vectors, count))
