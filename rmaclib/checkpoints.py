"""Saving and loading networks: one .safetensors file, settings as JSON in its metadata; never a pickle."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from rmaclib.errors import RmacError
from rmaclib.files import whole_file
from rmaclib.rmac import RMAC, NetworkSettings, create_network
from rmaclib.settings import from_mapping

_FORMAT, _VERSION = "rmaclib-checkpoint", 1


class CheckpointError(RmacError, RuntimeError):
    """A file that is no checkpoint of this library; the text names it."""


def save_checkpoint(path: str | os.PathLike, network: RMAC) -> None:
    """Write the network (all weights and its settings) to `path`, whole or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {"format": _FORMAT, "version": str(_VERSION), "network": json.dumps(asdict(network.settings))}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata)


def fingerprint(network: nn.Module) -> str:
    """Changes when a weight of the network does."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_checkpoint(path: str | os.PathLike) -> RMAC:
    """The network saved in `path`, on the CPU, in evaluation mode. Needs no other weights and no network.

    raises CheckpointError: no such file, not a checkpoint, a newer version, weights that don't fit its settings
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint (.safetensors), found no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: expected a .safetensors file, can't be read ({error})") from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: expected metadata format {_FORMAT!r}, found {metadata.get('format')!r}")
    if int(metadata["version"]) > _VERSION:
        raise CheckpointError(f"{path}: version {metadata['version']}, this rmaclib reads up to {_VERSION}")
    network = create_network(from_mapping(NetworkSettings, json.loads(metadata["network"]), str(path)),
                             pretrained=False)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: weights don't fit the settings it names ({error})") from error
    return network


def is_checkpoint(network: str) -> bool:
    """Whether a text means a file and not a backbone's name."""
    return network.endswith(".safetensors") or Path(network).is_file()


def open_network(network: str, **settings) -> RMAC:
    """A checkpoint (.safetensors), or a backbone by name as it comes, with R-MAC at L = 3; on the CPU.

    settings: of NetworkSettings, put over its own. raises CheckpointError, BackboneError, ValueError
    """
    if is_checkpoint(network):
        return load_checkpoint(network).change(**settings)
    return create_network(NetworkSettings(**{"backbone": network, "levels": 3, **settings}))
