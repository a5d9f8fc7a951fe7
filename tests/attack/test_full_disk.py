"""A disk that gets full in the middle of a command. The error is one line that names a file or folder there; what was
there before is whole, nothing is left over, and with more space the same command ends as if nothing had happened."""

import os
import shutil
import subprocess
from contextlib import contextmanager

import attack_compare
import attack_material
import pytest
from attack_runs import state, whole_run

_PAGE = 4096
SHARES, FEW_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97), (0.0, 0.6)  # of the space needed
_TEMPORARY = ".rmac-"  # how names of files begin that are being written


@contextmanager
def small_disk(place, size):
    """A tmpfs of some bytes at a place."""
    place.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(_PAGE, size)}", "attack", str(place)],
                             capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a file system can't be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        shutil.rmtree(place)


def enlarge(place):
    subprocess.run(["mount", "-o", "remount,size=200m", str(place)], check=True)


def space(folder):
    """Bytes in whole pages."""
    return sum(-(-path.stat().st_size // _PAGE) * _PAGE for path in folder.rglob("*") if path.is_file())


def temporaries(folder):
    return [path.name for path in folder.rglob("*") if path.name.startswith(_TEMPORARY)]


@pytest.fixture(autouse=True, scope="module")
def _root():
    if not hasattr(os, "geteuid") or os.geteuid():
        pytest.skip("mounting a small disk needs root")


@pytest.mark.parametrize("name", ["extract", "index", "add", "clean", "train"])
def test_a_command_on_a_full_disk(name, forks, material, whole, count):
    _, expected, _ = whole_run(forks, material, name)
    problems = []
    for share in SHARES if whole else FEW_SHARES:
        problem = full_then_enough(forks, material, name, share, expected)
        count(f"full disks under {name}")
        if problem:
            problems.append(f"with {share:.0%} of the space: {problem}")
    assert not problems, "\n".join(problems)


def full_then_enough(forks, material, name, share, expected):
    needed = space(material / "whole" / name / "out")
    before = space(material / "whole" / "index" / "out") if name == "add" else 0
    place = material / "cases" / f"disk-{name}-{share:g}"
    out = place / "out"
    with small_disk(place, before + int((needed - before) * share)):
        if before:
            shutil.copytree(material / "whole" / "index" / "out", out)
        arguments = attack_material.commands(material, out)[name]
        full = forks.rmac(*arguments, one_core=True)
        problem = full.problem(0, 1) if share > 0.9 else full.problem(1)
        if not problem and full.code == 1 and str(place) not in full.error():
            problem = f"the message names no file or folder of the disk: {full.error()}"
        if problem:
            return problem
        if left := temporaries(place):
            return f"left over: {', '.join(left)}"
        old = forks.call("attack_compare:index_contents", str(out)).value if name == "add" and full.code == 1 else None
        if name == "add" and full.code == 1 and (old or {}).get("vectors") != expected_vectors(forks, material):
            return f"the index that was there is damaged: {old}"
        enlarge(place)
        again = forks.rmac(*arguments, one_core=True)
        problem = again.problem(0) or attack_compare.difference(state(forks, name, out), expected)
        return problem and f"then, with enough space: {problem}"


def expected_vectors(forks, material):
    return forks.call("attack_compare:index_contents", str(material / "whole" / "index" / "out")).value["vectors"]


@pytest.mark.parametrize("name", ["search --out", "propose --out", "propose --picture"])
def test_an_old_file_stays_when_the_disk_is_full(name, forks, material, whole, count):
    whole_run(forks, material, "index")
    place = material / "cases" / f"disk-{name.replace(' ', '')}"
    file = place / ("table.csv" if name == "propose --out" else "picture.png")
    query = material / "photos" / "0" / "0.png"
    propose = ("propose", material / "photos", "--network", material / "proposing.safetensors", *attack_material.SMALL)
    arguments = {"search --out": ("search", material / "whole" / "index" / "out", query, "--out", file),
                 "propose --out": (*propose, "--out", file),
                 "propose --picture": (*propose, "--out", material / "table.csv", "--picture", file)}[name]
    with small_disk(place, _PAGE):
        file.write_text("old")
        full = forks.rmac(*arguments)
        count("full disks under pictures and tables")
        assert full.problem(1) == "" and str(place) in full.error()
        assert file.read_text() == "old" and os.listdir(place) == [file.name]
        enlarge(place)
        assert forks.rmac(*arguments).problem(0) == ""
        assert file.read_bytes()[:3] != b"old"
