"""Figures: grids on pictures, heat of a feature map, rankings with coloured frames.

Every function returns a matplotlib Figure; nothing touches the global pyplot state, so they work in
notebooks, scripts and threads alike.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle as Patch
from PIL import Image

from rmaclib.boxes import Box
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import whole_file
from rmaclib.images import ImageError, read_image, resize_longer
from rmaclib.regions import as_rectangle

# Colours that stay apart for readers with colour-blindness (Wong 2011).
RIGHT, WRONG, JUNK, QUERY, NEUTRAL = "#009e73", "#d55e00", "#999999", "#0072b2", "#666666"
VERDICTS: Mapping[str, str] = {"right": RIGHT, "wrong": WRONG, "junk": JUNK, "": NEUTRAL}


def save_figure(figure: Figure, path: str | os.PathLike, dpi: int = 130) -> None:
    """Write a figure whole, in the format that the file's name ends with; an older file stays until then.

    raises InputError: another format; OutputError: it can't be written
    """
    formats = figure.canvas.get_supported_filetypes()
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in formats:
        raise InputError(f"{os.fspath(path)}: expected a picture that ends with .{', .'.join(formats)}")
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi)


def regions_on(axes: Axes, picture: Image.Image | np.ndarray, map_size: tuple[int, int],
               regions: Sequence[Sequence[int]], title: str = "") -> None:
    """Draw regions of a feature map of (rows, columns) cells over the picture it came from (Section 4.1)."""
    rows, columns = map_size
    axes.imshow(picture, extent=(0, columns, rows, 0), aspect="auto" if rows == columns == 1 else "equal")
    for number, region in enumerate(regions):
        x, y, width, height = as_rectangle(region)
        # Drawn a little smaller each, so that squares sharing a border stay apart.
        inset = 0.05 + 0.25 * number / max(1, len(regions))
        colour = f"C{number % 10}"
        axes.add_patch(Patch((x + inset, y + inset), width - 2 * inset, height - 2 * inset,
                             fill=False, edgecolor=colour, linewidth=2))
        axes.plot(x + width / 2, y + height / 2, "+", color=colour, markersize=8)
    axes.set_xticks(range(columns + 1), minor=True)
    axes.set_yticks(range(rows + 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=0.3, alpha=0.5)
    axes.set_title(title, fontsize=10)


def heat_on(axes: Axes, picture: Image.Image | np.ndarray, heat: np.ndarray, title: str = "") -> None:
    """Draw a map of (rows, columns) values, such as one channel of the features, over its picture."""
    rows, columns = heat.shape
    axes.imshow(picture, extent=(0, columns, rows, 0))
    axes.imshow(heat, extent=(0, columns, rows, 0), cmap="inferno", alpha=0.6, interpolation="bilinear")
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)


def ranking_sheet(rows: Sequence[Mapping], columns: int = 8, show_pictures: bool = True) -> Figure:
    """A query per row, its neighbours behind it, framed by verdict: right, wrong, junk, or "" for unknown.

    rows: mappings with "query": (caption, path, box or None) and "neighbours": [(caption, path, verdict), …]
    columns: neighbours shown in a row
    show_pictures: False draws frames and captions only, for pictures that may not be published
    A picture that can't be read is drawn as a grey field that says so.
    """
    columns = max(1, min(columns, max((len(row["neighbours"]) for row in rows), default=1)))
    figure = Figure(figsize=(1.45 * (columns + 1), 1.7 * max(1, len(rows))), layout="constrained")
    grid = figure.subplots(max(1, len(rows)), columns + 1, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, line in zip(rows, grid, strict=False):
        caption, path, box = row["query"]
        _framed(line[0], caption, path, QUERY, show_pictures, box)
        for axes, (caption, path, verdict) in zip(line[1:], row["neighbours"], strict=False):
            _framed(axes, caption, path, VERDICTS[verdict], show_pictures)
    return figure


def contact_sheet(pictures: Sequence[tuple[str, str | os.PathLike | None]], columns: int = 8) -> Figure:
    """Many small pictures in lines, each under its caption: (caption, path), path None for an empty place."""
    lines = max(1, -(-len(pictures) // columns))
    figure = Figure(figsize=(1.2 * columns, 1.15 * lines), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    for axes, (caption, path) in zip_longest(figure.subplots(lines, columns, squeeze=False).flat, pictures,
                                             fillvalue=("", None)):
        axes.set_axis_off()
        axes.set_title(caption, fontsize=6, pad=1.5)
        if path is not None:
            axes.imshow(resize_longer(read_image(path), 240))
    return figure


def boxes_sheet(pictures: Sequence[tuple[str, str | os.PathLike | Image.Image, np.ndarray, Sequence[float]]],
                columns: int = 4, truths: Sequence[Box | None] | None = None) -> Figure:
    """Pictures with boxes on them, the likelier the more solid (Section 4.3).

    pictures: (caption, picture or its path, (n, 4) boxes in its pixels, n scores 0..1, likeliest first)
    truths: a box for each to compare with, dashed
    """
    lines = max(1, -(-len(pictures) // columns))
    figure = Figure(figsize=(2.4 * columns, 2.1 * lines), layout="constrained")
    for axes, entry, truth in zip_longest(figure.subplots(lines, columns, squeeze=False).flat, pictures, truths or ()):
        axes.set_axis_off()
        if entry is None:
            continue
        caption, picture, boxes, scores = entry
        axes.imshow(picture if isinstance(picture, Image.Image) else read_image(picture))
        for place, (box, score) in reversed(list(enumerate(zip(boxes, scores, strict=True)))):
            _draw(axes, box, edgecolor=f"C{place % 10}", linewidth=2, alpha=0.35 + 0.65 * float(score))
        if truth is not None:
            _draw(axes, truth, edgecolor="white", linewidth=1.5, linestyle="--")
        axes.set_title(caption, fontsize=8, parse_math=False)  # file names have $ in them
    return figure


def _draw(axes: Axes, box: Box, **style) -> None:
    x1, y1, x2, y2 = box
    axes.add_patch(Patch((x1, y1), x2 - x1, y2 - y1, fill=False, **style))


def _framed(axes: Axes, caption: str, path: str | os.PathLike, colour: str, show_picture: bool,
            box: Box | None = None) -> None:
    side, picture, note = 200, np.full((150, 200, 3), 235, np.uint8), ""
    if show_picture:
        try:
            whole = read_image(path)
            picture = resize_longer(whole, side)
            if box is not None:
                scale = picture.width / whole.width
                _draw(axes, [value * scale for value in box], edgecolor="yellow", linewidth=1.5)
        except ImageError:
            note = "can't be read"
    axes.imshow(picture)
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(edgecolor=colour, linewidth=4)
    if note:
        axes.text(0.5, 0.5, note, ha="center", va="center", fontsize=7, transform=axes.transAxes)
    axes.set_title(caption, fontsize=6.5, color=colour, pad=3)


def bars(labels: Sequence[str], values: Sequence[float], xlabel: str, title: str = "") -> Figure:
    """Horizontal bars, each with its value written behind it."""
    figure = Figure(figsize=(6.4, 0.45 * len(labels) + 1), layout="constrained")
    axes = figure.subplots()
    places = range(len(labels))[::-1]
    axes.barh(places, values, color=QUERY)
    for place, value in zip(places, values, strict=True):
        axes.text(value, place, f" {value:.1f}", va="center", fontsize=9)
    axes.set_yticks(places, labels)
    axes.set_xlim(0, max(values) * 1.12)
    axes.set_xlabel(xlabel)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def curve(x: Sequence[float], y: Sequence[float], xlabel: str, ylabel: str, title: str = "",
          level: tuple[float, str] | None = None) -> Figure:
    """Measured points joined by lines, values written at them; `level` is a (value, name) drawn across."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, y, "o-", color=QUERY)
    for place, value in zip(x, y, strict=True):
        axes.annotate(f"{value:.1f}", (place, value), textcoords="offset points", xytext=(0, 7), ha="center",
                      fontsize=9)
    if level is not None:
        axes.axhline(level[0], color=NEUTRAL, linestyle="--", linewidth=1)
        axes.annotate(level[1], (x[-1], level[0]), textcoords="offset points", xytext=(0, 4), ha="right",
                      fontsize=9, color=NEUTRAL)
    axes.set_xticks(x, [f"{place:g}" for place in x])
    axes.margins(y=0.2)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def training_curves(history: Sequence[Mapping[str, float | None]], title: str = "") -> Figure:
    """A run of training as far as it has come.

    history: rows of its log.csv, from learning.read_log or as `watch` of learning.train gets them
    Loss and its running mean, validation, and what the stage logs beside: of ranking, the share of triplets that break
    the margin and the mean squared distances to positives, negatives and among all of the last pool; of
    classification, the share of images that are named right.
    """
    rows = [row for row in history if row["loss"] is not None]
    update = [row["update"] for row in rows]
    figure = Figure(figsize=(9.5, 5.4), layout="constrained")
    (losses, shares), (scores, distances) = figure.subplots(2, 2, sharex=True)
    loss = np.array([row["loss"] for row in rows])
    width = max(1, len(loss) // 10)
    losses.plot(update, loss, color=NEUTRAL, linewidth=0.7)
    if len(loss):
        losses.plot(update[width - 1:], np.convolve(loss, np.ones(width) / width, "valid"), color=QUERY)
    losses.set_ylabel("loss")
    validated = [row for row in history if row["validation"] is not None]
    scores.plot([row["update"] for row in validated], [100 * row["validation"] for row in validated], "o-", color=QUERY)
    scores.set_ylabel("validation, %")

    def lines(axes: Axes, *columns: tuple[str, str, str]) -> None:
        """Those of the columns (name in the log, label, colour) that the stage has."""
        for name, label, colour in columns:
            if rows and name in rows[0]:
                # Two unit vectors with a cosine of c are 2 - 2 c apart, squared.
                values = [2 - 2 * row[name] if name == "cosine" else row[name] for row in rows]
                axes.plot(update, np.multiply(values, 1 if axes is distances else 100), color=colour, label=label)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
        else:
            axes.set_axis_off()

    lines(shares, ("stale_active", "active when drawn", JUNK), ("active", "active at the update", WRONG),
          ("accuracy", "named right", RIGHT))
    shares.set_ylabel("of triplets, %" if rows and "active" in rows[0] else "of images, %")
    lines(distances, ("positive_distance", "to positives", RIGHT), ("negative_distance", "to negatives", WRONG),
          ("cosine", "any two of the pool", NEUTRAL))
    distances.set_ylabel("mean squared distance")
    for axes in (scores, distances):
        axes.set_xlabel("update")
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    return figure
