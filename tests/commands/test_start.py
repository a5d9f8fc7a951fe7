"""How a command starts, and how it ends: what is loaded, what is changed, which exit code."""

import os
import resource
import subprocess
import sys
import warnings
from types import ModuleType

import pytest

from rmaclib import __version__, cli
from rmaclib.commands.common import command_group, results, say
from rmaclib.datasets import DatasetError
from rmaclib.foundation.errors import MissingPackageError

HEAVY = ("torch", "torchvision", "timm", "matplotlib", "faiss", "cv2", "scipy", "rmaclib.network")
_VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
_SHOW = "import atexit, sys; atexit.register(lambda: print('loaded:', *sys.modules)); import rmaclib.__main__ as m; "


def started(*arguments):
    """(what `rmac ARGUMENTS` prints, the modules that it loads, its processor time)"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", _SHOW + "m.main()", *map(str, arguments)], capture_output=True,
                          text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text, _, loaded = done.stdout.rpartition("loaded:")
    return text + done.stderr, set(loaded.split()), (after.ru_utime - before.ru_utime) + (after.ru_stime
                                                                                          - before.ru_stime)


@pytest.mark.parametrize("arguments, text", [
    (["--help"], "Exit codes"), (["--version"], f"rmac {__version__}"), (["search", "--help"], "--rerank"),
    (["extract", "--help"], "timm:NAME"), (["backbones", "--help"], "resnet50"),
    (["index", "x", "--out", "y", "--size", "0"], "--size"),
    (["evaluate", "no_such_set"], "no_such_set"), (["evaluate", "diorama", "--protocol", "revisited"], "revisited")])
def test_what_needs_no_network_loads_none(arguments, text):
    shown, loaded, seconds = started(*arguments)
    assert text in shown and not loaded.intersection(HEAVY)
    # 0.3 s on a machine that does nothing else; importing torch and what is built on it takes 5 s and more.
    assert seconds < 1.5


def test_a_search_loads_only_what_it_needs(tmp_path, lite0, little):
    from rmaclib.extraction.batches import ExtractionSettings
    from rmaclib.search.index import Index

    photos = sorted((little / "jpg").iterdir())[:3]
    Index.build(photos, lite0, ExtractionSettings((64,)), out=tmp_path / "i")
    shown, loaded, _ = started("search", tmp_path / "i", photos[0], "--out", tmp_path / "x.png")
    assert "picture:" in shown and "torch" in loaded
    assert not loaded.intersection({"torchvision", "timm", "matplotlib", "scipy", "cv2"})


def test_importing_the_library_changes_nothing():
    code = """
import os, pkgutil, sys
import cv2, faiss, matplotlib, timm, torch, torchvision  # some of them change variables themselves
import torch._dynamo
def state():
    return dict(os.environ), torch.get_num_threads(), torch.get_num_interop_threads(), cv2.getNumThreads()
before = state()
import rmaclib
for module in pkgutil.walk_packages(rmaclib.__path__, "rmaclib."):
    if module.name != "rmaclib.__main__" and "diorama" not in module.name:
        __import__(module.name)
        assert state() == before, module.name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_command_prepares_its_process():
    names = _VARIABLES
    environment = {name: value for name, value in os.environ.items() if name not in names}
    code = "import os, sys; sys.argv[1:] = ['--version']; from rmaclib import cli\ntry: cli.main()\n" \
           f"finally: print(*(os.environ.get(name) for name in {names}))"
    run = [sys.executable, "-c", code]
    assert ":4096:8 128" in subprocess.run(run, capture_output=True, text=True, env=environment).stdout
    mine = {**environment, names[0]: ":16:8"}
    assert ":16:8 128" in subprocess.run(run, capture_output=True, text=True, env=mine).stdout


# --- how it ends -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ending(monkeypatch, capsys):
    """Runs `rmac OPTIONS search` whose command does what is given; returns its exit code and standard error. An error
    that isn't caught is raised."""
    def run(does, *options, command="search"):
        module = ModuleType("fake")
        module.app = command_group()
        module.app.command(command)(does)
        monkeypatch.setitem(sys.modules, f"rmaclib.commands.{command}", module)
        monkeypatch.setattr(sys, "argv", ["rmac", *options, command])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().err

    for name in _VARIABLES:  # the command sets those that are not set; put back after the test
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    return run


def raising(error):
    def does():
        raise error
    return does


@pytest.mark.parametrize("error", [DatasetError("list.txt:3: expected a label, found ''"),
                                   MissingPackageError("dask is missing")])
def test_what_a_user_can_mend_is_one_line(ending, error):
    assert ending(raising(error)) == (1, f"error: {error}\n")


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x"), ImportError("x"), KeyError("x"), TypeError("x")])
def test_a_bug_shows_its_traceback(ending, error):
    with pytest.raises(type(error)):
        ending(raising(error))


def test_debug_shows_every_traceback(ending):
    with pytest.raises(DatasetError):
        ending(raising(DatasetError("x")), "--debug")
    assert ending(raising(DatasetError("x")))[0] == 1  # it belongs to one run


@pytest.mark.parametrize("command, message", [
    ("extract", "stopped; the same command goes on where it was\n"), ("search", "stopped\n"),
    ("evaluate", "stopped; with --out, the same command goes on where it was\n")])
def test_an_interrupt_is_one_line(ending, command, message):
    assert ending(raising(KeyboardInterrupt()), command=command) == (130, message)


def test_a_warning_is_a_note(ending):
    def does():
        warnings.warn("x: 1 files left out", stacklevel=1)
    assert ending(does) == (0, "note: x: 1 files left out\n")


def test_names_are_printed_as_they_are(ending):
    name = "[red]:x:[/] a\x1b[2Jb \udcff ☺.jpg"
    code, text = ending(raising(DatasetError(f"{name}: is bad,\n  very bad")))
    assert code == 1 and text == "error: [red]:x:[/] a\\x1b[2Jb \\udcff ☺.jpg: is bad, very bad\n"

    def does():
        say("[bold]:smile:")
        results.print("[bold]:smile:")
    assert ending(does) == (0, "[bold]:smile:\n")


def test_a_reader_that_has_enough_hears_nothing():
    code = """
import sys
import warnings
from types import ModuleType
from rmaclib import cli
from rmaclib.commands.common import command_group
module = ModuleType("fake")
module.app = command_group()
@module.app.command("search")
def does():
    for number in range(10**6):
        print(number)
sys.modules["rmaclib.commands.search"] = module
sys.argv[1:] = ["search"]
cli.main()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(20) == 1


def test_workers_of_cleaning_do_not_load_torch():
    """They import the module that was started, and the tasks they are sent: a few hundred MB less for each."""
    code = ("import sys, rmaclib.__main__, rmaclib.cleaning.pipeline; "
            "sys.exit(any(name in sys.modules for name in ('torch', 'faiss', 'matplotlib')))")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
