"""Scoring rankings (Section 5.1): average precision, the protocols of the benchmarks, bootstrap intervals.

Nothing here loads torch; ``rmaclib.evaluation.benchmark`` evaluates a network.
"""

from rmaclib.evaluation.average_precision import average_precision, positive_ranks
from rmaclib.evaluation.bootstrap import Interval, interval, paired_bootstrap, rank_correlation
from rmaclib.evaluation.protocols import PROTOCOLS, Evaluation, check_protocol, default_protocol, score_rankings

__all__ = ["PROTOCOLS", "Evaluation", "Interval", "average_precision", "check_protocol", "default_protocol", "interval",
           "paired_bootstrap", "rank_correlation", "score_rankings", "positive_ranks"]
