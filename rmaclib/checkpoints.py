"""Saving and loading networks: one .safetensors file, settings as JSON in its metadata; never a pickle.

A file of this library carries a checksum of its tensors and notes: what was changed or damaged is told. Its metadata
are one entry, so that the same content has the same bytes.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rmaclib.backbones import BackboneError
from rmaclib.foundation.errors import InputError, RmacError
from rmaclib.foundation.files import whole_file
from rmaclib.foundation.settings import from_mapping
from rmaclib.network import RMAC, NetworkSettings, create_network

_FORMAT, _VERSION = "rmaclib-checkpoint", 2
_NOTES = "rmaclib"  # the one entry of the metadata


class CheckpointError(RmacError, RuntimeError):
    """A file that is no checkpoint of this library; the text names it."""


# --- files of tensors ----------------------------------------------------------------------------------------------


def save_tensors(path: str | os.PathLike, tensors: Mapping[str, Tensor], notes: Mapping) -> None:
    """Write tensors and a dictionary (as JSON) to a .safetensors file with a checksum, whole or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(notes, allow_nan=False)
    metadata = {_NOTES: json.dumps({"notes": text, "checksum": _checksum(tensors, text)})}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_tensors(path: str | os.PathLike, error: type[RmacError], what: str) -> tuple[dict[str, Tensor], dict | None,
                                                                                    dict[str, str]]:
    """(tensors, notes, other metadata) of a .safetensors file; notes are None where save_tensors hasn't written it.

    what: the file is, for the error; raises `error`, naming the file: missing, unreadable, damaged or changed
    """
    path = Path(path)
    if not path.is_file():
        raise error(f"{path}: expected {what} (.safetensors), found no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, TypeError) as problem:
        raise error(f"{path}: expected {what} (.safetensors), can't be read ({problem})") from problem
    if _NOTES not in metadata:
        return tensors, None, metadata
    try:
        written = json.loads(metadata[_NOTES])
        notes, checksum = json.loads(written["notes"]), written["checksum"]
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise error(f"{path}: expected {what}, its metadata are damaged ({problem!r})") from problem
    if checksum != _checksum(tensors, written["notes"]) or not isinstance(notes, dict):
        raise error(f"{path}: expected {what} as it was written, it is damaged or was changed (its checksum differs)")
    return tensors, notes, {}


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """CRC-32 of the text and of every tensor's name, kind, shape and bytes."""
    value = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(_bytes(tensor), value)
    return f"{value:08x}"


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


# --- networks ------------------------------------------------------------------------------------------------------


def save_network(path: str | os.PathLike, network: RMAC) -> None:
    """Write the network (all weights and its settings) to `path`, whole or not at all."""
    notes = {"format": _FORMAT, "version": _VERSION, "network": asdict(network.settings)}
    save_tensors(path, network.state_dict(), notes)


def fingerprint(network: nn.Module) -> str:
    """Changes when a weight of the network does."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_network(path: str | os.PathLike) -> RMAC:
    """The network saved in `path`, on the CPU, in evaluation mode. Needs no other weights and no network.

    raises CheckpointError: no such file, not a checkpoint, damaged, a newer version, weights that don't fit its
      settings
    """
    path = Path(path)
    tensors, notes, metadata = load_tensors(path, CheckpointError, "a checkpoint")
    notes = _first_version(path, metadata) if notes is None else notes
    if notes.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: expected metadata format {_FORMAT!r}, found {notes.get('format')!r}")
    version = notes.get("version")
    if type(version) is not int or not 1 <= version <= _VERSION:
        raise CheckpointError(f"{path}: version {version}, this rmaclib reads up to {_VERSION}")
    try:
        settings = from_mapping(NetworkSettings, notes.get("network"), f"{path}: network")
    except InputError as error:
        raise CheckpointError(str(error)) from error
    _check_parts(path, settings, tensors)  # before memory is taken for what the settings ask for
    try:
        network = create_network(settings, pretrained=False)
    except BackboneError as error:
        raise CheckpointError(f"{path}: {error}") from error
    _check_fit(path, network.state_dict(), tensors)
    network.load_state_dict(tensors)
    return network


def _first_version(path: Path, metadata: Mapping[str, str]) -> dict:
    """The notes of a file of version 1, which has no checksum."""
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: expected metadata format {_FORMAT!r}, found {metadata.get('format')!r}")
    try:
        return {"format": _FORMAT, "version": int(metadata["version"]), "network": json.loads(metadata["network"])}
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected the version and the settings of a network in the metadata, they are "
                              f"damaged ({error!r})") from error


def _check_parts(path: Path, settings: NetworkSettings, tensors: Mapping[str, Tensor]) -> None:
    """Compares the parts that settings give a size with the tensors in the file."""
    hidden = settings.proposal_channels if settings.anchors else None
    wanted = {"fc.weight": settings.dim, "proposer.hidden.weight": hidden,
              "proposer.objectness.weight": len(settings.anchors) or None}
    for name, count in wanted.items():
        shape = tuple(tensors[name].shape) if name in tensors else None
        if (shape and shape[0]) != count:
            raise CheckpointError(f"{path}: weights don't fit the settings it names: expected {count} rows of {name}, "
                                  f"found the shape {shape}")


def _check_fit(path: Path, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name in sorted(wanted.keys() | tensors.keys()):
        kinds = [(tuple(of[name].shape), of[name].dtype) if name in of else None for of in (wanted, tensors)]
        if kinds[0] != kinds[1] and not _castable(*kinds):
            raise CheckpointError(f"{path}: weights don't fit the settings it names: {name}: expected {kinds[0]}, "
                                  f"found {kinds[1]}")


def _castable(wanted: tuple | None, given: tuple | None) -> bool:
    """Whether two tensors differ in nothing but the kind of floating point number."""
    return (wanted is not None and given is not None and wanted[0] == given[0] and wanted[1].is_floating_point
            and given[1] in (torch.float16, torch.bfloat16, torch.float32, torch.float64))


def is_checkpoint(network: str) -> bool:
    """Whether a text means a file and not a backbone's name."""
    return network.endswith(".safetensors") or Path(network).is_file()


def open_network(network: str, **settings) -> RMAC:
    """A checkpoint (.safetensors), or a backbone by name as it comes, with R-MAC at L = 3; on the CPU.

    settings: of NetworkSettings, put over its own. raises CheckpointError, BackboneError, InputError
    """
    if is_checkpoint(network):
        return load_network(network).change(**settings)
    return create_network(NetworkSettings(**{"backbone": network, "levels": 3, **settings}))
