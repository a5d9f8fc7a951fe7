"""Two processes that write to one folder at the same moment.

One waits for the other, or is refused with --no-wait; nothing that was reported as saved is lost. A reader beside a
writer never reads a state between two.
"""

import shutil

import attack_compare
import attack_material
import pytest
from attack_forks import command
from attack_runs import WHOLE, state, whole_run

NAMES = ["extract", "index", "add", "clean", "train"]


@pytest.mark.parametrize(("name", "waits"), [*((name, True) for name in NAMES),
                                             *((name, False) for name in (NAMES if WHOLE else ["add"]))],
                         ids=lambda value: value if isinstance(value, str) else "waiting" if value else "no-wait")
def test_the_same_command_twice_at_once(name, waits, forks, material, whole, count):
    _, expected, _ = whole_run(forks, material, name)
    problems, rounds = [], 4 if whole else 1
    for round_ in range(rounds):
        out = material / "cases" / f"pair-{name}-{round_}-{waits:d}" / "out"
        arguments = attack_material.begin(material, name, out) + (() if waits else ("--no-wait",))
        pair = forks.together(*[command(*arguments, one_core=name == "clean")] * 2)
        problem = pair_problem(pair, waits, out) or attack_compare.difference(state(forks, name, out), expected)
        count(f"pairs of {name}")
        if problem:
            problems.append(problem)
        shutil.rmtree(out.parent)
    assert not problems, "\n".join(problems)


def pair_problem(pair, waits, out):
    if all(outcome.code == 1 for outcome in pair):
        return f"both are refused: {pair[0].error()}"
    problems = [outcome.problem(0) if waits else outcome.problem(0, 1) for outcome in pair]
    problems += [f"the refusal doesn't name the folder: {outcome.error()}" for outcome in pair
                 if outcome.code == 1 and str(out) not in outcome.error()]
    return next(filter(None, problems), "")


def test_different_pictures_added_to_one_index_at_once(forks, material, whole, count):
    whole_run(forks, material, "index")
    problems = []
    for round_ in range(8 if whole else 2):
        out = material / "cases" / f"different-{round_}" / "out"
        shutil.copytree(material / "whole" / "index" / "out", out)
        folders = [material / "parts" / str(part) for part in range(2)]
        for part, folder in enumerate(folders):
            for number in range(3):
                attack_material.picture(folder / f"{part}" / f"{number}.png", 20 + part, number)
        pair = forks.together(*[command("index", folder, "--out", out) for folder in folders])
        count("pairs of different additions")
        problem = next(filter(None, (outcome.problem(0) for outcome in pair)), "")
        names = forks.call("attack_compare:index_names", str(out)).value or []
        missing = [str(path) for folder in folders for path in folder.rglob("*.png") if str(path) not in names]
        if problem or missing:
            problems.append(f"{problem} missing: {missing[:3]}")
        shutil.rmtree(out.parent)
    assert not problems, "\n".join(problems)


def test_every_addition_that_was_reported_as_saved_is_there(forks, whole, count, tmp_path):
    """100 rounds in which two processes load an index, add to it, meet and save."""
    folder, rounds = str(tmp_path / "index"), 100 if whole else 10
    assert forks.call("attack_rounds:create", folder).problem(0) == ""
    saved, refused, problems = ["first"], 0, []
    for round_ in range(rounds):
        pair = forks.together(*[{"function": "attack_rounds:add", "timeout": 60, "arguments":
                                 [folder, str(tmp_path / "barrier"), process, 2, round_]} for process in range(2)])
        for outcome in pair:
            if outcome.code != 0:
                problems.append(f"round {round_}: {outcome.last_line()}")
            elif outcome.value["refused"]:
                refused += 1
            else:
                saved.append(outcome.value["name"])
        if len(problems) > 4:
            break
    missing = forks.call("attack_rounds:missing", folder, saved)
    count("additions by two processes at a barrier", rounds=rounds, saved=len(saved) - 1, refused=refused,
          missing=len(missing.value or []))
    if missing.code != 0:
        problems.append(f"the index can't be read any more: {missing.last_line()}")
    elif missing.value:
        problems.append(f"{len(missing.value)} of {len(saved)} that were reported as saved are not there: "
                        f"{missing.value[:3]}")
    assert not problems, "\n".join(problems)
    assert len(saved) > rounds  # at least one of each pair


def test_a_reader_beside_a_writer(forks, whole, count, tmp_path):
    folder, seconds = str(tmp_path / "index"), 30 if whole else 2
    assert forks.call("attack_rounds:create", folder).problem(0) == ""
    tasks = [{"function": f"attack_rounds:{what}", "arguments": [folder, seconds], "timeout": seconds + 60}
             for what in ("write", "read", "read")]
    outcomes = forks.together(*tasks)
    assert [outcome.code for outcome in outcomes] == [0, 0, 0], "\n".join(outcome.last_line() for outcome in outcomes)
    count("two readers beside a writer", written=outcomes[0].value, read=outcomes[1].value + outcomes[2].value)
    assert min(outcome.value for outcome in outcomes) > 3
