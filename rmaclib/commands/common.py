"""What the commands tell their user, and how they are made. Standard error has the messages: standard output is the
result."""

import logging
import re
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import typer
from rich.console import Console

from rmaclib.foundation.messages import LOGGER

# File names and texts of others are printed as they are: ":x:" is no emoji and "[red]" no colour.
_PLAIN = {"emoji": False, "markup": False, "highlight": False}
messages = Console(stderr=True, soft_wrap=True, **_PLAIN)
results = Console(**_PLAIN)
_SHOWN = 3  # names listed of many
_PATIENCE = 1.5  # seconds after which something that goes on is told


def command_group() -> typer.Typer:
    """What a module of rmaclib.commands calls `app` and puts its command into."""
    return typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


def choice(name: str, values: Iterable[str]) -> type[StrEnum]:
    """A type for an option that takes one of several words."""
    return StrEnum(name, {value: value for value in values})


def say(text: str) -> None:
    """A line for people."""
    messages.print(_printable(text))


def note(text: str) -> None:
    """Something unexpected that doesn't stop the command."""
    messages.print("note:", style="yellow", end=" ")
    say(text)


def fail(error: Exception) -> None:
    """One line that says why the command ends."""
    messages.print("error:", style="red", end=" ")
    say(re.sub(r"\s*\n\s*", " ", str(error)))


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


@contextmanager
def telling_notes() -> Iterator[None]:
    """The library's notes, and what other packages warn of, are told as notes, without the place in the code."""
    notes, propagated = _Notes(logging.WARNING), LOGGER.propagate
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: note(str(message))
        LOGGER.addHandler(notes)
        LOGGER.propagate = False  # told once
        try:
            yield
        finally:
            LOGGER.removeHandler(notes)
            LOGGER.propagate = propagated


def _printable(text: str) -> str:
    """Without what would move the cursor or can't be printed: file names may contain anything."""
    return "".join(character if character.isprintable() or character == "\n" else repr(character)[1:-1]
                   for character in text)


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Says what is being done when the block takes longer than a moment."""
    timer = threading.Timer(_PATIENCE, say, [f"{what} …"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def tell_bad(bad: Iterable[tuple[str, str]], report: Path | None) -> None:
    """Images that were left out, each (name, reason); report: where all of them are listed, None: nowhere."""
    bad = list(bad)
    if not bad:
        return
    note(f"{len(bad):,} images left out" + (f"; all are listed in {report}" if report else ""))
    for name, reason in bad[:_SHOWN]:
        reason = " ".join(reason.split())
        say(f"  {reason if name in reason else f'{name}: {reason}'}")
    if len(bad) > _SHOWN:
        say("  …")
