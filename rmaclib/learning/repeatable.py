"""A GPU that computes the same from the same."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic


@contextmanager
def repeatable() -> Iterator[None]:
    """Compute the same from the same on a GPU, where it can, within the block; without effect on a CPU.

    Where it can't, which is the pooling of proposals, PyTorch warns. cuBLAS needs a variable of the environment for it,
    which is set before a process starts its work: ``foundation.environment.prepare_process``.
    """
    if not torch.cuda.is_available():
        yield
        return
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fills: bool = getattr(deterministic, _FILL)
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    setattr(deterministic, _FILL, False)  # finds errors of PyTorch's, for time
    torch.backends.cudnn.benchmark = False  # the fastest algorithm is not always the same
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        setattr(deterministic, _FILL, fills)
        torch.backends.cudnn.benchmark = benchmark


_FILL = "fill_uninitialized_memory"  # by its name: the module makes it in a way that type checkers don't see
