"""Sphinx extension: figures that are drawn from records when the page is built.

    ```{plot} waterfall photos/07_whole_chain/oxford5k_subset photos/07_whole_chain/diorama
    :titles: Oxford subset | Diorama
    :alt: What the figure shows, as a finding

    The caption, with {result} if it quotes numbers.
    ```

The first argument is the kind of figure, the others are folders of records, PROFILE/NOTEBOOK/DATA, or single gains;
with PROFILE+PROFILE a record that both have is taken from the last. :settings: chooses records of a folder, in order,
and names them: NAME: label | NAME: label. The figure is an inline SVG whose colours are variables of the page's theme;
below it stand who measured it, and a link that saves its numbers as CSV. A folder without the records that the figure
needs is a warning, and the book is built with warnings as errors.
"""

import base64
import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from agreement import agreement, below, shared_settings
from docutils import nodes
from docutils.parsers.rst import directives
from matplotlib.figure import Figure
from scipy.stats import rankdata
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from rmaclib import plots
from rmaclib.chain_plots import Step, waterfall
from rmaclib.results import Result, load_results

log = logging.getLogger(__name__)

# What matplotlib writes -> what follows the theme of the page, see _static/custom.css.
THEME = {"#000000": "currentColor", plots.RELEVANT: "var(--plot-relevant)", plots.IRRELEVANT: "var(--plot-irrelevant)",
         plots.QUERY: "var(--plot-query)", plots.JUNK: "var(--plot-junk)", plots.NEUTRAL: "var(--plot-neutral)"}


NAMED = 6  # points of a scatter plot that get their names


class Drawn(NamedTuple):
    """A figure and the numbers in it: the first row names the columns."""

    figure: Figure
    rows: list[tuple]


def draw_waterfall(folders: Mapping[str, Mapping[str, Result]]) -> Drawn:
    """Draw the chains of notebook 07.

    Args:
        folders: Title, such as of a test -> FORM/KEY of a link in its folder -> record; each form has a panel.

    Returns:
        The figure.

    Raises:
        ValueError: A folder without links.
    """
    panels, rows = {}, [("test", "form", "link", "mAP, %", "change, points", "low", "high")]
    for title, records in folders.items():
        forms = sorted({key.partition("/")[0] for key in records}, reverse=True)  # paper, ours
        if not forms:
            raise ValueError("expected the links of a chain, found none")
        panels[title] = {form: _steps({key.partition("/")[2]: result for key, result in records.items()
                                       if key.startswith(f"{form}/")}) for form in forms}
        for form, steps in panels[title].items():
            for step in steps:
                change = "" if step.before is None else f"{step.value - steps[step.before].value:.2f}"
                rows.append((title, form, step.label, f"{step.value:.2f}", change, f"{step.low:.2f}",
                             f"{step.high:.2f}"))
    return Drawn(waterfall(panels), rows)


def _steps(records: Mapping[str, Result]) -> list[Step]:
    """The links of one chain, those beside it last."""
    links = {key: result.settings["link"] for key, result in records.items()
             if result.settings.get("link", {}).get("key") == key}
    if not links:
        raise ValueError("expected the links of a chain, found none")

    def depth_of(key: str) -> int:
        return depth_of(links[key]["before"]) + 1 if links[key]["before"] else 0

    def place_of(key: str) -> tuple:
        return links[key]["beside"], depth_of(key), links[key]["code_size"] > 0, -links[key]["code_size"]

    order = sorted(links, key=place_of)
    steps = []
    for key in order:
        change = (None,)
        if links[key]["before"]:
            gain = records[f"{key}_gain"].settings
            change = order.index(links[key]["before"]), 100 * gain["low"], 100 * gain["high"]
        steps.append(Step(links[key]["label"], 100 * records[key].value, *change)._replace(beside=links[key]["beside"]))
    return steps


