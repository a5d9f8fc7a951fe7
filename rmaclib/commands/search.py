"""rmac search."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from rmaclib.commands import options
from rmaclib.commands.common import command_group, results, say, telling
from rmaclib.commands.network import check_device
from rmaclib.commands.reading import refuse_replacing
from rmaclib.foundation.errors import InputError
from rmaclib.images import crop_pixels, read_image
from rmaclib.sheet import FORMATS, neighbours_sheet, save_sheet

if TYPE_CHECKING:
    from rmaclib.search.index import Neighbour

app = command_group()


@app.command("search")
def search_command(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="A folder written by rmac index.")],
    query: Annotated[Path, typer.Argument(help="An image.")],
    box: Annotated[options.Corners | None, typer.Option(
        parser=options.box, metavar="x1,y1,x2,y2", help="Part of the query to look for, in its pixels.")] = None,
    k: Annotated[int, typer.Option(callback=options.whole(1), help="Neighbours to show.")] = 10,
    rerank: Annotated[int, typer.Option(
        callback=options.whole(0),
        help="Spatial re-ranking: so many of the nearest are verified geometrically and put in order.")] = 0,
    out: Annotated[Path, typer.Option(
        parser=options.output_sheet, metavar="FILE",
        help=f"Picture to write ({', '.join(FORMATS)}).")] = Path("neighbours.png"),
    crop_order: options.CropOrder = "resize-then-crop",
    device: options.Device = "auto",
) -> None:
    """Find the nearest neighbours of an image in an index: a table and a picture.

    Examples:

    - `rmac search photos.index my_photo.jpg`

    - `rmac search photos.index my_photo.jpg --box 100,50,400,380 --k 20 --rerank 20 --out neighbours.png`
    """
    picture = read_image(query)
    refuse_replacing(out, [query])
    if box is not None:
        _check_box(box, query, picture.size)
    with telling(f"opening {folder}"):
        from dataclasses import replace

        from rmaclib.search.index import Index
        from rmaclib.search.index_folder import SearchIndexError

        check_device(device)
        index = Index.load(folder)
    if not len(index):
        raise SearchIndexError(f"{folder}: contains no images")
    # Only images of the same file name: to look at each file of a large index would take longer than the search.
    refuse_replacing(out, (name for name in index.vectors.names if os.path.basename(name) == out.name))
    index.settings = replace(index.settings, crop_order=crop_order, device=device)
    with telling(f"comparing {query} with {len(index):,} images"):
        neighbours = index.search(query, box, k, rerank)
    results.print(_table(neighbours, bool(rerank)))
    shown = [(f"{neighbour.similarity:.3f}  {Path(neighbour.name).name}", neighbour.name) for neighbour in neighbours]
    save_sheet(neighbours_sheet(query, box, shown), out)
    say(f"picture: {out}")


def _check_box(corners: options.Corners, query: Path, size: tuple[int, int]) -> None:
    try:
        crop_pixels(corners, *size)
    except ValueError as error:
        raise InputError(f"--box: {query}: {error}") from error


def _table(neighbours: Sequence["Neighbour"], reranked: bool) -> Table:
    table = Table("rank", "cosine", *(("inliers",) if reranked else ()))
    table.add_column("image", overflow="fold")  # names are never cut
    for rank, (name, cosine, inliers) in enumerate(neighbours, 1):
        matched = ("" if inliers is None else str(inliers),) if reranked else ()
        table.add_row(str(rank), f"{cosine:.3f}", *matched, name)
    return table
