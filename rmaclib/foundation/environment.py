"""Environment variables for libraries that read them only once, when a process loads them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# The commands set these where the user hasn't. A program that imports the library decides for itself.
_OF_COMMANDS = {
    # CUDA's matrix products repeat to the bit only with a workspace of a fixed size.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # oneDNN keeps what it has compiled for each shape: up to 1,024 layers, hundreds of MB when images have many shapes.
    # Compiling again takes no time that we could measure.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
}


def prepare_process() -> None:
    """Set the variables that the commands run with. Call it before torch is loaded."""
    for name, value in _OF_COMMANDS.items():
        os.environ.setdefault(name, value)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the processes that are started in the block, and restore the old ones after it.

    Args:
        values: Variable name → value.
    """
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
