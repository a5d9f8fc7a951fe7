"""Reading a pickle without running what is in it, and without letting it take all memory or time.

The revisited benchmarks publish their ground truth as pickles. A pickle may name any function to be called, say how
much memory to take, and build things whose hash takes for ever. Here only functions of this file are called, each of
which looks at what it gets; keys and members of sets are text and numbers; an array has the size of its bytes.
"""

import io
import os
import pickle
import re
from pathlib import Path

import numpy as np

from rmaclib.datasets.types import DatasetError

LARGEST = 2**28  # bytes of a pickle: the published ones have some two million


class _Dtype:
    """Type of an array's elements: plain numbers, text or bytes."""

    def __init__(self, text: str):
        self.value = np.dtype(text)

    def __setstate__(self, state: tuple) -> None:
        # (version, byte order, sub-array, names, fields, …)
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("an array of other things than plain numbers and text")
        self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose state is its bytes; as large as they are."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, by_columns, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | str):
            raise pickle.UnpicklingError("an array of other things than plain numbers and text")
        super().__setstate__((version, shape, dtype.value, by_columns, content))


_ARRAY_TYPE = object()  # what `numpy.ndarray` stands for; it can't be called


def _dtype(text: str, *_) -> _Dtype:
    if not isinstance(text, str) or not re.fullmatch("[<>=|]?[biufcSU][0-9]{1,4}", text):
        raise pickle.UnpicklingError("an array of other things than plain numbers and text")
    return _Dtype(text)


def _empty_array(kind: object, shape: tuple, *_) -> _Array:
    # NumPy writes an empty array, whose content follows.
    if kind is not _ARRAY_TYPE or shape != (0,):
        raise pickle.UnpicklingError("an array that isn't written as NumPy writes it")
    return np.zeros(0).view(_Array)


def _array_from_bytes(content: bytes, dtype: _Dtype, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(content, dtype.value).reshape(shape, order=order)


def _scalar(dtype: _Dtype, content: bytes | str) -> object:
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, dtype.value, count=1)[0]


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    # Older protocols write bytes as text to be encoded.
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes in another encoding than Latin-1")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


def _set(members: list = ()) -> set:
    _check_keys(members)
    return set(members)


def _frozenset(members: list = ()) -> frozenset:
    _check_keys(members)
    return frozenset(members)


def _check_keys(keys) -> None:
    # The hash of a tuple of tuples that share their parts may take for ever.
    if any(not isinstance(key, str | bytes | int | float | np.number) for key in keys):
        raise pickle.UnpicklingError("a dictionary or set of other things than text and numbers")


_ALLOWED = {("numpy", "ndarray"): _ARRAY_TYPE, ("numpy", "dtype"): _dtype, ("_codecs", "encode"): _encoded}
for _module in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_module}.multiarray", "_reconstruct"] = _empty_array
    _ALLOWED[f"{_module}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_module}.numeric", "_frombuffer"] = _array_from_bytes
for _module in ("builtins", "__builtin__"):
    _ALLOWED[_module, "set"] = _set
    _ALLOWED[_module, "frozenset"] = _frozenset
    _ALLOWED[_module, "bytes"] = _empty_bytes


class _Unpickler(pickle._Unpickler):
    """Python's own reader of pickles in its slower form, whose steps can be looked at."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str):
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}".replace("\n", " ")) from None

    def load_build(self):
        # A state goes to arrays and their types only: it could change a function or a class for good.
        if type(self.stack[-2]) not in (_Array, _Dtype):
            raise pickle.UnpicklingError(f"a state of {type(self.stack[-2]).__name__}")
        super().load_build()

    def load_setitem(self):
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self):
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self):
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_additems(self):
        _check_keys(self.stack)
        super().load_additems()

    def load_frozenset(self):
        _check_keys(self.stack)
        super().load_frozenset()

    def load_bytearray8(self):
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(size)))  # as many bytes as there are

    def load_object(self):
        raise pickle.UnpicklingError("an object of a class")

    dispatch |= {opcode[0]: step for opcode, step in (
        (pickle.BUILD, load_build), (pickle.SETITEM, load_setitem), (pickle.SETITEMS, load_setitems),
        (pickle.DICT, load_dict), (pickle.ADDITEMS, load_additems), (pickle.FROZENSET, load_frozenset),
        (pickle.BYTEARRAY8, load_bytearray8), (pickle.INST, load_object), (pickle.OBJ, load_object),
        (pickle.NEWOBJ, load_object), (pickle.NEWOBJ_EX, load_object))}


def load_restricted_pickle(path: str | os.PathLike) -> object:
    """Unpickle plain containers, numbers, text and NumPy arrays; Python 2 pickles are read as Latin-1.

    raises DatasetError naming the file: no such file, not a pickle, more than LARGEST bytes, or it names any other
    function or class
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
        # Of a buffer no more is read than there is, whatever a length in it says.
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # damaged pickles raise almost anything
        raise DatasetError(f"{path}: expected a pickle of plain containers and NumPy arrays, found "
                           f"{str(error)[:200] or type(error).__name__}") from error
