"""Settings: frozen dataclasses built from plain dictionaries (YAML), which reject unknown keys."""

import difflib
from collections.abc import Mapping
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
