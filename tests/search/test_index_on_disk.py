"""The folder of an index of images: killed runs, several processes, older versions, files of the user."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import faiss
import pytest
from torch import nn

from rmaclib.backbones import Backbone, Layer
from rmaclib.checkpoints import save_network
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.foundation.errors import OutputError
from rmaclib.network import RMAC, NetworkSettings
from rmaclib.search.index import Index
from rmaclib.search.index_folder import SearchIndexError, index_folder, remove_pending

FAST = ExtractionSettings((128,), precision="float32", device="cpu")
SMALL = replace(FAST, sizes=(64,))


def killed(*arguments):
    raise KeyboardInterrupt


@contextmanager
def counted(network):
    """How often a network is computed in the block: a list with an entry for each batch."""
    batches = []
    hook = network.register_forward_pre_hook(lambda *_: batches.append(1))
    try:
        yield batches
    finally:
        hook.remove()


def test_a_killed_build_goes_on(pictures, tmp_path, lite0, monkeypatch):
    with monkeypatch.context() as patch, counted(lite0) as batches:
        patch.setattr(faiss, "IndexFlatIP", killed)  # all descriptors are extracted then, and none is in the index
        with pytest.raises(KeyboardInterrupt):
            Index.build(pictures, lite0, FAST, out=tmp_path / "index")
    assert batches
    with pytest.raises(SearchIndexError, match="expected an index"):
        Index.load(tmp_path / "index")
    with counted(lite0) as batches:
        assert len(Index.build(pictures, lite0, FAST, out=tmp_path / "index")) == len(pictures)
    assert not batches
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [
        ".rmac.json", ".rmac.lock", "000001.faiss", "000001.txt", "meta.json", "network.safetensors"]


def test_output_among_files_of_the_user_is_rejected(pictures, lite0, tmp_path):
    folder = pictures[0].parent
    (folder / "000001.txt").write_text("a label")
    before = sorted(os.listdir(folder))
    for out in (folder, folder / "index"):
        with pytest.raises(OutputError):
            Index.build(folder, lite0, SMALL, out=out)
    with pytest.raises(OutputError, match="000001.txt"):
        Index.build(pictures[:1], lite0, SMALL, out=folder)
    assert sorted(os.listdir(folder)) == before
    out = tmp_path / "out"
    index = Index.build(pictures[:1], lite0, SMALL, out=out)
    for name in ("describing-mine", "describing-0123456789abcdef"):
        (out / name).mkdir()
        (out / name / "mine.txt").write_text("mine")
    index.add(pictures[1])
    index.save(out)
    assert all((out / name / "mine.txt").exists() for name in ("describing-mine", "describing-0123456789abcdef"))


def test_left_overs_of_a_killed_addition_go_with_the_next_save(pictures, lite0, tmp_path, monkeypatch):
    out = tmp_path / "index"
    index = Index.build(pictures[:1], lite0, SMALL, out=out)
    with monkeypatch.context() as patch:
        patch.setattr(faiss, "IndexFlatIP", killed)
        with pytest.raises(KeyboardInterrupt):
            index.add(pictures[1:3])
    assert len(list(out.glob("describing-*"))) == 1
    index.add(pictures[3])
    index.save(out)
    assert not list(out.glob("describing-*")) and len(Index.load(out, lite0)) == 2
    marker = json.loads((out / ".rmac.json").read_text())
    assert set(marker["files"]) | {".rmac.json", ".rmac.lock"} == set(os.listdir(out))


def test_a_kill_while_descriptors_are_kept_leaves_nothing_of_them(pictures, tmp_path, monkeypatch):
    """Before each rename and removal of a file: what is left over goes with the next save."""
    class Killed(BaseException):
        pass

    def breakable(call):
        def breaking(path, *arguments, **options):
            nonlocal count
            count += "describing-" in str(path)
            if count == last:
                raise Killed  # also at every later call: a killed process makes none
            return call(path, *arguments, **options)
        return breaking

    body = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU())
    network = RMAC(NetworkSettings("tiny", levels=2), Backbone("tiny", body, [Layer("last", 8, 8)], (0.5,) * 3,
                                                               (0.5,) * 3)).eval()
    start, last, count, finished = tmp_path / "start", 0, 0, False
    Index.build(pictures[:1], network, SMALL, out=start)
    for owner, name in ((os, "replace"), (os, "unlink"), (os, "rmdir")):
        monkeypatch.setattr(owner, name, breakable(getattr(owner, name)))
    while not finished:
        last, count = last + 1, 0
        out = tmp_path / f"index {last}"
        shutil.copytree(start, out)
        try:
            index = Index.load(out, network)
            index.add(pictures[1:2], progress=False)
            index.save(out)
            finished = True
        except Killed:
            count = -10**6
        with index_folder(out) as opened:
            remove_pending(opened)
        assert not list(out.glob("describing-*")), last
    assert last > 5


def test_what_others_added_is_taken_over(pictures, lite0, tmp_path):
    out = tmp_path / "index"
    Index.build(pictures[:1], lite0, SMALL, out=out)
    first, second = (Index.load(out, lite0) for _ in range(2))
    assert first.add(pictures[:3]) == 2
    first.save(out)
    assert second.add(pictures[:4]) == 1  # the two are not extracted again
    second.save(out)
    assert set(Index.load(out, lite0).vectors.names) == set(map(str, pictures[:4])) == set(second.vectors.names)


BUILD = """
import sys
from pathlib import Path
from rmaclib.checkpoints import load_network
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.search.index import Index

