"""The first stage of learning (Section 4.2): the backbone learns to classify landmarks, by cross-entropy.

It makes the features of landmarks; the second stage (rmaclib.learning.ranking) makes distances of them.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import trange

from rmaclib.backbones import Backbone
from rmaclib.datasets.types import LabelledImages
from rmaclib.extraction.batches import ExtractionSettings, pick_device
from rmaclib.extraction.whitening import learn_whitening, training_sample
from rmaclib.foundation.settings import Field, as_tuple, settings
from rmaclib.images import ImageError
from rmaclib.learning.distributed import is_main, share, total
from rmaclib.learning.errors import LearningError
from rmaclib.learning.folder import STATE, identity_of
from rmaclib.learning.gradients import BATCH_PIXELS
from rmaclib.learning.loop import Count, LoopSettings, Trained, run
from rmaclib.learning.pairs import Relations
from rmaclib.learning.streams import Stream, generator
from rmaclib.learning.validation import Validation
from rmaclib.learning.views import Squares, why_unreadable
from rmaclib.network import RMAC, NetworkSettings

HEADS = ("max", "average")
_READERS = 4
_BATCH_PIXELS = BATCH_PIXELS | {"cpu": 240_000}  # here all threads share the work of a batch
_RIDGE = 1e-3
WHITENING_IMAGES = 400


@settings
class ClassificationSettings(LoopSettings):
    """How a network learns to classify landmarks. Defaults are the paper's, where they are known (Section 4.2).

    batch: images of an update; every image has its turn before one comes again
    shorter: an image is resized so that its shorter side is a random number of pixels in this range
    side: of the random square cut from it, in pixels; flip: mirror half of them
    fit: images that the linear layer is fitted to before the first update, on the backbone as it is. From random
      numbers, 0, its first gradients spoil features that were good for retrieval.
    dim: validation measures descriptors that are whitened to so many numbers, or to as many as the backbone has
      channels, for that is how they are used; the whitening is learned anew each time. None: without one
    head: how the feature map becomes a vector before the linear layer, "average" or "max" over all cells
    size: longer side in pixels, for the validation
    """

    batch: Count = 64
    shorter: Annotated[tuple[Count, Count], as_tuple] = (256, 512)
    side: Count = 224
    flip: bool = False
    fit: Annotated[int, Field(ge=0)] = 20_000
    dim: Count | None = 512
    head: Literal[HEADS] = "average"
    size: Count = 512

    def __post_init__(self):
        super().__post_init__()
        if not self.side <= self.shorter[0] <= self.shorter[1]:
            raise ValueError(f"shorter: expected (least, most) pixels, at least side ({self.side}), got {self.shorter}")


class Classifier(nn.Module):
    """Backbone, global pooling, a linear layer with an output for each label."""

    def __init__(self, backbone: Backbone, labels: int, head: str, seed: int):
        super().__init__()
        self.backbone, self.head = backbone, head
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.linear = nn.Linear(backbone.channels, labels)

    def features(self, images: Tensor, half: bool = False) -> Tensor:
        """images: (B, 3, H, W), as of Backbone; returns (B, C). half: the backbone in bfloat16."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            found = self.backbone(images)  # (B, C, h, w)
        found = found.float() if half else found
        return found.amax((2, 3)) if self.head == "max" else found.mean((2, 3))

    def forward(self, images: Tensor, half: bool = False) -> Tensor:
        """See features; returns scores (B, labels)."""
        return self.linear(self.features(images, half))

    def fit(self, features: Tensor, targets: Tensor) -> None:
        """Give the linear layer the weights with the smallest cross-entropy on features (N, C), and _RIDGE / 2 times
        their square sum; targets: (N,) numbers of labels."""
        features, targets = features.double().cpu(), targets.cpu()
        weight, bias = (torch.zeros_like(part, dtype=torch.float64, device="cpu", requires_grad=True)
                        for part in (self.linear.weight, self.linear.bias))
        solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            solver.zero_grad()
            value = functional.cross_entropy(features @ weight.T + bias, targets) + _RIDGE / 2 * weight.square().sum()
            value.backward()
            return value

        solver.step(loss)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.copy_(bias)


def train_classification(network: RMAC, collection: LabelledImages, settings: ClassificationSettings | None = None, *,
                     out: str | os.PathLike, validation: LabelledImages | None = None,
                     progress: bool = True, watch: Callable[[list[dict]], object] | None = None) -> Trained:
    """Train the backbone of a network to classify the landmarks of a collection (Section 4.2), in place.

    out: folder for best.safetensors, log.csv and the state; resuming as in training.train
    validation: images among which retrieval is measured, by R-MAC on the backbone, see ClassificationSettings.dim: the
      best one is kept. None: the last one is.
    watch: as in training.train
    Trained.network is R-MAC on the trained backbone, without fully connected layer and proposal network: what was
    fitted to the backbone before would not fit it any more. Learn a whitening for it
    (search.descriptors.learn_whitening).
    log.csv has loss and accuracy on the update's images, before the update.
    Batch normalisation keeps the statistics that the network came with. Images that can't be read are left out
    and listed in Trained.bad and bad.txt.
    raises LearningError: a single label; training that diverges; a folder of another run
    """
    settings = settings or ClassificationSettings()
    if len(set(collection.labels)) < 2:
        raise LearningError(f"{collection.name}: expected images of two landmarks or more, found one label")
    # Neither the layer nor the proposals that were fitted to the backbone before would fit it any more.
    network = RMAC(NetworkSettings(**{**vars(network.settings), "dim": None, "regions": "grid", "anchors": ()}),
                   network.backbone).eval()
    device, bad = pick_device(settings.device), dict(collection.left_out)
    identity = identity_of("classification", network, settings, collection, validation=validation)
    evaluate = None
    if validation is not None:
        describing = ExtractionSettings((settings.size,), precision=settings.precision, device=settings.device)
        measure = Validation(validation, Relations(validation.labels), describing, bad)

        def evaluate() -> float:
            if settings.dim is None:
                return measure(network)
            whitening = learn_whitening(network, training_sample(collection, WHITENING_IMAGES), describing,
                                        dim=min(settings.dim, network.backbone.channels), progress=False)
            return measure(deepcopy(network).set_whitening(whitening))

    model = Classifier(network.backbone, len(set(collection.labels)), settings.head, settings.seed).eval().to(device)
    step = _Classification(model, collection, settings, bad)
    if settings.fit and not (Path(out) / STATE).exists():
        step.fit(progress)
    return run(model, network, step, settings, out=out, identity=identity,
               evaluate=evaluate, bad=bad, progress=progress, watch=watch)


