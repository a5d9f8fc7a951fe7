"""The command line: rmac clean, train, propose, extract, index, search, evaluate, backbones."""

import io
import sys
from importlib import import_module
from typing import Annotated, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from rmaclib import __version__
from rmaclib.commands.common import fail, say, telling, telling_notes
from rmaclib.foundation.environment import prepare_process
from rmaclib.foundation.errors import RmacError

_ERROR, _INTERRUPTED = 1, 130  # exit codes, beside 0 and typer's 2


class _Entry(NamedTuple):
    """A command: one line of help, and what is printed about the same command started again when it was stopped."""

    help: str
    again: str = ""


_GOES_ON = "the same command goes on where it was"

# Each is in the module of rmaclib.commands that has its name, imported when the command is called: what a network
# needs takes seconds and 700 MB of memory, more than cleaning a whole class.
_COMMANDS = {
    "clean": _Entry("Clean a noisy collection: keep the images that show the same landmark, with boxes.", _GOES_ON),
    "train": _Entry("Train a network: to classify landmarks, to rank images, to propose regions.", _GOES_ON),
    "propose": _Entry("Propose regions that may contain a landmark."),
    "extract": _Entry("Extract a descriptor of each image.", _GOES_ON),
    "index": _Entry("Make an index of images, or add to it.", _GOES_ON),
    "search": _Entry("Find the nearest neighbours of an image in an index."),
    "evaluate": _Entry("Measure a network on a benchmark.", f"with --out, {_GOES_ON}"),
    "backbones": _Entry("List the layers of a backbone whose feature maps can be used."),
}
_debug = False  # --debug of this run


class _Commands(TyperGroup):
    def __init__(self, **options):
        # Without anything behind them: for the list of commands, and the hint after a mistyped name.
        commands = {name: TyperCommand(name, help=entry.help) for name, entry in _COMMANDS.items()}
        super().__init__(**{**options, "commands": commands})

    def resolve_command(self, context, arguments):
        name, command, rest = super().resolve_command(context, arguments)
        if name in _COMMANDS:
            with telling("loading the libraries"):
                module = import_module(f"rmaclib.commands.{name}")
            command = typer.main.get_group(module.app).commands[name]
        return name, command, rest

    def invoke(self, context):
        try:
            with telling_notes():
                return super().invoke(context)
        except KeyboardInterrupt as error:
            if _debug:
                raise
            again = _COMMANDS[context.invoked_subcommand].again if context.invoked_subcommand else ""
            say("; ".join(filter(None, ["stopped", again])))
            raise typer.Exit(_INTERRUPTED) from error


app = typer.Typer(name="rmac", cls=_Commands, no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
                  pretty_exceptions_enable=False)


def _show_version(requested: bool) -> None:
    if requested:
        print(f"rmac {__version__}")
        raise typer.Exit


@app.callback()
def commands(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of every error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True,
                                          help="Show the version.")] = False,
) -> None:
    """Landmark retrieval with global descriptors (R-MAC). `rmac COMMAND --help` has examples.

    `--preset paper` of a command takes the paper's settings.

    Exit codes: 0 done; 1 an error that you can mend, with one line that says why, or a bug, with its traceback; 2 a
    command or option that can't be used; 130 interrupted.
    """
    global _debug
    _debug = debug


def main() -> None:
    """Entry point of the command line: errors that a user can mend are one line, all others a traceback."""
    prepare_process()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names need not be text, and a terminal need not know all of it.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except RmacError as error:
        if _debug:
            raise
        fail(error)
        sys.exit(_ERROR)
