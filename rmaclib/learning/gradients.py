"""The gradient of a ranking loss in bounded memory, exactly (Section 4.2).

The three streams of the paper share their weights, and so do all triplets of an update: the loss is a function
of the descriptors of its distinct images alone. That splits the gradient into two passes:

1. extract the descriptor of every image without keeping what the backward pass would need, and take the gradient of
   the loss with respect to the descriptors;
2. run the images again, a few at a time, now with it, and give each descriptor its gradient.

By the chain rule the sum is the gradient of the loss, whatever the loss. Only a few images are ever in memory with
their activations, and an image of many triplets is computed no more often than that of a single one. An image whose
descriptor has no gradient, as when all its triplets are satisfied, is not run again. The backward pass ends behind
early layers whose parameters require no gradient (``LoopSettings.frozen``). Both passes run a copy of the network
without its batch normalisations, which are part of its convolutions (``rmaclib.backbones.folding``).

The two passes are the multistage backpropagation of Revaud, Almazán, Rezende and de Souza 2019, *Learning with
Average Precision: Training Image Retrieval with a Listwise Loss*. Gao, Zhang, Han and Callan 2021, *Scaling Deep
Contrastive Learning Batch Size under Memory Limited Setup*, have the same for text, by the name of GradCache.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from rmaclib.backbones.folding import Folded
from rmaclib.extraction.batches import Workers, ahead
from rmaclib.images import ImageError
from rmaclib.learning.depthwise import split_depthwise
from rmaclib.learning.distributed import share, total
from rmaclib.learning.errors import UnreadableError
from rmaclib.learning.views import Images
from rmaclib.network import RMAC

T = TypeVar("T")
# Pixels that go through the network together. On a processor each thread takes one image after the other, so that
# memory does not depend on how many have the same shape.
BATCH_PIXELS = {"cpu": 1, "cuda": 4_000_000, "mps": 1_000_000}
_READERS = 8  # threads that decode images while a device computes


class Accumulated(NamedTuple):
    """What the two passes have computed.

    Attributes:
        loss: A scalar, detached.
        descriptors: (N, D), detached.
        computed: How many images had a gradient.
    """

    loss: Tensor
    descriptors: Tensor
    computed: int


def accumulate(network: RMAC, images: Images, loss: Callable[[Tensor], Tensor], *,
               sizes: Sequence[tuple[int, int]] | None = None, pixels: int | None = None,
               half: bool = False) -> Accumulated:
    """Add the gradient of loss(descriptors of the images) to the network's parameters (``.grad``).

    With ``torch.distributed`` each process computes its share of the images, and the sum over the processes is the
    gradient: see ``distributed.sum_gradients``. All return the same.

    Args:
        network: In evaluation mode.
        images: N of (3, H, W), uint8 or float in 0..1. Each is read once or twice, so that they may come from files.
        loss: (N, D) descriptors -> scalar.
        sizes: (H, W) of each, for images that would have to be read to know it.
        pixels: Of the images computed together, which all have one shape; at least one image. Default:
            ``BATCH_PIXELS``.
        half: The backbone computes in bfloat16 (autocast).

    Returns:
        The loss and the descriptors.

    Raises:
        UnreadableError: An image raised ImageError; in all processes alike if it did so in the first pass.
        ValueError: The network is not in evaluation mode. Batch statistics would make an image's descriptor depend on
            its batch, so that the two passes would disagree.
    """
    if any(module.training for module in network.modules()):
        raise ValueError("network: expected evaluation mode (network.eval()), found parts in training mode; "
                         "batch statistics differ between the two passes")
    passes = _Passes(network, half)
    device = passes.like.device
    pixels = pixels or BATCH_PIXELS.get(device.type, BATCH_PIXELS["cpu"])
    if sizes is None:
        sizes = [_height_and_width(images[place]) for place in range(len(images))]
    with _Runner(images, device) as run:
        descriptors = passes.descriptors(run, _groups(share(range(len(images))), sizes, pixels), len(images))
        descriptors.requires_grad_()
        value = loss(descriptors)
        (gradient,) = torch.autograd.grad(value, descriptors)  # (N, D)
        reached = gradient.any(1).nonzero()[:, 0].tolist()
        passes.add_gradients(run, _groups(share(reached), sizes, pixels), gradient)
    return Accumulated(value.detach(), descriptors.detach(), len(reached))


def _height_and_width(image: Tensor) -> tuple[int, int]:
    height, width = image.shape[-2:]
    return height, width


class _Passes:
    """Both passes over the images of an update, by a copy of the network."""

    def __init__(self, network: RMAC, half: bool):
        self.folded, self.half = Folded(network), half
        self.copy, self.dim = self.folded.copy, network.dim
        split_depthwise(self.copy)
        self.like = next(self.copy.parameters())  # dtype and device of all
        if self.like.device.type != "cpu":
            # As the maps, or a GPU would reorder filters every time.
            self.copy.to(memory_format=torch.channels_last)

    def _extract(self, batch: Tensor) -> Tensor:
        """(B, 3, H, W) -> descriptors (B, D)."""
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.half):
            maps = self.copy.backbone.maps(batch)
        # Sums over regions and small distances would lose digits in half precision.
        height, width = batch.shape[-2:]
        return self.copy.aggregate([each.float() for each in maps] if self.half else maps, (height, width))

    def descriptors(self, run: "_Runner", groups: list[list[int]], count: int) -> Tensor:
        """The first pass: (N, D) descriptors of all `count` images, of which this process computes its groups."""
        @torch.no_grad()
        def extract(group: list[int], batch: Tensor) -> Tensor:
            return self._extract(batch)

        descriptors = self.like.new_zeros(count, self.dim)  # (N, D)
        unreadable = self.like.new_zeros(count, dtype=torch.int64)
        for group in run(groups, extract):
            unreadable[group.unreadable] = 1
            if group.result is not None:
                descriptors[group.images] = group.result
        # The other processes' rows are zero.
        if total(unreadable).any():
            raise UnreadableError(unreadable.nonzero()[:, 0].tolist())
        return total(descriptors)

    def add_gradients(self, run: "_Runner", groups: list[list[int]], gradient: Tensor) -> None:
        """The second pass: add the network's gradients, given those of the descriptors (N, D)."""
        parameters = self.folded.learned

        def differentiate(group: list[int], batch: Tensor) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(self._extract(batch), parameters, gradient[group], allow_unused=True)

        # Allocated at the start, so that the largest image meets as much memory taken as one of its size after it.
        sums, reached = [torch.zeros_like(parameter) for parameter in parameters], set()
        for group in run(groups, differentiate):
            if group.unreadable:
                raise UnreadableError(group.unreadable)
            for place, part in enumerate(group.result or ()):
                if part is not None:
                    sums[place].add_(part)
                    reached.add(place)
            del group, part  # as large as the network: freed before the next one is computed
        self.folded.add_gradients([each if place in reached else None for place, each in enumerate(sums)])


