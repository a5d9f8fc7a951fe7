"""One source of versions: pyproject.toml names, constraints.txt pins, environment.yml agrees with both. One set of
commands: what runs before a commit and on other machines are the Makefile's targets."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
OPTIONAL = ("cluster", "compare", "hessian")  # extras that rmaclib imports where they are installed


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def named():
    extras = project()["optional-dependencies"].values()
    return {normal(name) for names in [project()["dependencies"], *extras] for name in names}


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {normal(name): version for name, version in (line.split("==") for line in lines if line.strip())}


def test_every_dependency_is_pinned():
    assert sorted(named() - set(pins())) == []


def test_pyproject_states_no_versions_of_its_own():
    extras = project()["optional-dependencies"].values()
    names = project()["dependencies"] + [name for extra in extras for name in extra]
    assert [name for name in names if re.search(r"[=<>~!]", name)] == []


def test_the_dependencies_are_what_the_library_imports():
    packages = set()
    for path in (ROOT / "rmaclib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
                packages |= {name.split(".")[0] for name in names}
    packages -= {*sys.stdlib_module_names, "rmaclib", "_typeshed"}  # the last is for type checkers
    distributions = metadata.packages_distributions()
    imported = {normal(distributions.get(package, [package])[0]) for package in packages}
    extras = {normal(name) for extra in OPTIONAL for name in project()["optional-dependencies"][extra]}
    assert sorted(imported - extras) == sorted(map(normal, project()["dependencies"]))


def test_the_conda_environment_has_the_same_names_and_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, with_pip = environment["dependencies"]
    assert conda == [f"python{project()['requires-python']}", "pip"]
    assert with_pip["pip"] == [f"{name}=={pins()[name]}" for name in sorted(named())] + ["-e ."]


def test_the_citation_file_agrees():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project()["version"]
    assert citation["license"] == project()["license"]
    assert [author["family-names"] for author in citation["references"][0]["authors"]] == [
        "Gordo", "Almazán", "Revaud", "Larlus",
    ]  # fmt: skip


# --- commands ------------------------------------------------------------------------------------------------------


def hooks():
    """Commands that pre-commit runs."""
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    return [hook["entry"] for repository in repositories for hook in repository["hooks"]]


def steps(path):
    """Commands that a workflow runs; steps with `uses` only fetch the sources and a Python."""
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "uses" not in step]


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("commands", [hooks(), *map(steps, WORKFLOWS)], ids=["hooks", *(p.name for p in WORKFLOWS)])
def test_other_machines_call_make_and_nothing_else(commands):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    profiles = {path.stem for path in (ROOT / "notebooks/profiles").glob("*.yml")}
    assert commands
    for command in commands:
        make, target, *variables = shlex.split(command)
        assert (make, target in targets) == ("make", True), command
        assert all(variable in {f"PROFILE={name}" for name in profiles} for variable in variables), command


@pytest.mark.parametrize("commit, is_kept", [("0123456789ab", True), ("0123456789ab+dirty", False), ("unknown", False)])
def test_records_of_uncommitted_code_are_refused(tmp_path, commit, is_kept):
    shutil.copy(ROOT / "Makefile", tmp_path)
    record = "01_rmac/diorama/baseline.json"
    built, kept = tmp_path / "_build/x/results" / record, tmp_path / "data/results/x" / record
    built.parent.mkdir(parents=True)
    built.write_text(f'{{\n  "value": 0.5,\n  "commit": "{commit}",\n  "seed": 0\n}}\n')
    done = subprocess.run(["make", "record", "PROFILE=x"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode == 0) is is_kept is kept.exists(), done.stderr
    assert is_kept or "not committed: 01_rmac\n" in done.stderr
