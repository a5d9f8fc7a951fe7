"""Mistakes are errors before anything is computed, and the user's files stay."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rmaclib import checkpoints, cli
from rmaclib.commands.common import tell_bad, telling
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.folder import load_descriptors
from rmaclib.foundation.errors import InputError, OutputError
from rmaclib.foundation.messages import duration
from rmaclib.images import ImageError
from rmaclib.network import NetworkSettings, create_network
from rmaclib.search.index import Index


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def refused(result, kind, *texts):
    assert isinstance(result.exception, kind), result.output
    assert all(text in str(result.exception) for text in texts), result.exception


@pytest.fixture
def photos(little, tmp_path):
    """Six pictures, some of them in sub-folders."""
    folder = tmp_path / "photos"
    for number, path in enumerate(sorted((little / "jpg").iterdir())[:6]):
        place = folder / ("", "paris", "paris/2019")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return folder


NO_NETWORK = ("--network", "no_such_network")  # opening it would be another error


def tree(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- evaluate --------------------------------------------------------------------------------------------------------


def test_the_protocol_follows_the_data_set(little):
    result = run("evaluate", little, "--size", 64, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["protocol"] == "oxford"
    result = run("evaluate", "diorama_holidays", "--size", 32, "--levels", 1, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["protocol"] == "holidays"


def test_a_protocol_of_another_layout_is_refused_first():
    refused(run("evaluate", "diorama", "--protocol", "revisited", *NO_NETWORK), ValueError, "revisited", "diorama")


def test_a_box_outside_of_its_query_is_refused_first(little, tmp_path):
    data = shutil.copytree(little, tmp_path / "data")
    query = min((data / "gt").glob("*_query.txt"))
    image = query.read_text().split()[0]
    query.write_text(f"{image} 5000 5000 5100 5100\n")
    refused(run("evaluate", data, *NO_NETWORK), InputError, query.name.removesuffix("_query.txt"), "5000", image)
    (data / "jpg" / f"{image}.jpg").write_text("no picture")
    refused(run("evaluate", data, *NO_NETWORK), ImageError, image)


def nothing_was_computed(result):
    return "extracting" not in result.stderr and "learned on" not in result.stderr


def test_codes_that_do_not_fit_are_refused_before_extracting(little):
    result = run("evaluate", little, "--pq", 7)
    refused(result, InputError, "--pq", "512", "7")
    few = run("evaluate", little, "--pq", 8, "--whiten-on", little / "jpg")
    refused(few, InputError, "--pq", "256")
    assert nothing_was_computed(result) and nothing_was_computed(few)


@pytest.mark.parametrize("command", ["extract", "index"])
def test_too_many_dimensions_are_refused_before_extracting(photos, tmp_path, command):
    result = run(command, photos, "--out", tmp_path / "x", "--dim", 1281, "--network", "efficientnet_lite0")
    refused(result, InputError, "--dim", "1280", "1281")
    trained = run(command, photos, "--out", tmp_path / "x", "--dim", 128)
    refused(trained, InputError, "--dim", "expected 512", "got 128", "--network efficientnet_lite0")
    network = create_network(NetworkSettings("timm:test_efficientnet", dim=4), pretrained=False)
    checkpoints.save_network(tmp_path / "n.safetensors", network)
    other = run(command, photos, "--out", tmp_path / "x", "--dim", 8, "--network", tmp_path / "n.safetensors")
    refused(other, InputError, "--dim", "expected 4", "got 8")
    assert all(map(nothing_was_computed, (result, trained, other)))


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["extract", "index", "evaluate"])
def test_outputs_are_never_among_the_images(little, tmp_path, command):
    images = shutil.copytree(little, tmp_path / "images")
    (images / "000001.txt").write_text("a label")
    (images / "partial").mkdir()
    shutil.copy(min((little / "jpg").iterdir()), images / "partial")
    before = tree(images)
    for out in (images, images / "partial", images / "new"):
        refused(run(command, images, "--out", out, *NO_NETWORK), OutputError, str(out))
    assert tree(images) == before


@pytest.mark.parametrize("command", ["extract", "index", "evaluate"])
def test_a_folder_of_others_is_refused_first(little, tmp_path, command):
    (tmp_path / "mine").mkdir()
    for name in ("names.txt", "bad.txt", "notes.md"):
        (tmp_path / "mine" / name).write_text("mine")
    before = tree(tmp_path / "mine")
    refused(run(command, little, "--out", tmp_path / "mine", *NO_NETWORK), OutputError, "bad.txt",
            "nothing was changed")
    assert tree(tmp_path / "mine") == before


@pytest.mark.parametrize("command", ["extract", "index", "evaluate"])
def test_a_full_disk_is_told_before_the_work(little, tmp_path, monkeypatch, command):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**9, 10**9, 10**5))
    images = little if command == "evaluate" else little / "jpg"
    result = run(command, images, "--out", tmp_path / "x")
    refused(result, OutputError, "need", "0.1 MB free")
    assert nothing_was_computed(result)


def test_what_is_on_the_disk_already_needs_no_room(photos, tmp_path, monkeypatch):
    """A finished run, and one that was killed with all of its parts there."""
    commands = [("extract", photos, "--out", tmp_path / "d"),
                ("evaluate", "diorama_holidays", "--out", tmp_path / "e")]
    commands = [(*command, "--size", 32, "--levels", 1, "--precision", "float32") for command in commands]
    for command in commands:
        result = run(*command)
        assert result.exit_code == 0, result.output
    free = 1000
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**9, 10**9, free))
    for command in commands:
        result = run(*command)
        assert result.exit_code == 0, (command, result.exception)
    whole = tree(tmp_path / "d")
    shutil.rmtree(tmp_path / "d")
    free = 10**9

    def killed(*arguments):
        raise KeyboardInterrupt
    with monkeypatch.context() as joining:  # the parts are there, the whole isn't
        joining.setattr(np.lib.format, "write_array_header_1_0", killed)
        assert run(*commands[0]).exit_code == 130
    assert (tmp_path / "d" / "partial" / "000000.npz").exists()
    free = len(whole[tmp_path / "d" / "network.safetensors"]) + 6 * 1280 * 4  # what is still to be written
    assert run(*commands[0]).exit_code == 0
    same = ("descriptors.npy", "network.safetensors")
    assert all((tmp_path / "d" / name).read_bytes() == whole[tmp_path / "d" / name] for name in same)


_LOCK = """
import sys, time
from rmaclib.foundation.folders import output_folder
with output_folder(sys.argv[1], sys.argv[2]):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("command, kind", [("extract", "descriptors"), ("index", "index"),
                                           ("evaluate", "descriptors")])
