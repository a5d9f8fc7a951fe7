"""Settings: frozen dataclasses built from plain dictionaries (YAML), which reject unknown keys; checks of values."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TypeVar

T = TypeVar("T")


def from_mapping(kind: type[T], mapping: Mapping, source: str = "settings") -> T:
    """A `kind` (dataclass) with the values of `mapping`.

    source: where the mapping came from, for the error
    raises ValueError for a key that `kind` doesn't have, naming the nearest that it has
    """
    known = [field.name for field in fields(kind)]
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{source}: unknown key {key!r}{hint} (known: {', '.join(known)})")
    return kind(**mapping)


def one_of(name: str, value, allowed: Sequence[str]) -> None:
    """raises ValueError when a value is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")


def in_range(name: str, value, low: float, high: float = math.inf) -> None:
    """raises ValueError when a value is no finite number in low..high."""
    if isinstance(value, str):
        raise ValueError(f"{name}: expected a number, got the text {value!r} (YAML reads 1e-3 as text: write 1.0e-3)")
    if isinstance(value, bool) or not low <= value <= high or math.isinf(value):
        limits = f"of at least {low}" if math.isinf(high) else f"in {low}..{high}"
        raise ValueError(f"{name}: expected a number {limits}, got {value!r}")


def whole_number(name: str, value, least: int, kind=int) -> None:
    """raises ValueError when a value is no whole number of a kind (type or union), or less than `least`."""
    if isinstance(value, bool) or not isinstance(value, kind) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
