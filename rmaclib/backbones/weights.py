"""Weights of backbones: read from files, downloaded, loaded into a model.

Nothing is unpickled but tensors (torch.load with weights_only=True).
"""

import os
import socket
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rmaclib.foundation.errors import RmacError

_CLASSIFIERS = "fc.", "classifier."  # how the names of their weights begin
_DOWNLOAD_TIMEOUT = 20  # seconds without an answer before a download is given up


class BackboneError(RmacError, RuntimeError):
    """A backbone that can't be made: unknown name, or weights that can't be had. The text says what to do."""


def read_state(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a state dict (.pth, .pt or .safetensors); without the "module." that training on several GPUs puts before
    its names.

    Raises:
        BackboneError: No such file, or no state dict of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise BackboneError(f"{path}: expected a file of weights, found none")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # readers of damaged files raise anything
        raise BackboneError(f"{path}: expected a state dict of tensors, can't be read ({error})") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(name, str) and isinstance(value, Tensor)
                                              for name, value in state.items()):
        raise BackboneError(f"{path}: expected a state dict of tensors, found something else")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def load_state(model: nn.Module, state: dict[str, Tensor], source: str | os.PathLike) -> None:
    """Load weights into a model; a classifier that only one of them has doesn't matter, features don't use it.

    Args:
        model: Gets the weights.
        state: Tensors by name.
        source: Where they come from, for the error.

    Raises:
        BackboneError: Weights of another network.
    """
    names = model.state_dict()
    state = {name: tensor for name, tensor in state.items() if name in names or not name.startswith(_CLASSIFIERS)}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise BackboneError(f"{source}: weights of another network ({error})") from error
    missing = [name for name in missing if not name.startswith(_CLASSIFIERS)]
    if missing or unexpected:
        raise BackboneError(f"{source}: weights of another network: {len(missing)} tensors missing "
                            f"{missing[:3]}, {len(unexpected)} unexpected {list(unexpected)[:3]}")


@contextmanager
def downloading(name: str, source: str) -> Iterator[None]:
    """Turn a failed download into an error that says what to do, within seconds rather than minutes.

    Args:
        name: The backbone.
        source: Where its weights come from.

    Raises:
        BackboneError: The download failed.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
    try:
        yield
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise BackboneError(
            f"backbone {name}: its weights are not in the cache ({cache} for torchvision) and can't be downloaded "
            f"({error}). With a network, get {source} into the cache; or give a local file of weights "
            f"(weights=FILE); or use efficientnet_lite0, whose weights are installed.") from error
    finally:
        socket.setdefaulttimeout(before)
