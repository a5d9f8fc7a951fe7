"""Every benchmark can be started: its imports work, and it shows its help."""

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.py") if path.name != Path(__file__).name))
def test_a_benchmark_shows_its_help(name, monkeypatch, capsys):
    for variable in THREADS:  # a benchmark may set them; they are restored after the test
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert capsys.readouterr().out.startswith(f"usage: {name}")
