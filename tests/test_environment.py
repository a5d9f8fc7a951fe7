"""One source of versions: pyproject.toml names, constraints.txt pins, environment.yml agrees with both."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


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
