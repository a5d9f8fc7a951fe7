"""The Sphinx extensions of the book: results in prose, the reference page."""

import os
import pkgutil
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

pytest.importorskip("myst_parser")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import local_book  # noqa: E402
import result_role  # noqa: E402

import rmaclib  # noqa: E402
from rmaclib.presets import PRESETS  # noqa: E402
from rmaclib.results import record  # noqa: E402

KEY = "photos/01_rmac/oxford5k_subset/baseline"


def put_record(folder, value=0.6171, unit="mAP"):
    return record(
        folder / "_results" / "photos", KEY.removeprefix("photos/"), value, unit=unit, protocol="oxford",
        dataset={"name": "oxford5k_subset", "counts": {"images": 1053}}, settings={"size": 512}, seed=0,
        seconds=61.0, notebook="01_rmac", profile="photos",
    )  # fmt: skip


def build(folder, page, more=(), **files):
    """Build one page, warnings as errors; returns (exit status, HTML or "", messages)."""
    extensions = ["myst_parser", "result_role", *more]
    (folder / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\nextensions = {extensions}\n"
    )
    (folder / "index.md").write_text("# Title\n\n" + page)
    for name, text in files.items():
        (folder / f"{name}.yml").write_text(text)
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", folder, folder / "_html"]
    done = subprocess.run(command, capture_output=True, text=True)
    html = folder / "_html" / "index.html"
    return done.returncode, html.read_text() if html.is_file() else "", done.stderr


def test_results_reach_the_page(tmp_path):
    result = put_record(tmp_path)
    status, html, messages = build(tmp_path, f"It is {{result}}`{KEY}`, raw {{result}}`{KEY} | .3f`.")
    assert (status, messages) == (0, "")
    assert html.count(">61.7</a>") == 1
    assert ">0.617</a>" in html
    for part in ("1053 images", "protocol: oxford", "size 512; seed 0", "notebook 01_rmac", result.commit):
        assert part in html


def test_a_result_leads_to_its_record(tmp_path):
    result = put_record(tmp_path)
    _, html, _ = build(tmp_path, f"It is {{result}}`{KEY}`.")
    page, _, row = re.search(r'href="([^"]*)"[^>]*title="mAP on', html)[1].partition("#")
    record_page = (tmp_path / "_html" / page).read_text()
    assert page == "records/photos/01_rmac.html"
    assert f'id="{row}"' in record_page and row == "oxford5k_subset/baseline"
    for part in ("61.7", 'title="0.6171"', "oxford5k_subset (1053 images), oxford", result.commit, "size&quot;: 512"):
        assert part in record_page


def test_a_missing_key_fails_the_build_and_names_page_and_key(tmp_path):
    status, _, messages = build(tmp_path, f"It is {{result}}`{KEY}`.")
    assert status != 0
    assert "index.md" in messages
    assert f"no result '{KEY}' is recorded" in messages


def test_a_bad_format_fails_the_build(tmp_path):
    put_record(tmp_path)
    status, _, messages = build(tmp_path, f"It is {{result}}`{KEY} | zz`.")
    assert status != 0
    assert KEY in messages


@pytest.mark.parametrize(
    ("value", "unit", "spec", "text"),
    [
        (0.6171, "mAP", "", "61.7"),
        (-0.029, "points", "", "-2.9"),
        (0.02, "points", "", "+2.0"),
        (0.381, "share", "", "38.1 %"),
        (1053, "images", "", "1,053 images"),
        (17.2468, "images/s", "", "17.25 images/s"),
        (0.6171, "mAP", ".1%", "61.7%"),
        ("grid", "", "", "grid"),
    ],
)
def test_values_are_formatted_by_their_unit(tmp_path, value, unit, spec, text):
    assert result_role.format_value(put_record(tmp_path, value, unit), spec) == text


EXPLORER = "```{explorer}\n:picture: _static/picture.jpg\n:alt: Some <pictures>\n```\n"


