"""Sphinx extension: what the paper claims, and whether it holds here.

    ```{scorecard} scorecard.yml       every claim, table and figure; a choice of verdicts above it
    ```
    ```{scorecard} scorecard.yml       the main claims alone
    :main:
    ```
    {gain}`release/train/oxford5k_subset/paper/gain`      a difference, its interval, and both drawn

The verdict of a row follows from the records; nobody writes it down.
"""

from html import escape
from pathlib import Path
from typing import NamedTuple

import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from result_role import record_path, result_node, tooltip
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from rmaclib.results import load_result

log = logging.getLogger(__name__)

ROW_KEYS = {"part", "item", "section", "paper", "mark", "source", "ours", "gain", "least", "why", "page", "main"}
ILLUSTRATED, NOT_SEEN, NOT_TESTED = "illustrated", "not seen", "not tested"
DRAWN = (-10.0, 20.0)  # points, the ends of the drawing of an interval


class Gain(NamedTuple):
    """A difference and its interval, in points, and what is known of its measurement."""

    value: float
    low: float
    high: float
    about: str


def read_gain(env, key: str) -> Gain:
    """The difference under a key, whose interval stands under KEY_interval.

    Raises:
        FileNotFoundError: There is no such record.
        ValueError: A record that can't be read.
    """
    result, between = (load_result(record_path(env, name)) for name in (key, f"{key}_interval"))
    low, high = (float(end) for end in str(between.value).strip("[]").split(","))
    return Gain(100 * float(result.value), low, high, tooltip(result))


def read_scorecard(path: Path) -> list[dict]:
    """Read the rows of the scorecard and check its rules.

    Args:
        path: The YAML file.

    Returns:
        The rows, each a dictionary.

    Raises:
        ValueError: An entry is unknown or missing, a value of the paper has a mark other than V or S, or a row without
            a difference has no reason; the message names the row.
    """
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    for number, row in enumerate(rows, start=1):
        name = f"{path.name}, row {number} ({row.get('item', 'no item')})"
        if set(row) - ROW_KEYS or {"part", "item", "section"} - set(row):
            raise ValueError(f"{name}: expected part, item, section and of {sorted(ROW_KEYS)}")
        if "paper" in row and not (row.get("mark") in ("V", "S") and row.get("source")):
            raise ValueError(f"{name}: a value of the paper needs mark V or S and its source")
        if "least" in row and "gain" not in row:
            raise ValueError(f"{name}: least belongs to a gain")
        if not ("gain" in row or row.get("why")):
            raise ValueError(f"{name}: say why it is not tested")
        if ("gain" in row or "main" in row) and not row.get("page"):
            raise ValueError(f"{name}: name the page that tells more")
    return rows


def verdict(row: dict, gain: Gain | None) -> str:
    """The verdict of a row: of the difference that it names, if its interval lies above the least that counts."""
    if gain is None:
        return NOT_TESTED
    return ILLUSTRATED if gain.low > row.get("least", 0.0) else NOT_SEEN


def interval_svg(gain: Gain, width: int = 132, height: int = 18) -> str:
    """The interval as a line with its value as a dot; 0 is the upright line."""
    ends = DRAWN

    def place(value: float) -> float:
        return 3 + (width - 6) * (min(max(value, ends[0]), ends[1]) - ends[0]) / (ends[1] - ends[0])

    kind = "above" if gain.low > 0 else "below" if gain.high < 0 else "around"
    middle = height / 2
    return (f'<svg class="interval {kind}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'aria-hidden="true"><line class="zero" x1="{place(0):.1f}" x2="{place(0):.1f}" y1="0" y2="{height}"/>'
            f'<line x1="{place(gain.low):.1f}" x2="{place(gain.high):.1f}" y1="{middle}" y2="{middle}"/>'
            f'<circle cx="{place(gain.value):.1f}" cy="{middle}" r="4"/></svg>')


