"""The README's table of results is typed by hand: hold it to the records."""

import re
from pathlib import Path

from rmaclib.results import load_results

ROOT = Path(__file__).parents[1]
ROWS = {"R-MAC, L = 3": "baseline", "MAC": "mac", "average pooling": "average", "R-MAC, whitened": "whitened_512"}


def test_readme_numbers_are_the_recorded_ones():
    records = load_results(ROOT / "data/results/photos")
    table = re.findall(r"^\| (.+?) \| (\d+) \| ([\d.]+) \|$", (ROOT / "README.md").read_text(), re.M)
    assert {name for name, _, _ in table} == set(ROWS)
    for name, _, value in table:
        recorded = records[f"01_rmac/oxford5k_subset/{ROWS[name]}"].value
        assert value == f"{100 * recorded:.1f}", name
