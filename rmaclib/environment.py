"""Environment variables for processes that are about to be started."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables, and puts back what was there: libraries read some of them only when a process loads them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_VARIABLES = {
    # Without it cuBLAS may sum in another order next time. It is read when the GPU is first used.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # What oneDNN has compiled for a shape it keeps, 1,024 layers of it, hundreds of MB when images have many shapes.
    # It looks here once, at its first convolution; compiling again takes no time that we could measure.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
}


def prepare_process() -> None:
    """Set what the libraries below ours read once, for this process: at the start of a program, before torch is
    imported. Variables that are there already stay. Importing the library alone changes nothing."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
