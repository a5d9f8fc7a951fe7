import numpy as np
import pytest

from rmaclib.ranking import normalise_rows
from rmaclib.search.distractors import STRONGEST, WEAKEST, synthetic_distractors

REAL = normalise_rows(np.random.default_rng(0).normal(size=(40, 24)))


def test_a_seed_gives_the_same_blocks():
    blocks = list(synthetic_distractors(REAL, 50, seed=3, rows=20))
    assert [len(block) for block in blocks] == [20, 20, 10]
    again = np.concatenate(list(synthetic_distractors(REAL, 50, seed=3, rows=20)))
    np.testing.assert_array_equal(np.concatenate(blocks), again)
    assert not np.array_equal(again[:20], next(synthetic_distractors(REAL, 50, seed=4, rows=20)))
    np.testing.assert_allclose(np.linalg.norm(again, axis=1), 1, atol=1e-6)


def test_near_and_far_ones_around_each():
    """Of orthogonal originals the cosine to the one it was made from is 1 / sqrt(1 + 2 s²)."""
    made = next(synthetic_distractors(np.eye(600, dtype=np.float32), 2000))
    different = (made != 0).sum(1) == 3  # the three that were drawn
    assert different.mean() > 0.95
    nearest = made[different].max(1)
    assert (nearest <= 1 / np.sqrt(1 + 2 * WEAKEST**2) + 1e-6).all()
    assert (nearest >= 1 / np.sqrt(1 + 2 * STRONGEST**2) - 1e-6).all()
    assert nearest.max() > 0.92 and nearest.min() < 0.58


def test_bad_arguments():
    for vectors, count in ((REAL[:2], 5), (REAL, -1)):
        with pytest.raises(ValueError, match="at least 3 vectors"):
            next(synthetic_distractors(vectors, count))
