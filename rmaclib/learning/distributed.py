"""Several processes that train one network together, each on a device of its own (torchrun).

Every process knows the whole update and computes its share of the images; descriptors and gradients are summed over
the processes. Outside ``torch.distributed`` every function is that of a single process.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol, TypeVar

import torch
from torch import Tensor, distributed, nn

Items = TypeVar("Items", covariant=True)


@contextmanager
def processes(timeout: float) -> Iterator[None]:
    """Join the processes that torchrun has started, with a device each; alone, do nothing.

    Args:
        timeout: Seconds after which a process that waits for another gives up with an error.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group(timeout=timedelta(seconds=timeout))
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank_and_count() -> tuple[int, int]:
    """Tell the number of this process and how many there are: (0, 1) for a single one."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def is_main() -> bool:
    """Tell whether this is the process that writes."""
    return rank_and_count()[0] == 0


class Sliceable(Protocol[Items]):
    """What can be cut into slices of its own kind: lists, ranges, arrays."""

    def __getitem__(self, part: slice, /) -> Items: ...


def share(items: Sliceable[Items]) -> Items:
    """Choose the items that this process works on: every item is in one process's share.

    Args:
        items: The same in every process.

    Returns:
        Every n-th of n processes.
    """
    rank, count = rank_and_count()
    return items[rank::count]


def total(tensor: Tensor) -> Tensor:
    """Sum a tensor over the processes, in place.

    Args:
        tensor: Of the same shape in every process.

    Returns:
        The tensor.
    """
    if rank_and_count()[1] > 1:
        distributed.all_reduce(tensor)
    return tensor


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum the gradients over the processes, in place.

    Args:
        parameters: The same in every process; those without a gradient are left out.
    """
    if rank_and_count()[1] == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    summed = total(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, summed.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def agree(model: nn.Module) -> None:
    """Give every process the main one's weights.

    Args:
        model: Of the same layout in every process.
    """
    if rank_and_count()[1] > 1:
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)


def agreed(value: float) -> float:
    """Give every process the main one's number, so that all decide alike.

    Args:
        value: Of this process.

    Returns:
        That of the main process.
    """
    return float(total(torch.tensor(value if is_main() else 0.0, dtype=torch.float64)))


def wait() -> None:
    """Return when every process has come here."""
    if rank_and_count()[1] > 1:
        distributed.barrier()
