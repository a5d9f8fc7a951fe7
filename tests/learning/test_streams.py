import itertools

import numpy as np

from rmaclib.learning.streams import Stream, generator


def test_streams_have_the_numbers_that_recorded_results_were_made_with():
    assert {stream.name: stream.value for stream in Stream} == {
        "RANKING_POOL": 1, "RANKING_MINING": 2, "RANKING_VIEW": 3, "CLASSIFICATION_ORDER": 4, "CLASSIFICATION_VIEW": 5,
        "RANKING_SIZE": 6, "HELD_OUT": 7, "PROPOSALS_ORDER": 8, "PROPOSALS_POOL": 9, "PROPOSALS_VIEW": 10}
    assert generator(3, Stream.RANKING_POOL, 5).random() == np.random.default_rng([3, 1, 5]).random()


def test_no_two_streams_coincide():
    drawn = [generator(seed, stream, place).integers(2**63) for seed, stream, place in
             itertools.product((0, 1, 7, 2**32 - 1), Stream, range(5))]
    assert len(set(drawn)) == len(drawn)
