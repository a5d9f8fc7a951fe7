"""rmac propose."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rmaclib.commands import options
from rmaclib.commands.common import command_group, say, tell_bad, telling
from rmaclib.commands.network import expected, extraction_settings, open_network, seconds_per_image
from rmaclib.commands.reading import read_photographs, refuse_replacing
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import as_line, whole_file

if TYPE_CHECKING:
    from rmaclib.extraction.proposals import ImageProposals

app = command_group()
_DRAWN, _BOXES = 12, 5  # images that are drawn, proposals on each


@app.command("propose")
def propose_command(
    context: typer.Context,
    images: options.Images,
    network: Annotated[str, typer.Option(
        callback=options.text, help="A checkpoint with a proposal network: rmac train --stage proposals.")],
    out: Annotated[Path, typer.Option(
        parser=options.output_file, metavar="FILE",
        help="Table to write: a line for each region proposal.")] = Path("proposals.csv"),
    k: Annotated[int, typer.Option(callback=options.whole(1), help="Region proposals of an image, at most.")] = 32,
    size: Annotated[int, typer.Option(
        callback=options.whole(1, options.LARGEST_SIDE), help="Longer side in pixels.")] = 512,
    picture: Annotated[Path | None, typer.Option(
        parser=options.output_picture, metavar="FILE",
        help="Also draw the five highest scores on the first images (.png, .pdf, .svg).  [default: none]")] = None,
    device: options.Device = "auto", skip_bad: options.SkipBad = False,
) -> None:
    """Propose regions that may contain a landmark (Section 4.3).

    Examples:

    - `rmac propose my_photos --network proposing/best.safetensors --out proposals.csv --picture proposals.png`

    The table has the columns image, x1, y1, x2, y2 (pixels of the image) and score (0..1), the highest score first.
    """
    collection = read_photographs(images, None, skip_bad)
    for written in (out, picture):
        if written is not None:
            refuse_replacing(written, (images, network, *collection.paths))
    settings = extraction_settings(context, [size])
    model = open_network(network)
    if model.proposer is None:
        raise InputError(f"--network: expected a network that was trained to propose regions (rmac train --stage "
                         f"proposals), got {network}")

    from rmaclib.extraction.proposals import propose_regions

    say(f"proposing regions of {len(collection.paths):,} images at {size} px"
        + expected(len(collection.paths), seconds_per_image(model, collection.paths, settings)))
    proposals = propose_regions(model, collection.paths, settings, k)
    _write_table(out, collection.paths, proposals)
    tell_bad([(name, of_image.reason) for name, of_image in zip(collection.names, proposals, strict=True)
              if of_image.reason], None)
    say(f"{sum(len(of_image.boxes) for of_image in proposals):,} proposals: {out}")
    if picture is not None:
        with telling(f"drawing {picture}"):
            _draw(picture, collection.paths, proposals)
        say(f"picture: {picture}")


def _write_table(out: Path, paths: Sequence[Path], proposals: Sequence["ImageProposals"]) -> None:
    with whole_file(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("image", "x1", "y1", "x2", "y2", "score"))
        for path, of_image in zip(paths, proposals, strict=True):
            for box, score in zip(of_image.boxes.tolist(), of_image.scores.tolist(), strict=True):
                table.writerow((as_line(str(path)), *(f"{value:.1f}" for value in box), f"{score:.4f}"))


def _draw(picture: Path, paths: Sequence[Path], proposals: Sequence["ImageProposals"]) -> None:
    from rmaclib.plots import boxes_sheet, save_figure

    readable = [(path, of_image) for path, of_image in zip(paths, proposals, strict=True)
                if not of_image.reason][:_DRAWN]
    save_figure(boxes_sheet([(path.name, path, of_image.boxes[:_BOXES], of_image.scores[:_BOXES].tolist())
                             for path, of_image in readable]), picture)
