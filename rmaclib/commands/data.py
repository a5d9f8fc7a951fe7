"""rmac data: data sets."""

from pathlib import Path
from typing import Annotated

import typer

from rmaclib.commands.common import command_group, messages
from rmaclib.datasets.diorama import render

app, data_app = command_group(), command_group()
app.add_typer(data_app, name="data", help="Data sets.")


@data_app.callback()
def data() -> None:
    """Data sets."""


@data_app.command("render")
def render_command(
    out: Annotated[Path, typer.Argument(help="Folder for the pictures, lists, ground truth and truth.csv.")],
    seed: Annotated[int, typer.Option(help="Everything follows from it; 0 is the set in the repository.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes.  [default: one per core]")] = None,
) -> None:
    """Render the data set Diorama (needs the extra `diorama`). A killed run goes on when started again.

    Examples:

    - `rmac data render data/diorama`

    - `rmac data render other_diorama --seed 1 --workers 8`
    """
    about = render(out, seed, workers=workers)
    counts = ", ".join(f"{count} {part}" for part, count in about["images"].items())
    messages.print(f"{counts} images, {about['bytes'] / 1e6:.1f} MB, in {out}")