def draw_maps(folders: Mapping[str, Mapping[str, Result]]) -> Drawn:
    """Draw accuracy against time of the feature maps of notebook 01.

    Args:
        folders: Title -> name of a record in its folder -> record; some folder has the time of each setting under
            NAME_time.

    Returns:
        The figure, with the best number of levels of each network, size and combination of maps in the first folder.

    Raises:
        ValueError: A folder without such records.
    """
    times = {key.removesuffix("_time"): result.value for records in folders.values() for key, result in records.items()
             if key.endswith("_time")}
    first = next(iter(folders.values()))
    best: dict[tuple, str] = {}
    for key in times.keys() & first.keys():
        backbone, size, _, combination = _parts(key)
        place = backbone, size, combination
        best[place] = max(key, best.get(place, key), key=lambda name: (first[name].value, name))
    if not best:
        raise ValueError("expected feature maps and their times, found none")
    combinations = list(dict.fromkeys(sorted(place[2] for place in best)))
    figure = Figure(figsize=(4.4 * len(folders), 4.2), layout="constrained")
    rows = [("panel", "backbone", "longer side", "levels", "maps", "time", "mAP, %")]
    colours = [plots.QUERY, plots.IRRELEVANT, plots.RELEVANT, plots.JUNK, plots.NEUTRAL, "#000000"]
    axes_of = figure.subplots(1, len(folders), squeeze=False)[0]
    for axes, (title, records) in zip(axes_of, folders.items(), strict=True):
        for (backbone, size, combination), key in sorted(best.items()):
            number = combinations.index(combination)
            x, y = times[key], 100 * records[key].value
            label = combination.replace("_", ", ").replace("-", " + ")
            axes.plot(x, y, "osD^v*"[number % 6], color=colours[number % 6], markersize=6, label=label)
            axes.annotate(f"{backbone[-1]}, {size}", (x, y), textcoords="offset points", xytext=(5, 2), fontsize=6.5)
            rows.append((title, backbone, size, _parts(key)[2], label, f"{x:.3f}", f"{y:.2f}"))
        axes.set_title(title, fontsize=10, loc="left", parse_math=False)
        axes.set_xlabel("time of an image, relative")
        axes.set_ylabel("mAP, %")
        axes.spines[["top", "right"]].set_visible(False)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return Drawn(figure, rows)


