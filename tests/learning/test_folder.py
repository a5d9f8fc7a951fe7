"""The folder of a training run: whose it is, what damaged files in it lead to, and that two processes share it."""

import csv
import errno
import io
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learning_pictures import FILES, pictures, stopping_after, tiny
from safetensors.torch import load_file, save_file
from test_ranking_stage import SETTINGS, rows, run

from rmaclib.checkpoints import load_network
from rmaclib.datasets import open_collection
from rmaclib.foundation.errors import OutputError, RmacError
from rmaclib.foundation.folders import waiting
from rmaclib.learning import LearningError, read_log, train_ranking

SHORT = replace(SETTINGS, updates=3, refresh=2, triplets=2, pool=8, evaluate_every=3, save_every=2)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A run that was not stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, run(images, out, SHORT)


@pytest.fixture
def stopped(images, tmp_path):
    """The folder of a run that was stopped after the state of update 2."""
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "run", SHORT, watch=stopping_after(2))
    return tmp_path / "run"


def same(trained, whole):
    return rows(trained.history) == rows(whole[1].history) and all(
        torch.equal(tensor, whole[1].network.state_dict()[name])
        for name, tensor in trained.network.state_dict().items())


@pytest.mark.parametrize("name", ["log.csv", "bad.txt", "best.safetensors", "holiday.jpg"])
def test_a_folder_with_other_things_is_rejected_and_untouched(images, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=name):
        run(images, tmp_path, SHORT)
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name, damage", [
    ("log.csv", b""), ("log.csv", b"\xff"), ("log.csv", None), ("run.json", b"{"), ("run.json", None)])
def test_what_follows_from_the_state_is_made_again_and_noted(images, stopped, whole, name, damage, noted):
    if damage is None:
        (stopped / name).unlink()
    else:
        (stopped / name).write_bytes(damage)
    with nullcontext() if damage is None else noted(f"{name}: was damaged"):
        assert same(run(images, stopped, SHORT), whole)
    assert (stopped / "run.json").read_bytes() == (whole[0] / "run.json").read_bytes()


def test_a_cut_state_is_named_and_says_what_to_do(images, stopped, whole):
    content = (stopped / "state.safetensors").read_bytes()
    for share in (0, 0.1, 0.99):
        (stopped / "state.safetensors").write_bytes(content[:int(share * len(content))])
        with pytest.raises(LearningError, match="state.safetensors: .*remove this file to train again from the start"):
            run(images, stopped, SHORT)
    (stopped / "state.safetensors").unlink()
    assert same(run(images, stopped, SHORT), whole)


def test_a_changed_state_is_told(images, stopped):
    content = bytearray((stopped / "state.safetensors").read_bytes())
    content[-10] ^= 1  # in a tensor
    (stopped / "state.safetensors").write_bytes(content)
    with pytest.raises(LearningError, match="state.safetensors: .*its checksum differs"):
        run(images, stopped, SHORT)


def test_a_damaged_best_network_is_made_again_where_the_state_has_it(images, tmp_path, noted):
    out, settings = tmp_path / "first", replace(SHORT, updates=1, lr=0.0)
    assert run(images, out, settings).best_update == 0
    (out / "best.safetensors").write_bytes(b"half")
    with pytest.raises(LearningError, match="best.safetensors: .*remove .*state.safetensors to train again"):
        run(images, out, settings)
    out = tmp_path / "last"
    network = tiny(images)
    last = train_ranking(network, images, SHORT, out=out, progress=False)  # without validation the last is kept
    (out / "best.safetensors").write_bytes(b"half")
    with noted("best.safetensors: was damaged"):
        again = train_ranking(tiny(images), images, SHORT, out=out, progress=False)
    assert all(torch.equal(tensor, again.network.state_dict()[name])
               for name, tensor in last.network.state_dict().items())


def make_older(out):
    """Make the folder one that the version before has written."""
    for name in (".rmac.json", ".rmac.lock"):
        (out / name).unlink()
    identity = json.loads((out / "run.json").read_text())
    del identity["checksum"]
    (out / "run.json").write_text(json.dumps(identity))
    state = load_file(out / "state.safetensors")
    with (out / "log.csv").open(newline="") as file:
        scored = [row for row in csv.DictReader(file) if row["validation"]]
    best = max(scored, key=lambda row: float(row["validation"]))
    save_file(state, out / "state.safetensors", {"notes": json.dumps({
        "update": 2, "best": {"update": int(best["update"]), "score": float(best["validation"])}, "bad": {}})})
    network = load_network(out / "best.safetensors")
    settings = {**json.loads(json.dumps(vars(network.settings)))}
    save_file(network.state_dict(), out / "best.safetensors", {
        "format": "rmaclib-checkpoint", "version": "1", "network": json.dumps(settings)})
    (out / ".state.4711.safetensors").write_bytes(b"left over")


def test_a_run_of_the_version_before_goes_on(images, stopped, whole):
    make_older(stopped)
    assert same(run(images, stopped, SHORT), whole)
    assert sorted(os.listdir(stopped)) == FILES


def test_a_run_of_the_version_before_with_other_settings_is_rejected(images, stopped):
    make_older(stopped)
    with pytest.raises(LearningError, match=r"settings.margin \(0.1, now 0.2\)"):
        run(images, stopped, replace(SHORT, margin=0.2))