def test_no_wait(little, tmp_path, command, kind):
    holder = subprocess.Popen([sys.executable, "-c", _LOCK, tmp_path / "x", kind], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        refused(run(command, little, "--out", tmp_path / "x", "--no-wait", *NO_NETWORK), OutputError,
                "another process")
    finally:
        holder.kill()
        holder.wait()


# --- any tree of pictures, and bad files in it -----------------------------------------------------------------------


def test_any_tree_of_pictures(photos, tmp_path):
    for command in ("extract", "index"):
        result = run(command, photos, "--out", tmp_path / command, "--size", 32)
        assert result.exit_code == 0 and "6 images" in result.stderr, result.output
    names = load_descriptors(tmp_path / "extract").names
    assert sorted(names) == sorted(str(path) for path in photos.rglob("*.*"))
    assert len(Index.load(tmp_path / "index")) == 6


@pytest.mark.parametrize("command", ["extract", "index"])
def test_bad_files_are_counted_and_listed(photos, tmp_path, command):
    for number in range(20):
        (photos / f"bad{number:02d}[red].jpg").write_text("no picture")
    result = run(command, photos, "--out", tmp_path / "x", "--size", 32)
    assert result.exit_code == 0, result.output
    assert "20 images left out" in result.stderr and str(tmp_path / "x" / "bad.txt") in result.stderr
    assert sum("bad0" in line for line in result.stderr.splitlines()) == 3 and "bad00[red].jpg" in result.stderr
    listed = (tmp_path / "x" / "bad.txt").read_text().splitlines()
    assert len(listed) == 20 and all(f"bad{number:02d}[red].jpg" in line for number, line in enumerate(listed))


def test_rows_that_are_left_out_are_not_said_to_be_unreadable(photos, tmp_path):
    paths, listed = sorted(photos.rglob("*.jpg")), tmp_path / "my.csv"
    listed.write_text("path,x1,y1,x2,y2\n" + "".join(f"{path},,,,\n" for path in paths) + f"{paths[0]},5,5,1,1\n")
    result = run("extract", listed, "--out", tmp_path / "x", "--size", 32, "--skip-bad")
    assert result.exit_code == 0, result.output
    assert "1 images left out; all are listed in" in result.stderr and "can't be read" not in result.stderr


@pytest.mark.parametrize("command", ["evaluate", "clean"])
def test_warnings_of_the_library_are_notes(little, tmp_path, command):
    data = shutil.copytree(little, tmp_path / "data")
    (data / "jpg" / os.fsdecode(b"n\xff.jpg")).write_bytes(min((data / "jpg").iterdir()).read_bytes())
    images = (data, "--size", "32", "--levels", 1) if command == "evaluate" else (data, "--out", tmp_path / "c")
    result = run(command, *images)
    assert result.exit_code == 0, result.output
    assert "UserWarning" not in result.stderr and "registry.py" not in result.stderr
    assert re.search("^note: .*1 files.* left out", result.stderr, re.M)


def test_few_bad_files_are_told_whole(capsys):
    tell_bad([("a.jpg", "a.jpg: expected an image"), ("b.jpg", "no file")], None)
    assert capsys.readouterr().err == ("note: 2 images left out\n  a.jpg: expected an image\n"
                                       "  b.jpg: no file\n")
    tell_bad([], None)
    assert capsys.readouterr().err == ""


def timers(monkeypatch, seconds):
    """Steps are announced after so many seconds instead of a moment."""
    class Timer(threading.Timer):
        def __init__(self, interval, function, args=None, kwargs=None):
            super().__init__(seconds, function, args, kwargs)

        def start(self):
            return super().start() if seconds else self.function(*self.args)
    monkeypatch.setattr(threading, "Timer", Timer)


def test_what_takes_long_is_told(capsys, monkeypatch):
    timers(monkeypatch, 0.05)
    with telling("opening x"):
        threading.Event().wait(0.5)
    with telling("opening y"):
        pass
    threading.Event().wait(0.2)
    assert capsys.readouterr().err == "opening x …\n"


def test_opening_is_told(photos, little, tmp_path, lite0, monkeypatch):
    Index.build(sorted(photos.rglob("*.jpg")), lite0, ExtractionSettings((32,)), out=tmp_path / "i")
    timers(monkeypatch, 0)
    result = run("clean", photos, "--out", tmp_path / "i")
    assert result.exit_code == 1 and f"looking for images in {photos} …\n" in result.stderr  # it is an index
    result = run("index", photos, "--out", tmp_path / "i")
    assert result.exit_code == 0 and f"opening {tmp_path / 'i'} …\n" in result.stderr


def test_the_time_is_told_before(photos, little, tmp_path):
    messages = []
    for _ in range(2):
        result = run("extract", little / "jpg", "--out", tmp_path / "x", "--network", "efficientnet_lite0", "--size",
                     64, "--dim", 8, "--whiten-on", "diorama_val", "--whiten-images", 40)
        assert result.exit_code == 0
        lines = [line for line in result.stderr.splitlines() if line.startswith(("whitening learned", "extracting"))]
        messages += [re.sub(": (a few seconds|about [0-9.]+ [a-z]+)", ": SOON", line) for line in lines]
    count = len(os.listdir(little / "jpg"))
    whitening = "whitening learned on 40 images of diorama_val: SOON"
    extracting = f"extracting the descriptors of {count} images at 64 px: SOON"
    assert messages == [whitening, extracting, whitening, f"{extracting}, less what is done already"]
    assert [duration(seconds) for seconds in (1, 62, 100, 1500, 9000)] == [
        "a few seconds", "about 60 s", "about 2 min", "about 25 min", "about 2.5 h"]


def test_a_trained_network_keeps_its_whitening(photos, tmp_path):
    result = run("index", photos, "--out", tmp_path / "x", "--size", 32, "--whiten-on", "diorama_val")
    assert result.exit_code == 0 and "--whiten-on: no effect, landmarks_lite0 has a whitening" in result.stderr
    for option, value in (("--whiten-images", 30), ("--seed", 1)):
        result = run("extract", photos, "--out", tmp_path / option, "--size", 32, option, value)
        assert result.exit_code == 0 and f"{option}: no effect, landmarks_lite0 has a whitening" in result.stderr
    assert "no effect" not in run("extract", photos, "--out", tmp_path / "plain", "--size", 32).stderr
    untrained = "--network", "efficientnet_lite0"
    result = run("extract", photos, "--out", tmp_path / "u", "--size", 32, *untrained, "--seed", 1)
    assert "--seed: no effect, efficientnet_lite0 is not to be whitened, see --dim" in result.stderr
    assert "learned on" not in result.stderr


def test_the_images_that_codes_are_learned_on_are_opened_once_and_timed(little, tmp_path, monkeypatch):
    monkeypatch.setenv("RMACLIB_DATA", str(tmp_path))
    timers(monkeypatch, 0)
    result = run("evaluate", little, "--pq", 8, "--size", 32, "--levels", 1)
    assert result.exit_code == 0, result.output
    messages = result.stderr.splitlines()
    opened = [line for line in messages if line.startswith("looking for images in")]
    assert opened == ["looking for images in landmarks48 …", "looking for images in diorama_train …"]
    codes = [line for line in messages if line.startswith("codes learned on 875 images of diorama_train")]
    assert len(codes) == 1 and re.search(": (a few seconds|about )", codes[0])
    assert not any("whitening" in line for line in messages)
    assert sum(line.startswith("note: no landmarks48") for line in messages) == 1


# --- an index that is there ------------------------------------------------------------------------------------------


def test_the_same_index_twice(photos, tmp_path):
    options = ("--out", tmp_path / "x", "--size", 32, "--levels", 2, "--dim", 8, "--whiten-on", "diorama_val",
               "--whiten-images", 40, "--seed", 3, "--network", "efficientnet_lite0")
    for added in (6, 0):
        result = run("index", photos, *options)
        assert result.exit_code == 0 and f"{added} images added" in result.stderr, result.output
    for option, was, value in (("--size", 32, 64), ("--levels", 2, 3), ("--dim", 8, 16), ("--whiten-images", 40, 30),
                               ("--seed", 3, 4), ("--whiten-on", "diorama_val", "landmarks48"),
                               ("--pooling", "max", "gem"), ("--precision", "auto", "float32")):
        refused(run("index", photos, "--out", tmp_path / "x", option, value), InputError, option, str(was), str(value))
    network = create_network(NetworkSettings("efficientnet_lite0"), pretrained=False)
    checkpoints.save_network(tmp_path / "n.safetensors", network)
    refused(run("index", photos, "--out", tmp_path / "x", "--network", tmp_path / "n.safetensors"), InputError,
            "--network", "n.safetensors")


def test_an_index_that_does_not_say_how_it_was_made(photos, tmp_path, lite0):
    Index.build(sorted(photos.rglob("*.jpg")), lite0, ExtractionSettings((32,)), out=tmp_path / "x")
    for marker in (".rmac.json", ".rmac.lock"):  # as an older version left it
        (tmp_path / "x" / marker).unlink(missing_ok=True)
    result = run("index", photos, "--out", tmp_path / "x", "--size", 32)
    assert result.exit_code == 0 and "0 images added" in result.stderr, result.output
    refused(run("index", photos, "--out", tmp_path / "x", "--seed", 3), InputError, "--seed", "leave the option out")


# --- files that are replaced -----------------------------------------------------------------------------------------


def full(*arguments, **options):
    raise OSError(28, "No space left on device")


def test_a_search_that_fails_keeps_the_old_picture(photos, tmp_path, lite0, monkeypatch):
    paths = sorted(photos.rglob("*.jpg"))
    Index.build(paths, lite0, ExtractionSettings((32,)), out=tmp_path / "i")
    search = ("search", tmp_path / "i", paths[0], "--out", tmp_path / "n")
    result = run(*search)
    assert result.exit_code == 0 and str(tmp_path / "n.png") in result.stderr, result.output
    before = (tmp_path / "n.png").read_bytes()
    monkeypatch.setattr(Image.Image, "save", full)
    refused(run(*search), OutputError, "n.png", "No space left")
    assert (tmp_path / "n.png").read_bytes() == before and not list(tmp_path.glob(".rmac-*"))


def test_a_search_never_replaces_what_it_reads(photos, tmp_path, lite0):
    paths = sorted(photos.rglob("*.jpg"))
    Index.build(paths, lite0, ExtractionSettings((32,)), out=tmp_path / "i")
    query = shutil.copy(paths[0], tmp_path / "q.jpg")
    (tmp_path / "link.jpg").symlink_to(query)
    (tmp_path / "there").symlink_to(photos)
    before = tree(tmp_path)
    indexed = paths[1].relative_to(photos)
    for out in (query, tmp_path / "link.jpg", paths[1], tmp_path / "there" / indexed):
        refused(run("search", tmp_path / "i", query, "--out", out), OutputError, str(out), "nothing was changed")
    assert tree(tmp_path) == before


def test_proposals_never_replace_what_is_read(photos, tmp_path):
    paths, listed = sorted(photos.rglob("*.jpg")), tmp_path / "my.csv"
    listed.write_text("path\n" + "".join(f"{path}\n" for path in paths))
    network = tmp_path / "p.safetensors"
    network.write_text("no network")  # opening it would be another error
    before = tree(tmp_path)
    for images in (listed, photos):
        command = ("propose", images, "--network", network)
        for option in (("--out", paths[2]), ("--out", network), ("--picture", paths[2])):
            refused(run(*command, *option), OutputError, option[1].name, "nothing was changed")
    refused(run("propose", listed, "--network", network, "--out", tmp_path / "i" / ".." / "my.csv"), OutputError,
            "my.csv")
    assert tree(tmp_path) == before


def test_a_box_outside_of_the_query_is_refused_first(photos, tmp_path):
    query = min(photos.rglob("*.jpg"))
    search = ("search", tmp_path / "no_index")
    refused(run(*search, query, "--box", "5000,5000,5100,5100"), InputError, "--box", str(query))
    refused(run(*search, tmp_path / "no.jpg"), ImageError, "no.jpg")


def proposing(tmp_path):
    network = create_network(NetworkSettings("timm:test_efficientnet", anchors=((0.5, 0.5),)), pretrained=False)
    checkpoints.save_network(tmp_path / "p.safetensors", network)
    return tmp_path / "p.safetensors"


def test_propose(photos, tmp_path, monkeypatch):
    (photos / "bad.jpg").write_text("no picture")
    command = ("propose", photos, "--network", proposing(tmp_path), "--k", 3, "--size", 96, "--out",
               tmp_path / "p.csv", "--picture", tmp_path / "p.png")
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert "1 images left out" in result.stderr and f"picture: {tmp_path / 'p.png'}" in result.stderr
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert list(rows[0]) == ["image", "x1", "y1", "x2", "y2", "score"] and len({row["image"] for row in rows}) == 6
    before = (tmp_path / "p.csv").read_bytes(), (tmp_path / "p.png").read_bytes()
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    refused(run(*command), OutputError, "p.png", "No space left")
    assert ((tmp_path / "p.csv").read_bytes(), (tmp_path / "p.png").read_bytes()) == before


def test_proposals_of_pictures_whose_names_are_no_text(photos, tmp_path):
    folder = tmp_path / os.fsdecode(b"p\xff")
    folder.mkdir()
    for name in ("$\\frac$.jpg", "b.jpg"):
        shutil.copy(min(photos.rglob("*.jpg")), folder / name)
    result = run("propose", folder, "--network", proposing(tmp_path), "--k", 2, "--size", 96, "--out",
                 tmp_path / "p.csv", "--picture", tmp_path / "p.png")
    assert result.exit_code == 0, result.exception
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert {row["image"] for row in rows} == {repr(str(path)) for path in folder.iterdir()}


def test_a_network_that_proposes_nothing_is_refused(photos):
    refused(run("propose", photos, "--network", "efficientnet_lite0"), InputError, "--network", "efficientnet_lite0")


def test_the_index_of_the_commands_is_that_of_the_library(photos, tmp_path):
    assert run("index", photos, "--out", tmp_path / "x", "--size", 32).exit_code == 0
    made = Index.build(sorted(photos.rglob("*.jpg")), settings=ExtractionSettings((32,)))
    query = np.random.default_rng(0).normal(size=(1, 512))
    loaded = Index.load(tmp_path / "x")
    assert loaded.vectors.search(query, 6) == made.vectors.search(query, 6)