def draw_forest(folders: Mapping[str, Mapping[str, Result]]) -> Drawn:
    """Draw gains with their intervals.

    Args:
        folders: Title -> records, among them gain and gain_interval.

    Returns:
        The figure, a line for each folder; green or orange where the interval excludes 0.

    Raises:
        ValueError: A folder without gain, or an interval that can't be read.
    """
    figure = Figure(figsize=(5.2, 0.8 + 0.34 * len(folders)), layout="constrained")
    axes, rows = figure.subplots(), [("", "gain, points", "low", "high")]
    for place, (title, records) in enumerate(folders.items()):
        if "gain" not in records:
            raise ValueError(f"{title}: expected the record of a gain, found none")
        value = 100 * records["gain"].value
        low, high = (float(end) for end in str(records["gain_interval"].value).strip("[]").split(","))
        colour = plots.RELEVANT if low > 0 else plots.IRRELEVANT if high < 0 else plots.JUNK
        axes.plot([low, high], [place, place], "|-", color=colour, linewidth=2, markersize=8)
        axes.plot(value, place, "o", color=colour, markersize=7)
        axes.annotate(f"{value:+.1f}".replace("-", "\N{MINUS SIGN}"), (high, place), xytext=(7, 0),
                      textcoords="offset points", va="center", fontsize=9)
        rows.append((title, f"{value:.2f}", f"{low}", f"{high}"))
    axes.axvline(0, color="#000000", linewidth=0.8)
    axes.set_yticks(range(len(folders)), list(folders), fontsize=9, parse_math=False)
    axes.set_ylim(len(folders) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("gain, points of mAP")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return Drawn(figure, rows)


CODES = {"pq": "PQ", "opq": "OPQ", "pq_pca128": "PQ after PCA to 128", "pq-fast": "fast-scan PQ",
         "scalar": "one byte a dimension", "binary": "one bit a dimension"}  # start of a record's name -> kind of code


def draw_bytes(folders: Mapping[str, Mapping[str, Result]]) -> Drawn:
    """Draw accuracy against the bytes of an image, of the codes of notebook 06.

    Args:
        folders: Title -> records CODE_BYTES, and uncompressed.

    Returns:
        The figure, a panel for each folder, a line for each kind of code.

    Raises:
        ValueError: A folder without codes.
    """
    figure = Figure(figsize=(5.0 * len(folders), 3.4), layout="constrained")
    rows = [("panel", "code", "bytes", "mAP, %")]
    colours = [plots.QUERY, plots.RELEVANT, plots.JUNK, plots.NEUTRAL, plots.IRRELEVANT, "#000000"]
    for axes, (title, records) in zip(figure.subplots(1, len(folders), squeeze=False)[0], folders.items(), strict=True):
        drawn = 0
        for number, (start, label) in enumerate(CODES.items()):
            points = sorted((int(match[1]), 100 * result.value) for name, result in records.items()
                            if (match := re.fullmatch(rf"{start}_(\d+)", name)) and result.unit == "mAP")
            if points:
                drawn += 1
                axes.plot(*zip(*points, strict=True), f"{'osD^v*'[number]}-", color=colours[number], label=label,
                          markersize=5, linewidth=1.4)
                rows += [(title, label, size, f"{value:.2f}") for size, value in points]
        if not drawn:
            raise ValueError(f"{title}: expected records of codes, found none")
        if "uncompressed" in records:
            whole = 100 * records["uncompressed"].value
            axes.axhline(whole, color="#000000", linewidth=0.8, linestyle=":")
            axes.annotate("not compressed", (0, whole), xycoords=axes.get_yaxis_transform(), xytext=(3, 3),
                          textcoords="offset points", fontsize=8)
            rows.append((title, "not compressed", "", f"{whole:.2f}"))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
        axes.set_xlabel("bytes of an image")
        axes.set_ylabel("mAP, %")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        axes.spines[["top", "right"]].set_visible(False)
    return Drawn(figure, rows)


def draw_dots(folders: Mapping[str, Mapping[str, Result]]) -> Drawn:
    """Draw the mAP of settings, a line for each in the order of :settings:, a colour for each folder.

    Args:
        folders: Title -> name of a setting -> its record.

    Returns:
        The figure.

    Raises:
        ValueError: A folder without settings.
    """
    names = list(dict.fromkeys(name for records in folders.values() for name in records))
    if not names:
        raise ValueError("expected settings, found none")
    figure = Figure(figsize=(5.0, 0.9 + 0.27 * len(names)), layout="constrained")
    axes, rows = figure.subplots(), [("setting", "data", "mAP, %")]
    colours = [plots.QUERY, plots.RELEVANT, plots.IRRELEVANT]
    for number, (title, records) in enumerate(folders.items()):
        points = [(100 * records[name].value, names.index(name)) for name in names if name in records]
        axes.plot(*zip(*points, strict=True), "osD"[number % 3], color=colours[number % 3], label=title, markersize=6)
        for value, place in points:
            axes.annotate(f"{value:.1f}", (value, place), xytext=(8, 0), textcoords="offset points", va="center",
                          fontsize=8)
            rows.append((names[place], title, f"{value:.2f}"))
    axes.set_yticks(range(len(names)), names, fontsize=9, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.tick_params(axis="y", length=0)
    left = axes.get_xlim()[0]
    for place, name in enumerate(names):  # a thin line from the name to its last dot
        last = max(100 * records[name].value for records in folders.values() if name in records)
        axes.hlines(place, left, last, linewidth=0.4, color=plots.NEUTRAL, zorder=0)
    axes.set_xlim(left)
    axes.set_xlabel("mAP, %")
    axes.spines[["top", "right", "left"]].set_visible(False)
    if len(folders) > 1:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return Drawn(figure, rows)


def draw_agreement(folders: Mapping[str, Mapping[str, Result]]) -> Drawn:
    """Draw the settings that two data sets share, one data set against the other.

    Args:
        folders: Title -> records, in pairs: a notebook on the miniature, then on photographs.

    Returns:
        The figure, a panel for each pair under the title of its first; of many points only those are named whose places
        in the two orders differ most.

    Raises:
        ValueError: A pair without settings that both have.
    """
    pairs = list(zip(*[iter(folders.items())] * 2, strict=True))
    columns = min(3, len(pairs))
    lines = -(-len(pairs) // columns)
    figure = Figure(figsize=(3.3 * columns, 3.2 * lines), layout="constrained")
    rows = [("notebook", "setting", "miniature, mAP, %", "photographs, mAP, %")]
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(pairs):]:
        axes.set_axis_off()
    for axes, ((title, miniature), (_, photographs)) in zip(panels, pairs, strict=False):
        settings = shared_settings(miniature, photographs)
        if len(settings) < 2:
            raise ValueError(f"{title}: expected settings that both data sets have, found {len(settings)}")
        correlation = agreement(settings)
        places = {name: abs(a - b) for name, a, b in zip(
            settings, *(rankdata(column) for column in zip(*settings.values(), strict=True)), strict=True)}
        named = sorted(settings, key=lambda name: -places[name])[:NAMED]
        for name, (x, y) in settings.items():
            axes.plot(y, x, "o", color=plots.QUERY, markersize=4, alpha=0.7)
            rows.append((title, name, f"{x:.2f}", f"{y:.2f}"))
            if name in named:
                axes.annotate(name, (y, x), textcoords="offset points", xytext=(4, 2), fontsize=7)
        numbers = f"{correlation.mean:.2f} ({correlation.low:.2f} to {correlation.high:.2f})"
        axes.set_title(f"{title}: " + numbers.replace("-", "\N{MINUS SIGN}"), fontsize=9, loc="left")
        axes.margins(x=0.2)
        axes.set_xlabel("photographs, mAP, %", fontsize=8)
        axes.set_ylabel("miniature, mAP, %", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return Drawn(figure, rows)


def _parts(key: str) -> tuple[str, str, str, str]:
    """Backbone, size, levels and combination of a key such as efficientnet_lite0_512_l3_last."""
    match = re.fullmatch(r"(.+)_(\d+)_l(\d+)_(.+)", key)
    if not match:
        raise ValueError(f"expected BACKBONE_SIZE_lLEVELS_MAPS, got {key}")
    return match[1], match[2], match[3], match[4]


_Draw = Callable[[Mapping[str, Mapping[str, Result]]], Drawn]
KINDS: Mapping[str, _Draw] = {"waterfall": draw_waterfall, "maps": draw_maps, "forest": draw_forest,
                           "agreement": draw_agreement, "bytes": draw_bytes, "dots": draw_dots}


def inline_svg(figure: Figure, name: str, alt: str) -> str:
    """Write a figure as an SVG element that is a part of a page.

    Args:
        figure: The figure.
        name: Makes its identifiers differ from those of other figures.
        alt: What it shows, for readers who don't see it.

    Returns:
        The element: its text is text, its colours are variables of the page.
    """
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()[text.getvalue().index("<svg"):]
    box, width = re.search(r'viewBox="(0 0 ([\d.]+) [\d.]+)"', svg).groups()
    for pattern, by in ((r"^<svg[^>]*>", ""), (r"<metadata>.*?</metadata>", ""), (r"<style.*?</style>", ""),
                        (r"<!--.*?-->", ""), (r'<g id="[^"]*"', "<g"), (r"\s+", " "),
                        (r"font: (\S+ )?(\d[\d.]*px) [^;\"]*", r"font: \1\2 var(--plot-font)")):
        svg = re.sub(pattern, by, svg, flags=re.DOTALL)
    for colour, variable in THEME.items():
        svg = svg.replace(colour, variable)
    return (f'<svg viewBox="{box}" role="img" aria-label="{escape(alt)}" '
            f'style="width: {width}pt; min-width: {0.7 * float(width):.0f}pt">{svg}')


def data_link(rows: Sequence[tuple], name: str) -> str:
    """A link that saves rows as a CSV file; the file is in the link itself."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    packed = base64.b64encode(text.getvalue().encode()).decode()
    return f'<a href="data:text/csv;base64,{packed}" download="{name}.csv">download the data</a>'


class Plot(SphinxDirective):
    """A figure of records."""

    required_arguments = 2
    optional_arguments = 100
    has_content = True
    option_spec = {"titles": directives.unchanged_required, "alt": directives.unchanged_required,  # noqa: RUF012
                   "settings": directives.unchanged_required}

    def run(self):
        kind, *folders = self.arguments
        titles = [title.strip() for title in self.options.get("titles", "").split("|")]
        if kind not in KINDS or len(titles) != len(folders) or not self.options.get("alt"):
            raise self.error(f"plot: expected a kind of {', '.join(KINDS)}, :alt:, and in :titles: as many as folders, "
                             f"{len(folders)}")
        results = Path(self.env.srcdir) / "_results"
        records = {}
        for title, folder in zip(titles, folders, strict=True):
            profiles, _, start = folder.partition("/")
            records[title] = {}
            for profile in profiles.split("+"):
                of_profile = load_results(results / profile)
                chosen = below(of_profile, start)
                # A single record instead of a folder: a gain, with its interval.
                singles = {"gain": start, "gain_interval": f"{start}_interval"}
                chosen |= {name: of_profile[key] for name, key in singles.items() if key in of_profile}
                for result in chosen.values():
                    self.env.note_dependency(str(results / profile / f"{result.key}.json"))
                records[title] |= chosen
            if "settings" in self.options:
                labels = [entry.partition(":") for entry in self.options["settings"].split("|")]
                records[title] = {label.strip(): records[title][name.strip()] for name, _, label in labels
                                  if name.strip() in records[title]}
        try:
            drawn = KINDS[kind](records)
        except (ValueError, KeyError) as error:
            log.warning("plot %s: %s", " ".join(self.arguments), error, location=self.get_location())
            return [nodes.strong(text="[no figure]")]
        name = f"{kind}-{self.env.docname.replace('/', '-')}-{self.lineno}"
        svg = inline_svg(drawn.figure, name, self.options["alt"])
        used = [result for found in records.values() for result in found.values()]
        notebooks, profiles, commits = (", ".join(dict.fromkeys(getattr(result, name) for result in used))
                                        for name in ("notebook", "profile", "commit"))
        figure = nodes.figure(classes=["plot"])
        figure += nodes.raw("", f'<div class="scroll" tabindex="0">{svg}</div>', format="html")
        caption = nodes.caption()
        if self.content:
            box = nodes.Element()
            self.state.nested_parse(self.content, self.content_offset, box)
            for child in box.children:
                caption += child.children if isinstance(child, nodes.paragraph) else [child]
        caption += nodes.raw("", f" <span class='origin'>Measured by {escape(notebooks)}, profile {escape(profiles)}, "
                             f"commit {escape(commits)}; {data_link(drawn.rows, name)}.</span>", format="html")
        figure += caption
        return [figure]


def setup(app):
    app.add_directive("plot", Plot)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
