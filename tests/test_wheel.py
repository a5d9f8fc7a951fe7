"""The wheel: what is in it, and that it works where nothing but the runtime dependencies is installed, offline.

Nothing is downloaded: the environment is an empty one that sees the installed packages which the runtime dependencies
need, one by one, and no other.
"""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rmaclib.networks import NAMES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
# No part of the library needs these: they are the book's, the generator's, or make something optional possible.
ABSENT = ("jupyter_book", "papermill", "snakemake", "sphinx", "nbformat", "mitsuba", "dask", "distributed", "kornia",
          "pytest", "mypy", "pip")
OFFLINE = """
import socket

def refuse(*arguments, **options):
    raise OSError("this test allows no network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needed(requirements):
    """Installed distributions that requirements need, and those that these need, by name."""
    todo, known, distributions = list(requirements), set(), {}
    while todo:
        requirement = Requirement(todo.pop())
        for extra in requirement.extras or {""}:
            name = canonicalize_name(requirement.name)
            if (name, extra) in known:
                continue
            known.add((name, extra))
            distributions[name] = metadata.distribution(name)
            todo += [line for line in distributions[name].requires or ()
                     if not (marker := Requirement(line).marker) or marker.evaluate({"extra": extra})]
    return distributions


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the sources, as pip builds it."""
    source, built = tmp_path_factory.mktemp("source") / "rmaclib", tmp_path_factory.mktemp("built")
    unwanted = shutil.ignore_patterns(".*", "_build", "build", "__pycache__", "*.egg-info", "*.jpg")
    shutil.copytree(ROOT, source, ignore=unwanted)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
        "--disable-pip-version-check", "--wheel-dir", built, source)
    return next(built.glob("rmaclib-*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """Folder of the programs of an environment with the wheel and its dependencies alone."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    run(sys.executable, "-m", "pip", "--python", programs / "python", "--disable-pip-version-check", "install",
        "--quiet", "--no-deps", "--no-index", wheel)
    site = Path(run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    requirements = metadata.Distribution.at(next(site.glob("rmaclib-*.dist-info"))).requires
    packages = home / "packages"
    packages.mkdir()
    for distribution in needed(line for line in requirements if "extra ==" not in line).values():
        for name in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (packages / name).exists():  # nvidia/ is of several packages
                (packages / name).symlink_to(distribution.locate_file(name))
    (packages / "offline.py").write_text(OFFLINE)
    (site / "packages.pth").write_text(f"{packages}\nimport offline\n")
    return programs


def test_the_wheel_has_the_library_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    version = wheel.name.split("-")[1]
    assert {name.split("/")[0] for name in names} == {"rmaclib", f"rmaclib-{version}.dist-info"}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rmaclib").rglob("*.py")}
    networks = {f"rmaclib/networks/{name}.{ending}" for name in NAMES for ending in ("md", "safetensors")}
    assert {name for name in names if name.startswith("rmaclib/")} == modules | {"rmaclib/py.typed"} | networks
    assert f"rmaclib-{version}.dist-info/licenses/LICENSE" in names


def test_the_environment_has_the_runtime_dependencies_alone(environment):
    script = "import importlib.util, sys; print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
    assert run(environment / "python", "-E", "-c", script, *ABSENT, "torch") == "['torch']\n"
    connect = [environment / "python", "-E", "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    assert "this test allows no network" in subprocess.run(connect, capture_output=True, text=True).stderr


def test_it_makes_an_index_and_searches_it_offline(environment, little, tmp_path):
    rmac = environment / "rmac"
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}  # no PYTHONPATH, no caches
    pictures = sorted((little / "jpg").iterdir())[:4]
    (tmp_path / "photos").mkdir()
    for picture in pictures:
        shutil.copy(picture, tmp_path / "photos")
    run(environment / "python", "-c", "import rmaclib, sys; assert rmaclib.__file__.startswith(sys.prefix)",
        cwd=tmp_path, env=clean)
    version = metadata.Distribution.at(next((environment.parent).rglob("rmaclib-*.dist-info"))).version
    assert run(rmac, "--version", cwd=tmp_path, env=clean) == f"rmac {version}\n"
    run(rmac, "index", "photos", "--out", "photos.index", "--size", "128", cwd=tmp_path, env=clean)
    table = run(rmac, "search", "photos.index", pictures[1], "--k", "2", cwd=tmp_path, env=clean)
    assert pictures[1].name in table
    assert (tmp_path / "neighbours.png").stat().st_size
