"""Learning to retrieve (Section 4.2 and 4.3): from a collection of images to a trained network.

``train`` does all of it: validation images, settings, whitening, training, curves. The three stages by themselves:

- ``train_classification``: the backbone learns to classify landmarks (before ranking);
- ``train_ranking``: the network learns to rank, by mined triplets;
- ``train_proposals``: the proposal network learns where landmarks are (after ranking).

Each has its settings (``ClassificationSettings``, ``RankingSettings``, ``ProposalSettings``) and a ``Step`` that the
one loop runs. Where is what: ``mining`` chooses triplets, ``losses`` has the losses, ``gradients`` the gradient in the
memory of a few images, ``validation`` measures retrieval, ``views`` reads the images of an update.
"""

from rmaclib.learning.classification import ClassificationSettings, Classifier, train_classification
from rmaclib.learning.errors import LearningError, UnreadableError
from rmaclib.learning.gradients import Accumulated, accumulate
from rmaclib.learning.log import read_log
from rmaclib.learning.loop import Trained
from rmaclib.learning.losses import LOSSES, Tuples, average_precision_loss, contrastive, triplet, triplet_distances
from rmaclib.learning.mining import Mined, hardest_triplets, mean_cosine, mine
from rmaclib.learning.optimization import LoopSettings, learning_rate
from rmaclib.learning.pairs import Positives, Relations, verified_pairs
from rmaclib.learning.proposals import ProposalSettings, train_proposals
from rmaclib.learning.ranking import RankingSettings, train_ranking
from rmaclib.learning.training import train
from rmaclib.learning.validation import Validation, hold_out, leave_one_out
from rmaclib.learning.views import Squares, Views, random_crop, random_side, random_square

__all__ = [
    # the whole, and its stages
    "train", "train_classification", "train_ranking", "train_proposals", "ClassificationSettings", "RankingSettings",
    "ProposalSettings", "LoopSettings", "Trained", "LearningError", "read_log",
    # ranking: triplets, losses, gradient
    "Positives", "Relations", "verified_pairs", "Mined", "mine", "hardest_triplets", "mean_cosine", "LOSSES", "Tuples",
    "triplet", "contrastive", "average_precision_loss", "triplet_distances", "Accumulated", "accumulate",
    "UnreadableError", "learning_rate",
    # classification
    "Classifier",
    # images and validation
    "Squares", "Views", "random_crop", "random_side", "random_square", "Validation", "hold_out", "leave_one_out",
]
