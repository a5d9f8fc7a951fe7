"""Damaged files of every format that is read.

Each is refused by one of our errors that names the file, or read right. There is never another error, a crash, a hang,
a gigabyte of memory, or a wrong content that is accepted.
"""

import json

import pytest
from attack_formats import FORMATS

SHARE = 7  # the small form tries one case in so many


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name, forks, material, whole, count, tmp_path):
    total = FORMATS[name].cases if whole else max(3, FORMATS[name].cases // SHARE // FORMATS[name].cost)
    counts, problems, start = {"refused": 0, "right": 0}, [], 0
    while start < total:
        outcome = forks.call("attack_batches:run", name, str(material), str(tmp_path), start, total, limited=True,
                             timeout=900)
        notes = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
        if outcome.code == 0:
            counts = {verdict: counts[verdict] + number for verdict, number in outcome.value.items()}
            break
        begun = [note[1] for note in notes if note[0] == "begun"]
        assert outcome.code != 1 and outcome.code != 70, outcome.stderr
        problems.append(f"case {begun[-1]}: the process ended by {outcome.code}")
        start = begun[-1] + 1
    problems += [f"case {case}: {problem}" for kind, case, *rest in notes if kind == "problem" for problem in rest]
    count(f"mutations of {name}", **counts, wrong=len(problems))
    assert not problems, f"{len(problems)} of {total}:\n" + "\n".join(problems[:25])
