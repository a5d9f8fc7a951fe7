"""Learning where landmarks are (Section 4.3): the proposal network, from the boxes that cleaning has estimated."""

import os
from collections import defaultdict
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from rmaclib.datasets.types import LabelledImages
from rmaclib.evaluation.boxes import best_overlaps
from rmaclib.extraction.batches import ExtractionSettings, pick_device
from rmaclib.extraction.proposals import feature_maps, propose_regions
from rmaclib.foundation.settings import Field, settings
from rmaclib.images import ImageError, read_size
from rmaclib.learning.distributed import share, total
from rmaclib.learning.errors import LearningError, UnreadableError
from rmaclib.learning.folder import identity_of
from rmaclib.learning.loop import Count, LoopSettings, Trained, run
from rmaclib.learning.streams import Stream, generator
from rmaclib.learning.views import Views, why_unreadable
from rmaclib.network import RMAC, NetworkSettings
from rmaclib.proposals import fit_anchors, proposal_loss, usable_boxes

OVERLAPS = np.arange(50, 100, 5) / 100  # over which the validation's recall is averaged
# Part of what a run depends on: before, maps of a fixed backbone were mirrored and not pictures.
MIRRORED = {"mirrored": "pictures"}


@settings
class ProposalSettings(LoopSettings):
    """How the proposal network learns. The paper starts at a learning rate of 1e-3 and goes on with a tenth.

    images: of an update; samples: anchors of an image that count, at most half of them on the landmark
    anchors: shapes fitted to the training boxes, for a network that has none yet; hidden: channels of its 3×3
      convolution
    box_weight: of the loss of the offsets beside that of the objectness
    size: longer side in pixels; smaller images are not enlarged; flip: mirror half of the images
    pool: images whose feature maps are kept in memory at a time, as long as the backbone is fixed, changed every
      `refresh` updates where the collection has more. A map of 25×19 cells of 2,048 channels takes 2 MB; with `flip`
      that of the mirrored image takes as much again.
    backbone: whether the backbone learns too; it is fixed by default, so that descriptors of the grid stay
    """

    images: Count = 16
    samples: Annotated[int, Field(ge=2)] = 128
    anchors: Annotated[int, Field(ge=1, le=1000)] = 12
    hidden: Annotated[int, Field(ge=1, le=65_536)] = NetworkSettings.proposal_channels
    box_weight: Annotated[float, Field(ge=0)] = 1.0
    size: Count = 800
    flip: bool = True
    pool: Count = 2048
    refresh: Count = 256
    backbone: bool = False


def train_proposals(network: RMAC, collection: LabelledImages, settings: ProposalSettings | None = None, *,
                    out: str | os.PathLike, validation: LabelledImages | None = None, progress: bool = True,
                    watch: Callable[[list[dict]], object] | None = None) -> Trained:
    """Train a network's proposal network on boxes (Section 4.3), in place; it gets one if it has none.

    collection: images with boxes, such as the clean list; those without one, or whose box is not in the image,
      are left out. validation: the same; its average recall, over overlaps (IoU) of 0.5 to 0.95, with as many
      proposals as network.settings.proposals chooses the best. None: the last one is kept.
    out, resuming, bad images, watch: see learning.train
    log.csv has the two losses (objectness, boxes) and the anchors on the landmark of an image (positives).
    raises LearningError: no boxes; training that diverges; a folder of another run
    """
    settings = settings or ProposalSettings()
    bad = dict(collection.left_out)
    collection = prepared(network, collection, settings, bad)
    if validation is not None:
        validation = _with_boxes(validation, bad)
    device = pick_device(settings.device)
    identity = identity_of("proposals", network, settings, collection, validation=validation, **MIRRORED)
    network.eval().to(device)
    describing = ExtractionSettings((settings.size,), precision=settings.precision, device=settings.device)
    model = nn.ModuleList([network.proposer, network.backbone] if settings.backbone else [network.proposer])
    evaluate = None
    if validation is not None:
        def evaluate() -> float:
            proposed = propose_regions(network, validation.paths, describing, network.settings.proposals,
                                       progress=False)
            best = best_overlaps([image.boxes for image in proposed], validation.boxes, network.settings.proposals)
            return float(np.mean([(best >= iou).mean() for iou in OVERLAPS]))
    return run(model, network, Proposing(network, collection, settings, describing, bad), settings, out=out,
               identity=identity, evaluate=evaluate, bad=bad, progress=progress, watch=watch)