def _groups(indices: Sequence[int], sizes: Sequence[tuple[int, int]], pixels: int) -> list[list[int]]:
    """The indices in groups of one shape and at most `pixels` pixels, or of one image; largest groups first.

    Memory that a large group took is reused by the smaller ones after it; the other way round it would grow in pieces.
    """
    shapes = defaultdict(list)
    for index in indices:
        shapes[sizes[index]].append(index)
    groups = []
    for (height, width), members in shapes.items():
        count = max(1, pixels // (height * width))
        groups += [members[start:start + count] for start in range(0, len(members), count)]
    return sorted(groups, key=lambda group: -len(group) * sizes[group[0]][0] * sizes[group[0]][1])


class _Computed(NamedTuple, Generic[T]):
    """A group of images after it was read and computed: those that could be read, what came out (None where there are
    none), and those that couldn't be read."""

    images: list[int]
    result: T | None
    unreadable: list[int]


class _Runner:
    """Reads groups of images and computes with them, in order, a few groups ahead.

    On a CPU every thread reads and computes groups of its own, each on one core: threads that share the work of one
    layer would wait for each other at its end. Elsewhere threads read, and the caller computes.
    """

    def __init__(self, images: Images, device: torch.device):
        self.images, self.device, self.on_cpu = images, device, device.type == "cpu"
        self.workers = torch.get_num_threads() if self.on_cpu else _READERS
        self.pool = Workers(self.workers, self.on_cpu)

    def __enter__(self) -> "_Runner":
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.__exit__(*error)

    def __call__(self, groups: Sequence[list[int]],
                 compute: Callable[[list[int], Tensor], T]) -> Iterator[_Computed[T]]:
        """Yields each group with compute(indices, their (B, 3, H, W))."""
        def work(group: list[int]) -> tuple[_Computed[Tensor], T | None]:
            read = self._read(group)
            if read.result is None or not self.on_cpu:
                return read, None
            return read._replace(result=None), compute(read.images, read.result)

        def finished(future: Future) -> _Computed[T]:
            read, result = future.result()
            if read.result is not None:
                result = compute(read.images, read.result.to(self.device))
            return _Computed(read.images, result, read.unreadable)

        jobs = (self.pool.submit(work, group) for group in groups)
        yield from map(finished, ahead(jobs, self.workers))  # which keeps no result that was given away

    def _read(self, group: list[int]) -> _Computed[Tensor]:
        """The images of a group as a batch (B, 3, H, W)."""
        readable, pixels, unreadable = [], [], []
        for index in group:
            try:
                pixels.append(self.images[index])
                readable.append(index)
            except ImageError:
                unreadable.append(index)
        return _Computed(readable, torch.stack(pixels) if pixels else None, unreadable)
