"""What a user may run into: doubles, odd names, damaged graphs, other folders, a kill; options that can't be."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cleaning_pictures import VIEWS, save, texture, warped
from typer.testing import CliRunner

from rmaclib import cli
from rmaclib.cleaning import CleanError, CleanSettings, KeypointSettings, clean, load_graph, save_graph
from rmaclib.cleaning.report import write_report
from rmaclib.commands.clean import dask_executor
from rmaclib.datasets import LabelledImages, open_collection, open_images
from rmaclib.datasets.types import DatasetError
from rmaclib.foundation.errors import InputError, OutputError
from rmaclib.foundation.folders import MARKER, is_output

SETTINGS = CleanSettings(keypoints=KeypointSettings(count=150))
COUNT = ("--keypoints", 150, "--thumbnails", 2)


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


class NoWorkers(Executor):
    """For runs that have nothing to compute."""

    def submit(self, function, *arguments):
        raise AssertionError(f"{function.__name__} is called")


@pytest.fixture
def photos(tmp_path):
    """A folder of two landmarks: three views of one texture; two of another."""
    for landmark, count in (("castle", 3), ("tower", 2)):
        for number in range(count):
            save(tmp_path / "photos" / landmark / f"{number}.png", warped(texture(count), VIEWS[number]))
    return tmp_path / "photos"


def command(*arguments):
    return CliRunner().invoke(cli.app, ["clean", *map(str, arguments)])


def run(images, out, threads, settings=SETTINGS, report=False, **more):
    return clean(images, settings, out=out, report=report, executor=threads, progress=False, **more)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- what counts as an image -----------------------------------------------------------------------------------------


def test_an_image_listed_twice_does_not_verify_itself(tmp_path, threads):
    save(tmp_path / "a.png", texture(1))
    save(tmp_path / "b.png", texture(2))
    (tmp_path / "link.png").symlink_to("b.png")
    names = ("a.png", "a.png", "./a.png", "b.png", "link.png")
    images = LabelledImages("c", tmp_path, names, tuple(tmp_path / name for name in names), (0,) * 5, (None,) * 5)
    cleaned = run(images, tmp_path / "out", threads)
    assert cleaned.clean.names == () and cleaned.landmarks[0].graph.names == ("a.png", "b.png")
    assert [entry.name for entry in cleaned.source.skipped] == ["a.png", "./a.png", "link.png"]
    (tmp_path / "list.txt").write_text("".join(f"{name} 0\n" for name in names))
    assert run(open_collection(tmp_path / "list.txt"), tmp_path / "other", threads).clean.names == ()


def test_two_copies_verify_each_other(tmp_path, threads):
    save(tmp_path / "a.png", texture(1))
    shutil.copy(tmp_path / "a.png", tmp_path / "copy.png")
    assert run(open_images(tmp_path), tmp_path / "out", threads).clean.names == ("a.png", "copy.png")


def test_names_that_no_list_can_contain_are_left_out_and_noted(photos, tmp_path, threads, noted):
    for name in (b"caf\xe9.png", b"two\nlines.png"):
        shutil.copy(photos / "castle/0.png", os.fsencode(photos / "castle") + b"/" + name)
    (photos / "castle/dead.png").symlink_to("gone.png")
    with noted("3 files or rows are left out"):
        cleaned = run(photos, tmp_path / "out", threads, report=True)
    assert len(cleaned.clean.names) == len(cleaned.source.names) == 5
    table = (tmp_path / "out/images.csv").read_text(encoding="utf-8")
    assert table.count("its name is no line of UTF-8 text") == 2 and "a link to a file that isn't there" in table
    assert "its name is no line of UTF-8 text" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert len(open_collection(tmp_path / "out/annotation_clean.txt").names) == 5


def test_images_given_by_such_names_are_left_out_too(photos, tmp_path, threads):
    odd = os.fsdecode(os.fsencode(photos / "castle") + b"/caf\xe9.png")
    shutil.copy(photos / "castle/0.png", odd)
    paths = (photos / "castle/0.png", photos / "castle/1.png", Path(odd))
    images = LabelledImages("c", photos, tuple(path.name for path in paths), paths, (0,) * 3, (None,) * 3,
                            publishable=True)
    cleaned = run(images, tmp_path / "out", threads, report=True)
    assert len(cleaned.clean.names) == 2 and len(cleaned.source.skipped) == 1
    assert cleaned.clean.publishable  # the clean list is as public as its source


def test_bad_rows_are_errors_or_skipped(photos, tmp_path, threads):
    rows = "".join(f"photos/castle/{number}.png 0\n" for number in range(3))
    (tmp_path / "list.txt").write_text(rows + "photos/castle/0.png\n")
    result = command(tmp_path / "list.txt", "--out", tmp_path / "out", *COUNT)
    assert "list.txt:4" in str(result.exception) and not (tmp_path / "out").exists()
    run(open_collection(tmp_path / "list.txt", skip_bad=True), tmp_path / "out", threads)
    result = command(tmp_path / "list.txt", "--out", tmp_path / "out", "--skip-bad", *COUNT)  # from the graphs
    assert result.exit_code == 0, result.output
    assert "3 of 3 images" in result.stderr and "list.txt:4" in result.stderr


# --- graphs of earlier runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"no graph", None])
def test_a_damaged_graph_is_matched_again_and_noted(photos, tmp_path, threads, damage, noted):
    images = open_collection(photos)
    run(images, tmp_path / "out", threads)
    before, graph = tree(tmp_path / "out"), tmp_path / "out/graphs/000001.npz"
    graph.write_bytes(graph.read_bytes()[:-50] if damage is None else damage)
    with noted("000001.npz: expected a match graph .* this landmark is matched again"):
        run(images, tmp_path / "out", threads)
    assert tree(tmp_path / "out") == before


class Shortlists:
    def __init__(self, network):
        self.identity = {"network": network, "size": 320}

    def __call__(self, paths, count):
        return np.array([[(row + 1) % len(paths)] for row in range(len(paths))])


def test_shortlists_of_another_network_are_not_taken(photos, tmp_path, threads):
    images, settings = open_collection(photos), replace(SETTINGS, exhaustive=2, neighbours=1)
    run(images, tmp_path / "out", threads, settings, shortlists=Shortlists("a"))
    run(images, tmp_path / "out", NoWorkers(), settings, shortlists=Shortlists("a"))
    with pytest.raises(CleanError, match="000000.npz was made with other settings: pairs.shortlists"):
        run(images, tmp_path / "out", threads, settings, shortlists=Shortlists("b"))
    # A graph of the version that wrote a sentence there.
    graph = load_graph(tmp_path / "out/graphs/000000.npz")
    older = graph.settings | {"pairs": "1 neighbours (efficientnet_lite0, R-MAC L=3, sizes [320])"}
    save_graph(tmp_path / "out/graphs/000000.npz", replace(graph, settings=older))
    with pytest.raises(CleanError, match="older version on shortlists .* choose another folder, or remove this one"):
        run(images, tmp_path / "out", threads, settings, shortlists=Shortlists("a"))


def test_a_folder_of_the_older_version_is_taken_over(photos, tmp_path, threads):
    images, out = open_collection(photos), tmp_path / "out"
    run(images, out, threads, report=True)
    before = tree(out)
    for name in (MARKER, ".rmac.lock"):
        (out / name).unlink(missing_ok=True)
    (out / "graphs/notes.npz").write_text("mine")
    run(images, out, NoWorkers(), report=True)
    after = tree(out)
    assert after.pop("graphs/notes.npz") == b"mine"
    assert after == before


def test_files_of_the_user_in_an_older_folder_are_not_taken_over(photos, tmp_path, threads):
    """An older version left graphs only, beside files of the user's that have the names of ours."""
    images, out = open_collection(photos), tmp_path / "out"
    run(images, out, threads)
    for name in (MARKER, ".rmac.lock"):
        (out / name).unlink()
    users = ("labels.txt", "images.csv", "landmarks.csv", "settings.json", "report.html")
    for name in users:
        (out / name).write_text("mine\n")
    with pytest.raises(OutputError, match="would be replaced, and was not written by this library"):
        run(images, out, threads, report=True)
    assert all((out / name).read_text() == "mine\n" for name in users)


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["settings.json", "images.csv", "labels.txt", "report.html", "graphs/000000.npz",
                                  "thumbnails/000000/000000.jpg"])
