from itertools import product

import numpy as np
import pytest
from scipy.stats import spearmanr

from rmaclib.evaluation import Interval, interval, paired_bootstrap, rank_correlation
from rmaclib.foundation.errors import InputError


def test_two_queries_by_hand():
    # Drawn means: 0 (a quarter), 0.5 (a half), 1 (a quarter).
    assert interval([0.0, 1.0]) == Interval(0.5, 0.0, 1.0)
    assert interval([0.0, 1.0], level=0.4) == Interval(0.5, 0.5, 0.5)
    assert interval([0.0, 1.0], level=0.6) == Interval(0.5, 0.0, 1.0)


def test_all_draws_of_five_queries():
    values = np.array([0.1, 0.23, 0.41, 0.7, 0.97])
    means = [values[list(draw)].mean() for draw in product(range(5), repeat=5)]
    for level in (0.5, 0.8, 0.95):
        expected = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        result = interval(values, resamples=200_000, level=level)
        assert result.mean == pytest.approx(values.mean())
        assert result[1:] == pytest.approx(expected, abs=0.005)


def test_pairs_are_drawn_together():
    # Queries of very different difficulty that all gain 0.1: unpaired draws would give a wide interval.
    before = np.linspace(0, 0.9, 10)
    assert paired_bootstrap(before, before + 0.1) == pytest.approx((0.1, 0.1, 0.1))
    after = before[::-1]
    result = paired_bootstrap(before, after)
    assert result.mean == pytest.approx(0) and result.low < -0.3 and result.high > 0.3
    assert result == pytest.approx(interval(after - before))
    assert paired_bootstrap(before, before - 0.2).high == pytest.approx(-0.2)


def test_the_mean_over_the_seeds_is_taken_per_query():
    before = np.array([0.2, 0.4, 0.9])
    after = np.array([[0.3, 0.4, 0.7], [0.5, 0.8, 1.0]])  # mean per query 0.4, 0.6, 0.85
    assert paired_bootstrap(before, after) == pytest.approx(interval([0.2, 0.2, -0.05]))
    assert paired_bootstrap([before, before, before], after) == pytest.approx(paired_bootstrap(before, after))
    assert interval(after) == pytest.approx(interval([0.4, 0.6, 0.85]))


def test_the_seed_decides():
    values = np.random.default_rng(1).random(50)
    assert interval(values, 1000, seed=3) == interval(values, 1000, seed=3)
    assert interval(values, 1000, seed=3) != interval(values, 1000, seed=4)


def test_blocks_do_not_change_the_draws():
    values = np.random.default_rng(1).random(3000)
    means = values[np.random.default_rng(5).integers(3000, size=(2000, 3000))].mean(1)  # more than a block
    assert interval(values, 2000, seed=5)[1:] == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_intervals_cover_the_true_mean():
    random = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        result = interval(random.beta(2, 1, size=30), 500)  # mean 2/3, skewed as average precisions are
        covered.append(result.low <= 2 / 3 <= result.high)
    assert 0.90 < np.mean(covered) < 0.97


def test_intervals_narrow_with_the_root_of_the_queries():
    random = np.random.default_rng(0)
    few, many = (interval(random.random(count)) for count in (100, 10_000))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.2)
    # 1.96 standard errors on both sides.
    assert many.high - many.low == pytest.approx(2 * 1.96 * np.sqrt(1 / 12 / 10_000), rel=0.05)


@pytest.mark.parametrize("before, after, message", [
    ([0.1, 0.2], [0.1, 0.2, 0.3], "same queries, got 2 and 3"),
    ([0.1, np.nan], [0.1, 0.2], "before: expected finite values, got nan"),
    ([0.1, 0.2], [0.1, np.inf], "after: expected finite values, got inf"),
    ([0.1], [0.2], r"before: .*at least 2 queries, got shape \(1,\)"),
    ([0.1, 0.2], [[[0.1, 0.2]]], r"after: .*got shape \(1, 1, 2\)"),
    ([0.1, 0.2], np.zeros((0, 2)), r"after: .*got shape \(0, 2\)"),
    (0.5, [0.1, 0.2], r"before: .*got shape \(\)"),
])  # fmt: skip
def test_bad_values_are_named(before, after, message):
    with pytest.raises(InputError, match=message):
        paired_bootstrap(before, after)


@pytest.mark.parametrize("options, message", [
    ({"resamples": 0}, "resamples: expected a whole number of at least 1, got 0"),
    ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
    ({"level": 1.0}, "level: expected a share between 0 and 1, got 1.0"),
    ({"level": 0}, "level: "),
    ({"level": float("nan")}, "level: "),
])  # fmt: skip
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        interval([0.1, 0.2], **options)


def test_rank_correlation_by_hand():
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 · 4 / (4 · 15) = 0.6. Values don't matter, their order does.
    result = rank_correlation([10, 20, 30, 400], [0.2, 0.1, 0.4, 0.3])
    assert result.mean == pytest.approx(0.6)
    assert -1 <= result.low < result.mean < result.high == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]).mean == pytest.approx(-1)
    # Equal values have their mean rank: 1.5 1.5 3 against 1 2 3.
    assert rank_correlation([5, 5, 7], [1, 2, 3]).mean == pytest.approx(np.sqrt(3) / 2)


def test_the_interval_of_an_order_is_that_of_all_draws():
    first, second = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])
    drawn = [[list(each) for each in (first[list(draw)], second[list(draw)])] for draw in product(range(4), repeat=4)]
    values = [spearmanr(*pair).statistic for pair in drawn if np.ptp(pair[0]) and np.ptp(pair[1])]
    expected = np.quantile(values, [0.1, 0.9])
    assert rank_correlation(first, second, 100_000, level=0.8)[1:] == pytest.approx(expected, abs=0.01)


def test_an_order_needs_settings_that_differ():
    with pytest.raises(InputError, match="same settings, got 3 and 2"):
        rank_correlation([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="expected values that differ"):
        rank_correlation([1, 2, 3], [4, 4, 4])
