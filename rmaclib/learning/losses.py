"""Losses of learning to rank (Section 4.2), as functions of the descriptors of an update's distinct images.

An image that occurs in several tuples is described once; a loss reads its descriptor as often as it needs it.
That is what makes the gradient cheap in memory: see rmaclib.learning.gradients.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_NEAREST = 1e-6  # distances below it have no direction to be pushed along
_BINS = 20  # of the similarity in listwise average precision, as in Revaud et al. 2019


class Tuples(NamedTuple):
    """What the N distinct images of an update are to each other.

    triplets: (T, 3) int64, (query, positive, negative), indices into the N images
    relevant: (N, N) bool, symmetric: pairs that show the same thing; an image is not relevant to itself
    irrelevant: (N, N) bool, symmetric: pairs that show different things. Pairs that are neither are not
      judged: such as two pictures under one label that no verified match joins.
    """

    triplets: Tensor
    relevant: Tensor
    irrelevant: Tensor


Loss = Callable[..., Tensor]


def triplet_distances(descriptors: Tensor, triplets: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances query to positive and query to negative, (T,) each; descriptors: (N, D)."""
    query, positive, negative = descriptors[triplets].unbind(1)  # (T, D) each
    return (query - positive).square().sum(1), (query - negative).square().sum(1)


def triplet(descriptors: Tensor, tuples: Tuples, margin: float = 0.1) -> Tensor:
    """Mean over the triplets of ½ max(0, m + ‖q − d⁺‖² − ‖q − d⁻‖²) (Section 4.2).

    descriptors: (N, D), of unit length; returns a scalar, 0 .. (m + 4) / 2
    """
    near, far = triplet_distances(descriptors, tuples.triplets)
    return (margin + near - far).clamp(min=0).mean() / 2


def contrastive(descriptors: Tensor, tuples: Tuples, margin: float = 0.7) -> Tensor:
    """Mean over the triplets of ½ ‖q − d⁺‖² + ½ max(0, m − ‖q − d⁻‖)², for comparison (Radenović et al. 2019).

    descriptors: (N, D), of unit length; returns a scalar. A negative that equals its query has no gradient.
    """
    near, far = triplet_distances(descriptors, tuples.triplets)
    # The slope of a square root at 0 is infinite; clamped, it is 0.
    distance = far.clamp(min=_NEAREST**2).sqrt()
    return (near + (margin - distance).clamp(min=0).square()).mean() / 2


def average_precision_loss(descriptors: Tensor, tuples: Tuples) -> Tensor:
    """1 − mean average precision: 0 for perfect rankings. Differentiable by soft bins; for comparison (Revaud et al.
    2019).

    Every image with a relevant other one is a query and ranks the images that are judged against it. A cosine
    falls into the two bins around it, in proportion; precision and recall are sums over bins from the most
    similar down. descriptors: (N, D), of unit length; returns a scalar, 0..1
    raises ValueError when no image has a relevant other
    """
    queries = tuples.relevant.any(1)
    if not queries.any():
        raise ValueError("average_precision_loss: expected an image with a relevant other one, found none")
    relevant = tuples.relevant[queries].to(descriptors.dtype)  # (Q, N)
    judged = relevant + tuples.irrelevant[queries].to(descriptors.dtype)
    cosines = descriptors[queries] @ descriptors.T
    width = 2 / (_BINS - 1)
    centres = torch.linspace(1, -1, _BINS, dtype=descriptors.dtype, device=descriptors.device)
    # Rounding takes a cosine a little beyond 1, where no bin would hold it whole.
    cosines = cosines.clamp(-1, 1)
    share = (1 - (cosines[:, :, None] - centres).abs() / width).clamp(min=0)  # (Q, N, bins)
    hits = (share * relevant[:, :, None]).sum(1)  # (Q, bins)
    total = (share * judged[:, :, None]).sum(1)
    precision = hits.cumsum(1) / total.cumsum(1).clamp(min=torch.finfo(descriptors.dtype).tiny)
    return 1 - ((precision * hits).sum(1) / relevant.sum(1)).mean()


# Names in settings. All are minimised: that of "average_precision" is 1 − mean average precision.
LOSSES: dict[str, Loss] = {"triplet": triplet, "contrastive": contrastive, "average_precision": average_precision_loss}
