"""The streams of random numbers that training draws from, in one place: no two of them can coincide."""

from enum import IntEnum, unique

import numpy as np


@unique
class Stream(IntEnum):
    """What random numbers are drawn for. The values are part of every result: they never change.

    0 belongs to the seed alone, with which ``proposals.fit_anchors`` draws.
    """

    RANKING_POOL = 1
    RANKING_MINING = 2
    RANKING_VIEW = 3
    CLASSIFICATION_ORDER = 4
    CLASSIFICATION_VIEW = 5
    RANKING_SIZE = 6
    HELD_OUT = 7
    PROPOSALS_ORDER = 8
    PROPOSALS_POOL = 9
    PROPOSALS_VIEW = 10


def generator(seed: int, stream: Stream, *place: int) -> np.random.Generator:
    """Create the random numbers of a stream, at a place in it.

    Args:
        seed: The seed of the run, 0..2³² − 1.
        stream: What is drawn.
        *place: Where in the run, such as the number of the update.

    Returns:
        A generator that gives the same numbers for the same arguments.
    """
    return np.random.default_rng([seed, stream, *place])