class _Classification:
    """One update: a batch of random squares through the classifier, a few at a time."""

    columns = ("loss", "accuracy")

    def __init__(self, model: Classifier, collection: LabelledImages, settings: ClassificationSettings,
                 bad: dict[str, str]):
        self.model, self.collection, self.settings, self.bad = model, collection, settings, bad
        self.targets = np.unique(collection.labels, return_inverse=True)[1]  # (N,) numbers of the labels, without gaps

    def fit(self, progress: bool) -> None:
        """Fit the linear layer to a square of each image, or of as many as settings.fit. Of several processes each does
        it all, so that they agree."""
        settings, found, targets = self.settings, [], []
        device = next(self.model.parameters()).device
        batches = -(-min(settings.fit, len(self.targets)) // settings.batch)
        for number in trange(batches, desc="fit", unit="batch", disable=None if progress and is_main() else True):
            images, wanted = self._batch(1 + number, np.asarray)  # what the first updates will see
            with torch.no_grad():
                found += [self.model.features(part.to(device), settings.precision == "bfloat16")
                          for part in images.split(self._count(device))]
            targets.append(wanted)
        if not sum(map(len, targets)):
            raise LearningError("the linear layer can't be fitted: none of the images can be read, such as "
                                f"{list(self.bad.values())[-1]}")
        self.model.fit(torch.cat(found), torch.cat(targets))

    def _count(self, device: torch.device) -> int:
        """Images that go through the network together."""
        return max(1, (self.settings.pixels or _BATCH_PIXELS.get(device.type, _BATCH_PIXELS["cpu"]))
                   // self.settings.side**2)

    def __call__(self, update: int) -> dict[str, float]:
        settings = self.settings
        device = next(self.model.parameters()).device
        images, targets = self._batch(update)  # (n, 3, side, side), (n,), the share of this process
        number = int(total(torch.tensor(len(targets))))
        if not number:
            raise LearningError(f"update {update}: none of its images can be read, such as "
                                f"{list(self.bad.values())[-1]}")
        count, sums = self._count(device), torch.zeros(2, dtype=torch.float64)
        for start in range(0, len(targets), count):
            part, wanted = images[start:start + count], targets[start:start + count].to(device)
            scores = self.model(part.to(device), settings.precision == "bfloat16")
            value = functional.cross_entropy(scores, wanted, reduction="sum") / number
            value.backward()
            sums += torch.tensor([float(value.detach()), float((scores.argmax(1) == wanted).sum())])
        loss, right = total(sums).tolist()
        return {"loss": loss, "accuracy": right / number}

    def _batch(self, update: int, part: Callable = share) -> tuple[Tensor, Tensor]:
        """Images and label numbers of an update, or of a part of them (by default of this process's share), without
        those that can't be read."""
        settings = self.settings
        indices = part(turns(len(self.targets), (update - 1) * settings.batch, settings.batch, settings.seed))
        squares = Squares(self.collection, indices, settings.shorter, settings.side, flip=settings.flip,
                          seed=(settings.seed, Stream.CLASSIFICATION_VIEW, update))

        def read(place: int) -> Tensor | None:
            try:
                return squares[place]
            except ImageError:
                return None

        with ThreadPoolExecutor(_READERS) as pool:
            found = list(pool.map(read, range(len(squares))))
        unreadable = torch.zeros(len(self.targets), dtype=torch.int64)
        unreadable[[index for index, one in zip(indices, found, strict=True) if one is None]] = 1
        self.bad |= {self.collection.names[index]: why_unreadable(self.collection.paths[index])
                     for index in total(unreadable).nonzero()[:, 0].tolist()}
        good = [place for place, one in enumerate(found) if one is not None]
        images = [found[place] for place in good]
        return (torch.stack(images) if images else torch.empty(0, 3, settings.side, settings.side),
                torch.from_numpy(self.targets[indices[good]]))

    def state(self) -> dict[str, Tensor]:
        return {}  # everything follows from the number of the update

    def restore(self, state: Mapping[str, Tensor]) -> None:
        pass


def turns(count: int, first: int, number: int, seed: int) -> np.ndarray:
    """(number,) int64: draws `first`, `first` + 1, … of a random order in which each of `count` items comes once
    before any comes again."""
    draws = np.arange(first, first + number)
    rounds = {round_: generator(seed, Stream.CLASSIFICATION_ORDER, round_).permutation(count)
              for round_ in np.unique(draws // count).tolist()}
    return np.array([rounds[draw // count][draw % count] for draw in draws.tolist()], np.int64)
