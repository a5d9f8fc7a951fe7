"""Sphinx extension: recorded results in prose, and the scorecard of the front page.

    {result}`photos/01_rmac/oxford5k_subset/baseline`          the value, formatted by its unit: 61.7
    {result}`photos/01_rmac/oxford5k_subset/baseline | .3f`    the raw value in a Python format: 0.617

A result has a tooltip with its data, settings and commit. A key without a record is a warning, and the book is
built with warnings as errors. book/build.py copies the records to _results/PROFILE/, beside the pages.

    ```{scorecard} scorecard.yml
    ```
"""

from pathlib import Path

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from rmaclib.results import Result, load_result

log = logging.getLogger(__name__)

FORMATS = {  # unit -> text; fractions are printed as the field prints them
    "mAP": lambda value: f"{100 * value:.1f}",
    "points": lambda value: f"{100 * value:+.1f}",
    "share": lambda value: f"{100 * value:.1f} %",
}
STATUSES = ("reproduced", "partly", "not", "not attempted")
ROW_KEYS = {"part", "item", "section", "paper", "mark", "source", "ours", "status", "why", "notebook"}


def format_value(result: Result, spec: str = "") -> str:
    """The printed form of a record's value.

    Args:
        result: The record.
        spec: Python format for the raw value; "" formats it by its unit.

    Returns:
        The text.

    Raises:
        ValueError: The format does not fit the value.
    """
    if spec:
        return format(result.value, spec)
    if isinstance(result.value, str):
        return result.value
    if result.unit in FORMATS:
        return FORMATS[result.unit](result.value)
    number = f"{result.value:,}" if isinstance(result.value, int) else f"{result.value:.4g}"
    return f"{number} {result.unit}".strip()


def tooltip(result: Result) -> str:
    """Data, protocol, settings and origin of a result, a line each."""
    counts = ", ".join(f"{count} {name}" for name, count in result.dataset["counts"].items())
    settings = ", ".join(f"{name} {value}" for name, value in result.settings.items())
    lines = [
        f"{result.unit} on {result.dataset['name']}" + (f" ({counts})" if counts else ""),
        f"protocol: {result.protocol}",
        f"settings: {settings or 'none'}; seed {result.seed}",
        f"notebook {result.notebook}, profile {result.profile}",
        f"commit {result.commit}, {result.date}, {result.machine}, {result.seconds:.1f} s",
    ]
    return "\n".join(lines)


def _record_path(env, key: str) -> Path:
    return Path(env.srcdir) / "_results" / f"{key}.json"


class ResultRole(SphinxRole):
    def run(self):
        key, _, spec = (part.strip() for part in self.text.partition("|"))
        path = _record_path(self.env, key)
        self.env.note_dependency(str(path))  # the page is built again when the measurement changes
        try:
            result = load_result(path)
            text = format_value(result, spec)
        except FileNotFoundError:
            log.warning("no result %r is recorded", key, location=self.get_location())
        except ValueError as error:
            log.warning("result %r: %s", key, error, location=self.get_location())
        else:
            return [nodes.abbreviation(text, text, explanation=tooltip(result), classes=["result"])], []
        return [nodes.strong(text="[no result]")], []


def read_scorecard(path: Path) -> list[dict]:
    """Read the rows of the scorecard and check its rules.

    Args:
        path: The YAML file.

    Returns:
        The rows, each a dictionary.

    Raises:
        ValueError: An entry is unknown or missing, a value of the paper has a mark other than V or S, a result of ours
            has no record, or a row has no reason; the message names the row.
    """
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    for number, row in enumerate(rows, start=1):
        name = f"{path.name}, row {number} ({row.get('item', 'no item')})"
        if set(row) - ROW_KEYS or {"part", "item", "section", "status"} - set(row):
            raise ValueError(f"{name}: expected part, item, section, status and of {sorted(ROW_KEYS)}")
        if row["status"] not in STATUSES:
            raise ValueError(f"{name}: status is one of {', '.join(STATUSES)}, not {row['status']!r}")
        if "paper" in row and not (row.get("mark") in ("V", "S") and row.get("source")):
            raise ValueError(f"{name}: a value of the paper needs mark V or S and its source")
        if (row["status"] == "not attempted") != ("ours" not in row):
            raise ValueError(f"{name}: 'not attempted' has no results of ours, every other status names them")
        if row["status"] != "reproduced" and not row.get("why"):
            raise ValueError(f"{name}: say why it is {row['status']!r}")
    return rows


class Scorecard(SphinxDirective):
    """The table of the paper's claims, from a YAML file beside the page."""

    required_arguments = 1
    HEAD = ("What", "The paper", "Ours", "Status")

    def run(self):
        relative, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        try:
            rows = read_scorecard(Path(path))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise self.error(f"scorecard: {error}") from error
        text = ["````{list-table}", ":header-rows: 1", ":class: scorecard", ":widths: 34 18 18 30", ""]
        text += self._row(self.HEAD)
        part = None
        for row in rows:
            if row["part"] != part:
                part = row["part"]
                text += self._row((f"**{part}**", "", "", ""))
            text += self._row(self._cells(row))
        text += ["````"]
        box = nodes.container(classes=["scroll"])
        self.state.nested_parse(StringList(text, source=path), self.content_offset, box)
        return [box]

    @staticmethod
    def _row(cells):
        return ["* - " + cells[0], *("  - " + cell for cell in cells[1:])]

    def _cells(self, row):
        paper = f"{row['paper']} ({row['source']})" if "paper" in row else ""
        ours = []
        for key in row.get("ours", ()):
            record = _record_path(self.env, key)
            where = f" on {load_result(record).dataset['name']}" if record.is_file() else ""
            ours.append(f"{{result}}`{key}`{where}")
        status = f"**{row['status']}**" + (f": {row['why']}" if "why" in row else "")
        if "notebook" in row:
            ours.append(f"notebook [{row['notebook']}](/notebooks/{row['notebook']}.ipynb)")
        return f"{row['item']} ({row['section']})", paper, "; ".join(ours), status


def setup(app):
    app.add_role("result", ResultRole())
    app.add_directive("scorecard", Scorecard)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
