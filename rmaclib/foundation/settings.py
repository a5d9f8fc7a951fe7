"""Settings: frozen dataclasses whose values pydantic checks, and how they are read from dictionaries and YAML files.

Example::

    @settings
    class GraphSettings:
        threshold: Annotated[int, Field(ge=3)] = 10

A value of the wrong type or range raises InputError with the field, what was expected, what came, and the file. There
are no conversions: text is never taken for a number. An unknown key is an error.
"""

import difflib
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from rmaclib.foundation.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Field", "as_tuple", "from_mapping", "one_of", "read_yaml", "settings", "whole_number"]

T = TypeVar("T")
S = TypeVar("S", bound="DataclassInstance")
# Annotated[tuple[int, ...], as_tuple]: accepts a list too, since YAML and JSON have no tuples.
as_tuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
_CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)
_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text",
          "tuple": "a list", "list": "a list", "dataclass": "`name: value`", "dict": "`name: value`",
          "dataclass_exact": "settings of that part"}
_SHOWN = 3  # mistakes in one message


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings(kind: type[T]) -> type[T]:
    """Make a class a frozen dataclass that checks its values.

    Ranges are written as ``Annotated[int, Field(ge=1)]``. ``__post_init__`` may raise ValueError for what concerns
    several fields.

    Args:
        kind: The class, with annotated fields.

    Returns:
        The class as a dataclass. Creating one raises InputError for values that it doesn't accept.
    """
    checked: Any = dataclass(frozen=True, config=_CONFIG)(kind)
    create = checked.__init__

    @functools.wraps(create)
    def __init__(self, *values, **named):
        # Positional values are passed on by name, so that an error names their field.
        given = dict(zip((field.name for field in fields(type(self))), values, strict=False))
        if len(given) == len(values) and not given.keys() & named.keys():
            values, named = (), given | named
        try:
            create(self, *values, **named)
        except ValidationError as error:
            raise InputError(_message(error, type(self))) from None

    checked.__init__ = __init__
    return checked


def from_mapping(kind: type[S], mapping: object, source: str = "settings") -> S:
    """Create settings from a dictionary, as YAML and JSON give one.

    Args:
        kind: A class of settings.
        mapping: Field → value. A field that is a class of settings itself takes a dictionary.
        source: Where the dictionary came from, for the error.

    Returns:
        The settings; fields that the dictionary lacks have their defaults.

    Raises:
        InputError: No dictionary, a key that ``kind`` doesn't have (the nearest is named), or an unusable value.
    """
    if not isinstance(mapping, Mapping):
        raise InputError(f"{source}: expected `name: value`, got {mapping!r}")
    known = [field.name for field in fields(kind)]
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{source}: unknown key {key!r}{hint} (known: {', '.join(known)})")
    parts = {field.name: field.type for field in fields(kind)
             if isinstance(field.type, type) and is_dataclass(field.type)}
    values = {key: from_mapping(parts[key], value, f"{source}: {key}")
              if key in parts and not isinstance(value, parts[key]) else value for key, value in mapping.items()}
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def read_yaml(file: str | os.PathLike | None) -> dict:
    """Read the dictionary in a YAML file.

    Args:
        file: The file; None gives an empty dictionary.

    Returns:
        The dictionary; an empty file gives an empty one.

    Raises:
        InputError: The file can't be read or contains no dictionary; the text names it.
    """
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


def _message(error: ValidationError, kind: type) -> str:
    """A ValidationError in our words, one line."""
    problems = list(dict.fromkeys(_problem(problem, kind) for problem in error.errors(include_url=False)))
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "; ".join(problems[:_SHOWN]) + more


def _problem(problem: Mapping, kind: type) -> str:
    """One mistake: its field, what was expected, what came."""
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


def _hint(what: str, got: object) -> str:
    if what == "float_type" and isinstance(got, str):
        return " (YAML reads 1e-3 as text: write 1.0e-3)"
    return ""


# --- checks of arguments outside of settings ---------------------------------------------------------------------


def one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """Check that an argument is one of the allowed texts.

    Args:
        name: Name of the argument, for the error.
        value: Its value.
        allowed: The texts.

    Raises:
        InputError: It is another.
    """
    if value not in allowed:
        raise InputError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")


def whole_number(name: str, value: Any, least: int, kind: type | UnionType = int) -> None:
    """Check that an argument is a whole number and large enough.

    Args:
        name: Name of the argument, for the error.
        value: Its value; True and False are no numbers.
        least: The smallest value allowed.
        kind: The type or union of types allowed, such as ``int | np.integer``.

    Raises:
        InputError: It is no such number, or less than ``least``.
    """
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or value < least:
        raise InputError(f"{name}: expected a whole number of at least {least}, got {value!r}")
