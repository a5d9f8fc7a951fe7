"""What the commands tell their user, and how they are made.

Messages go to standard error; standard output has the result.
"""

import logging
import re
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from rmaclib.foundation.messages import LOGGER

# File names and texts of others are printed as they are: ":x:" is no emoji and "[red]" no colour.
messages = Console(stderr=True, soft_wrap=True, emoji=False, markup=False, highlight=False)
results = Console(emoji=False, markup=False, highlight=False)
_SHOWN = 3  # images listed of many that were left out
_PATIENCE = 1.5  # seconds after which a step that takes longer is announced


def command_group() -> typer.Typer:
    """The group into which a module of ``rmaclib.commands`` puts its command, under the name ``app``."""
    return typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


def say(text: str) -> None:
    """Print a message on standard error."""
    messages.print(_printable(text))


def note(text: str) -> None:
    """Print something unexpected that doesn't stop the command."""
    messages.print("note:", style="yellow", end=" ")
    say(text)


def fail(error: Exception) -> None:
    """Print one line that says why the command ends."""
    messages.print("error:", style="red", end=" ")
    say(re.sub(r"\s*\n\s*", " ", str(error)))


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        (note if record.levelno >= logging.WARNING else say)(record.getMessage())


@contextmanager
def telling_notes() -> Iterator[None]:
    """Print the library's notes and the warnings of other packages as notes, without their place in the code."""
    notes, propagated, level = _Notes(), LOGGER.propagate, LOGGER.level
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: note(str(message))
        LOGGER.addHandler(notes)
        LOGGER.setLevel(logging.INFO)  # what a stage is going to do
        LOGGER.propagate = False  # printed once
        try:
            yield
        finally:
            LOGGER.removeHandler(notes)
            LOGGER.setLevel(level)
            LOGGER.propagate = propagated


def _printable(text: str) -> str:
    """Without what would move the cursor or can't be printed: file names may contain anything."""
    return "".join(character if character.isprintable() or character == "\n" else repr(character)[1:-1]
                   for character in text)


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Print what is being done when the block takes longer than a moment.

    Args:
        what: Such as "opening x"; "…" is put behind it.
    """
    timer = threading.Timer(_PATIENCE, say, [f"{what} …"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def tell_bad(bad: Iterable[tuple[str, str]], report: Path | None) -> None:
    """Print how many images were left out, and why the first of them.

    Args:
        bad: Name and reason of each.
        report: The file in which all of them are listed, None for no such file.
    """
    bad = list(bad)
    if not bad:
        return
    note(f"{len(bad):,} images left out" + (f"; all are listed in {report}" if report else ""))
    for name, reason in bad[:_SHOWN]:
        reason = " ".join(reason.split())
        say(f"  {reason if name in reason else f'{name}: {reason}'}")
    if len(bad) > _SHOWN:
        say("  …")
