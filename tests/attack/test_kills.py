"""A kill at every change that a command makes on the disk: started again, it ends as if nothing had happened."""

import shutil

import attack_compare
import attack_material
import pytest
from attack_runs import state, whole_run

SAMPLE = {"extract": 6, "index": 6, "add": 6, "clean": 4, "train": 4}  # kills in the small form
WAYS = {"before": {}, "after": {"after": True}, "interrupted at": {"interrupt": True}}


def moments(total, count):
    """(way, number) of changes 1 … total.

    count None: a kill before each change and after the last, and an interrupt at every third. (A kill after a change is
    one before the next, but for what Python has not written to the file yet.) Else so many of these, evenly spread.
    """
    every = [("before", number) for number in range(1, total + 1)] + [("after", total)]
    every += [("interrupted at", number) for number in range(1, total + 1, 3)]
    if count is None or count >= len(every):
        return every
    return [every[round(step * (len(every) - 1) / (count - 1))] for step in range(count)]


def kill_and_go_on(forks, material, name, way, number, expected):
    """What is wrong after a kill at a change, and after the run that follows; "" when nothing is."""
    out = material / "cases" / f"{name}-{way.split()[0]}-{number}" / "out"
    arguments = attack_material.begin(material, name, out)
    killed = forks.rmac(*arguments, watched=str(material), kill=number, one_core=True, **WAYS[way])
    if killed.orphans:
        return f"{killed.orphans} workers of a killed process were still alive six seconds later"
    again = forks.rmac(*arguments, one_core=True)
    problem = again.problem(0) or attack_compare.difference(state(forks, name, out), expected)
    shutil.rmtree(out.parent)
    return problem and f"then: {problem}"


@pytest.mark.parametrize("name", ["extract", "index", "add", "clean", "train"])
def test_a_killed_run_goes_on_to_the_same_bytes(name, forks, material, whole, count):
    changes, expected, not_listed = whole_run(forks, material, name)
    problems = [f"not in the marker after a whole run: {not_listed}"] if not_listed else []
    for way, number in moments(len(changes), None if whole else SAMPLE[name]):
        problem = kill_and_go_on(forks, material, name, way, number, expected)
        count(f"{'interrupts' if 'interrupt' in way else 'kills'} of {name}")
        if problem:
            problems.append(f"{way} change {number} of {len(changes)} ({changes[number - 1]}), {problem}")
    assert not problems, f"{len(problems)} of the kills:\n" + "\n".join(problems)
