"""Figures of a chain of steps: what each step adds to the mean, and how each query moves."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from rmaclib.foundation.errors import InputError
from rmaclib.plots import IRRELEVANT, JUNK, NEUTRAL, QUERY, RELEVANT


class Step(NamedTuple):
    """A step of a waterfall.

    Attributes:
        label: Its name.
        value: mAP behind the step, in %.
        before: Place in the list of the step that it is compared with, earlier than its own; None for the first step.
        low: Lower end of the interval of the change, in points.
        high: Upper end.
        beside: Whether the chain goes on without it. The chain's result is the last step that is not beside it.
    """

    label: str
    value: float
    before: int | None = None
    low: float = 0.0
    high: float = 0.0
    beside: bool = False


def waterfall(panels: Mapping[str, Mapping[str, Sequence[Step]]]) -> Figure:
    """Draw what each step of a chain adds, a panel for each test and form of the chain.

    A bar reaches from the mAP before a step to the mAP behind it; the whisker is the interval of the change. Bars are
    green or orange where the interval excludes 0, and grey where it doesn't. The large number is the chain's result.

    Args:
        panels: Test → form → steps, the chain first, then those beside it. Tests are rows, forms are columns.

    Returns:
        The figure.

    Raises:
        InputError: No panels, or a step that is compared with itself or a later one.
    """
    forms = list(dict.fromkeys(form for of_test in panels.values() for form in of_test))
    if not forms:
        raise InputError("panels: expected at least one, got none")
    heights = [max(map(len, of_test.values())) + 1.8 for of_test in panels.values()]
    figure = Figure(figsize=(1.9 + 3.9 * len(forms), 0.27 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), len(forms), squeeze=False, height_ratios=heights)
    for (test, of_test), line in zip(panels.items(), grid, strict=True):
        reached = [value for steps in of_test.values() for value in _extent(steps)]
        for form, axes in zip(forms, line, strict=True):
            if form not in of_test:
                axes.set_axis_off()
                continue
            _draw_steps(axes, of_test[form])
            space = max(10, max(reached) - min(reached))
            axes.set_xlim(limits := (min(reached) - 0.05 * space, max(reached) + 0.33 * space))
            axes.set_xticks([tick for tick in range(0, 101, 10 if space > 20 else 5) if limits[0] <= tick <= limits[1]])
            axes.set_title(f"{test}, {form}" if form else test, fontsize=10, loc="left", parse_math=False)
    for axes in grid[-1]:
        axes.set_xlabel("mAP, %")
    figure.legend([Patch(color=colour) for colour in (RELEVANT, IRRELEVANT, JUNK)],
                  ["gain", "loss", "the interval contains 0"], loc="outside lower center", ncols=3, frameon=False,
                  fontsize=8.5, title="paler: beside the chain", title_fontsize=8.5)
    return figure


def _extent(steps: Sequence[Step]) -> list[float]:
    """Everything in mAP that the bars and whiskers of a panel reach."""
    if any(step.before is not None and step.before >= place for place, step in enumerate(steps)):
        raise InputError("steps: expected each compared with an earlier one")
    ends = [steps[step.before].value + change for step in steps if step.before is not None
            for change in (step.low, step.high)]
    return [*(step.value for step in steps), *ends]


def _draw_steps(axes: Axes, steps: Sequence[Step]) -> None:
    """Draw the steps of one panel from top to bottom, those beside the chain behind a gap."""
    result = max(place for place, step in enumerate(steps) if not step.beside)
    rows = [place + 0.6 * step.beside for place, step in enumerate(steps)]
    for row, step in zip(rows, steps, strict=True):
        end = step.value
        if step.before is None:
            axes.plot(step.value, row, "o", color=QUERY, markersize=7)
            axes.annotate(f"{step.value:.1f}", (end, row), xytext=(7, 0), textcoords="offset points", va="center",
                          fontsize=9, color=QUERY)
            continue
        start, change = steps[step.before].value, step.value - steps[step.before].value
        colour = RELEVANT if step.low > 0 else IRRELEVANT if step.high < 0 else JUNK
        axes.plot([start, start], [rows[step.before], row], color=NEUTRAL, linewidth=0.7, zorder=0,
                  linestyle=":" if step.beside else "-")
        axes.barh(row, change, left=start, height=0.62, color=colour, alpha=0.55 if step.beside else 1)
        axes.plot([start + step.low, start + step.high], [row, row], "|-", color="black", linewidth=0.9, markersize=5)
        end = max(end, start, start + step.high)
        text = f"{change:+.1f}" + (f"  ({step.value:.1f})" if step.beside else "")
        axes.annotate(text.replace("-", "\N{MINUS SIGN}"), (end, row), xytext=(5, 0), textcoords="offset points",
                      va="center", fontsize=9)
        if row == rows[result]:
            axes.annotate(f"{step.value:.1f}", (end, row), xytext=(36, 0), textcoords="offset points", va="center",
                          fontsize=17, fontweight="bold", color=QUERY)
    axes.set_yticks(rows, [step.label for step in steps], fontsize=8.5)
    axes.set_ylim(max(rows) + 0.6, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def query_arrows(panels: Mapping[str, tuple[Sequence[str], np.ndarray, np.ndarray]]) -> Figure:
    """Draw the average precision of each query before and after: an arrow up or down.

    Queries of a landmark stand together, sorted by their value before; landmarks are sorted by their mean gain.

    Args:
        panels: Title → (landmark of each of Q queries, (Q,) before, (Q,) after); values in 0..1.

    Returns:
        The figure, a row for each panel.

    Raises:
        InputError: No panels, or one with different numbers of landmarks and values.
    """
    if not panels:
        raise InputError("panels: expected at least one, got none")
    figure = Figure(figsize=(9.5, 2.9 * len(panels)), layout="constrained")
    for (title, (landmarks, before, after)), (axes,) in zip(
            panels.items(), figure.subplots(len(panels), 1, squeeze=False), strict=True):
        if not len(landmarks) == len(before) == len(after):
            raise InputError(f"{title}: expected a landmark and two values of each query, got {len(landmarks)}, "
                             f"{len(before)} and {len(after)}")
        _draw_arrows(axes, np.asarray(landmarks), 100 * np.asarray(before), 100 * np.asarray(after))
        up, down = int((after > before).sum()), int((after < before).sum())
        axes.set_title(f"{title}: {up} up, {down} down, {len(before) - up - down} the same", fontsize=10, loc="left",
                       parse_math=False)
    return figure


def _draw_arrows(axes: Axes, landmarks: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
    gain = {name: (after - before)[landmarks == name].mean() for name in np.unique(landmarks)}
    order = sorted(range(len(landmarks)), key=lambda query: (-gain[landmarks[query]], landmarks[query], before[query]))
    place, ticks = 0.0, {}
    for name, group in groupby(order, key=lambda query: str(landmarks[query])):
        first = place
        for query in group:
            change = after[query] - before[query]
            colour, head = (RELEVANT, "^") if change > 0 else (IRRELEVANT, "v") if change < 0 else (JUNK, "o")
            axes.plot([place, place], [before[query], after[query]], color=colour, linewidth=1.8)
            axes.plot(place, after[query], head, color=colour, markersize=5)
            place += 1
        ticks[name] = (first + place - 1) / 2
        place += 1
        axes.axvline(place - 1, color=NEUTRAL, linewidth=0.3)
    labels = [f"{name.replace('_', ' ')} " + f"{round(gain[name]):+d}".replace("-", "\N{MINUS SIGN}") for name in ticks]
    axes.set_xticks(list(ticks.values()), labels, fontsize=8, rotation=20, ha="right", rotation_mode="anchor",
                    parse_math=False)
    axes.set_xlim(-1, place - 1)
    axes.set_ylim(-4, 104)
    axes.set_ylabel("average precision, %")
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
