"""Reading a pickle without running what is in it.

The revisited benchmarks publish their ground truth as pickles. A pickle may name any function to be called;
here only what rebuilds plain containers and NumPy arrays can be named.
"""

import codecs
import os
import pickle
from pathlib import Path

import numpy as np

from rmaclib.datasets.types import DatasetError


def _empty_bytes() -> bytes:
    return b""


# NumPy's own rebuilding functions, asked of NumPy: their module has moved between versions.
_ARRAY = np.zeros(1).__reduce_ex__(2)[0]
_ARRAY_FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]  # protocol 5 writes arrays in another way
_SCALAR = np.float64(0).__reduce__()[0]

_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    # Older protocols write bytes as text to be encoded, and empty bytes as a call without arguments.
    ("_codecs", "encode"): codecs.encode,
}
for _module in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_module}.multiarray", "_reconstruct"] = _ARRAY
    _ALLOWED[f"{_module}.multiarray", "scalar"] = _SCALAR
    _ALLOWED[f"{_module}.numeric", "_frombuffer"] = _ARRAY_FROM_BUFFER
for _module in ("builtins", "__builtin__"):
    _ALLOWED[_module, "set"] = set
    _ALLOWED[_module, "frozenset"] = frozenset
    _ALLOWED[_module, "bytes"] = _empty_bytes


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def load_restricted_pickle(path: str | os.PathLike) -> object:
    """Unpickle plain containers, numbers, text and NumPy arrays; Python 2 pickles are read as Latin-1.

    raises DatasetError naming the file: no such file, not a pickle, or it names any other function or class
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except Exception as error:  # damaged pickles raise almost anything
        raise DatasetError(f"{path}: expected a pickle of plain containers and NumPy arrays, found "
                           f"{error or type(error).__name__}") from error
