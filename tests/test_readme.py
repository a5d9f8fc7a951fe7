"""The README is written by hand: its results are compared with the records, its commands with the command line."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer

from rmaclib.cli import _COMMANDS
from rmaclib.results import load_result

ROOT = Path(__file__).parents[1]
OFF_THE_SHELF = "photos/01_rmac/oxford5k_subset"
ROWS = {"R-MAC, L = 3": f"{OFF_THE_SHELF}/baseline", "MAC": f"{OFF_THE_SHELF}/mac",
        "average pooling": f"{OFF_THE_SHELF}/average", "R-MAC, whitened": f"{OFF_THE_SHELF}/whitened_512",
        "two feature maps, whitened": "release/train/oxford5k_subset/ours/untrained",
        "`landmarks_lite0`: the same, trained": "release/train/oxford5k_subset/ours/trained_0"}


def test_readme_numbers_are_the_recorded_ones():
    table = re.findall(r"^\| (.+?) \| (\d+) \| ([\d.]+) \|$", (ROOT / "README.md").read_text(), re.M)
    assert {name for name, _, _ in table} == set(ROWS)
    for name, _, value in table:
        recorded = load_result(ROOT / "data/results" / f"{ROWS[name]}.json").value
        assert value == f"{100 * recorded:.1f}", name


COMMANDS = [line.split("#")[0] for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("rmac ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_readme_commands_are_understood(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, name, *arguments = shlex.split(line)
    assert name in _COMMANDS
    command = typer.main.get_group(import_module(f"rmaclib.commands.{name}").app).commands[name]
    command.make_context(name, arguments)  # reads the options and runs nothing
