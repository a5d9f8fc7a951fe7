"""The gradient of a ranking loss in bounded memory, exactly (Section 4.2).

The three streams of the paper share their weights, and so do all triplets of an update: the loss is a function
of the descriptors of its distinct images alone. That splits the gradient in two:

1. describe every image without keeping what the backward pass would need, and take the gradient of the loss
   with respect to the descriptors;
2. run the images again, a few at a time, now with it, and hand each descriptor its gradient.

By the chain rule the sum is the gradient of the loss, whatever the loss. Only a few images are ever held with
their activations, and one in many triplets is computed no more often than one in a single triplet. An image whose
descriptor has no gradient, as when all its triplets are satisfied, is not run again.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from rmaclib.images import ImageError
from rmaclib.learning.distributed import share, total
from rmaclib.learning.errors import UnreadableError
from rmaclib.rmac import RMAC

# Pixels that go through the network together: a core is fastest when activations stay in its cache.
BATCH_PIXELS = {"cpu": 240_000, "cuda": 4_000_000, "mps": 1_000_000}
_READERS = 4  # threads that decode images while others are computed


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
    like = next(network.parameters())
    device = like.device
    pixels = pixels or BATCH_PIXELS.get(device.type, BATCH_PIXELS["cpu"])
    sizes = [tuple(image.shape[-2:]) for image in images] if sizes is None else sizes

    def described(batch: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            features = network.backbone(batch)
        # Sums over regions and small distances would lose digits in half precision.
        return network.aggregate(features.float() if half else features, batch.shape[-2:])

    descriptors = torch.zeros(len(images), network.dim, dtype=like.dtype, device=device)  # (N, D)
    unreadable = torch.zeros(len(images), dtype=torch.int64, device=device)
    with torch.no_grad():
        for group, batch, bad in _batches(images, _groups(share(range(len(images))), sizes, pixels), device):
            unreadable[bad] = 1
            if group:
                descriptors[group] = described(batch)
    # The other processes' rows are zero.
    if total(unreadable).any():
        raise UnreadableError(unreadable.nonzero()[:, 0].tolist())
    total(descriptors).requires_grad_()
    value = loss(descriptors)
    (gradient,) = torch.autograd.grad(value, descriptors)
    wanted = gradient.any(1).nonzero()[:, 0].tolist()
    for group, batch, bad in _batches(images, _groups(share(wanted), sizes, pixels), device):
        if bad:
            raise UnreadableError(bad)
        described(batch).backward(gradient[group])
    return Accumulated(value.detach(), descriptors.detach(), len(wanted))


def _groups(indices: Sequence[int], sizes: Sequence[tuple[int, int]], pixels: int) -> list[list[int]]:
    """The indices in groups of one shape and at most `pixels` pixels, or of one image."""
    shapes = defaultdict(list)
    for index in indices:
        shapes[sizes[index]].append(index)
    groups = []
    for (height, width), members in shapes.items():
        count = max(1, pixels // (height * width))
        groups += [members[start:start + count] for start in range(0, len(members), count)]
    return groups


def _batches(images: Sequence[Tensor], groups: list[list[int]],
             device: torch.device) -> Iterator[tuple[list[int], Tensor | None, list[int]]]:
    """Yields (indices, their (B, 3, H, W) on the device, indices that can't be read), images being read ahead."""
    def read(index: int) -> Tensor | None:
        try:
            return images[index]
        except ImageError:
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        jobs = ((group, [pool.submit(read, index) for index in group]) for group in groups)
        started = deque(islice(jobs, 2))
        while started:
            group, futures = started.popleft()
            found = {index: future.result() for index, future in zip(group, futures, strict=True)}
            started.extend(islice(jobs, 1))
            good = [index for index in group if found[index] is not None]
            batch = torch.stack([found[index] for index in good]).to(device) if good else None
            yield good, batch, [index for index in group if found[index] is None]