class GainRole(SphinxRole):
    """A difference with its interval, in points."""

    def run(self):
        key = self.text.strip()
        for name in (key, f"{key}_interval"):
            self.env.note_dependency(str(record_path(self.env, name)))
        try:
            gain = read_gain(self.env, key)
        except (FileNotFoundError, ValueError) as error:
            log.warning("gain %r: %s", key, error, location=self.get_location())
            return [nodes.strong(text="[no result]")], []
        text = f"{gain.value:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]".replace("-", "\N{MINUS SIGN}")
        shown = result_node(self.env, key, text, gain.about)
        return [shown, nodes.Text(" "), nodes.raw("", interval_svg(gain), format="html")], []


class VerdictRole(SphinxRole):
    """A verdict as a mark, coloured by the style sheet."""

    def run(self):
        kind = self.text.replace(" ", "-")
        return [nodes.inline(self.text, self.text, classes=["verdict", f"verdict-{kind}"])], []


class Scorecard(SphinxDirective):
    """The table of the paper's claims, from a YAML file beside the page."""

    required_arguments = 1
    option_spec = {"main": directives.flag}  # noqa: RUF012

    def run(self):
        relative, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        try:
            rows = read_scorecard(Path(path))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise self.error(f"scorecard: {error}") from error
        main = "main" in self.options
        text = ["````{list-table}", ":header-rows: 1", ":class: scorecard", ":widths: 30 14 32 24", "",
                *self._row(("The paper's claim" if main else "The paper", "Verdict", "Ours", "The paper's evidence"))]
        part = None
        for row in rows:
            if main and "main" not in row:
                continue
            if not main and row["part"] != part:
                part = row["part"]
                text += self._row((f"**{part}**", "", "", ""))
            text += self._row(self._cells(row, main))
        text += ["````"]
        box = nodes.container(classes=["scroll"] if main else ["scroll", "filtered"])
        self.state.nested_parse(StringList(text, source=path), self.content_offset, box)
        return [box] if main else [nodes.raw("", CHOICE, format="html"), box]

    @staticmethod
    def _row(cells):
        return ["* - " + cells[0], *("  - " + cell for cell in cells[1:])]

    def _cells(self, row, main):
        gain, shown, ours = None, "", []
        if "gain" in row:
            try:
                gain = read_gain(self.env, row["gain"])
            except (FileNotFoundError, ValueError) as error:
                raise self.error(f"scorecard: {row['item']}: {error}") from error
            least = f" (counts above {row['least']:+.1f})" if "least" in row else ""
            shown = f"{{gain}}`{row['gain']}`{least} "
        for key in () if main and gain else row.get("ours", ()):
            record = record_path(self.env, key)
            where = f" on {load_result(record).dataset['name']}" if record.is_file() else ""
            ours.append(f"{{result}}`{key}`{where}")
        if row.get("why") and not (main and gain):
            ours.append(row["why"])
        if "page" in row:
            ours.append(f"[more](/{row['page']}.md)")
        paper = f"{row['paper']} ({row['source']})" if "paper" in row else row.get("source", "")
        item = row["main"] if main else f"{row['item']} ({row['section']})"
        return item, f"{{verdict}}`{verdict(row, gain)}`", shown + "; ".join(ours), paper


CHOICE = '<p class="choice" hidden>Show: ' + "".join(
    f'<label><input type="checkbox" checked value="verdict-{escape(kind.replace(" ", "-"))}"> {kind}</label> '
    for kind in (ILLUSTRATED, NOT_SEEN, NOT_TESTED)) + """</p><script>
document.addEventListener("DOMContentLoaded", () => {
  const choice = document.querySelector("p.choice"), rows = document.querySelectorAll(".filtered tbody tr");
  choice.hidden = false;
  choice.addEventListener("change", () => {
    const wanted = [...choice.querySelectorAll("input:checked")].map((box) => box.value);
    for (const row of rows) {
      const verdict = row.querySelector(".verdict");
      row.hidden = verdict !== null && !wanted.some((kind) => verdict.classList.contains(kind));
    }
  });
});
</script>"""


def setup(app):
    app.add_role("gain", GainRole())
    app.add_role("verdict", VerdictRole())
    app.add_directive("scorecard", Scorecard)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
