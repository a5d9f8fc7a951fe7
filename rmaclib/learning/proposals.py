"""Learning where landmarks are (Section 4.3): the proposal network, from the boxes that cleaning has estimated."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rmaclib.boxes import Box
from rmaclib.datasets.types import LabelledImages
from rmaclib.evaluation.boxes import best_overlaps
from rmaclib.extraction.batches import pick_device
from rmaclib.extraction.proposals import feature_maps, propose_regions
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import Field, settings
from rmaclib.images import ImageError, read_size
from rmaclib.learning.distributed import share, total
from rmaclib.learning.errors import LearningError, UnreadableError
from rmaclib.learning.folder import Inputs, identity_of
from rmaclib.learning.loop import Stage, Trained, Watch, run
from rmaclib.learning.optimization import Count, LoopSettings
from rmaclib.learning.streams import Stream, generator
from rmaclib.learning.views import Views, why_unreadable
from rmaclib.network import RMAC, NetworkSettings
from rmaclib.proposals import fit_anchors, proposal_loss, usable_boxes

OVERLAPS = np.arange(50, 100, 5) / 100  # IoU, over which the validation's recall is averaged
# Part of what a run depends on: before, maps of a fixed backbone were mirrored and not pictures.
MIRRORED = {"mirrored": "pictures"}


@settings
class ProposalSettings(LoopSettings):
    """How the proposal network learns. Defaults are those of the preset ``paper`` (Section 4.3).

    Attributes:
        images: Of an update.
        samples: Anchors of an image that count, at most half of them positive.
        anchors: Shapes fitted to the training boxes, for a network that has none yet.
        hidden: Channels of its 3 × 3 convolution.
        box_weight: Of the loss of the offsets beside that of the objectness.
        flip: Mirror half of the images.
        pool: Images whose feature maps are kept in memory at a time, as long as the backbone is fixed. A map of 25 × 19
            cells of 2,048 channels takes 2 MB; with ``flip`` that of the mirrored image takes as much again.
        refresh: Updates after which the pool is changed, where the collection has more images.
        backbone: Whether the backbone learns too; it is fixed by default, so that descriptors of the grid stay.
    """

    images: Count = 16
    samples: Annotated[int, Field(ge=2)] = 128
    anchors: Annotated[int, Field(ge=1, le=1000)] = 12
    hidden: Annotated[int, Field(ge=1, le=65_536)] = NetworkSettings.proposal_channels
    box_weight: Annotated[float, Field(ge=0)] = 1.0
    flip: bool = True
    pool: Count = 2048
    refresh: Count = 256
    backbone: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frozen is not None and not self.backbone:
            raise ValueError(f"frozen: expected with `backbone: true` only, got {self.frozen!r}; no layer of the "
                             "backbone learns")


def train_proposals(network: RMAC, collection: LabelledImages, settings: ProposalSettings | None = None, *,
                    out: str | os.PathLike, validation: LabelledImages | None = None, progress: bool = True,
                    watch: Watch | None = None) -> Trained:
    """Train a network's proposal network on boxes (Section 4.3), in place; it gets one if it has none.

    Args:
        network: The network.
        collection: Images with boxes, such as the clean list; those without one, or whose box is not in the image, are
            left out.
        settings: Default: those of the preset ``paper``.
        out: Folder of the run, as of ``train_ranking``.
        validation: Images with boxes; their average recall, over overlaps (IoU) of 0.5 to 0.95, with as many proposals
            as ``network.settings.proposals``, chooses the best network. None: the last one is kept.
        progress: Show a bar on a terminal.
        watch: Called after each update with the rows of log.csv so far.

    Returns:
        The best network, and how training went.

    Raises:
        LearningError: No boxes; training that diverges; a folder of another run.
    """
    settings = settings or ProposalSettings()
    device, bad = pick_device(settings.device), dict(collection.left_out)
    collection = prepare_proposals(network, collection, settings, bad)
    if validation is not None:
        validation = _with_boxes(validation, bad)
    identity = identity_of("proposals", network, settings, Inputs(collection, validation), **MIRRORED)
    network.eval().to(device)
    evaluate = None
    if validation is not None:
        evaluate = _AverageRecall(network, validation, settings)
    step = ProposalStep(network, collection, settings, bad)
    model = nn.ModuleList([step.proposer, network.backbone] if settings.backbone else [step.proposer])
    stage = Stage(model, network, step, settings, identity, evaluate, bad)
    return run(stage, out=out, progress=progress, watch=watch)


def prepare_proposals(network: RMAC, collection: LabelledImages, settings: ProposalSettings,
                      bad: dict[str, str]) -> LabelledImages:
    """Choose the images that can train a proposal network, and give the network one if it has none.

    Args:
        network: Changed in place.
        collection: The training images.
        settings: Anchors, hidden channels and seed of a new proposal network.
        bad: Filled with name -> reason for images that can't be read.

    Returns:
        The images with a usable box.

    Raises:
        LearningError: There are none.
    """
    collection = _with_boxes(collection, bad)
    if network.proposer is None:
        anchors = fit_anchors(_boxes(collection), [read_size(path) for path in collection.paths], settings.anchors,
                              settings.seed)
        network.add_proposer(anchors, settings.hidden, settings.seed)
    return collection


def _with_boxes(collection: LabelledImages, bad: dict[str, str]) -> LabelledImages:
    """The images that have a box of a pixel or more in them."""
    kept = []
    for index, box in enumerate(collection.boxes):
        if box is None:
            continue
        try:
            width, height = read_size(collection.paths[index])
        except ImageError as error:
            bad[collection.names[index]] = str(error)
            continue
        if len(usable_boxes(torch.tensor([box], dtype=torch.float64), (height, width))):
            kept.append(index)
    if not kept:
        raise LearningError(f"{collection.name}: expected images with boxes (`path label x1 x2 y1 y2`, as rmac clean "
                            f"writes them), found none among {len(collection.names)}")
    return collection.part(kept)


def _boxes(collection: LabelledImages) -> list[Box]:
    return [box for box in collection.boxes if box is not None]


class _AverageRecall:
    """The validation: recall of the boxes by as many proposals as the network makes, averaged over OVERLAPS."""

    def __init__(self, network: RMAC, images: LabelledImages, settings: ProposalSettings):
        self.network, self.images, self.extraction = network, images, settings.extraction

    def __call__(self) -> float:
        count = self.network.settings.proposals
        proposals = propose_regions(self.network, self.images.paths, self.extraction, count, progress=False)
        best = best_overlaps([image.boxes for image in proposals], _boxes(self.images), count)
        return float(np.mean([(best >= iou).mean() for iou in OVERLAPS]))


class _Map(NamedTuple):
    """What the proposal network learns from: features (C, h, w), (H, W) of the image that they came from, and the box
    (4,) in it."""

    features: Tensor
    image_size: tuple[int, int]
    box: Tensor


class ProposalStep:
    """One update: a few images, each with its loss on the anchors.

    It reports the sum of the two losses, each of them (objectness, boxes), and the positive anchors of an image
    (positives).
    """

    columns: tuple[str, ...] = ("loss", "objectness", "boxes", "positives")

    def __init__(self, network: RMAC, collection: LabelledImages, settings: ProposalSettings, bad: dict[str, str]):
        if network.proposer is None:
            raise InputError("network: expected one with a proposal network (RMAC.add_proposer), got one without")
        self.network, self.proposer = network, network.proposer
        self.collection, self.settings, self.bad = collection, settings, bad
        self.pooled = -1  # number of the pool
        self.maps: dict[int, _Map] = {}  # image of the pool -> its map, and that of its mirror image, stacked

    def __call__(self, update: int, /) -> dict[str, float]:
        settings, count = self.settings, len(self.collection.names)
        refresh = (update - 1) // settings.refresh if count > settings.pool else 0
        pool = np.sort(generator(settings.seed, Stream.PROPOSALS_POOL, refresh).choice(
            count, min(settings.pool, count), replace=False))
        images = generator(settings.seed, Stream.PROPOSALS_ORDER, update).choice(
            pool, min(settings.images, len(pool)), replace=False)
        if not settings.backbone:
            self._fill(pool, refresh)
        random = generator(settings.seed, Stream.PROPOSALS_VIEW, update)
        shapes: dict[tuple[int, int], list[_Map]] = defaultdict(list)  # by the size of the image
        for index in share(images.tolist()):
            view = self._view(index)
            if view is not None:
                features = view(settings.flip and random.random() < 0.5)
                shapes[features.image_size].append(features)
        sums, read = torch.zeros(3, dtype=torch.float64), sum(map(len, shapes.values()))
        for image_size, maps in shapes.items():
            loss = proposal_loss(self.proposer, torch.stack([each.features for each in maps]), image_size,
                                 [each.box[None] for each in maps], settings.samples, random)
            ((loss.objectness + settings.box_weight * loss.boxes) / len(images)).backward()
            sums += torch.tensor([loss.objectness.item(), loss.boxes.item(), loss.positives])
        *summed, read = total(torch.tensor([*sums, read], dtype=torch.float64)).tolist()
        if not read:
            raise LearningError(f"update {update}: none of its images can be read, such as "
                                f"{list(self.bad.values())[-1]}")
        objectness, boxes, positives = (value / read for value in summed)
        return {"loss": objectness + settings.box_weight * boxes, "objectness": objectness, "boxes": boxes,
                "positives": positives}

    def _fill(self, pool: np.ndarray, refresh: int) -> None:
        """Feature maps of the pool's images, and of their mirror images; they don't change while the backbone is
        fixed."""
        if refresh == self.pooled:
            return
        self.pooled, self.maps = refresh, {}
        bad: dict[int, str] = {}
        paths = [self.collection.paths[index] for index in pool]
        for place, features, image_size in feature_maps(self.network, paths, self.settings.extraction, bad,
                                                        mirrored=self.settings.flip):
            # Half the memory; three digits are more than the anchors' labels are worth.
            index, features = int(pool[place]), features.half().reshape(-1, *features.shape[-3:])
            self.maps[index] = _Map(features, image_size, self._box(index, image_size))
        self.bad |= {self.collection.names[pool[place]]: reason for place, reason in bad.items()}

    def _view(self, index: int) -> Callable[[bool], _Map] | None:
        """A function of whether the image is mirrored. None when the image is unreadable."""
        device = next(self.network.parameters()).device
        if not self.settings.backbone:
            if index not in self.maps:
                return None
            maps, size, box = self.maps[index]  # (1 or 2, C, h, w)
            return lambda mirror: _Map(maps[int(mirror)].to(device).float(), size, _mirrored(box, size, mirror))
        try:
            image = Views(self.collection, [index], self.settings.size)[0]
        except (ImageError, UnreadableError):
            self.bad[self.collection.names[index]] = why_unreadable(self.collection.paths[index])
            return None
        height, width = image.shape[-2:]

        def computed(mirror: bool) -> _Map:
            pixels = (image.flip(-1) if mirror else image)[None].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
                features = self.network.backbone(pixels)[0]
            box = _mirrored(self._box(index, (height, width)), (height, width), mirror)
            return _Map(features.float(), (height, width), box)

        return computed

    def _box(self, index: int, image_size: tuple[int, int]) -> Tensor:
        """The box of an image, (4,), in pixels of what the network sees of it."""
        width, height = read_size(self.collection.paths[index])
        scale = torch.tensor([image_size[1] / width, image_size[0] / height] * 2)
        return torch.tensor(self.collection.boxes[index], dtype=torch.float32) * scale

    def state(self) -> dict[str, Tensor]:
        return {}  # everything follows from the number of the update

    def restore(self, state: Mapping[str, Tensor], /) -> None:
        pass


def _mirrored(box: Tensor, image_size: tuple[int, int], mirror: bool) -> Tensor:
    """The box (4,) in an image of (H, W) pixels, or in its mirror image."""
    if not mirror:
        return box
    width = image_size[1]
    return torch.stack([width - box[2], box[1], width - box[0], box[3]])
