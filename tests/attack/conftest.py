import json
import os
from collections import Counter
from pathlib import Path

import pytest
from attack_forks import Forks

# make attack sets RMAC_ATTACK=whole; the small form belongs to the suite.
WHOLE = os.environ.get("RMAC_ATTACK") == "whole"


@pytest.fixture(scope="session")
def whole() -> bool:
    """Whether everything is tried, or a sample."""
    return WHOLE


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    server = Forks(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def material(forks, tmp_path_factory) -> Path:
    """Folder of attack_material.make."""
    root = tmp_path_factory.mktemp("material")
    assert forks.call("attack_material:make", str(root)).code == 0
    return root


@pytest.fixture
def count(record_property):
    """count(what, number): how much was tried, for the summary."""
    def add(what: str, number: int = 1) -> None:
        record_property("attack", json.dumps([what, number]))
    return add


def pytest_terminal_summary(terminalreporter):
    totals = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, value in report.user_properties:
                    if name == "attack":
                        what, number = json.loads(value)
                        totals[what] += number
    if totals:
        terminalreporter.section(f"attack ({'whole' if WHOLE else 'small form, whole with make attack'})")
        for what in sorted(totals):
            terminalreporter.line(f"{what}: {totals[what]:,}")