index = Index.build([Path(name) for name in sys.argv[3:]], load_network(sys.argv[1]),
                    ExtractionSettings((64,), precision="float32", device="cpu"), out=sys.argv[2])
print(len(index))
"""


def test_two_builds_of_one_folder_both_end_well(pictures, lite0, tmp_path):
    """The second waits, and adds what the first's images lack."""
    save_network(tmp_path / "lite0.safetensors", lite0)
    lists = pictures[:8], pictures[4:10]
    command = [sys.executable, "-c", BUILD, tmp_path / "lite0.safetensors", tmp_path / "index"]
    builds = [subprocess.Popen([*command, *images], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
              for images in lists]
    ends = [build.communicate(timeout=200) for build in builds]
    assert [build.returncode for build in builds] == [0, 0], ends
    assert set(Index.load(tmp_path / "index", lite0).vectors.names) == set(map(str, pictures[:10]))
    assert sorted(path.name for path in (tmp_path / "index").iterdir() if path.name.startswith("desc")) == []


def test_an_index_of_an_older_version_is_loaded_and_added_to(pictures, lite0, tmp_path):
    out = tmp_path / "index"
    Index.build(pictures[:2], lite0, SMALL, out=out)
    meta = json.loads((out / "meta.json").read_text())
    del meta["checksum"]
    for entry in meta["segments"]:
        del entry["checksums"]
    (out / "meta.json").write_text(json.dumps({**meta, "version": 1}))
    for name in (".rmac.json", ".rmac.lock"):
        (out / name).unlink()
    (out / "describing-0123456789abcdef" / "partial").mkdir(parents=True)  # of a killed addition
    (out / "describing-0123456789abcdef" / "partial" / "meta.json").write_text(
        json.dumps(dict.fromkeys(("network", "weights", "settings", "images"))))
    index = Index.load(out)
    assert index.search(pictures[1], k=1)[0].name == str(pictures[1])
    assert index.add(pictures[2]) == 1
    index.save(out)
    assert len(Index.load(out)) == 3 and not list(out.glob("describing-*"))


def test_a_network_that_does_not_fit_on_the_disk_is_noticed_before_the_work(pictures, lite0, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.serialize_file", full)
    with counted(lite0) as batches, pytest.raises(OutputError, match="network.safetensors.*No space left"):
        Index.build(pictures[:2], lite0, SMALL, out=tmp_path / "index")
    assert not batches
