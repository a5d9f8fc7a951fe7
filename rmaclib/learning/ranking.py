"""Learning to rank (Section 4.2): mined triplets, the exact gradient in bounded memory, validation by retrieval."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from rmaclib.datasets.types import LabelledImages
from rmaclib.extraction.batches import pick_device
from rmaclib.foundation.errors import NotFiniteError
from rmaclib.foundation.settings import Field, settings
from rmaclib.learning.errors import LearningError, UnreadableError
from rmaclib.learning.folder import Inputs, identity_of
from rmaclib.learning.gradients import accumulate
from rmaclib.learning.loop import Stage, Step, Trained, Watch, run
from rmaclib.learning.losses import LOSSES, LossName, Tuples, triplet_distances
from rmaclib.learning.mining import Mined, mean_cosine, mine
from rmaclib.learning.optimization import Count, LoopSettings
from rmaclib.learning.pairs import Positives, Relations
from rmaclib.learning.proposals import MIRRORED, ProposalSettings, ProposalStep, prepare_proposals
from rmaclib.learning.streams import Stream, generator
from rmaclib.learning.validation import Validation, extract_together
from rmaclib.learning.views import Views, random_side, why_unreadable
from rmaclib.network import RMAC

_MARGINS: dict[LossName, float] = {"triplet": 0.1, "contrastive": 0.7}
_COLLAPSED = 1e-3  # of 1 − mean cosine, and of mean squared distances: all images look the same to the network


@settings
class RankingSettings(LoopSettings):
    """How a network learns to rank. Defaults are those of the preset ``paper`` (Section 4.2).

    Attributes:
        loss: A name of ``losses.LOSSES``.
        margin: None takes 0.1 for the triplet loss and 0.7 for the contrastive one; the others have none.
        triplets: Of an update.
        pool: Images that triplets are mined from, at most the whole collection.
        hardest: A triplet is chosen among so many hardest of a random query.
        refresh: Updates after which descriptors of a new pool are extracted.
        size: Longer side in pixels, of pool, training and validation. Training images are cut or padded after that, to
            whole cells of the map (``Backbone.whole_cells``).
        smallest: The longer side of each training image of an update is drawn at random: ``size``, or less by a
            multiple of the backbone's stride, down to this. Pool and validation stay at ``size``. None: all do.
        propose: Images of an update from whose boxes the proposal network learns jointly, and the backbone with it; the
            two losses are added, the log has those of proposals as objectness and boxes. 0: it keeps its weights. It
            is best trained before (``train_proposals``): the learning rate is that of a network which knows something.
        flip: Mirror half of the images.
        crop: Least share of an image's area that is kept, see ``views.random_crop``; 1: no crop.
    """

    loss: LossName = "triplet"
    margin: Annotated[float, Field(ge=0)] | None = None
    triplets: Count = 64
    pool: Annotated[int, Field(ge=3)] = 5000
    hardest: Count = 25
    refresh: Count = 64
    smallest: Count | None = None
    propose: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    crop: Annotated[float, Field(ge=0.01, le=1)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.smallest is not None and self.smallest > self.size:
            raise ValueError(f"smallest: expected at most size ({self.size}), got {self.smallest}")
        if self.margin is None:
            object.__setattr__(self, "margin", _MARGINS.get(self.loss))
        elif self.loss not in _MARGINS:
            raise ValueError(f"margin: the loss {self.loss!r} has none, got {self.margin!r}")


def train_ranking(network: RMAC, collection: LabelledImages, settings: RankingSettings | None = None, *,
                  out: str | os.PathLike, positives: Positives | csr_array | None = None,
                  validation: LabelledImages | None = None, progress: bool = True,
                  watch: Watch | None = None) -> Trained:
    """Train a network to rank (Section 4.2), from its weights as they are; they are changed in place.

    Batch normalisation keeps the statistics that the network came with, and a proposal network its weights unless
    ``settings.propose``. The columns of log.csv: see ``RankingStep``.

    Args:
        network: The network.
        collection: The training images. Those that can't be read are left out and listed.
        settings: Default: those of the preset ``paper``.
        out: Folder for best.safetensors, log.csv and the state. A killed run given the same arguments again goes on
            and gives the same result; a finished one is only loaded.
        positives: Pairs that show the same landmark: (N, N) bool (``verified_pairs``), or with those of the validation
            images. Default: images of one label do. Images of different labels are negatives.
        validation: Images among which retrieval is measured, every ``evaluate_every`` updates and at the start: the
            network with the best mean average precision is kept. None: the last one is.
        progress: Show a bar on a terminal.
        watch: Called after each update with the rows of log.csv so far, to show them as they come.

    Returns:
        The best network, and how training went.

    Raises:
        LearningError: No triplets; descriptors that have all become the same, or training that diverges (the last good
            state is kept); a folder of another run, or a damaged file in it.
        OutputError: A folder with other things in it.
    """
    settings = settings or RankingSettings()
    positives = positives if isinstance(positives, Positives) else Positives(positives)
    device, bad = pick_device(settings.device), dict(collection.left_out)
    proposals = _proposal_step(network, collection, settings, bad) if settings.propose else None
    identity = identity_of("ranking", network, settings, Inputs(collection, validation, positives),
                           **(MIRRORED if proposals else {}))
    evaluate: Callable[[], float] | None = None
    if validation is not None:
        relations = Relations(validation.labels, positives.validation)
        evaluate = partial(Validation(validation, relations, settings.extraction, bad), network)
    network.eval().to(device)
    if network.proposer is not None:
        network.proposer.requires_grad_(proposals is not None)  # it has a loss of its own
    step: Step = RankingStep(network, collection, Relations(collection.labels, positives.training), settings, bad)
    if proposals:
        step = JointStep(step, proposals)
    stage = Stage(network, network, step, settings, identity, evaluate, bad)
    return run(stage, out=out, progress=progress, watch=watch)


def _proposal_step(network: RMAC, collection: LabelledImages, settings: RankingSettings,
                   bad: dict[str, str]) -> ProposalStep:
    """What an update of the proposal network does that learns along."""
    joint = ProposalSettings(images=settings.propose, size=settings.size, backbone=True, flip=settings.flip,
                             seed=settings.seed, precision=settings.precision, device=settings.device)
    return ProposalStep(network, prepare_proposals(network, collection, joint, bad), joint, bad)


class RankingStep:
    """One update: mine when it is time, then the gradient over the update's distinct images.

    It reports: loss; active (share of triplets whose negative is not farther than the positive by the margin) and
    stale_active (the same by the descriptors of the pool they were drawn from, where images are whole, of ``size`` and
    not cut or padded); mean squared distances to positive and negative; cosine, the mean over all pairs of the last
    pool; distinct images of the update, and how many of them had a gradient (computed).
    """

    columns: tuple[str, ...] = ("loss", "active", "stale_active", "positive_distance", "negative_distance", "cosine",
                                "images", "computed")

    def __init__(self, network: RMAC, collection: LabelledImages, relations: Relations, settings: RankingSettings,
                 bad: dict[str, str]):
        self.network, self.collection, self.relations = network, collection, relations
        self.settings, self.bad = settings, bad
        self.loss = LOSSES[settings.loss]
        if settings.margin is not None:
            self.loss = partial(self.loss, margin=settings.margin)
        # Of the losses without a triplet's margin, a triplet counts as active when its order is wrong.
        self.slack = (settings.margin or 0.0) if settings.loss == "triplet" else 0.0
        self.mined = Mined(np.empty((0, 0, 3), np.int64), np.empty((0, 0, 2), np.float32))
        self.cosine = float("nan")

    def __call__(self, update: int, /) -> dict[str, float]:
        refresh, place = divmod(update - 1, self.settings.refresh)
        if place == 0:
            self._mine(refresh, update)
        triplets, before = self.mined.triplets[place], self.mined.distances[place]
        while len(triplets):
            try:
                return self._step(update, triplets, before)
            except UnreadableError as error:
                # They could be read when the pool was mined, and can't now.
                lost = np.unique(triplets)[error.places]
                self.bad |= {self.collection.names[index]: why_unreadable(self.collection.paths[index])
                             for index in lost}
                kept = ~np.isin(triplets, lost).any(1)
                triplets, before = triplets[kept], before[kept]
        raise LearningError(f"update {update}: each of its triplets has an image that can't be read any more, such as "
                            f"{list(self.bad.values())[-1]}")

    def _step(self, update: int, triplets: np.ndarray, before: np.ndarray) -> dict[str, float]:
        """Add the gradient of triplets (T, 3); before: (T, 2), their distances in the pool."""
        settings = self.settings
        self.network.zero_grad(set_to_none=False)
        images, local = np.unique(triplets, return_inverse=True)
        # The regions of a pixel grid follow from the size of the image, which views change; others from the map.
        backbone = None if self.network.settings.grid == "pixel" else self.network.backbone
        views = Views(self.collection, images, self._sides(update, images), backbone=backbone, flip=settings.flip,
                      crop=settings.crop, seed=(settings.seed, Stream.RANKING_VIEW, update))
        device = next(self.network.parameters()).device
        tuples = Tuples(*(torch.from_numpy(array).to(device) for array in (
            local.reshape(triplets.shape), self.relations.relevant(images), self.relations.irrelevant(images))))
        accumulated = accumulate(self.network, views, partial(self.loss, tuples=tuples), sizes=views.sizes,
                                 pixels=settings.pixels, half=settings.precision == "bfloat16")
        near, far = (part.cpu().numpy() for part in triplet_distances(accumulated.descriptors, tuples.triplets))
        if max(near.mean(), far.mean()) < _COLLAPSED:
            raise self._collapsed(update, f"positives and negatives are equally near their queries, at mean squared "
                                          f"distances of {near.mean():.1e} and {far.mean():.1e}")
        return {"loss": float(accumulated.loss), "active": _active(near, far, self.slack),
                "stale_active": _active(before[:, 0], before[:, 1], self.slack),
                "positive_distance": float(near.mean()), "negative_distance": float(far.mean()),
                "cosine": self.cosine, "images": len(images), "computed": accumulated.computed}

    def _sides(self, update: int, images: np.ndarray) -> list[int]:
        """Longer sides in pixels of an update's images."""
        settings = self.settings
        if settings.smallest is None:
            return [settings.size] * len(images)
        return [random_side(settings.smallest, settings.size, self.network.backbone.stride,
                            generator(settings.seed, Stream.RANKING_SIZE, update, index)) for index in images.tolist()]

    def _mine(self, refresh: int, update: int) -> None:
        """Extract descriptors of a new pool, and choose the triplets of the updates until the next one."""
        settings, count = self.settings, len(self.collection.names)
        random = generator(settings.seed, Stream.RANKING_POOL, refresh)
        pool = np.sort(random.choice(count, min(settings.pool, count), replace=False))
        pool, descriptors = extract_together(self.network, self.collection, pool, settings.extraction, self.bad)
        self.cosine = mean_cosine(descriptors)
        if not np.isfinite(descriptors).all():
            raise NotFiniteError("descriptors of the pool are not finite")
        if self.cosine > 1 - _COLLAPSED:
            raise self._collapsed(update, f"the mean cosine of two images of the pool is {self.cosine:.5f}")
        updates = min(settings.refresh, settings.updates - update + 1)
        self.mined = mine(pool, descriptors, self.relations, updates, settings.triplets, settings.hardest,
                          generator(settings.seed, Stream.RANKING_MINING, refresh))

    def _collapsed(self, update: int, what: str) -> LearningError:
        return LearningError(
            f"update {update}: the network has collapsed, all images get the same descriptor: {what}. Try a smaller "
            f"learning rate (lr, now {self.settings.full_lr:g}), a longer warmup, clip, or less hard triplets (a "
            "larger `hardest`, a smaller pool). Wrong labels do it too: clean the collection, or give verified pairs")

    def state(self) -> dict[str, Tensor]:
        return {"triplets": torch.from_numpy(self.mined.triplets),
                "distances": torch.from_numpy(self.mined.distances),
                "cosine": torch.tensor(self.cosine, dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor], /) -> None:
        self.mined = Mined(state["triplets"].numpy(), state["distances"].numpy())
        self.cosine = float(state["cosine"])


class JointStep:
    """One update of ranking and proposals together: the gradient of the sum of their losses."""

    def __init__(self, ranking: Step, proposals: Step):
        self.ranking, self.proposals = ranking, proposals
        self.columns = (*ranking.columns, "objectness", "boxes")

    def __call__(self, update: int, /) -> dict[str, float]:
        row, proposals = self.ranking(update), self.proposals(update)
        return {**row, "loss": row["loss"] + proposals["loss"], "objectness": proposals["objectness"],
                "boxes": proposals["boxes"]}

    def state(self) -> dict[str, Tensor]:
        return self.ranking.state()  # that of proposals follows from the number of the update

    def restore(self, state: Mapping[str, Tensor], /) -> None:
        self.ranking.restore(state)


def _active(near: np.ndarray, far: np.ndarray, slack: float) -> float:
    return float((near - far + slack > 0).mean())
