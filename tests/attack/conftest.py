import json
from collections import Counter
from pathlib import Path

import pytest
from attack_forks import Forks
from attack_runs import WHOLE


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
    """count(what, tried=1, …): how much was tried, and how it ended, for the summary."""
    def add(what: str, **numbers: int) -> None:
        record_property("attack", json.dumps([what, numbers or {"tried": 1}]))
    return add


def pytest_terminal_summary(terminalreporter):
    totals: dict[str, Counter] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, value in report.user_properties:
                    if name == "attack":
                        what, numbers = json.loads(value)
                        totals.setdefault(what, Counter()).update(numbers)
    if not totals:
        return
    terminalreporter.section(f"attack ({'whole' if WHOLE else 'small form; whole: make attack'})")
    mutations = sum((counts for what, counts in totals.items() if what.startswith("mutations")), Counter())
    for what, counts in [*sorted(totals.items()), *([("mutations in all", mutations)] if mutations else [])]:
        terminalreporter.line(f"{what}: " + ", ".join(f"{number:,} {how}" for how, number in counts.items()))
