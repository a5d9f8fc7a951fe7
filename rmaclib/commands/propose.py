"""rmac propose."""

import csv
from pathlib import Path
from typing import Annotated

import typer

from rmaclib.commands.common import command_group, say, tell_bad, telling
from rmaclib.commands.network import describing, expected, open_unwhitened, seconds_per_image
from rmaclib.commands.options import Device, Images, SkipBad, output_file, output_picture, text, whole
from rmaclib.commands.reading import read_photographs, refuse_replacing
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import as_line, whole_file

app = command_group()
_DRAWN, _BOXES = 12, 5  # pictures that are drawn, proposals on each


@app.command("propose")
def propose_command(
    context: typer.Context,
    images: Images,
    network: Annotated[str, typer.Option(
        callback=text, help="A checkpoint with a proposal network: rmac train --stage proposals.")],
    out: Annotated[Path, typer.Option(
        parser=output_file, metavar="FILE", help="Table to write: a line for each proposal.")] = Path("proposals.csv"),
    k: Annotated[int, typer.Option(callback=whole(1), help="Proposals of an image, at most.")] = 32,
    size: Annotated[int, typer.Option(callback=whole(1, 100_000), help="Longer side in pixels.")] = 512,
    picture: Annotated[Path | None, typer.Option(
        parser=output_picture, metavar="FILE",
        help="Also draw the five likeliest on the first images (.png, .pdf, .svg).")] = None,
    device: Device = "auto", skip_bad: SkipBad = False,
) -> None:
    """Propose regions that may hold a landmark (Section 4.3).

    Examples:

    - `rmac propose my_photos --network proposing/best.safetensors --out proposals.csv --picture proposals.png`

    The table has the columns image, x1, y1, x2, y2 (pixels of the image) and score (0..1), the likeliest first.
    """
    collection = read_photographs(images, None, skip_bad)
    for written in (out, picture):
        if written is not None:
            refuse_replacing(written, (images, network, *collection.paths))
    settings = describing(context, [size])
    model = open_unwhitened(network)
    if model.proposer is None:
        raise InputError(f"--network: expected one that was trained to propose regions (rmac train --stage proposals), "
                         f"got {network}")

    from rmaclib.extraction.proposals import propose_regions

    say(f"proposing on {len(collection.paths):,} images at {size} px"
        + expected(len(collection.paths), seconds_per_image(model, collection.paths, settings)))
    proposed = propose_regions(model, collection.paths, settings, k)
    with whole_file(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("image", "x1", "y1", "x2", "y2", "score"))
        for path, of_image in zip(collection.paths, proposed, strict=True):
            for box, score in zip(of_image.boxes.tolist(), of_image.scores.tolist(), strict=True):
                table.writerow((as_line(str(path)), *(f"{value:.1f}" for value in box), f"{score:.4f}"))
    tell_bad([(name, of_image.reason) for name, of_image in zip(collection.names, proposed, strict=True)
              if of_image.reason], None)
    say(f"{sum(len(of_image.boxes) for of_image in proposed):,} proposals: {out}")
    if picture is not None:
        with telling(f"drawing {picture}"):
            from rmaclib.plots import boxes_sheet, save_figure

            good = [(path, of_image) for path, of_image in zip(collection.paths, proposed, strict=True)
                    if not of_image.reason][:_DRAWN]
            save_figure(boxes_sheet([(path.name, path, of_image.boxes[:_BOXES], of_image.scores[:_BOXES])
                                     for path, of_image in good]), picture)
        say(f"picture: {picture}")
