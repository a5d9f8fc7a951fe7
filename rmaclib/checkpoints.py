"""Saving and loading networks: one .safetensors file, settings as JSON in its metadata; never a pickle.

A file of this library contains a checksum of its tensors and notes, so that a changed or damaged file is noticed. Its
metadata are one entry, so that the same content has the same bytes.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rmaclib.backbones import BackboneError
from rmaclib.backbones.layers import split_name
from rmaclib.foundation.errors import InputError, RmacError
from rmaclib.foundation.files import whole_file
from rmaclib.foundation.settings import from_mapping
from rmaclib.network import OFF_THE_SHELF_LEVELS, RMAC, create_network
from rmaclib.network_settings import NetworkSettings, shares
from rmaclib.networks import DEFAULT, network_file

_FORMAT, _VERSION = "rmaclib-checkpoint", 2
_NOTES = "rmaclib"  # the one entry of the metadata
_NEAR = 0.9999  # least cosine of a descriptor with weights in half precision to that with the weights as they are
_NOISE = (2, 3, 128, 160)  # shape of the images on which the two are compared


class CheckpointError(RmacError, RuntimeError):
    """A file that is no checkpoint of this library, or a damaged one; the text names it."""


# --- files of tensors ----------------------------------------------------------------------------------------------


def save_tensors(path: str | os.PathLike, tensors: Mapping[str, Tensor], notes: Mapping) -> None:
    """Write tensors and notes to a .safetensors file with a checksum, whole or not at all.

    Args:
        path: Of the file; an existing one is replaced.
        tensors: By name.
        notes: Anything that JSON can represent.

    Raises:
        OutputError: The file can't be written, or the disk is full.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(notes, allow_nan=False)
    metadata = {_NOTES: json.dumps({"notes": text, "checksum": _checksum(tensors, text)})}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_tensors(path: str | os.PathLike, error: type[RmacError],
                 what: str) -> tuple[dict[str, Tensor], dict[str, Any] | None, dict[str, str]]:
    """Read a .safetensors file.

    Args:
        path: Of the file.
        error: Class of the error that is raised, naming the file, when it is missing, unreadable, damaged or changed.
        what: The file is, for the error, such as "a checkpoint".

    Returns:
        Tensors by name; the notes, None where the file wasn't written by save_tensors; and other metadata.
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
    """CRC-32 of the text and of every tensor's name, dtype, shape and bytes."""
    value = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(_bytes(tensor), value)
    return f"{value:08x}"


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


# --- networks ------------------------------------------------------------------------------------------------------


def save_network(path: str | os.PathLike, network: RMAC, half: bool = False) -> None:
    """Write a network, all weights and its settings, to a file, whole or not at all.

    Args:
        path: Of the file, .safetensors; an existing one is replaced.
        network: On any device.
        half: Write weights in half precision (float16): half the size, and nearly the same descriptors. A loaded
            network has them in float32 again.

    Raises:
        InputError: A weight that half precision can't represent, or descriptors that it changes.
        OutputError: The file can't be written, or the disk is full.
    """
    notes = {"format": _FORMAT, "version": _VERSION, "network": asdict(network.settings)}
    save_tensors(path, _halved(path, network) if half else network.state_dict(), notes)


