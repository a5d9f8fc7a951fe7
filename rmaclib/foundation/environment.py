"""Environment variables for libraries that read them only once, when a process loads them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Set for the commands, where the user hasn't. A program that imports the library decides for itself.
_OF_COMMANDS = {
    # CUDA's matrix products repeat to the bit only with a workspace of a fixed size.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # What oneDNN has compiled for a shape it keeps, 1,024 layers of it, hundreds of MB when images have many shapes.
    # Compiling again takes no time that we could measure.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
}


def prepare_process() -> None:
    """Sets the variables that the commands run with; called before torch is loaded."""
    for name, value in _OF_COMMANDS.items():
        os.environ.setdefault(name, value)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables for processes started in the block, and puts back what was there."""
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