def test_files_of_others_are_never_replaced(photos, tmp_path, name):
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    with pytest.raises(OutputError, match=f"{out}: expected a new or empty folder"):
        clean(open_collection(photos), SETTINGS, out=out, progress=False)
    assert isinstance(command(photos, "--out", out, *COUNT).exception, OutputError)
    assert tree(out) == {name: b"mine"}


@pytest.mark.parametrize("out", [".", "cleaned"])
def test_output_among_the_images_is_an_error(photos, out):
    before = tree(photos)
    result = command(photos, "--out", photos / out, *COUNT)
    assert isinstance(result.exception, OutputError) and "outside of the images" in str(result.exception)
    assert tree(photos) == before


def test_a_list_may_lie_beside_its_output(photos, tmp_path, threads):
    rows = "".join(f"photos/castle/{number}.png 0\n" for number in range(3))
    (tmp_path / "list.txt").write_text(rows)
    run(tmp_path / "list.txt", tmp_path / "out", threads, report=True)
    assert command(tmp_path / "list.txt", "--out", tmp_path / "out", *COUNT).exit_code == 0
    assert is_output(tmp_path / "out") and list((tmp_path / "out/thumbnails").rglob("*.jpg"))
    # Another collection around the folder doesn't take its thumbnails for photographs.
    assert len(open_images(tmp_path).names) == 5