def test_the_explorer_needs_its_data(tmp_path):
    status, _, messages = build(tmp_path, EXPLORER, ["explorer_directive"])
    assert status != 0 and "_explorer/data.js" in messages


def test_the_explorer_has_a_picture_and_its_scripts(tmp_path):
    (tmp_path / "_explorer").mkdir()
    (tmp_path / "_explorer/data.js").write_text("window.explorerData = {};")
    (tmp_path / "explorer").mkdir()
    (tmp_path / "explorer/page.js").write_text("// a script")
    (tmp_path / "explorer/make.py").write_text("# no script")
    status, html, messages = build(tmp_path, EXPLORER, ["explorer_directive"])
    assert (status, messages) == (0, "")
    assert '<div class="explorer" data-folder="_static/explorer"><img src="_static/picture.jpg"' in html
    assert 'alt="Some &lt;pictures&gt;"' in html and 'src="_static/explorer/page.js"' in html
    assert sorted(file.name for file in (tmp_path / "_html/_static/explorer").iterdir()) == ["data.js", "page.js"]


def test_every_module_is_on_the_reference_page():
    blocks = re.findall(r"^```{modules}\n(.*?)^```", (ROOT / "book" / "api.md").read_text(), re.M | re.S)
    listed = [local_book.expand_modules(block.splitlines()) for block in blocks]
    known = {"rmaclib", *(info.name for info in pkgutil.walk_packages(rmaclib.__path__, "rmaclib."))}
    assert set().union(*listed) == known - {"rmaclib.__main__"}
    assert sum(map(len, listed)) == len(set().union(*listed))  # none twice


MODULE = '''
"""A module."""

from typing import NamedTuple

class Square(NamedTuple):
    """A square.

    Attributes:
        side: Cells.
    """

    side: int


class GridError(ValueError):
    """A grid that is impossible."""


def grid(side: int) -> Square:
    """Place a square.

    Args:
        side: Cells: at least 1.

    Returns:
        (R, 4): one row for each region.

    Raises:
        GridError: The side is 0.
    """
'''


def test_docstrings_become_entries_that_link_to_each_other(tmp_path, monkeypatch):
    (tmp_path / "rmaclib_sample.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    page = "```{modules}\nrmaclib_sample\n```\n"
    status, html, messages = build(tmp_path, page, ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "local_book"])
    assert (status, messages) == (0, "")
    text = re.sub(r"<[^>]+>", "", html)
    assert "(R, 4): one row for each region." in text
    assert "Cells: at least 1." in text
    assert "Alias for field number" not in text
    # From the signature, and from "Raises:".
    assert html.count('href="#rmaclib_sample.Square"') > 1
    assert re.search(r'<a class="reference internal" href="#rmaclib_sample.GridError"[^>]*><strong>GridError', html)


def test_an_unknown_module_fails_the_build(tmp_path):
    status, _, messages = build(tmp_path, "```{modules}\nrmaclib.absent\n```\n", ["sphinx.ext.autodoc", "local_book"])
    assert status != 0
    assert "No module named 'rmaclib.absent'" in messages


def test_the_table_of_presets_marks_every_value_of_the_paper(tmp_path):
    status, html, messages = build(tmp_path, "```{presets}\n```\n", ["local_book"])
    assert (status, messages) == (0, "")
    rows = [[re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td>(.*?)</td>", row, re.S)]
            for row in re.findall(r"<tr.*?</tr>", html, re.S)]
    entries = {(entry.section, entry.name): entry for entry in PRESETS["paper"].table()}
    table, section = {}, None
    for row in filter(None, rows):
        section = section if row[1:] != [""] * 5 else row[0]
        table[section, row[0]] = row[1:]
    assert set(entries) <= set(table)
    for key, entry in entries.items():
        value, mark, *_, source = (unescape(cell).replace("’", "'") for cell in table[key])
        assert (value, mark, source) == (str(entry.value), entry.mark, entry.source)
        assert entry.mark in ("V", "S", "R")
