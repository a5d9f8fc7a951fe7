"""Several processes that train one network together, each on a device of its own (torchrun).

Every process knows the whole update and computes its share of the images; descriptors and gradients are summed over
the processes. Outside torch.distributed every function is that of a single process.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn


@contextmanager
def processes(timeout: float) -> Iterator[None]:
    """Joins the processes that torchrun has started, with a device each; alone, does nothing.

    timeout: seconds after which a process that waits for another gives up with an error
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
    """Number of this process, and of processes: (0, 1) for a single one."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def is_main() -> bool:
    """Whether this is the process that writes."""
    return rank_and_count()[0] == 0


def share(items: Sequence) -> Sequence:
    """Those of the items that this process works on: every item is in one process's share."""
    rank, count = rank_and_count()
    return items[rank::count]


def total(tensor: Tensor) -> Tensor:
    """Sum over the processes, in place."""
    if rank_and_count()[1] > 1:
        distributed.all_reduce(tensor)
    return tensor


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sums the gradient of each parameter over the processes; every parameter has one."""
    if rank_and_count()[1] == 1:
        return
    gradients = [parameter.grad for parameter in parameters]
    summed = total(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, summed.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def agree(model: nn.Module) -> None:
    """Gives every process the main one's weights."""
    if rank_and_count()[1] > 1:
        for tensor in model.state_dict().values():
            distributed.broadcast(tensor, 0)


def wait() -> None:
    """Returns when every process has come here."""
    if rank_and_count()[1] > 1:
        distributed.barrier()
