"""What the commands share: messages, settings files, options with choices."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import typer
import yaml
from rich.console import Console
from rich.markup import escape

# Messages go to standard error: standard output is the result.
messages = Console(stderr=True, highlight=False)


def command_group() -> typer.Typer:
    return typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


def choice(name: str, values: Iterable[str]) -> type[StrEnum]:
    return StrEnum(name, {value: value for value in values})


def read_yaml(file: Path | None, form: str = "`name: value`") -> dict:
    """The settings in a YAML file, empty without one; form: how they are written, for the error."""
    if file is None:
        return {}
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: expected settings in YAML, {form}, found {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected settings in YAML, {form}, found {type(found).__name__}")
    return found


def tell_missing(missing) -> None:
    if missing:
        messages.print(f"[yellow]note:[/] {len(missing)} listed images are not there or known to be corrupt, "
                        f"left out: {escape(', '.join(missing[:3]))}{' …' if len(missing) > 3 else ''}")


def tell_bad(bad, report: Path | None) -> None:
    if bad:
        messages.print(f"[yellow]note:[/] {len(bad)} images can't be read, left out"
                        + (f" (see {report})" if report else ":"))
        for _, reason in bad[:3 if report else None]:
            messages.print(f"  {reason}", markup=False)
