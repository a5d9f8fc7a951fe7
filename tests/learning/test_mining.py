import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaclib.learning import LearningError, Relations, hardest_triplets, mean_cosine, mine


def unit(count, dim=6, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_hardest_by_hand():
    distances = np.array([0, 0.5, 1.5, 0.2, 1.0])
    relevant = np.array([False, True, True, False, False])
    irrelevant = np.array([False, False, False, True, True])
    # Losses less the margin: (1, 3) 0.3, (1, 4) −0.5, (2, 3) 1.3, (2, 4) 0.5.
    pairs = hardest_triplets(distances, relevant, irrelevant, 25)
    assert pairs.tolist() == [[2, 3], [2, 4], [1, 3], [1, 4]]
    assert hardest_triplets(distances, relevant, irrelevant, 2).tolist() == [[2, 3], [2, 4]]
    assert hardest_triplets(distances, relevant & False, irrelevant, 2).shape == (0, 2)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), rounded=st.booleans())
def test_hardest_equals_all_of_them_sorted(seed, count, rounded):
    random = np.random.default_rng(seed)
    size = int(random.integers(2, 14))
    distances = random.uniform(0, 4, size)
    if rounded:
        distances = distances.round()
    kinds = random.integers(0, 3, size)
    pairs = hardest_triplets(distances, kinds == 1, kinds == 2, count)
    every = sorted((distances[n] - distances[p], p, n) for p in np.flatnonzero(kinds == 1)
                   for n in np.flatnonzero(kinds == 2))
    assert len(pairs) == min(count, len(every)) == len(set(map(tuple, pairs.tolist())))
    assert np.allclose([distances[n] - distances[p] for p, n in pairs], [loss for loss, *_ in every[:count]])


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_mined_triplets_are_among_the_hardest_of_their_query(seed):
    labels = np.random.default_rng(seed).integers(0, 4, 40)
    pool, relations = np.arange(3, 33), Relations(labels)
    vectors = unit(40, seed=seed)
    mined = mine(pool, vectors[pool], relations, 3, 5, 4, np.random.default_rng(seed))
    assert mined.triplets.shape == (3, 5, 3) and mined.distances.shape == (3, 5, 2)
    for (query, positive, negative), away in zip(mined.triplets.reshape(-1, 3), mined.distances.reshape(-1, 2),
                                                 strict=True):
        assert {query, positive, negative} <= set(pool) and query != positive
        assert labels[query] == labels[positive] != labels[negative]
        distances = np.square(vectors - vectors[query]).sum(1)
        assert np.allclose(away, distances[[positive, negative]], atol=1e-6)
        losses = sorted(distances[p] - distances[n] for p in pool for n in pool
                        if labels[p] == labels[query] != labels[n] and p != query)
        assert distances[positive] - distances[negative] >= losses[-min(4, len(losses))] - 1e-9


def test_draws_queries_and_ranks_evenly_and_repeatably():
    labels = np.array([0] * 6 + [1] * 6 + [2])
    relations, vectors = Relations(labels), unit(13)
    mined = mine(np.arange(13), vectors, relations, 100, 24, 2, np.random.default_rng(1))
    queries = np.bincount(mined.triplets[..., 0].ravel(), minlength=13)
    # The single image of label 2 has no positive; it may be a negative.
    assert queries[12] == 0 and (abs(queries[:12] - 200) < 60).all()
    of_first = mined.triplets[mined.triplets[..., 0] == 0]
    options, counts = np.unique(of_first, axis=0, return_counts=True)
    assert len(options) == 2 and (abs(counts / counts.sum() - 0.5) < 0.12).all()
    again = mine(np.arange(13), vectors, relations, 100, 24, 2, np.random.default_rng(1))
    assert np.array_equal(mined.triplets, again.triplets)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_no_triplet(labels):
    with pytest.raises(LearningError, match="no triplet among 4 images"):
        mine(np.arange(4), unit(4), Relations(np.array(labels)), 1, 1, 1, np.random.default_rng(0))


def test_mean_cosine():
    vectors = unit(7)
    expected = np.mean([vectors[i] @ vectors[j] for i in range(7) for j in range(7) if i != j])
    assert mean_cosine(vectors) == pytest.approx(expected)
    assert mean_cosine(np.tile(vectors[:1], (9, 1))) == pytest.approx(1)
    assert np.isnan(mean_cosine(vectors[:1]))
