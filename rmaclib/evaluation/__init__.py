"""Scoring rankings (Section 5.1): average precision and the protocols of the benchmarks.

Nothing here loads torch; ``rmaclib.evaluation.benchmark`` evaluates a network.
"""

from rmaclib.evaluation.average_precision import average_precision, positive_ranks
from rmaclib.evaluation.protocols import PROTOCOLS, Evaluation, check_protocol, default_protocol, score_rankings

__all__ = ["PROTOCOLS", "Evaluation", "average_precision", "check_protocol", "default_protocol", "score_rankings",
           "positive_ranks"]
