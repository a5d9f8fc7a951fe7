"""Uninterrupted runs of the commands that write a folder, which others are compared with."""

import os
import shutil

import attack_compare
import attack_material

# make attack sets it; the small form belongs to the suite.
WHOLE = os.environ.get("RMAC_ATTACK") == "whole"
_done = {}  # (material, name) -> result of whole_run


def whole_run(forks, material, name):
    """(changes, state, what its marker doesn't list) of an uninterrupted run, in material/whole/NAME/out."""
    if (material, name) in _done:
        return _done[material, name]
    if name == "add":
        whole_run(forks, material, "index")
    out = material / "whole" / name / "out"
    arguments = attack_material.begin(material, name, out)
    outcome = forks.rmac(*arguments, watched=str(material), one_core=True)
    if problem := outcome.problem(0):
        shutil.rmtree(out.parent)
        raise AssertionError(f"rmac {' '.join(map(str, arguments))}: {problem}\n{outcome.stderr}")
    _done[material, name] = outcome.changes, state(forks, name, out), attack_compare.left_over(out)
    return _done[material, name]


def state(forks, name, out):
    """What a run wrote, as far as it doesn't depend on when it ran."""
    if name not in ("index", "add"):
        return attack_compare.contents(out)
    outcome = forks.call("attack_compare:index_contents", str(out))
    return outcome.value if outcome.code == 0 else {"index can't be read": outcome.last_line()}
