"""Learning to classify landmarks (Section 4.2), the stage before ranking: the backbone, by cross-entropy.

It makes the features of landmarks; ranking (``rmaclib.learning.ranking``) makes distances of them.
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
from rmaclib.extraction.batches import pick_device
from rmaclib.extraction.whitening import learn_whitening, training_sample
from rmaclib.foundation.settings import Field, as_tuple, settings
from rmaclib.images import ImageError
from rmaclib.learning.distributed import is_main, share, total
from rmaclib.learning.errors import LearningError
from rmaclib.learning.folder import STATE, Inputs, identity_of
from rmaclib.learning.gradients import BATCH_PIXELS
from rmaclib.learning.loop import Stage, Trained, Watch, run
from rmaclib.learning.optimization import Count, LoopSettings
from rmaclib.learning.pairs import Relations
from rmaclib.learning.streams import Stream, generator
from rmaclib.learning.validation import Validation
from rmaclib.learning.views import Squares, why_unreadable
from rmaclib.network import RMAC, NetworkSettings

Head = Literal["max", "average"]
WHITENING_IMAGES = 400
_READERS = 4  # threads that decode images
_BATCH_PIXELS = BATCH_PIXELS | {"cpu": 240_000}  # here all threads share the work of a batch
_RIDGE = 1e-3


@settings
class ClassificationSettings(LoopSettings):
    """How a network learns to classify landmarks. Defaults are those of the preset ``paper`` (Section 4.2).

    Attributes:
        batch: Images of an update; every image has its turn before one comes again.
        shorter: An image is resized so that its shorter side is a random number of pixels in this range.
        side: Of the random square crop, in pixels.
        flip: Mirror half of the crops.
        fit: Images that the linear layer is fitted to before the first update, on the backbone as it is. From random
            weights (0), its first gradients spoil features that were good for retrieval.
        dim: Validation measures descriptors that are whitened to so many dimensions, or to as many as the backbone
            allows, for that is how they are used; the whitening is learned anew each time. None: without one.
        head: How the feature map becomes a vector before the linear layer, ``"average"`` or ``"max"`` over all cells.
        size: Longer side in pixels, for the validation.
    """

    batch: Count = 64
    shorter: Annotated[tuple[Count, Count], as_tuple] = (256, 512)
    side: Count = 224
    flip: bool = False
    fit: Annotated[int, Field(ge=0)] = 20_000
    dim: Count | None = 512
    head: Head = "average"
    size: Count = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.side <= self.shorter[0] <= self.shorter[1]:
            raise ValueError(f"shorter: expected (least, most) pixels, at least side ({self.side}), got {self.shorter}")


def train_classification(network: RMAC, collection: LabelledImages, settings: ClassificationSettings | None = None, *,
                         out: str | os.PathLike, validation: LabelledImages | None = None, progress: bool = True,
                         watch: Watch | None = None) -> Trained:
    """Train the backbone of a network to classify the landmarks of a collection (Section 4.2), in place.

    Batch normalisation keeps the statistics that the network came with.

    Args:
        network: Its backbone is trained.
        collection: The training images. Those that can't be read are left out and listed.
        settings: Default: those of the preset ``paper``.
        out: Folder of the run, as of ``train_ranking``.
        validation: Images among which retrieval is measured, by R-MAC on the backbone, see
            ``ClassificationSettings.dim``: the best network is kept. None: the last one is.
        progress: Show a bar on a terminal.
        watch: Called after each update with the rows of log.csv so far.

    Returns:
        The best network: R-MAC on the trained backbone, without fully connected layer and proposal network, as what
        was fitted to the backbone before would not fit it any more. Learn a whitening for it
        (``extraction.whitening.learn_whitening``).

    Raises:
        LearningError: A single label; training that diverges; a folder of another run.
    """
    settings = settings or ClassificationSettings()
    if len(set(collection.labels)) < 2:
        raise LearningError(f"{collection.name}: expected images of two landmarks or more, found one label")
    device, bad = pick_device(settings.device), dict(collection.left_out)
    network = RMAC(NetworkSettings(**{**vars(network.settings), "dim": None, "regions": "grid", "anchors": ()}),
                   network.backbone).eval()
    identity = identity_of("classification", network, settings, Inputs(collection, validation))
    evaluate: Callable[[], float] | None = None
    if validation is not None:
        evaluate = _WhitenedRetrieval(network, collection, settings,
                                      Validation(validation, Relations(validation.labels), settings.extraction, bad))
    model = Classifier(network.backbone, len(set(collection.labels)), settings.head, settings.seed).eval().to(device)
    step = ClassificationStep(model, collection, settings, bad)
    stage = Stage(model, network, step, settings, identity, evaluate, bad)
    if settings.fit and not (Path(out) / STATE).exists():
        step.fit(progress)
    return run(stage, out=out, progress=progress, watch=watch)


class _WhitenedRetrieval:
    """The validation: retrieval by the network with a whitening learned on the training images."""

    def __init__(self, network: RMAC, collection: LabelledImages, settings: ClassificationSettings,
                 validation: Validation):
        self.network, self.validation, self.settings = network, validation, settings
        self.sample = training_sample(collection, WHITENING_IMAGES)

    def __call__(self) -> float:
        network, settings = self.network, self.settings
        if settings.dim is not None:
            dim = min(settings.dim, network.backbone.dims[-1])
            whitening = learn_whitening(network, self.sample, settings.extraction, dim=dim, progress=False)
            network = deepcopy(network).set_whitening(whitening)
        return self.validation(network)


class Classifier(nn.Module):
    """Backbone, global pooling, and a linear layer with an output for each label."""

    def __init__(self, backbone: Backbone, labels: int, head: Head, seed: int):
        super().__init__()
        self.backbone, self.head = backbone, head
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.linear = nn.Linear(backbone.channels, labels)

    def features(self, images: Tensor, half: bool = False) -> Tensor:
        """Compute what the linear layer classifies.

        Args:
            images: (B, 3, H, W), as of Backbone.
            half: The backbone computes in bfloat16.

        Returns:
            (B, C).
        """
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            maps = self.backbone(images)  # (B, C, h, w)
        maps = maps.float() if half else maps
        return maps.amax((2, 3)) if self.head == "max" else maps.mean((2, 3))

    def forward(self, images: Tensor, half: bool = False) -> Tensor:
        """Compute the scores of all labels.

        Args:
            images: See ``features``.
            half: The same.

        Returns:
            (B, labels).
        """
        return self.linear(self.features(images, half))

    def fit(self, features: Tensor, targets: Tensor) -> None:
        """Give the linear layer the weights with the smallest cross-entropy plus ridge, in place.

        Args:
            features: (N, C).
            targets: (N,) numbers of labels.
        """
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


class ClassificationStep:
    """One update: a batch of random square crops through the classifier, a few at a time.

    It reports loss and accuracy on the update's images, before the update.
    """

    columns: tuple[str, ...] = ("loss", "accuracy")

    def __init__(self, model: Classifier, collection: LabelledImages, settings: ClassificationSettings,
                 bad: dict[str, str]):
        self.model, self.collection, self.settings, self.bad = model, collection, settings, bad
        self.targets = np.unique(collection.labels, return_inverse=True)[1]  # (N,) numbers of the labels, without gaps
        self.half = settings.precision == "bfloat16"

    def fit(self, progress: bool) -> None:
        """Fit the linear layer to a crop of each image, or of as many as ``settings.fit``.

        Of several processes each does it all, so that they agree.

        Args:
            progress: Show a bar on a terminal.
        """
        settings, features, targets = self.settings, [], []
        device = next(self.model.parameters()).device
        batches = -(-min(settings.fit, len(self.targets)) // settings.batch)
        for number in trange(batches, desc="fit", unit="batch", disable=None if progress and is_main() else True):
            images, labels = self._batch(1 + number, shared=False)  # what the first updates will see
            with torch.no_grad():
                features += [self.model.features(part.to(device), self.half)
                             for part in images.split(self._count(device))]
            targets.append(labels)
        if not sum(map(len, targets)):
            raise LearningError("the linear layer can't be fitted: none of the images can be read, such as "
                                f"{list(self.bad.values())[-1]}")
        self.model.fit(torch.cat(features), torch.cat(targets))

    def _count(self, device: torch.device) -> int:
        """Images that go through the network together."""
        return max(1, (self.settings.pixels or _BATCH_PIXELS.get(device.type, _BATCH_PIXELS["cpu"]))
                   // self.settings.side**2)

    def __call__(self, update: int, /) -> dict[str, float]:
        device = next(self.model.parameters()).device
        images, targets = self._batch(update)  # (n, 3, side, side), (n,), the share of this process
        number = int(total(torch.tensor(len(targets))))
        if not number:
            raise LearningError(f"update {update}: none of its images can be read, such as "
                                f"{list(self.bad.values())[-1]}")
        count, sums = self._count(device), torch.zeros(2, dtype=torch.float64)
        for start in range(0, len(targets), count):
            part, labels = images[start:start + count], targets[start:start + count].to(device)
            scores = self.model(part.to(device), self.half)
            value = functional.cross_entropy(scores, labels, reduction="sum") / number
            value.backward()
            sums += torch.tensor([float(value.detach()), float((scores.argmax(1) == labels).sum())])
        loss, correct = total(sums).tolist()
        return {"loss": loss, "accuracy": correct / number}

    def _batch(self, update: int, shared: bool = True) -> tuple[Tensor, Tensor]:
        """Images and label numbers of an update (shared: of this process's share), without those that can't be read."""
        settings = self.settings
        indices = turns(len(self.targets), (update - 1) * settings.batch, settings.batch, settings.seed)
        indices = share(indices) if shared else indices
        squares = Squares(self.collection, indices, settings.shorter, settings.side, flip=settings.flip,
                          seed=(settings.seed, Stream.CLASSIFICATION_VIEW, update))

        def read(place: int) -> Tensor | None:
            try:
                return squares[place]
            except ImageError:
                return None

        with ThreadPoolExecutor(_READERS) as pool:
            crops = list(pool.map(read, range(len(squares))))
        unreadable = torch.zeros(len(self.targets), dtype=torch.int64)
        unreadable[[index for index, crop in zip(indices, crops, strict=True) if crop is None]] = 1
        self.bad |= {self.collection.names[index]: why_unreadable(self.collection.paths[index])
                     for index in total(unreadable).nonzero()[:, 0].tolist()}
        images = [crop for crop in crops if crop is not None]
        good = [place for place, crop in enumerate(crops) if crop is not None]
        return (torch.stack(images) if images else torch.empty(0, 3, settings.side, settings.side),
                torch.from_numpy(self.targets[indices[good]]))

    def state(self) -> dict[str, Tensor]:
        return {}  # everything follows from the number of the update

    def restore(self, state: Mapping[str, Tensor], /) -> None:
        pass


def turns(count: int, first: int, number: int, seed: int) -> np.ndarray:
    """Draw from a random order in which each item comes once before any comes again.

    Args:
        count: How many items there are.
        first: The first draw, from 0.
        number: How many draws.
        seed: The seed of the run.

    Returns:
        (number,) int64: draws ``first``, ``first + 1``, …
    """
    draws = np.arange(first, first + number)
    rounds = {round_: generator(seed, Stream.CLASSIFICATION_ORDER, round_).permutation(count)
              for round_ in np.unique(draws // count).tolist()}
    return np.array([rounds[draw // count][draw % count] for draw in draws.tolist()], np.int64)
