"""Mining hard triplets (Section 4.2): where a triplet is chosen.

``mine`` draws queries from a pool of images, whose descriptors are those of the network as it is now. For each query
``hardest_triplets`` lists its hardest (positive, negative) pairs, and ``mine`` chooses one of them at random.
"""

from typing import NamedTuple

import numpy as np

from rmaclib.learning.errors import LearningError
from rmaclib.learning.pairs import Relations


class Mined(NamedTuple):
    """Triplets for U updates of T each.

    Attributes:
        triplets: (U, T, 3) int64, (query, positive, negative), indices into the collection.
        distances: (U, T, 2) float32, squared distances of the query to both, under the descriptors of the pool.
    """

    triplets: np.ndarray
    distances: np.ndarray


def mine(images: np.ndarray, descriptors: np.ndarray, relations: Relations, updates: int, triplets: int,
         hardest: int, random: np.random.Generator) -> Mined:
    """Choose triplets from a pool: for a random query, one of its hardest.

    Queries are drawn, with replacement, among the images that have a positive and a negative in the pool.

    Args:
        images: (n,) int64, the pool, indices into the collection.
        descriptors: (n, D), ℓ2-normalised.
        relations: Of the whole collection; which images are positives and negatives of a query.
        updates: U, for how many updates.
        triplets: T, of each update.
        hardest: A triplet is chosen among so many of its query; 25 in the preset ``paper``.
        random: The random numbers of queries and choices.

    Returns:
        The triplets with their distances.

    Raises:
        LearningError: No image of the pool has both a positive and a negative in it.
    """
    relevant, irrelevant = relations.relevant(images), relations.irrelevant(images)  # (n, n) each
    possible = np.flatnonzero(relevant.any(1) & irrelevant.any(1))
    if not len(possible):
        raise LearningError(
            f"no triplet among {len(images)} images of {len(np.unique(relations.labels[images]))} landmarks: expected "
            "an image with a positive (verified pair, or same label) and a negative (other label); give more "
            "images, several landmarks, or a larger pool")
    queries = random.choice(possible, updates * triplets)
    choices = random.random(updates * triplets)  # 0..1, which of its query's hardest pairs each triplet takes
    chosen = np.empty((updates * triplets, 3), np.int64)
    distances = np.empty((updates * triplets, 2), np.float32)
    for query in np.unique(queries):
        # ℓ2-normalised vectors: ‖a − b‖² = 2 − 2 a·b.
        to_query = np.maximum(0, 2 - 2 * descriptors @ descriptors[query])  # (n,)
        pairs = hardest_triplets(to_query, relevant[query], irrelevant[query], hardest)
        for place in np.flatnonzero(queries == query):
            positive, negative = pairs[int(choices[place] * len(pairs))]  # here a triplet is chosen
            chosen[place] = query, positive, negative
            distances[place] = to_query[positive], to_query[negative]
    return Mined(images[chosen].reshape(updates, triplets, 3), distances.reshape(updates, triplets, 2))


def hardest_triplets(distances: np.ndarray, relevant: np.ndarray, irrelevant: np.ndarray,
                     count: int) -> np.ndarray:
    """List the triplets of one query with the largest loss, hardest first.

    Args:
        distances: (n,) squared distances of the query to the images.
        relevant: (n,) bool, which of them are its positives.
        irrelevant: (n,) bool, which of them are its negatives.
        count: How many triplets; all of them when there are fewer.

    Returns:
        (at most count, 2) int64, (positive, negative). Of equal losses the farther positive comes first, then the
        smaller index.
    """
    positives, negatives = np.flatnonzero(relevant), np.flatnonzero(irrelevant)
    # Of the `count` hardest triplets none has a positive beyond the `count` farthest, nor a negative beyond
    # the `count` nearest.
    positives = positives[np.argsort(-distances[positives], kind="stable")[:count]]
    negatives = negatives[np.argsort(distances[negatives], kind="stable")[:count]]
    losses = distances[positives][:, None] - distances[negatives]  # (P, N), less the margin
    hardest = np.argsort(-losses, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(hardest, losses.shape)
    return np.stack([positives[rows], negatives[columns]], axis=1)


def mean_cosine(descriptors: np.ndarray) -> float:
    """Compute the mean cosine of all pairs of descriptors: 1 when the network has collapsed.

    Args:
        descriptors: (n, D), ℓ2-normalised.

    Returns:
        −1..1, NaN for a single descriptor.
    """
    count = len(descriptors)
    if count < 2:
        return float("nan")
    total = descriptors.sum(0, dtype=np.float64)
    return float((total @ total - np.square(descriptors, dtype=np.float64).sum()) / (count * (count - 1)))
