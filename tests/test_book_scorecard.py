"""The scorecard of the book: its rules, the verdict that follows from an interval, both tables, the front page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("myst_parser")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import scorecard  # noqa: E402

from rmaclib.results import record  # noqa: E402

ROW = {"part": "A", "item": "x", "section": "1", "why": "later"}
GAIN = "photos/07_whole_chain/oxford5k_subset/paper/trained_gain"


def put(folder, key, value, unit="points"):
    record(folder / "_results" / "photos", key.removeprefix("photos/"), value, unit=unit, protocol="oxford",
           dataset={"name": "oxford5k_subset", "counts": {"queries": 55}}, settings={}, seed=0, seconds=1.0,
           notebook="07_whole_chain", profile="photos")


def build(folder, page, rows):
    """Build one page with a scorecard, warnings as errors; returns (its HTML or "", messages)."""
    (folder / "conf.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
                                    "extensions = ['myst_parser', 'result_role', 'scorecard']\n")
    (folder / "index.md").write_text(f"# Title\n\n{page}\n")
    (folder / "card.yml").write_text(yaml.safe_dump(rows, sort_keys=False))
    done = subprocess.run([sys.executable, "-m", "sphinx", "-q", "-n", "-W", folder, folder / "_html"],
                          capture_output=True, text=True)
    html = folder / "_html/index.html"
    return html.read_text() if done.returncode == 0 else "", done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paper": "1"}, "needs mark V or S"),
        ({"paper": "1", "mark": "R", "source": "memory"}, "needs mark V or S"),
        ({"paper": "1", "mark": "V"}, "and its source"),
        ({"why": ""}, "say why it is not tested"),
        ({"gain": "a/b"}, "name the page"),
        ({"main": "Claim"}, "name the page"),
        ({"least": -2.0}, "least belongs to a gain"),
        ({"status": "reproduced"}, "expected part, item"),
    ],
)
def test_the_scorecard_checks_its_rules(tmp_path, change, message):
    path = tmp_path / "card.yml"
    path.write_text(yaml.safe_dump([ROW]))
    assert scorecard.read_scorecard(path) == [ROW]
    path.write_text(yaml.safe_dump([ROW, ROW | change]))
    with pytest.raises(ValueError, match=f"card.yml, row 2 .*{message}"):
        scorecard.read_scorecard(path)


@pytest.mark.parametrize(
    ("low", "high", "least", "expected"),
    [
        (0.1, 5.0, None, "illustrated"),
        (0.0, 5.0, None, "not seen"),
        (-1.0, 3.0, None, "not seen"),
        (-5.0, -0.1, None, "not seen"),
        (-1.9, 0.3, -2.0, "illustrated"),
        (-2.0, 0.3, -2.0, "not seen"),
    ],
)
def test_the_verdict_follows_from_the_interval(low, high, least, expected):
    row = ROW | ({"least": least} if least is not None else {})
    assert scorecard.verdict(row, scorecard.Gain((low + high) / 2, low, high, "")) == expected


def test_what_has_no_difference_is_not_tested():
    assert scorecard.verdict(ROW, None) == "not tested"


@pytest.mark.parametrize(
    ("gain", "kind", "x1", "x2", "dot"),
    [((5, 2, 8), "above", "53.4", "78.6", "66.0"), ((-2, -4, 1), "around", "28.2", "49.2", "36.6"),
     ((-5, -99, -1), "below", "3.0", "40.8", "24.0")],
)
def test_an_interval_is_drawn_where_it_lies(gain, kind, x1, x2, dot):
    # -10 points are at 3 and +20 at 129 of 132 pixels: 0 at 45, a point is 4.2. What lies outside ends at the border.
    svg = scorecard.interval_svg(scorecard.Gain(*gain, ""))
    places = re.findall(r'x1="([\d.]+)" x2="([\d.]+)"', svg)
    assert f'class="interval {kind}"' in svg and f'cx="{dot}"' in svg
    assert places == [("45.0", "45.0"), (x1, x2)]


def test_both_tables_reach_the_page(tmp_path):
    put(tmp_path, GAIN, 0.1368)
    put(tmp_path, f"{GAIN}_interval", "[+9.0, +18.8]", unit="")
    rows = [ROW | {"gain": GAIN, "page": "index", "main": "Training helps", "mark": "V", "source": "abstract"},
            ROW | {"item": "g", "paper": "9", "mark": "V", "source": "notes"}]
    html, messages = build(tmp_path, "```{scorecard} card.yml\n:main:\n```\n\n```{scorecard} card.yml\n```", rows)
    assert messages == ""
    main, full = html.split('<p class="choice"')
    assert "Training helps" in main and "notes" not in main and "9 (notes)" in full
    assert main.count("verdict-illustrated") == 1 and full.count("verdict verdict-not-tested") == 1
    for table in (main, full):
        assert "+13.7 [+9.0, +18.8]</a>" in table and '<svg class="interval above"' in table


def test_a_difference_without_its_interval_fails_the_build(tmp_path):
    put(tmp_path, GAIN, 0.1368)
    html, messages = build(tmp_path, f"{{gain}}`{GAIN}`", [])
    assert html == "" and "trained_gain" in messages and "index.md" in messages


def test_the_books_scorecard_keeps_the_rules_and_its_records_exist():
    rows = scorecard.read_scorecard(ROOT / "book" / "scorecard.yml")
    assert len(rows) > 30 and sum("main" in row for row in rows) == 8
    for row in rows:
        for key in (*row.get("ours", ()), *([row["gain"], f"{row['gain']}_interval"] if "gain" in row else ())):
            assert key.startswith("embedded/") or (ROOT / f"data/results/{key}.json").is_file(), key
        assert "page" not in row or (ROOT / f"book/{row['page']}.md").is_file()


def test_every_stage_of_the_pipeline_leads_to_a_page():
    pages = re.findall(r'href="([^"]+)\.html"', (ROOT / "book/pipeline.svg").read_text())
    assert len(pages) == 6
    toc = (ROOT / "_toc.yml").read_text()
    assert all(f"- file: {page}\n" in toc for page in pages)
