"""A kill at every change that a command makes on the disk: started again, it ends as if nothing had happened."""

import shutil

import attack_compare
import attack_material
import pytest
from attack_runs import state, whole_run

SAMPLE = {"describe": 8, "index": 6, "add": 6, "clean": 4, "train": 4}  # kills in the small form
MOST = 48  # of one command, in the whole form


def moments(total, count):
    """(number, whether after it) of changes 1 … total: both of each, or so many of them, evenly spread, the first and
    the last among them. Before a change is after the one before it, but for what Python had not written out yet."""
    every = [(number, after) for number in range(1, total + 1) for after in (False, True)]
    if count >= len(every):
        return every
    return [every[round(step * (len(every) - 1) / (count - 1))] for step in range(count)]


def kill_and_go_on(forks, material, name, number, after, expected):
    """What is wrong after a kill at a change, and after the run that follows; "" when nothing is."""
    out = material / "cases" / f"{name}-{number}-{after:d}" / "out"
    arguments = attack_material.begin(material, name, out)
    killed = forks.rmac(*arguments, watched=str(material), kill=number, after=after, one_core=True)
    if killed.orphans:
        return f"{killed.orphans} workers of a killed process were still alive six seconds later"
    again = forks.rmac(*arguments, one_core=True)
    problem = again.problem(0) or attack_compare.difference(state(forks, name, out), expected)
    shutil.rmtree(out.parent)
    return problem and f"then: {problem}"


@pytest.mark.parametrize("name", ["describe", "index", "add", "clean", "train"])
def test_a_killed_run_goes_on_to_the_same_bytes(name, forks, material, whole, count):
    changes, expected, not_listed = whole_run(forks, material, name)
    problems = [f"not in the marker after a whole run: {not_listed}"] if not_listed else []
    for number, after in moments(len(changes), MOST if whole else SAMPLE[name]):
        problem = kill_and_go_on(forks, material, name, number, after, expected)
        count(f"kills of {name}")
        if problem:
            problems.append(f"killed {'after' if after else 'before'} change {number} of {len(changes)} "
                            f"({changes[number - 1]}), {problem}")
    assert not problems, f"{len(problems)} of the kills:\n" + "\n".join(problems)
