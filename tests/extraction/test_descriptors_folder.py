import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from extraction_pictures import FAST, StopsAtBlack, Unused, photographs, tiny
from PIL import Image

from rmaclib.extraction.batches import CHUNK, ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.folder import DescriptorsError, load_descriptors
from rmaclib.foundation.errors import OutputError
from rmaclib.network import RMAC, NetworkSettings, SharedFeatures


def test_folder_equals_memory_and_is_loaded_again(tmp_path):
    network, paths = tiny(), photographs(tmp_path / "jpg", CHUNK + 20)
    names = [path.stem for path in paths]
    memory = extract(network, paths, FAST, names=names)
    folder = extract(network, paths, FAST, names=names, out=tmp_path / "out")
    assert isinstance(folder.vectors, np.memmap) and np.array_equal(folder.vectors, memory.vectors)
    assert folder.names == memory.names == tuple(names)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".rmac.json", ".rmac.lock", "bad.txt", "descriptors.npy", "meta.json", "names.txt"]
    again = extract(tiny(body=Unused), paths, FAST, names=names, out=tmp_path / "out")  # a finished run
    assert np.array_equal(again.vectors, memory.vectors)


def test_a_folder_of_something_else_is_rejected(tmp_path):
    network, paths = tiny(), photographs(tmp_path / "jpg")
    extract(network, paths, FAST, out=tmp_path / "out")
    with pytest.raises(DescriptorsError, match="made otherwise: images"):
        extract(network, paths[:-1], FAST, out=tmp_path / "out")
    with pytest.raises(DescriptorsError, match=r"settings.sizes \(\[64\], now \[48\]\)"):
        extract(network, paths, ExtractionSettings((48,), device="cpu"), out=tmp_path / "out")
    with torch.no_grad():
        network.backbone.body[0].weight.mul_(2)
    with pytest.raises(DescriptorsError, match="otherwise: weights"):
        extract(network, paths, FAST, out=tmp_path / "out")


def test_load_rejects_what_is_not_whole(tmp_path):
    with pytest.raises(DescriptorsError, match="meta.json"):
        load_descriptors(tmp_path)
    extract(tiny(), photographs(tmp_path / "jpg"), FAST, out=tmp_path / "out")
    (tmp_path / "out" / "names.txt").write_text("another\n")
    with pytest.raises(DescriptorsError, match="names.txt: is damaged or was changed"):
        load_descriptors(tmp_path / "out")


RUN = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from extraction_pictures import FAST, Slow, tiny
from rmaclib.extraction.descriptors import extract
extract(tiny(body=Slow), sorted(Path(sys.argv[2]).iterdir()), FAST, out=sys.argv[3])
"""


def start(jpg, out, **options):
    return subprocess.Popen([sys.executable, "-c", RUN, os.path.dirname(__file__), jpg, out], **options)


def test_killed_and_started_again_gives_the_same_bytes(tmp_path):
    photographs(tmp_path / "jpg", 7 * CHUNK)
    (tmp_path / "jpg" / "0007.jpg").write_bytes(b"")
    assert start(tmp_path / "jpg", tmp_path / "whole").wait() == 0
    for kills in range(2):
        process = start(tmp_path / "jpg", tmp_path / "killed")
        deadline = time.time() + 60
        while len(list((tmp_path / "killed").glob("partial/0*.npz"))) < 2 * (kills + 1):
            assert time.time() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(DescriptorsError):
            load_descriptors(tmp_path / "killed")
    assert 4 <= len(list((tmp_path / "killed" / "partial").glob("0*.npz"))) < 7
    assert start(tmp_path / "jpg", tmp_path / "killed").wait() == 0
    for name in ("descriptors.npy", "names.txt", "bad.txt", "meta.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert len(load_descriptors(tmp_path / "killed").bad) == 1


def test_two_processes_on_one_folder_both_end_well(tmp_path):
    photographs(tmp_path / "jpg", 2 * CHUNK)
    runs = [start(tmp_path / "jpg", tmp_path / "out", stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    assert len(load_descriptors(tmp_path / "out").names) == 2 * CHUNK


def test_meta_says_what_was_done(tmp_path):
    extract(tiny(), photographs(tmp_path / "jpg", 3), FAST, out=tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["settings"]["sizes"] == [64] and meta["network"]["levels"] == 2 and meta["bad"] == []


def test_shared_features_to_a_folder(tmp_path):
    first, paths = tiny(), photographs(tmp_path / "jpg", 4)
    shared = SharedFeatures({"one": first, "two": RMAC(NetworkSettings("tiny", grid="whole"), first.backbone).eval()})
    memory = extract(shared, paths, FAST).vectors
    assert np.array_equal(extract(shared, paths, FAST, out=tmp_path / "out").vectors, memory)
    assert np.array_equal(extract(shared, paths, FAST, out=tmp_path / "out").vectors, memory)
    other = SharedFeatures({"one": first, "two": RMAC(NetworkSettings("tiny", grid="pixel"), first.backbone).eval()})
    with pytest.raises(DescriptorsError, match="network.two"):
        extract(other, paths, FAST, out=tmp_path / "out")


# --- damage, left-overs, foreign folders --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of three chunks that was stopped in the third, and what it gives when it ends well."""
    folder = tmp_path_factory.mktemp("stopped")
    paths = photographs(folder / "jpg", 2 * CHUNK + 5)
    Image.new("RGB", (80, 60)).save(paths[-1])
    extract(tiny(), paths, FAST, out=folder / "whole")
    with pytest.raises(KeyboardInterrupt):
        extract(tiny(body=StopsAtBlack), paths, FAST, out=folder / "out")
    return folder, paths