def test_thumbnails_that_are_not_on_the_page_any_more_are_removed(photos, tmp_path, threads):
    cleaned = run(open_collection(photos), tmp_path / "out", threads)
    write_report(cleaned, SETTINGS, tmp_path / "out", 12, progress=False)
    assert len(list((tmp_path / "out/thumbnails").rglob("*.jpg"))) == 5
    (tmp_path / "out/thumbnails/mine.jpg").write_text("mine")
    write_report(cleaned, SETTINGS, tmp_path / "out", 0, progress=False)
    assert [path.name for path in (tmp_path / "out/thumbnails").rglob("*.jpg")] == ["mine.jpg"]


def test_left_overs_of_a_killed_run_are_removed(photos, tmp_path, threads):
    images, out = open_collection(photos), tmp_path / "out"
    run(images, out, threads)
    before = tree(out)
    killed = ("import os, sys\nfrom rmaclib.foundation import files\n"
              "from rmaclib.cleaning.folder import cleaning_folder\n"
              "with cleaning_folder(sys.argv[1]) as out, files.whole_file(out / 'graphs/000000.npz') as path:\n"
              "    path.write_text('half'); os.kill(os.getpid(), 9)\n")
    subprocess.run([sys.executable, "-c", killed, out])
    assert len(tree(out)) == len(before) + 1
    run(images, out, threads)
    assert tree(out) == before


# --- the command -----------------------------------------------------------------------------------------------------


def test_what_there_is_to_do_is_told_before(photos, tmp_path, threads, caplog):
    caplog.set_level("INFO", "rmaclib")
    run(photos, tmp_path / "out", threads)
    assert "5 images of 2 landmarks to match, 4 pairs; 0 landmarks are matched already" in caplog.text
    assert re.search("a few seconds|about [0-9]+ s", caplog.text)
    result = command(photos, "--out", tmp_path / "out", *COUNT)
    assert "0 images of 0 landmarks to match, 0 pairs; 2 landmarks are matched already" in result.stderr


@pytest.mark.parametrize("option, value, message", [
    ("--ahead", 0, "whole number of at least 1, got 0"), ("--ahead", -1, "at least 1, got -1"),
    ("--thumbnails", -1, "at least 0, got -1"), ("--threshold", 2, "at least 3, got 2"),
    ("--conductance", "nan", "number in 0..1, got nan"), ("--conductance", 2, "number in 0..1, got 2"),
    ("--largest", 0, "at least 1, got 0"), ("--min-matches", 0, "at least 1, got 0"),
    ("--keypoints", 2, "at least 3, got 2"), ("--size", 8, "at least 16, got 8"),
    ("--out", "", "expected a path, got ''"), ("--settings", "/", "expected a file, got '/', a folder"),
])
def test_options_are_checked_before_anything_else(tmp_path, monkeypatch, option, value, message):
    monkeypatch.chdir(tmp_path)
    result = command("no such collection", "--out", tmp_path / "out", option, value)
    assert result.exit_code == 2 and option in result.stderr
    assert message in " ".join(result.stderr.replace("│", "").split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text, message", [
    ("graph: {conductance: 1}", "conductance: expected less than 1"),
    ("keypoints: {size: .inf}", "keypoints: size: expected a whole number, got inf"),
    ("graph: {threshold: .nan}", "graph: threshold: expected"), ("graph: {largest: 1.5}", "graph: largest: expected"),
    ("boxes: {merge: mean}", "boxes: merge: expected one of"), ("- 1", "found list"), ("\0", "can't be read"),
])
def test_settings_are_checked_before_anything_else(tmp_path, text, message):
    file = tmp_path / "s.yml"
    file.write_text(text)
    result = command("no such collection", "--out", tmp_path / "out", "--settings", file)
    assert isinstance(result.exception, InputError), result.output
    assert str(result.exception).startswith(f"{file}: ") and message in str(result.exception)


