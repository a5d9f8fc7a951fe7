"""Losses of learning to rank (Section 4.2), as functions of the descriptors of an update's distinct images.

An image that occurs in several triplets has one descriptor; a loss reads it as often as it needs it. That is what makes
the gradient cheap in memory: see ``rmaclib.learning.gradients``.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

_NEAREST = 1e-6  # distances below it have no direction to be pushed along
_BINS = 20  # of the similarity in listwise average precision, as in Revaud et al. 2019


class Tuples(NamedTuple):
    """The relations among the N distinct images of an update.

    Attributes:
        triplets: (T, 3) int64, (query, positive, negative), indices into the N images.
        relevant: (N, N) bool, symmetric: pairs that show the same landmark; an image is not relevant to itself.
        irrelevant: (N, N) bool, symmetric: pairs that show different landmarks. A pair that is neither counts for
            nothing: such as two images of one label that no verified match joins.
    """

    triplets: Tensor
    relevant: Tensor
    irrelevant: Tensor


Loss = Callable[..., Tensor]
LossName = Literal["triplet", "contrastive", "average_precision"]


def triplet_distances(descriptors: Tensor, triplets: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the squared distances in each triplet.

    Args:
        descriptors: (N, D).
        triplets: (T, 3), (query, positive, negative), indices into the N images.

    Returns:
        Of the query to the positive and of the query to the negative, (T,) each.
    """
    query, positive, negative = descriptors[triplets].unbind(1)  # (T, D) each
    return (query - positive).square().sum(1), (query - negative).square().sum(1)


def triplet(descriptors: Tensor, tuples: Tuples, margin: float = 0.1) -> Tensor:
    """Compute the triplet loss: the mean of ½ max(0, m + ‖q − d⁺‖² − ‖q − d⁻‖²) (Section 4.2).

    Args:
        descriptors: (N, D), ℓ2-normalised.
        tuples: Of the N images; the triplets count.
        margin: m.

    Returns:
        A scalar, 0 .. (m + 4) / 2.
    """
    near, far = triplet_distances(descriptors, tuples.triplets)
    return (margin + near - far).clamp(min=0).mean() / 2


def contrastive(descriptors: Tensor, tuples: Tuples, margin: float = 0.7) -> Tensor:
    """Compute the contrastive loss, for comparison (Radenović et al. 2019).

    The mean over the triplets of ½ ‖q − d⁺‖² + ½ max(0, m − ‖q − d⁻‖)². A negative that equals its query has no
    gradient.

    Args:
        descriptors: (N, D), ℓ2-normalised.
        tuples: Of the N images; the triplets count.
        margin: m.

    Returns:
        A scalar.
    """
    near, far = triplet_distances(descriptors, tuples.triplets)
    # The slope of a square root at 0 is infinite; clamped, it is 0.
    distance = far.clamp(min=_NEAREST**2).sqrt()
    return (near + (margin - distance).clamp(min=0).square()).mean() / 2


def average_precision_loss(descriptors: Tensor, tuples: Tuples) -> Tensor:
    """Compute 1 − mean average precision, differentiable by soft bins; for comparison (Revaud et al. 2019).

    Every image with a relevant other one is a query and ranks the images that are relevant or irrelevant to it. A
    cosine falls into the two bins around it, in proportion; precision and recall are sums over bins from the most
    similar down.

    Args:
        descriptors: (N, D), ℓ2-normalised.
        tuples: Of the N images; their relevance counts.

    Returns:
        A scalar, 0..1: 0 for perfect rankings.

    Raises:
        ValueError: No image has a relevant other one.
    """
    queries = tuples.relevant.any(1)
    if not queries.any():
        raise ValueError("average_precision_loss: expected an image with a relevant other one, found none")
    relevant = tuples.relevant[queries].to(descriptors.dtype)  # (Q, N)
    counted = relevant + tuples.irrelevant[queries].to(descriptors.dtype)  # (Q, N), 0 for junk
    cosines = descriptors[queries] @ descriptors.T  # (Q, N)
    width = 2 / (_BINS - 1)
    centres = torch.linspace(1, -1, _BINS, dtype=descriptors.dtype, device=descriptors.device)
    # Rounding takes a cosine a little beyond 1, where no bin would contain it whole.
    cosines = cosines.clamp(-1, 1)
    share = (1 - (cosines[:, :, None] - centres).abs() / width).clamp(min=0)  # (Q, N, bins)
    hits = (share * relevant[:, :, None]).sum(1)  # (Q, bins)
    total = (share * counted[:, :, None]).sum(1)  # (Q, bins)
    precision = hits.cumsum(1) / total.cumsum(1).clamp(min=torch.finfo(descriptors.dtype).tiny)
    return 1 - ((precision * hits).sum(1) / relevant.sum(1)).mean()


# Names in settings. All are minimised: that of "average_precision" is 1 − mean average precision.
LOSSES: dict[LossName, Loss] = dict(zip(get_args(LossName), (triplet, contrastive, average_precision_loss),
                                        strict=True))
