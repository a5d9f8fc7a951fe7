"""Reading a pickle without running its code, and with bounded memory and time.

The revisited benchmarks publish their ground truth as pickles. A pickle may name any function to be called, demand any
amount of memory, and build objects whose hash takes forever to compute. Here only functions of this file are called,
and each checks its arguments. Keys and members of sets are text and numbers. An array has the size of its bytes.
"""

import io
import os
import pickle
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from rmaclib.datasets.types import DatasetError

LARGEST = 2**28  # bytes of a pickle; the published ones have about two million


class _Dtype:
    """Type of the elements of an array: plain numbers, text or bytes."""

    def __init__(self, text: str) -> None:
        self.value: np.dtype = np.dtype(text)

    def __setstate__(self, state: tuple) -> None:
        # (version, byte order, sub-array, names, fields, …)
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("an array of other things than plain numbers and text")
        self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose state is its bytes: it is as large as they are."""

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, by_columns, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | str):
            raise pickle.UnpicklingError("an array of other things than plain numbers and text")
        checked: Any = version, shape, dtype.value, by_columns, content
        super().__setstate__(checked)


_ARRAY_TYPE = object()  # stands for `numpy.ndarray`; it can't be called


def _dtype(text: object, *_: object) -> _Dtype:
    if not isinstance(text, str) or not re.fullmatch("[<>=|]?[biufcSU][0-9]{1,4}", text):
        raise pickle.UnpicklingError("an array of other things than plain numbers and text")
    return _Dtype(text)


def _empty_array(kind: object, shape: object, *_: object) -> _Array:
    # NumPy writes an empty array, followed by its content.
    if kind is not _ARRAY_TYPE or shape != (0,):
        raise pickle.UnpicklingError("an array that isn't written as NumPy writes it")
    return np.zeros(0).view(_Array)


def _array_from_bytes(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(content, dtype.value).reshape(shape, order=order)


def _scalar(dtype: _Dtype, content: bytes | str) -> object:
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, dtype.value, count=1)[0]


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    # Older protocols write bytes as encoded text.
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes in another encoding than Latin-1")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


def _set(members: Collection = ()) -> set:
    _check_keys(members)
    return set(members)


def _frozenset(members: Collection = ()) -> frozenset:
    _check_keys(members)
    return frozenset(members)


def _check_keys(keys: Collection) -> None:
    # The hash of a tuple of tuples that share their parts may take forever.
    if any(not isinstance(key, str | bytes | int | float | np.number) for key in keys):
        raise pickle.UnpicklingError("a dictionary or set of other things than text and numbers")


# (module, name) in a pickle → what it gets instead.
_ALLOWED: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): _ARRAY_TYPE, ("numpy", "dtype"): _dtype, ("_codecs", "encode"): _encoded}
for _module in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_module}.multiarray", "_reconstruct"] = _empty_array
    _ALLOWED[f"{_module}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_module}.numeric", "_frombuffer"] = _array_from_bytes
for _module in ("builtins", "__builtin__"):
    _ALLOWED[_module, "set"] = _set
    _ALLOWED[_module, "frozenset"] = _frozenset
    _ALLOWED[_module, "bytes"] = _empty_bytes


# Python's reader of pickles that is written in Python: slower than the usual one, and its steps can be overridden.
# Any, since its type stub doesn't have these steps.
_PythonUnpickler: Any = pickle._Unpickler


class _Unpickler(_PythonUnpickler):
    """Reads a pickle and checks each step that could call a function, take memory or compute a hash."""

    dispatch = dict(_PythonUnpickler.dispatch)

    def find_class(self, module: str, name: str) -> object:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}".replace("\n", " ")) from None

    def load_build(self) -> None:
        # Only arrays and their types get a state: it could change a function or a class permanently.
        if type(self.stack[-2]) not in (_Array, _Dtype):
            raise pickle.UnpicklingError(f"a state of {type(self.stack[-2]).__name__}")
        super().load_build()

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_additems(self) -> None:
        _check_keys(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        _check_keys(self.stack)
        super().load_frozenset()

    def load_bytearray8(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(size)))  # as many bytes as the file has

    def load_object(self) -> None:
        raise pickle.UnpicklingError("an object of a class")

    dispatch |= {opcode[0]: step for opcode, step in (
        (pickle.BUILD, load_build), (pickle.SETITEM, load_setitem), (pickle.SETITEMS, load_setitems),
        (pickle.DICT, load_dict), (pickle.ADDITEMS, load_additems), (pickle.FROZENSET, load_frozenset),
        (pickle.BYTEARRAY8, load_bytearray8), (pickle.INST, load_object), (pickle.OBJ, load_object),
        (pickle.NEWOBJ, load_object), (pickle.NEWOBJ_EX, load_object))}


def load_restricted_pickle(path: str | os.PathLike) -> object:
    """Read a pickle of plain containers, numbers, text and NumPy arrays; text of Python 2 is read as Latin-1.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        DatasetError: No such file, no pickle, more than ``LARGEST`` bytes, or it names another function or class. The
            text names the file.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise DatasetError(f"{path}: expected a pickle, found {'a folder' if path.is_dir() else 'a device'}")
        if path.stat().st_size > LARGEST:
            raise DatasetError(f"{path}: expected a pickle of at most {LARGEST:,} bytes, found {path.stat().st_size:,}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except OSError as error:
        raise DatasetError(f"{path}: can't be read ({error.strerror or error})") from error
    try:
        # A buffer gives no more bytes than it has, whatever length the pickle requests.
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # damaged pickles raise almost anything
        raise DatasetError(f"{path}: expected a pickle of plain containers and NumPy arrays, found "
                           f"{str(error)[:200] or type(error).__name__}") from error