@pytest.fixture
def killed(stopped, tmp_path):
    """The network, the images and the folder of a stopped run."""
    folder, paths = stopped
    for name in ("whole", "out"):
        shutil.copytree(folder / name, tmp_path / name)
    assert sorted(os.listdir(tmp_path / "out" / "partial")) == ["000000.npz", "000001.npz", "meta.json"]
    return tiny(), paths, tmp_path / "out"


def same_as_whole(out):
    names = {".rmac.json", ".rmac.lock", "descriptors.npy", "names.txt", "bad.txt", "meta.json"}
    assert set(os.listdir(out)) == names == set(os.listdir(out.with_name("whole")))
    for name in names - {".rmac.lock"}:
        assert (out / name).read_bytes() == (out.with_name("whole") / name).read_bytes(), name


@pytest.mark.parametrize("file", ["000000.npz", "000001.npz", "meta.json"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:len(data) // 2],
                                    lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:]])
def test_a_damaged_piece_is_made_again_and_noted(killed, noted, file, damage):
    network, paths, out = killed
    path = out / "partial" / file
    path.write_bytes(damage(path.read_bytes()))
    with noted(f"{path}: "):
        extract(network, paths, FAST, out=out)
    same_as_whole(out)


def test_a_chunk_in_the_place_of_another_is_not_taken(killed):
    """The chunk itself says what it is: a copied or renamed file isn't trusted."""
    network, paths, out = killed
    shutil.copy(out / "partial" / "000001.npz", out / "partial" / "000000.npz")
    extract(network, paths, FAST, out=out)
    same_as_whole(out)


@contextmanager
def killed_while_chunks_are_removed(monkeypatch):
    """A block that ends when the first file in partial/ is to be removed."""
    unlink = Path.unlink

    def dies(path, missing_ok=False):
        if path.parent.name == "partial" and not path.name.startswith(".rmac-"):
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_left_overs_of_a_run_killed_at_its_very_end_go(killed, monkeypatch):
    network, paths, out = killed
    with killed_while_chunks_are_removed(monkeypatch):
        extract(network, paths, FAST, out=out)
    assert (out / "partial" / "000002.npz").exists() and (out / "meta.json").exists()
    extract(tiny(body=Unused), paths, FAST, out=out)
    same_as_whole(out)


def test_a_damaged_meta_is_made_again_where_the_chunks_are_there(killed, monkeypatch, noted):
    network, paths, out = killed
    with killed_while_chunks_are_removed(monkeypatch):
        extract(network, paths, FAST, out=out)
    (out / "meta.json").write_bytes(b"")
    with noted("meta.json.*made again"):
        extract(tiny(body=Unused), paths, FAST, out=out)
    same_as_whole(out)
    (out / "meta.json").write_bytes(b"")
    with pytest.raises(DescriptorsError, match="meta.json: expected what descriptors.*; remove the folder"):
        extract(network, paths, FAST, out=out)


