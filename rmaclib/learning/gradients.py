"""The gradient of a ranking loss in bounded memory, exactly (Section 4.2).

The three streams of the paper share their weights, and so do all triplets of an update: the loss is a function
of the descriptors of its distinct images alone. That splits the gradient in two:

1. describe every image without keeping what the backward pass would need, and take the gradient of the loss
   with respect to the descriptors;
2. run the images again, a few at a time, now with it, and hand each descriptor its gradient.

By the chain rule the sum is the gradient of the loss, whatever the loss. Only a few images are ever held with
their activations, and one in many triplets is computed no more often than one in a single triplet. An image whose
descriptor has no gradient, as when all its triplets are satisfied, is not run again. Both passes run a copy of the
network without its batch normalisations, which are part of its convolutions (rmaclib.backbones.folding).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from rmaclib.backbones.folding import Folded
from rmaclib.extraction.batches import Workers, ahead
from rmaclib.images import ImageError
from rmaclib.learning.depthwise import split_depthwise
from rmaclib.learning.distributed import share, total
from rmaclib.learning.errors import UnreadableError
from rmaclib.network import RMAC

T = TypeVar("T")
# Pixels that go through the network together. On a processor each thread takes one image after the other, so that
# memory does not depend on how many have the same shape.
BATCH_PIXELS = {"cpu": 1, "cuda": 4_000_000, "mps": 1_000_000}
_READERS = 8  # threads that decode images while a device computes


class Accumulated(NamedTuple):
    """loss: scalar, detached; descriptors: (N, D), detached; computed: images that had a gradient."""

    loss: Tensor
    descriptors: Tensor
    computed: int


def accumulate(network: RMAC, images: Sequence[Tensor], loss: Callable[[Tensor], Tensor], *,
               sizes: Sequence[tuple[int, int]] | None = None, pixels: int | None = None,
               half: bool = False) -> Accumulated:
    """Add the gradient of loss(descriptors of the images) to the network's parameters (.grad).

    images: N of (3, H, W), uint8 or float in 0..1; each is asked for once or twice, so that the sequence may
      read them from files
    loss: (N, D) descriptors → scalar
    sizes: (H, W) of each, for a sequence that would have to read an image to know it
    pixels: of the images computed together, which all have one shape; at least one image. Default BATCH_PIXELS
    half: the backbone computes in bfloat16 (autocast)
    With torch.distributed each process computes its share of the images, and the sum over the processes is the
    gradient: see distributed.sum_gradients. All return the same.
    raises UnreadableError when an image raised ImageError, in all processes alike if it did so the first time;
      ValueError unless the network is in evaluation mode: batch statistics would make an image's
      descriptor depend on its batch, so that the two passes would disagree
    """
    if any(module.training for module in network.modules()):
        raise ValueError("network: expected evaluation mode (network.eval()), found parts in training mode; "
                         "batch statistics differ between the two passes")
    folded = Folded(network)
    split_depthwise(folded.copy)
    parameters = list(folded.copy.parameters())
    like = parameters[0]
    if like.device.type != "cpu":
        folded.copy.to(memory_format=torch.channels_last)  # as the maps, or a GPU would reorder filters every time
    pixels = pixels or BATCH_PIXELS.get(like.device.type, BATCH_PIXELS["cpu"])
    sizes = [tuple(image.shape[-2:]) for image in images] if sizes is None else sizes

    def described(batch: Tensor) -> Tensor:
        with torch.autocast(like.device.type, torch.bfloat16, enabled=half):
            features = folded.copy.backbone(batch)
        # Sums over regions and small distances would lose digits in half precision.
        return folded.copy.aggregate(features.float() if half else features, batch.shape[-2:])

    @torch.no_grad()
    def descriptors_of(group: list[int], batch: Tensor) -> Tensor:
        return described(batch)

    def gradients_of(group: list[int], batch: Tensor) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(described(batch), parameters, gradient[group], allow_unused=True)

    descriptors = torch.zeros(len(images), network.dim, dtype=like.dtype, device=like.device)  # (N, D)
    unreadable = torch.zeros(len(images), dtype=torch.int64, device=like.device)
    with _Runner(images, like.device) as run:
        for group, found, bad in run(_groups(share(range(len(images))), sizes, pixels), descriptors_of):
            unreadable[bad] = 1
            if group:
                descriptors[group] = found
        # The other processes' rows are zero.
        if total(unreadable).any():
            raise UnreadableError(unreadable.nonzero()[:, 0].tolist())
        total(descriptors).requires_grad_()
        value = loss(descriptors)
        (gradient,) = torch.autograd.grad(value, descriptors)
        wanted = gradient.any(1).nonzero()[:, 0].tolist()
        # Held from the start, so that the largest image meets as much memory taken as one of its size after it.
        sums, reached = [torch.zeros_like(parameter) for parameter in parameters], set()
        for _, found, bad in run(_groups(share(wanted), sizes, pixels), gradients_of):
            if bad:
                raise UnreadableError(bad)
            for place, part in enumerate(found):
                if part is not None:
                    sums[place].add_(part)
                    reached.add(place)
            del found, part  # as large as the network: not held while the next one is computed
    folded.add_gradients([gradient if place in reached else None for place, gradient in enumerate(sums)])
    return Accumulated(value.detach(), descriptors.detach(), len(wanted))


def _groups(indices: Sequence[int], sizes: Sequence[tuple[int, int]], pixels: int) -> list[list[int]]:
    """The indices in groups of one shape and at most `pixels` pixels, or of one image; largest groups first.

    What a large group held is given to the smaller ones after it; the other way round memory would grow in pieces.
    """
    shapes = defaultdict(list)
    for index in indices:
        shapes[sizes[index]].append(index)
    groups = []
    for (height, width), members in shapes.items():
        count = max(1, pixels // (height * width))
        groups += [members[start:start + count] for start in range(0, len(members), count)]
    return sorted(groups, key=lambda group: -len(group) * sizes[group[0]][0] * sizes[group[0]][1])


class _Runner:
    """Reads groups of images and computes with them, in order, a few groups ahead.

    On a CPU every thread reads and computes groups of its own, each on one core: threads that share the work of one
    layer would wait for each other at its end. Elsewhere threads read, and the caller computes.
    """

    def __init__(self, images: Sequence[Tensor], device: torch.device):
        self.images, self.device, self.on_cpu = images, device, device.type == "cpu"
        self.workers = torch.get_num_threads() if self.on_cpu else _READERS
        self.pool = Workers(self.workers, self.on_cpu)

    def __enter__(self) -> "_Runner":
        return self

    def __exit__(self, *error) -> None:
        self.pool.__exit__(*error)

    def __call__(self, groups: Sequence[list[int]],
                 compute: Callable[[list[int], Tensor], T]) -> Iterator[tuple[list[int], T | None, list[int]]]:
        """Yields (indices, compute(indices, their (B, 3, H, W)), indices that can't be read) of each group; no
        result where none of it can be read."""
        jobs = (self.pool.submit(self._work, group, compute) for group in groups)

        def finished(future: Future) -> tuple[list[int], T | None, list[int]]:
            good, found, bad = future.result()
            if good and not self.on_cpu:
                found = compute(good, found.to(self.device))
            return good, found, bad

        yield from map(finished, ahead(jobs, self.workers))  # which holds no result that was given away

    def _work(self, group: list[int], compute: Callable) -> tuple[list[int], object, list[int]]:
        good, read, bad = [], [], []
        for index in group:
            try:
                read.append(self.images[index])
                good.append(index)
            except ImageError:
                bad.append(index)
        if not good:
            return good, None, bad
        batch = torch.stack(read)
        return good, compute(good, batch) if self.on_cpu else batch, bad
