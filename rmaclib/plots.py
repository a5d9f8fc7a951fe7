"""Figures: regions on images, heat maps of features, rankings with coloured frames, curves.

Every function returns a matplotlib Figure or draws on given Axes. None uses pyplot's global state, so they work in
notebooks, scripts and threads alike.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle as Patch
from PIL import Image

from rmaclib.boxes import Box
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import whole_file
from rmaclib.images import ImageError, read_image, resize_longer
from rmaclib.regions import as_rectangle

# Colours that readers with colour-blindness can tell apart (Wong 2011).
RELEVANT, IRRELEVANT, JUNK, QUERY, NEUTRAL = "#009e73", "#d55e00", "#999999", "#0072b2", "#666666"
VERDICTS: Mapping[str, str] = {"relevant": RELEVANT, "irrelevant": IRRELEVANT, "junk": JUNK, "": NEUTRAL}
_TILE = 200  # pixels: longer side of an image in a ranking


def save_figure(figure: Figure, path: str | os.PathLike, dpi: int = 130) -> None:
    """Write a figure to a file, complete or not at all.

    Args:
        figure: The figure.
        path: The file; its ending chooses the format.
        dpi: Pixels per inch.

    Raises:
        InputError: An ending that matplotlib doesn't write.
        OutputError: The file can't be written.
    """
    formats = figure.canvas.get_supported_filetypes()
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in formats:
        raise InputError(f"{os.fspath(path)}: expected a picture that ends with .{', .'.join(formats)}")
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi)


# --- images ----------------------------------------------------------------------------------------------------------


def regions_on(axes: Axes, picture: Image.Image | np.ndarray, map_size: tuple[int, int],
               regions: Sequence[Sequence[int]], title: str = "") -> None:
    """Draw regions of a feature map over its image (Section 4.1).

    Args:
        axes: Where to draw.
        picture: The image.
        map_size: (rows, columns) of the feature map.
        regions: Regions or Rectangles in cells, see ``regions.rigid_grid``.
        title: Above the image.
    """
    rows, columns = map_size
    axes.imshow(picture, extent=(0, columns, rows, 0), aspect="auto" if rows == columns == 1 else "equal")
    for number, region in enumerate(regions):
        x, y, width, height = as_rectangle(region)
        # Each is drawn a little smaller than the one before, so that squares with a common border stay apart.
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
    """Draw a map of values over its image.

    Args:
        axes: Where to draw.
        picture: The image.
        heat: (rows, columns), such as one channel of the features.
        title: Above the image.
    """
    rows, columns = heat.shape
    axes.imshow(picture, extent=(0, columns, rows, 0))
    axes.imshow(heat, extent=(0, columns, rows, 0), cmap="inferno", alpha=0.6, interpolation="bilinear")
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)


def ranking_sheet(rows: Sequence[Mapping], columns: int = 8, show_pictures: bool = True) -> Figure:
    """Draw one query per row and its neighbours behind it, with frames coloured by verdict.

    An image that can't be read is drawn as a grey field that says so.

    Args:
        rows: Mappings with "query": (caption, path, box or None) and "neighbours": [(caption, path, verdict), …]. A
            verdict is "relevant", "irrelevant", "junk", or "" for unknown.
        columns: Neighbours per row, at most.
        show_pictures: False draws only frames and captions, for images that may not be published.

    Returns:
        The figure.
    """
    columns = max(1, min(columns, max((len(row["neighbours"]) for row in rows), default=1)))
    figure = Figure(figsize=(1.45 * (columns + 1), 1.7 * max(1, len(rows))), layout="constrained")
    grid = figure.subplots(max(1, len(rows)), columns + 1, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, line in zip(rows, grid, strict=False):
        caption, path, box = row["query"]
        _framed(line[0], caption, path if show_pictures else None, QUERY, box)
        for axes, (caption, path, verdict) in zip(line[1:], row["neighbours"], strict=False):
            _framed(axes, caption, path if show_pictures else None, VERDICTS[verdict])
    return figure


def contact_sheet(pictures: Sequence[tuple[str, str | os.PathLike | None]], columns: int = 8) -> Figure:
    """Draw many small images in lines, each under its caption.

    Args:
        pictures: (caption, path); a path of None leaves the place empty.
        columns: Images per line.

    Returns:
        The figure.
    """
    lines = max(1, -(-len(pictures) // columns))
    figure = Figure(figsize=(1.2 * columns, 1.15 * lines),
                    layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0))
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (caption, path) in zip(grid, pictures, strict=False):
        axes.set_title(caption, fontsize=6, pad=1.5)
        if path is not None:
            axes.imshow(resize_longer(read_image(path), 240))
    return figure


def boxes_sheet(pictures: Sequence[tuple[str, str | os.PathLike | Image.Image, np.ndarray, Sequence[float]]],
                columns: int = 4, ground_truth: Sequence[Box | None] | None = None) -> Figure:
    """Draw boxes on images: the higher a box's score, the more opaque it is (Section 4.3).

    Args:
        pictures: (caption, image or its path, (n, 4) boxes in its pixels, n scores in 0..1, highest first).
        columns: Images per line.
        ground_truth: A box for each image, or None, drawn as a dashed line.

    Returns:
        The figure.
    """
    lines = max(1, -(-len(pictures) // columns))
    figure = Figure(figsize=(2.4 * columns, 2.1 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, entry, true_box in zip_longest(grid, pictures, ground_truth or ()):
        axes.set_axis_off()
        if entry is None:
            continue
        caption, picture, boxes, scores = entry
        axes.imshow(picture if isinstance(picture, Image.Image) else read_image(picture))
        for place, (box, score) in reversed(list(enumerate(zip(boxes, scores, strict=True)))):
            _draw(axes, box, edgecolor=f"C{place % 10}", linewidth=2, alpha=0.35 + 0.65 * float(score))
        if true_box is not None:
            _draw(axes, true_box, edgecolor="white", linewidth=1.5, linestyle="--")
        axes.set_title(caption, fontsize=8, parse_math=False)  # file names may contain $
    return figure


def _draw(axes: Axes, box: Sequence[float], **style: Any) -> None:
    x1, y1, x2, y2 = box
    axes.add_patch(Patch((x1, y1), x2 - x1, y2 - y1, fill=False, **style))


def _framed(axes: Axes, caption: str, path: str | os.PathLike | None, colour: str, box: Box | None = None) -> None:
    """An image in a coloured frame; a grey field without a path, and for a file that can't be read."""
    picture: Image.Image | np.ndarray = np.full((3 * _TILE // 4, _TILE, 3), 235, np.uint8)
    if path is not None:
        try:
            original = read_image(path)
            picture = resized = resize_longer(original, _TILE)
            if box is not None:
                scale = resized.width / original.width
                _draw(axes, [value * scale for value in box], edgecolor="yellow", linewidth=1.5)
        except ImageError:
            axes.text(0.5, 0.5, "can't be read", ha="center", va="center", fontsize=7, transform=axes.transAxes)
    axes.imshow(picture)
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(edgecolor=colour, linewidth=4)
    axes.set_title(caption, fontsize=6.5, color=colour, pad=3)


# --- numbers ---------------------------------------------------------------------------------------------------------


def bars(labels: Sequence[str], values: Sequence[float] | Mapping[str, Sequence[float]], xlabel: str,
         title: str = "") -> Figure:
    """Draw horizontal bars, each with its value behind it.

    Args:
        labels: One for each bar.
        values: Their lengths, none negative; with names, a bar of each name below a label.
        xlabel: What the values are, with their unit.
        title: Above the bars.

    Returns:
        The figure.
    """
    groups = values if isinstance(values, Mapping) else {"": values}
    thickness = 0.8 / len(groups)
    figure = Figure(figsize=(6.4, (0.17 + 0.28 * len(groups)) * len(labels) + 1), layout="constrained")
    axes = figure.subplots()
    middles = np.arange(len(labels))[::-1]
    for number, (name, lengths) in enumerate(groups.items()):
        places = middles + ((len(groups) - 1) / 2 - number) * thickness
        axes.barh(places, lengths, 0.92 * thickness, color=(QUERY, RELEVANT, IRRELEVANT)[number % 3], label=name)
        for place, value in zip(places, lengths, strict=True):
            axes.text(value, place, f" {value:.1f}", va="center", fontsize=9)
    axes.set_yticks(middles, labels)
    axes.set_xlim(0, max(max(lengths) for lengths in groups.values()) * 1.12)
    if len(groups) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(groups), frameon=False,
                      fontsize=9)
    axes.set_xlabel(xlabel)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def curve(x: Sequence[float], y: Sequence[float], xlabel: str, ylabel: str, title: str = "",
          level: tuple[float, str] | None = None) -> Figure:
    """Draw measured points joined by lines, with the values at the points.

    Args:
        x: Where each point was measured.
        y: Its value.
        xlabel: What x is, with its unit.
        ylabel: What y is, with its unit.
        title: Above the curve.
        level: (value, name) of a horizontal line to compare with.

    Returns:
        The figure.
    """
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
    """Draw the log of a training run (Section 4.2), also of one that is still running.

    Four plots: the loss and its running mean; the validation; the share of active triplets (ranking) or of images that
    are classified correctly (classification); and the mean squared distances to positives, to negatives and between
    all images of the last pool (ranking).

    Args:
        history: Rows of the run's log.csv, from ``learning.read_log``, or as ``learning.train_ranking`` passes them to
            ``watch``.
        title: Above the plots.

    Returns:
        The figure.
    """
    rows = [row for row in history if row["loss"] is not None]
    update, loss = _column(rows, "update"), _column(rows, "loss")
    figure = Figure(figsize=(9.5, 5.4), layout="constrained")
    (losses, shares), (scores, distances) = figure.subplots(2, 2, sharex=True)
    width = max(1, len(loss) // 10)
    losses.plot(update, loss, color=NEUTRAL, linewidth=0.7)
    if len(loss):
        losses.plot(update[width - 1:], np.convolve(loss, np.ones(width) / width, "valid"), color=QUERY)
    losses.set_ylabel("loss")
    validated = [row for row in history if row["validation"] is not None]
    scores.plot(_column(validated, "update"), 100 * _column(validated, "validation"), "o-", color=QUERY)
    scores.set_ylabel("validation, %")
    columns = rows[0].keys() if rows else ()
    for name, label, colour in (("stale_active", "active when drawn", JUNK),
                                ("active", "active at the update", IRRELEVANT),
                                ("accuracy", "classified correctly", RELEVANT)):
        if name in columns:
            shares.plot(update, 100 * _column(rows, name), color=colour, label=label)
    shares.set_ylabel("of triplets, %" if "active" in columns else "of images, %")
    for name, label, colour in (("positive_distance", "to positives", RELEVANT),
                                ("negative_distance", "to negatives", IRRELEVANT)):
        if name in columns:
            distances.plot(update, _column(rows, name), color=colour, label=label)
    if "cosine" in columns:
        # The squared distance of two ℓ2-normalised vectors with a cosine of c is 2 - 2 c.
        distances.plot(update, 2 - 2 * _column(rows, "cosine"), color=NEUTRAL, label="any two of the pool")
    distances.set_ylabel("mean squared distance")
    for axes in (shares, distances):
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
        else:
            axes.set_axis_off()
    for axes in (scores, distances):
        axes.set_xlabel("update")
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    return figure


def _column(rows: Sequence[Mapping[str, float | None]], name: str) -> np.ndarray:
    """(len(rows),) values of a column of the log, NaN where there is none."""
    return np.array([row[name] for row in rows], np.float64)