def test_a_folder_of_the_user_is_rejected_and_untouched(tmp_path):
    paths = photographs(tmp_path / "jpg", 3)
    (tmp_path / "out" / "partial").mkdir(parents=True)
    (tmp_path / "out" / "partial" / "mine.jpg").write_text("mine")
    (tmp_path / "out" / "names.txt").write_text("mine")
    with pytest.raises(OutputError, match="names.txt"):
        extract(tiny(), paths, FAST, out=tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["names.txt", "partial"]
    assert (tmp_path / "out" / "partial" / "mine.jpg").exists()


def test_what_an_older_version_wrote_is_loaded(tmp_path):
    """No marker, no checksums; with what a kill behind the last rename left."""
    network, paths, out = tiny(), photographs(tmp_path / "jpg", 3), tmp_path / "out"
    vectors = extract(network, paths, FAST, out=out).vectors.copy()
    meta = json.loads((out / "meta.json").read_text())
    for name in (".rmac.json", ".rmac.lock"):
        (out / name).unlink()
    old = {key: meta[key] for key in ("network", "weights", "settings", "images")}
    (out / "meta.json").write_text(json.dumps({**old, "bad": []}, indent=1))
    (out / "partial").mkdir()
    (out / "partial" / "meta.json").write_text(json.dumps(old, indent=1))
    np.savez(out / "partial" / "000000.npz", vectors=vectors, reasons=np.array([""] * 3))
    (out / "network.safetensors").write_text("of rmac extract")
    assert np.array_equal(load_descriptors(out).vectors, vectors)
    (out / "meta.json").rename(out / "kept")
    shutil.copytree(out, tmp_path / "killed", ignore=shutil.ignore_patterns("kept"))
    again = extract(network, paths, FAST, out=tmp_path / "killed")  # goes on with its chunk
    assert np.array_equal(again.vectors, vectors) and not (tmp_path / "killed" / "partial").exists()


def test_files_of_the_user_beside_an_older_killed_run_are_kept(tmp_path):
    """It had written chunks only: what has the names of the rest isn't its own."""
    network, paths, out = tiny(), photographs(tmp_path / "jpg", 3), tmp_path / "out"
    extract(network, paths, FAST, out=out)
    meta = json.loads((out / "meta.json").read_text())
    shutil.rmtree(out)
    (out / "partial").mkdir(parents=True)
    old = {key: meta[key] for key in ("network", "weights", "settings", "images")}
    (out / "partial" / "meta.json").write_text(json.dumps(old))
    (out / "partial" / "1mine.npz").write_text("mine")
    (out / "names.txt").write_text("mine")
    with pytest.raises(OutputError, match="names.txt: would be replaced, and was not written by this library"):
        extract(network, paths, FAST, out=out)
    (out / "names.txt").rename(out / "other.txt")
    assert len(extract(network, paths, FAST, out=out).names) == 3
    assert (out / "other.txt").read_text() == (out / "partial" / "1mine.npz").read_text() == "mine"


def test_the_device_is_not_what_descriptors_are_made_of(tmp_path):
    network, paths, out = tiny(), photographs(tmp_path / "jpg", 3), tmp_path / "out"
    vectors = extract(network, paths, replace(FAST, device="auto"), out=out).vectors
    before = (out / "descriptors.npy").stat().st_mtime_ns
    assert np.array_equal(extract(network, paths, FAST, out=out).vectors, vectors)
    meta = json.loads((out / "meta.json").read_text())  # as older versions wrote it
    del meta["checksum"], meta["checksums"]
    meta["settings"]["device"] = "cuda:1"
    (out / "meta.json").write_text(json.dumps(meta))
    assert np.array_equal(extract(network, paths, FAST, out=out).vectors, vectors)
    assert (out / "descriptors.npy").stat().st_mtime_ns == before


def test_another_run_in_an_older_folder_is_an_error(tmp_path):
    network, paths, out = tiny(), photographs(tmp_path / "jpg", 3), tmp_path / "out"
    extract(network, paths, FAST, out=out)
    meta = json.loads((out / "meta.json").read_text())
    del meta["checksum"], meta["checksums"], meta["repeated"]
    (out / "meta.json").write_text(json.dumps(meta))
    (out / ".rmac.json").unlink()
    with pytest.raises(DescriptorsError, match="contains descriptors made otherwise: images; choose another folder"):
        extract(network, paths[:2], FAST, out=out)
    assert len(extract(network, paths, FAST, out=out).names) == 3


def header(shape, descr="<f4", fortran=False):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": fortran, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("head", [
    header((3, 9)), header((2, 8)), header((10**12, 10**12)), header((24,)), header((3, 8), "<f8"),
    header((3, 8), "|O"), header((3, 8), fortran=True), header((-3, -8)), b"",
    b"\x93NUMPY\x01\x00", header((3, 8)).replace(b"(3", b"((")])
@pytest.mark.parametrize("checked", [True, False])
def test_the_header_of_the_vectors_is_not_trusted(tmp_path, head, checked):
    extract(tiny(), photographs(tmp_path / "jpg", 3), FAST, out=tmp_path / "out")
    path = tmp_path / "out" / "descriptors.npy"
    path.write_bytes(head + path.read_bytes()[128:])
    if not checked:
        meta = json.loads((tmp_path / "out" / "meta.json").read_text())
        del meta["checksum"], meta["checksums"]
        (tmp_path / "out" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DescriptorsError, match="descriptors.npy"):
        load_descriptors(tmp_path / "out")


def test_space_on_the_disk_is_checked_before_the_first_image(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=500))
    with pytest.raises(OutputError, match="descriptors of 12 images need 0.0 MB"):
        extract(tiny(body=Unused), photographs(tmp_path / "jpg", 12), FAST, out=tmp_path / "out")