def _halved(path: str | os.PathLike, network: RMAC) -> dict[str, Tensor]:
    """The tensors of a network, those of floating point numbers in half precision."""
    tensors = {name: tensor.to("cpu", torch.float16) if tensor.is_floating_point() else tensor
               for name, tensor in network.state_dict().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            largest = float(network.state_dict()[name].abs().max())
            raise InputError(f"{path}: half: expected finite weights of at most {torch.finfo(torch.float16).max:.0f}, "
                             f"as half precision has no larger ones, found {largest:g} in {name}")
    # Small weights may have become zero. Regions are those of the grid: on noise, proposals change with any digit.
    copy = deepcopy(network).cpu().eval().change(regions="grid")
    noise = torch.rand(_NOISE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = copy(noise)
        copy.load_state_dict(tensors)
        least = float(torch.cosine_similarity(before, copy(noise)).min())
    if not least >= _NEAR:  # also when it is NaN
        raise InputError(f"{path}: half: expected descriptors at a cosine of {_NEAR} or more to those of the weights "
                         f"as they are, found {least:.5f}")
    return tensors


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of all weights, in hexadecimal: differs when a weight does."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_network(path: str | os.PathLike = DEFAULT) -> RMAC:
    """Load a network that save_network wrote; nothing else is read or downloaded.

    Args:
        path: Of the file; or the name of a trained network of the package (``networks.NAMES``).

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: No such file, no checkpoint, a damaged one, one of a newer version, or weights that don't fit
            the settings in it.
    """
    path = network_file(os.fspath(path)) or Path(path)
    tensors, notes, metadata = load_tensors(path, CheckpointError, "a checkpoint")
    notes = _first_version(path, metadata) if notes is None else notes
    if notes.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: expected metadata format {_FORMAT!r}, found {notes.get('format')!r}")
    version = notes.get("version")
    if type(version) is not int or not 1 <= version <= _VERSION:
        raise CheckpointError(f"{path}: version {version}, this rmaclib reads up to {_VERSION}")
    try:
        written: Any = notes.get("network")
        settings = from_mapping(NetworkSettings, written, f"{path}: network")
    except InputError as error:
        raise CheckpointError(str(error)) from error
    try:
        _check_parts(path, settings, tensors)  # before the settings make the network take memory
        network = create_network(settings, pretrained=False)
    except (BackboneError, InputError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    _check_fit(path, network.state_dict(), tensors)
    network.load_state_dict(tensors)
    return network


def _first_version(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The notes of a file of version 1, which has no checksum."""
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: expected metadata format {_FORMAT!r}, found {metadata.get('format')!r}")
    try:
        return {"format": _FORMAT, "version": int(metadata["version"]), "network": json.loads(metadata["network"])}
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected the version and the settings of a network in the metadata, they are "
                              f"damaged ({error!r})") from error


def _check_parts(path: Path, settings: NetworkSettings, tensors: Mapping[str, Tensor]) -> None:
    """Compare the parts whose size the settings give with the tensors in the file."""
    hidden = settings.proposal_channels if settings.anchors else None
    rows = {"proposer.hidden.weight": hidden, "proposer.objectness.weight": len(settings.anchors) or None}
    maps = len(split_name(settings.backbone)[1])
    for place, share in enumerate([None] * maps if settings.dim is None else shares(settings.dim, maps)):
        rows["fc.weight" if maps == 1 else f"fc.{place}.weight"] = share
    for name, count in rows.items():
        shape = tuple(tensors[name].shape) if name in tensors else None
        if (shape and shape[0]) != count:
            raise CheckpointError(f"{path}: weights don't fit the settings in it: expected {count} rows of {name}, "
                                  f"found the shape {shape}")


def _check_fit(path: Path, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Compare names, shapes and dtypes with those of the network that the settings make."""
    for name in sorted(expected.keys() | tensors.keys()):
        of_network, of_file = ((tuple(state[name].shape), state[name].dtype) if name in state else None
                               for state in (expected, tensors))
        if of_network != of_file and not _castable(of_network, of_file):
            raise CheckpointError(f"{path}: weights don't fit the settings in it: {name}: expected {of_network}, "
                                  f"found {of_file}")


def _castable(expected: tuple | None, given: tuple | None) -> bool:
    """Whether two tensors, each (shape, dtype), differ in the kind of floating point number only."""
    return (expected is not None and given is not None and expected[0] == given[0] and expected[1].is_floating_point
            and given[1] in (torch.float16, torch.bfloat16, torch.float32, torch.float64))


def checkpoint_file(network: str) -> Path | None:
    """Find the file that a text means: one of the package's networks by its name, or a path; None for a backbone."""
    is_path = network.endswith(".safetensors") or Path(network).is_file()
    return network_file(network) or (Path(network) if is_path else None)


def open_network(network: str = DEFAULT, **settings: Any) -> RMAC:
    """Load a checkpoint, or make a network from the name of a backbone.

    Args:
        network: A .safetensors file; the name of a trained network of the package (``networks.NAMES``); or a name for
            ``backbones.create_backbone``, which gives R-MAC off the shelf, as ``create_network`` does.
        settings: Of NetworkSettings, by name; they replace those of the network.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: A file that is no checkpoint.
        BackboneError: An unknown backbone.
        InputError: A setting out of range, or one that needs other weights than those of the checkpoint.
    """
    file = checkpoint_file(network)
    if file is not None:
        return load_network(file).change(**settings)
    return create_network(NetworkSettings(**{"backbone": network, "levels": OFF_THE_SHELF_LEVELS, **settings}))