def test_the_device_is_no_part_of_a_run(images, stopped, whole):
    """Runs of the version before have it among their settings."""
    make_older(stopped)
    identity = json.loads((stopped / "run.json").read_text())
    assert "device" not in identity["settings"]
    identity["settings"]["device"] = "auto"
    (stopped / "run.json").write_text(json.dumps(identity))
    assert same(run(images, stopped, SHORT), whole)
    assert same(run(images, stopped, replace(SHORT, device="auto" if not torch.cuda.is_available() else "cpu")), whole)


def test_bad_images_of_a_folder_whose_name_is_no_text(tmp_path):
    root = tmp_path / os.fsdecode(b"r\xff")
    try:
        images = pictures(root)
    except OSError:
        pytest.skip("this file system has names of UTF-8 only")
    (root / "0/0.png").write_bytes(b"no picture")
    trained = train_ranking(tiny(), images, replace(SHORT, updates=1, pool=25), out=tmp_path / "out", progress=False)
    (line,) = (tmp_path / "out/bad.txt").read_text(encoding="utf-8").splitlines()
    assert list(trained.bad) == ["0/0.png"] and line.startswith("0/0.png\t") and "r\\udcff" in line


def test_damaged_notes_of_a_state_of_the_version_before(images, stopped):
    make_older(stopped)
    for notes in (None, "", "[]", "{}", '{"update": "2", "best": {}, "bad": {}}',
                  '{"update": 2, "best": {"update": 1, "score": "x"}, "bad": []}'):
        save_file(load_file(stopped / "state.safetensors"), stopped / "state.safetensors",
                  None if notes is None else {"notes": notes})
        with pytest.raises(LearningError, match="state.safetensors: .*damaged"):
            run(images, stopped, SHORT)


@pytest.mark.parametrize("text", ["", "a,b\n", "update,loss\n1\n", "update,loss\n1,2,3\n", "update,loss\n,2\n",
                                  "update,loss\n1,x\n", 'update,loss\n1,"2'])
def test_a_log_that_is_damaged_is_named(tmp_path, text):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(LearningError, match="log.csv"):
        read_log(tmp_path / "log.csv")
    with pytest.raises(LearningError, match="nothing.csv"):
        read_log(tmp_path / "nothing.csv")


def test_left_overs_of_killed_processes_go(images, stopped):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    from rmaclib.foundation import files
    (stopped / f".rmac-{files._HOST}-{dead.pid}-3.safetensors").write_bytes(b"half")
    run(images, stopped, SHORT)
    assert sorted(os.listdir(stopped)) == FILES


def test_too_little_room_is_told_before_any_work(images, tmp_path, monkeypatch):
    monkeypatch.setattr("rmaclib.foundation.files.shutil.disk_usage", lambda place: type("Usage", (), {"free": 10_000}))
    with pytest.raises(OutputError, match="the network and the state of its training need"):
        run(images, tmp_path, SHORT)
    assert "best.safetensors" not in os.listdir(tmp_path)  # of the first validation


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("fails", ["write", "close"])
def test_a_full_disk_while_updates_are_logged(images, tmp_path, monkeypatch, fails):
    opens = Path.open

    class Closing(io.FileIO):  # some network disks say only then that they are full
        def close(self):
            is_open = not self.closed
            super().close()
            if is_open:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(path, mode="r", *arguments, **more):
        if "a" not in mode:
            return opens(path, mode, *arguments, **more)
        return open("/dev/full", mode, *arguments, **more) if fails == "write" else Closing(path, "a")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match="can't be written .No space left on device"):
        run(images, tmp_path, SHORT)


TRAINS = """
import sys
sys.path.insert(0, sys.argv[1])
from rmaclib.datasets import open_collection
from test_folder import SHORT
from test_ranking_stage import run
print("begins", flush=True)
run(open_collection(sys.argv[2]), sys.argv[3], SHORT, watch=lambda rows: print(len(rows), flush=True))
"""


@pytest.mark.slow
def test_two_processes_on_one_folder(images, tmp_path):
    """The second waits for the first, and finds a finished run."""
    command = [sys.executable, "-c", TRAINS, os.path.dirname(__file__), images.root, tmp_path / "out"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  env={**os.environ, "OMP_NUM_THREADS": "1"}) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    updates = [text.split("\n")[1:-1] for text, _ in outputs]
    assert sorted(map(len, updates)) == [0, 4]  # one trained, the other loaded


HOLDS = """
import sys, time
from rmaclib.foundation.folders import output_folder
with output_folder(sys.argv[1], "training"):
    print(flush=True)
    time.sleep(60)
"""


def test_a_folder_in_use_is_an_error_where_nobody_waits(images, tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path / "out"], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        with waiting(False), pytest.raises(RmacError, match="another process is writing"):
            run(images, tmp_path / "out", SHORT)
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.slow
def test_stopped_at_every_write(images, tmp_path, whole, monkeypatch):
    """Whatever the last write was, the run goes on to the same result, and nothing is left over."""
    collection, replaced, count = open_collection(images.root), os.replace, 0
    for stop in range(100):
        count, out = 0, tmp_path / str(stop)

        def stops(source, target, stop=stop):
            nonlocal count
            count += 1
            if count > stop:
                raise KeyboardInterrupt
            replaced(source, target)

        with monkeypatch.context() as patch:
            patch.setattr("os.replace", stops)
            try:
                run(collection, out, SHORT)
            except KeyboardInterrupt:
                pass
        trained = run(collection, out, SHORT)
        assert rows(trained.history) == rows(whole[1].history)
        assert sorted(os.listdir(out)) == FILES
        assert (out / "best.safetensors").read_bytes() == (whole[0] / "best.safetensors").read_bytes()
        if count <= stop:
            break
    assert stop > 6
