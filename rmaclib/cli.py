"""The command line: rmac clean, train, propose, describe, index, search, evaluate."""

import sys
from importlib import import_module

import click
import typer
from rich.markup import escape
from typer.core import TyperGroup

from rmaclib.commands.common import messages

# Command -> module of rmaclib.commands. It is imported when the command is asked for: what a network needs takes 700 MB
# of memory, more than all that cleaning a class holds.
_MODULES = {"clean": "cleaning", **dict.fromkeys(("train", "propose", "describe", "index", "search", "evaluate"),
                                                "networks")}


class _Commands(TyperGroup):
    def __init__(self, **options):
        # Without anything behind them: for the hint after a mistyped name.
        super().__init__(**{**options, "commands": {name: click.Command(name) for name in _MODULES}})

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _MODULES:
            return None
        module = import_module(f"rmaclib.commands.{_MODULES[name]}")
        return typer.main.get_group(module.app).commands[name]


app = typer.Typer(name="rmac", cls=_Commands, no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
                  pretty_exceptions_enable=False)


@app.callback()
def commands() -> None:
    """Landmark retrieval with global descriptors (R-MAC). `rmac COMMAND --help` has examples."""


def main() -> None:
    """Entry point: errors that a user can mend are one line, not a traceback."""
    try:
        app()
    except Exception as error:
        # The library's own errors, and those of values, files and extras that are not installed.
        if not (isinstance(error, (ValueError, OSError, ImportError)) or type(error).__module__.startswith("rmaclib.")):
            raise
        messages.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
