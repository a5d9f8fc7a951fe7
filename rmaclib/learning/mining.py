"""Mining hard triplets (Section 4.2): from a pool of images, described by the network as it is now."""

from typing import NamedTuple

import numpy as np

from rmaclib.learning.errors import LearningError
from rmaclib.learning.pairs import Relations


class Mined(NamedTuple):
    """Triplets for U updates of T each.

    triplets: (U, T, 3) int64, (query, positive, negative), indices into the collection
    distances: (U, T, 2) float32, squared distances of the query to both, under the descriptors of the pool
    """

    triplets: np.ndarray
    distances: np.ndarray


def hardest_triplets(distances: np.ndarray, relevant: np.ndarray, irrelevant: np.ndarray,
                     count: int) -> np.ndarray:
    """The triplets of one query with the largest loss, hardest first.

    distances: (n,) squared distances of the query to the images; relevant, irrelevant: (n,) bool
    returns (at most count, 2) int64: (positive, negative); all of them when there are fewer. Equal losses: the
      farther positive first, then by index.
    """
    positives, negatives = np.flatnonzero(relevant), np.flatnonzero(irrelevant)
    # Of the `count` hardest triplets none has a positive beyond the `count` farthest, nor a negative beyond
    # the `count` nearest.
    positives = positives[np.argsort(-distances[positives], kind="stable")[:count]]
    negatives = negatives[np.argsort(distances[negatives], kind="stable")[:count]]
    losses = distances[positives][:, None] - distances[negatives]  # (P, N)
    best = np.argsort(-losses, axis=None, kind="stable")[:count]
    first, second = np.unravel_index(best, losses.shape)
    return np.stack([positives[first], negatives[second]], axis=1)


def mine(images: np.ndarray, descriptors: np.ndarray, relations: Relations, updates: int, triplets: int,
         hardest: int, random: np.random.Generator) -> Mined:
    """Draw triplets from a pool: for a random query, one of its `hardest` hardest.

    images: (n,) int64, the pool, indices into the collection; descriptors: (n, D), of unit length
    Queries are drawn, with replacement, among the images that have a positive and a negative in the pool.
    raises LearningError when no image has both
    """
    relevant, irrelevant = relations.relevant(images), relations.irrelevant(images)
    queries = np.flatnonzero(relevant.any(1) & irrelevant.any(1))
    if not len(queries):
        raise LearningError(
            f"no triplet among {len(images)} images of {len(np.unique(relations.labels[images]))} landmarks: expected "
            "an image with a positive (verified pair, or same label) and a negative (other label); give more "
            "images, several landmarks, or a larger pool")
    drawn = random.choice(queries, updates * triplets)
    choices = random.random(updates * triplets)
    found = np.empty((updates * triplets, 3), np.int64)
    distances = np.empty((updates * triplets, 2), np.float32)
    for query in np.unique(drawn):
        # Vectors of unit length: ‖a − b‖² = 2 − 2 a·b.
        away = np.maximum(0, 2 - 2 * descriptors @ descriptors[query])
        options = hardest_triplets(away, relevant[query], irrelevant[query], hardest)
        for place in np.flatnonzero(drawn == query):
            positive, negative = options[int(choices[place] * len(options))]
            found[place] = query, positive, negative
            distances[place] = away[positive], away[negative]
    return Mined(images[found].reshape(updates, triplets, 3), distances.reshape(updates, triplets, 2))


def mean_cosine(descriptors: np.ndarray) -> float:
    """Mean cosine of all pairs of (n, D) vectors of unit length: 1 when all are the same. nan for a single one."""
    count = len(descriptors)
    if count < 2:
        return float("nan")
    total = descriptors.sum(0, dtype=np.float64)
    return float((total @ total - np.square(descriptors, dtype=np.float64).sum()) / (count * (count - 1)))
