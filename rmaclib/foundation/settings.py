"""Settings: frozen dataclasses, checked by pydantic, strict, with no keys but their own; and the one reader of them.

    @settings
    class GraphSettings:
        threshold: Annotated[int, Field(ge=3)] = 10

A setting that isn't what it should be raises InputError: field, what was expected, what came, and the file where one
was read.
"""

import difflib
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TypeVar, dataclass_transform

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from rmaclib.foundation.errors import InputError

__all__ = ["Field", "as_tuple", "from_mapping", "one_of", "read_settings", "read_yaml", "settings", "whole_number"]

T = TypeVar("T")
# Annotated[tuple[int, ...], as_tuple]: a list, as YAML and JSON give one, is taken for a tuple.
as_tuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
_CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text",
          "tuple": "a list", "list": "a list", "dataclass": "`name: value`", "dict": "`name: value`",
          "dataclass_exact": "settings of that part"}
_SHOWN = 3  # mistakes told at once


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings(kind: type[T]) -> type[T]:
    """Make a class a frozen, strict dataclass; ranges are given by Annotated[int, Field(ge=1)].

    __post_init__ may raise ValueError for what concerns several fields.
    """
    checked = dataclass(frozen=True, config=_CONFIG)(kind)
    create = checked.__init__

    @functools.wraps(create)
    def __init__(self, *values, **named):
        # By name, so that a mistake is told by its field.
        given = dict(zip((field.name for field in fields(type(self))), values, strict=False))
        if len(given) == len(values) and not given.keys() & named.keys():
            values, named = (), given | named
        try:
            create(self, *values, **named)
        except ValidationError as error:
            raise InputError(_told(error, type(self))) from None

    checked.__init__ = __init__
    return checked


def from_mapping(kind: type[T], mapping: Mapping, source: str = "settings") -> T:
    """A settings class with the values of a mapping, as YAML and JSON give them.

    source: where the mapping came from, for the error; fields that are settings themselves take mappings
    raises InputError for a key that `kind` doesn't have, naming the nearest, and for a value that can't be used
    """
    if not isinstance(mapping, Mapping):
        raise InputError(f"{source}: expected `name: value`, got {mapping!r}")
    known = [field.name for field in fields(kind)]
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{source}: unknown key {key!r}{hint} (known: {', '.join(known)})")
    parts = {field.name: field.type for field in fields(kind) if is_dataclass(field.type)}
    values = {key: from_mapping(parts[key], value, f"{source}: {key}")
              if key in parts and not isinstance(value, parts[key]) else value for key, value in mapping.items()}
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def read_settings(kind: type[T], file: str | os.PathLike | None, options: Mapping | None = None) -> T:
    """Settings from a YAML file, None for the defaults, with options that are not None put over them.

    raises InputError naming the file and the field
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    return from_mapping(kind, read_yaml(file) | given, "options" if file is None else str(file))


def read_yaml(file: str | os.PathLike | None) -> dict:
    """The dictionary in a YAML file, empty without one. raises InputError naming the file"""
    if file is None:
        return {}
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise InputError(f"{file}: expected settings in YAML, `name: value`, can't be read ({reason})") from error
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected settings in YAML, `name: value`, found {type(content).__name__}")
    return content


def _told(error: ValidationError, kind: type) -> str:
    """A ValidationError in our words, one line."""
    problems = error.errors(include_url=False)
    told = list(dict.fromkeys(_problem(problem, kind) for problem in problems))
    return "; ".join(told[:_SHOWN]) + (f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else "")


def _problem(problem: Mapping, kind: type) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    what, context, got = problem["type"], problem.get("ctx", {}), problem["input"]
    if what in ("unexpected_keyword_argument", "unexpected_positional_argument"):
        return f"{kind.__name__}: unknown setting {place!r} (known: {', '.join(field.name for field in fields(kind))})"
    if what == "value_error":
        return f"{place}: {context['error']}" if place else str(context["error"])
    return f"{place}: expected {_expected(what, context, problem['msg'])}, got {got!r}" + _hint(what, got)


def _expected(what: str, context: Mapping, message: str) -> str:
    limits = {"greater_than_equal": ("ge", "at least"), "greater_than": ("gt", "more than"),
              "less_than_equal": ("le", "at most"), "less_than": ("lt", "less than")}
    if what in limits:
        name, words = limits[what]
        return f"{words} {context[name]}"
    if what == "literal_error":
        return f"one of {context['expected']}"
    if what == "finite_number":
        return "a finite number"
    if what in ("int_from_float", "int_parsing_size"):
        return "a whole number"
    if what == "too_short":
        return f"at least {context['min_length']} of them"
    return _TYPES.get(what.removesuffix("_type"), message)


def _hint(what: str, got) -> str:
    if what == "float_type" and isinstance(got, str):
        return " (YAML reads 1e-3 as text: write 1.0e-3)"
    return ""


# --- checks of arguments that are no settings ----------------------------------------------------------------------


def one_of(name: str, value, allowed: Sequence[str]) -> None:
    """raises InputError when a value is none of those allowed."""
    if value not in allowed:
        raise InputError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")


def whole_number(name: str, value, least: int, kind=int) -> None:
    """raises InputError when a value is no whole number of a kind (type or union), or less than `least`."""
    if isinstance(value, bool) or not isinstance(value, kind) or value < least:
        raise InputError(f"{name}: expected a whole number of at least {least}, got {value!r}")
