"""Sphinx extension: recorded results in prose.

    {result}`photos/01_rmac/oxford5k_subset/baseline`          the value, formatted by its unit: 61.7
    {result}`photos/01_rmac/oxford5k_subset/baseline | .3f`    the raw value in a Python format: 0.617

A result has a tooltip with its data, settings and commit, and leads to its record: a page for each profile and
notebook has a table of all, records/PROFILE/NOTEBOOK.html#REST-OF-THE-KEY. A key without a record is a warning, and the
book is built with warnings as errors. book/build.py copies the records to _results/PROFILE/, beside the pages.
"""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import quote

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from rmaclib.results import Result, load_result, load_results

log = logging.getLogger(__name__)

FORMATS = {  # unit -> text; fractions are printed as the field prints them
    "mAP": lambda value: f"{100 * value:.1f}",
    "points": lambda value: f"{100 * value:+.1f}",
    "share": lambda value: f"{100 * value:.1f} %",
}


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


def record_path(env, key: str) -> Path:
    """The file of a record, PROFILE/KEY, beside the pages."""
    return Path(env.srcdir) / "_results" / f"{key}.json"


def result_node(env, key: str, text: str, about: str) -> nodes.reference:
    """A number that leads to its record and has a tooltip."""
    profile, notebook, rest = key.split("/", 2)
    address = f"{'../' * env.docname.count('/')}records/{profile}/{notebook}.html#{quote(rest)}"
    return nodes.reference(text, text, refuri=address, reftitle=about, internal=True, classes=["result"])


class ResultRole(SphinxRole):
    def run(self):
        key, _, spec = (part.strip() for part in self.text.partition("|"))
        path = record_path(self.env, key)
        self.env.note_dependency(str(path))  # the page is built again when the measurement changes
        try:
            result = load_result(path)
            text = format_value(result, spec)
        except FileNotFoundError:
            log.warning("no result %r is recorded", key, location=self.get_location())
        except ValueError as error:
            log.warning("result %r: %s", key, error, location=self.get_location())
        else:
            return [result_node(self.env, key, text, tooltip(result))], []
        return [nodes.strong(text="[no result]")], []


def record_pages(app) -> Iterator[tuple[str, dict, str]]:
    """A page with all records of a profile and notebook: its name, context and template."""
    for folder in sorted((Path(app.srcdir) / "_results").glob("*/*/")):
        profile, notebook = folder.parts[-2:]
        found = {key: result for key, result in load_results(folder.parent).items() if key.startswith(f"{notebook}/")}
        title = f"Records: {notebook}, profile {profile}"
        head = "".join(f"<th>{name}</th>" for name in ("key", "value", "how it was measured"))
        rows = "".join(_record_row(key.partition("/")[2], result) for key, result in found.items())
        table = f'<table class="table records"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        body = f'<section><h1>{escape(title)}</h1><div class="scroll" tabindex="0">{table}</div></section>'
        yield f"records/{profile}/{notebook}", {"title": title, "body": body, "parents": [], "meta": {}}, "page.html"


def _record_row(rest: str, result: Result) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in result.dataset["counts"].items())
    settings = json.dumps(result.settings, indent=1, ensure_ascii=False)
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    measured = f"{result.date}, commit {result.commit}, seed {result.seed}, {result.seconds:.0f} s, {result.machine}"
    told = (f"{escape(str(result.dataset['name']))} ({escape(counts)}), {escape(result.protocol)}; {escape(measured)}"
            f"<details><summary>settings</summary><pre>{escape(settings)}\n{escape(versions)}</pre></details>")
    value = f'<td title="{escape(str(result.value))}">{escape(format_value(result))}</td>'
    return f'<tr id="{escape(rest)}"><td><code>{escape(rest)}</code></td>{value}<td>{told}</td></tr>'


def setup(app):
    app.add_role("result", ResultRole())
    app.connect("html-collect-pages", record_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