def prepared(network: RMAC, collection: LabelledImages, settings: ProposalSettings,
             bad: dict[str, str]) -> LabelledImages:
    """The images that can teach a proposal network, and one for the network if it has none.

    raises LearningError without such images
    """
    collection = _with_boxes(collection, bad)
    if network.proposer is None:
        anchors = fit_anchors(collection.boxes, [read_size(path) for path in collection.paths], settings.anchors,
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


class Proposing:
    """One update: a few images, each with its loss on the anchors."""

    columns = ("loss", "objectness", "boxes", "positives")

    def __init__(self, network: RMAC, collection: LabelledImages, settings: ProposalSettings,
                 describing: ExtractionSettings, bad: dict[str, str]):
        self.network, self.collection, self.settings = network, collection, settings
        self.describing, self.bad = describing, bad
        self.pooled, self.maps = -1, {}  # number of the pool; image -> its map, that of its mirror image, size, box

    def __call__(self, update: int) -> dict[str, float]:
        settings, count = self.settings, len(self.collection.names)
        refresh = (update - 1) // settings.refresh if count > settings.pool else 0
        pool = np.sort(generator(settings.seed, Stream.PROPOSALS_POOL, refresh).choice(
            count, min(settings.pool, count), replace=False))
        chosen = generator(settings.seed, Stream.PROPOSALS_ORDER, update).choice(
            pool, min(settings.images, len(pool)), replace=False)
        if not settings.backbone:
            self._fill(pool, refresh)
        random = generator(settings.seed, Stream.PROPOSALS_VIEW, update)
        shapes: dict[tuple[int, int], list] = defaultdict(list)  # size of the image -> (map, box) of each of it
        for index in share(chosen.tolist()):
            view = self._read(index)
            if view is None:
                continue
            features, image_size, box = view(settings.flip and random.random() < 0.5)
            shapes[image_size].append((features, box[None]))
        sums, read = torch.zeros(3, dtype=torch.float64), sum(map(len, shapes.values()))
        for image_size, members in shapes.items():
            features, boxes = zip(*members, strict=True)
            loss = proposal_loss(self.network.proposer, torch.stack(features), image_size, boxes, settings.samples,
                                 random)
            ((loss.objectness + settings.box_weight * loss.boxes) / len(chosen)).backward()
            sums += torch.tensor([loss.objectness.item(), loss.boxes.item(), loss.positives])
        *sums, read = total(torch.tensor([*sums, read], dtype=torch.float64)).tolist()
        if not read:
            raise LearningError(f"update {update}: none of its images can be read, such as "
                                f"{list(self.bad.values())[-1]}")
        objectness, boxes, positives = (value / read for value in sums)
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
        for place, features, image_size in feature_maps(self.network, paths, self.describing, bad,
                                                        mirrored=self.settings.flip):
            # Half the memory; three digits are more than the anchors' labels are worth.
            index, features = int(pool[place]), features.half().reshape(-1, *features.shape[-3:])
            self.maps[index] = features, image_size, self._box(index, image_size)
        self.bad |= {self.collection.names[pool[place]]: reason for place, reason in bad.items()}

    def _read(self, index: int) -> Callable[[bool], tuple[Tensor, tuple[int, int], Tensor]] | None:
        """A function of whether the image is mirrored: feature map (C, h, w), (H, W) of the image that it came from,
        the box in that. None when the image is unreadable."""
        device = next(self.network.parameters()).device
        if not self.settings.backbone:
            if index not in self.maps:
                return None
            maps, image_size, box = self.maps[index]  # (1 or 2, C, h, w)
            return lambda mirror: (maps[int(mirror)].to(device).float(), image_size, _mirrored(box, image_size, mirror))
        try:
            (image,) = Views(self.collection, [index], self.settings.size)
        except (ImageError, UnreadableError):
            self.bad[self.collection.names[index]] = why_unreadable(self.collection.paths[index])
            return None
        image_size = tuple(image.shape[-2:])

        def computed(mirror: bool) -> tuple[Tensor, tuple[int, int], Tensor]:
            picture = (image.flip(-1) if mirror else image)[None].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
                features = self.network.backbone(picture)[0]
            return features.float(), image_size, _mirrored(self._box(index, image_size), image_size, mirror)

        return computed

    def _box(self, index: int, image_size: tuple[int, int]) -> Tensor:
        """The box of an image, (4,), in pixels of what the network sees of it."""
        width, height = read_size(self.collection.paths[index])
        scale = torch.tensor([image_size[1] / width, image_size[0] / height] * 2)
        return torch.tensor(self.collection.boxes[index], dtype=torch.float32) * scale

    def state(self) -> dict[str, Tensor]:
        return {}  # everything follows from the number of the update

    def restore(self, state) -> None:
        pass


def _mirrored(box: Tensor, image_size: tuple[int, int], mirror: bool) -> Tensor:
    """The box (4,) in an image of (H, W) pixels, or in its mirror image."""
    if not mirror:
        return box
    width = image_size[1]
    return torch.stack([width - box[2], box[1], width - box[0], box[3]])
