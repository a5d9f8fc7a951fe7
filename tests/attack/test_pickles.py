"""Pickles made to run code, or to take all memory or time: refused, naming the file, and nothing happens."""

from pathlib import Path

from attack_pickles import payloads


def test_malicious_pickles(forks, count, tmp_path):
    total, problems, start = len(payloads(Path("folder"))), [], 0
    while start < total:
        outcome = forks.call("attack_pickles:read_all", str(tmp_path), start, limited=True, timeout=30)
        if outcome.code == 0:
            problems += outcome.value
            break
        number = int((tmp_path / "number").read_text())
        problems.append(f"{list(payloads(tmp_path))[number]}: the process ended by {outcome.code}")
        start = number + 1
    count("malicious pickles", tried=total)
    assert not problems, "\n".join(problems)


def test_plain_pickle_runs_their_code(tmp_path, forks):
    """So the test above would notice it: read by plain pickle, they leave their mark."""
    outcome = forks.call("attack_pickles:read_with_plain_pickle", str(tmp_path))
    assert outcome.code == 0 and len(outcome.value) > 10, outcome
