"""Render Diorama from the command line, from the repository's root:

    make diorama SEED=1
    PYTHONPATH=data/diorama python -m generator FOLDER --seed 1 --workers 8
"""

from pathlib import Path
from typing import Annotated

import typer

from generator.render import render


def main(
    out: Annotated[Path, typer.Argument(help="Folder for the pictures, lists, ground truth and truth.csv.")],
    seed: Annotated[int, typer.Option(help="Everything follows from it; 0 is the set in the repository.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes.  [default: one per core]")] = None,
) -> None:
    """Render the data set Diorama (needs the extra `diorama`). A killed run goes on when started again."""
    about = render(out, seed, workers=workers)
    counts = ", ".join(f"{count} {part}" for part, count in about["images"].items())
    print(f"{counts} images, {about['bytes'] / 1e6:.1f} MB, in {out}")


if __name__ == "__main__":
    typer.run(main)