def test_a_file_is_no_output_folder(photos, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = command(photos, "--out", tmp_path / "file", *COUNT)
    assert result.exit_code == 2 and "expected a folder" in result.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_the_library_checks_too(photos, tmp_path, threads):
    with pytest.raises(InputError, match="ahead: expected a whole number of at least 1"):
        run(photos, tmp_path / "out", threads, ahead=0)
    with pytest.raises(InputError, match="thumbnails: expected a whole number of at least 0"):
        write_report(run(photos, tmp_path / "out", threads), SETTINGS, tmp_path / "out", -1)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "nonsense:://x", "127.0.0.1:notaport"])
def test_a_scheduler_that_does_not_answer_is_an_error(address):
    pytest.importorskip("distributed")
    with socket.socket() as unused:  # bound and not listening: nobody answers
        unused.bind(("127.0.0.1", 0))
        address, started = address.format(port=unused.getsockname()[1]), time.monotonic()
        with pytest.raises(InputError) as raised, dask_executor(address, patience=1):
            pass
    assert "--scheduler" in str(raised.value) and address in str(raised.value)
    assert time.monotonic() - started < 8


def test_settings_json_contains_what_was_used(photos, tmp_path, threads):
    out = tmp_path / "out"
    run(photos, out, threads, report=True)
    assert json.loads((out / "settings.json").read_text())["keypoints"]["count"] == 150
    before = tree(out / "graphs")
    assert command(photos, "--out", out, "--settings", out / "settings.json").exit_code == 0
    assert tree(out / "graphs") == before


# --- names that a list can't have ------------------------------------------------------------------------------------


def test_a_root_that_a_list_cannot_name_is_an_error_before_the_work(photos, tmp_path):
    root = tmp_path / "r\udcff"
    photos.rename(root)
    with pytest.raises(DatasetError, match=r"r.+udcff': expected images whose paths a list can name.*rename") as raised:
        run(root, tmp_path / "out", NoWorkers())
    assert str(raised.value).isprintable() and not (tmp_path / "out").exists()


def test_images_that_a_list_cannot_name_are_left_out(photos, tmp_path, threads):
    (tmp_path / "r\udcff").mkdir()
    names = [f"castle/{number}.png" for number in range(3)]
    paths = [photos / name for name in names]
    paths[2] = paths[2].rename(tmp_path / "r\udcff" / "2.png")
    images = LabelledImages("c", tmp_path, tuple(names), tuple(paths), (0,) * 3, (None,) * 3)
    cleaned = run(images, tmp_path / "out", threads, report=True)
    assert cleaned.clean.names == tuple(names[:2]) and [entry.name for entry in cleaned.source.skipped] == names[2:]


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of one landmark with 150 images: work for some ten seconds."""
    root = tmp_path_factory.mktemp("many")
    for number in range(150):
        save(root / "castle" / f"{number}.png", texture(number))
    return root


@pytest.fixture
def working(many, tmp_path):
    """A command that has begun its work, and its worker processes."""
    command = [sys.executable, "-m", "rmaclib", "clean", many, "--out", tmp_path / "out"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True)
    try:
        line = ""
        while "about" not in line and "a few seconds" not in line:
            line = process.stdout.readline()
            assert line, "ended before the work began"
        yield process, _children(process.pid)
    finally:
        process.kill()


def test_an_interrupt_ends_the_workers_at_once_and_quietly(working):
    """A terminal sends it to the workers too."""
    process, _ = working
    os.killpg(process.pid, signal.SIGINT)
    started = time.monotonic()
    rest = process.communicate(timeout=60)[0]
    assert time.monotonic() - started < 10
    assert process.returncode == 130 and "Traceback" not in rest and "Error" not in rest, rest


def test_workers_end_with_a_killed_parent(working):
    process, workers = working
    assert workers and all(map(_is_alive, workers))
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while any(map(_is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = [worker for worker in workers if _is_alive(worker)]
    for worker in alive:
        os.kill(worker, signal.SIGKILL)
    assert not alive


def _children(process):
    return [int(number) for file in Path(f"/proc/{process}/task").glob("*/children")
            for number in file.read_text().split()]


def _is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
