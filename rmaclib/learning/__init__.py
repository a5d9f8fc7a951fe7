"""Learning to retrieve (Section 4.2): a network trained to rank, by triplets mined with the network as it is.

`train` does it all; `train_classification` is the stage before it, `train_proposals` the one after it. `accumulate` is
the exact gradient of any loss of descriptors, in the memory of a few images.
"""

from rmaclib.learning.classification import ClassificationSettings, Classifier, train_classification
from rmaclib.learning.errors import LearningError, UnreadableError
from rmaclib.learning.folder import read_log
from rmaclib.learning.gradients import Accumulated, accumulate
from rmaclib.learning.loop import LoopSettings, Trained, learning_rate
from rmaclib.learning.losses import LOSSES, Tuples, average_precision_loss, contrastive, triplet, triplet_distances
from rmaclib.learning.mining import Mined, hardest_triplets, mean_cosine, mine
from rmaclib.learning.pairs import Relations, verified_pairs
from rmaclib.learning.proposals import ProposalSettings, train_proposals
from rmaclib.learning.ranking import RankingSettings, train_ranking
from rmaclib.learning.validation import Validation, hold_out, leave_one_out
from rmaclib.learning.views import Squares, Views, random_crop, random_square

__all__ = [
    "LOSSES", "Accumulated", "Classifier", "ClassificationSettings", "LearningError", "LoopSettings", "Mined",
    "ProposalSettings", "Relations", "Squares", "RankingSettings", "Trained", "Tuples", "UnreadableError",
    "Validation", "Views", "accumulate", "average_precision_loss", "contrastive", "hardest_triplets", "hold_out",
    "learning_rate", "leave_one_out", "mean_cosine", "mine", "random_crop", "random_square", "read_log",
    "train_ranking", "train_classification", "train_proposals", "triplet", "triplet_distances", "verified_pairs",
]
