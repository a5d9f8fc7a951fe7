import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rmaclib.backbones import Backbone
from rmaclib.extraction import batches, descriptors
from rmaclib.extraction.batches import ExtractionSettings, pick_device
from rmaclib.extraction.descriptors import extract, extract_image
from rmaclib.extraction.folder import DescriptorsError, Run, load_descriptors
from rmaclib.extraction.whitening import learn_whitening
from rmaclib.foundation.errors import InputError, OutputError
from rmaclib.foundation.folders import OutputFolder
from rmaclib.images import fit, read_image
from rmaclib.network import RMAC, NetworkSettings, SharedFeatures

FAST = ExtractionSettings(sizes=(64,), device="cpu", precision="float32")
SHAPES = [(80, 60), (60, 80), (64, 64), (40, 30), (90, 30)]


def tiny(channels=8):
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(3, channels, 8, stride=8), nn.ReLU())
    return RMAC(NetworkSettings("tiny", levels=2), Backbone("tiny", body, 8, channels, (0.5,) * 3, (0.5,) * 3)).eval()


def photographs(folder, count=12, seed=0):
    """Smooth random pictures of several shapes."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        paths.append(folder / f"{number:04d}.jpg")
        coarse.resize(SHAPES[number % len(SHAPES)], Image.Resampling.BICUBIC).save(paths[-1], quality=95)
    return paths


def alone(network, path, sizes, box=None):
    """One image by one image in float32, spelled out."""
    total = 0
    for size in sizes:
        pixels = np.array(fit(read_image(path), size, box))
        with torch.inference_mode():
            total = total + network(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()
    return total / np.linalg.norm(total)


@pytest.mark.parametrize("sizes", [(64,), (40, 64, 90)])
def test_equals_one_image_at_a_time(tmp_path, sizes):
    network, paths = tiny(), photographs(tmp_path)
    boxes = [None if number % 3 else (5, 5, 30, 25) for number in range(len(paths))]
    found = extract(network, paths, ExtractionSettings(sizes, device="cpu", precision="float32"), boxes=boxes)
    expected = [alone(network, path, sizes, box) for path, box in zip(paths, boxes, strict=True)]
    assert found.vectors.dtype == np.float32 and found.bad == ()
    assert found.names == tuple(map(str, paths))
    assert ((found.vectors * expected).sum(1) > 1 - 1e-6).all()


def test_folder_equals_memory_and_is_loaded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "CHUNK", 5)
    network, paths = tiny(), photographs(tmp_path / "jpg")
    names = [path.stem for path in paths]
    memory = extract(network, paths, FAST, names=names)
    folder = extract(network, paths, FAST, names=names, out=tmp_path / "out")
    assert isinstance(folder.vectors, np.memmap) and np.array_equal(folder.vectors, memory.vectors)
    assert folder.names == memory.names == tuple(names)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".rmac.json", ".rmac.lock", "bad.txt", "descriptors.npy", "meta.json", "names.txt"]
    monkeypatch.setattr(descriptors, "Extractor", None)  # a finished run computes nothing
    again = extract(network, paths, FAST, names=names, out=tmp_path / "out")
    assert np.array_equal(again.vectors, memory.vectors)


def test_a_folder_of_something_else_is_refused(tmp_path):
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


def test_load_refuses_what_is_not_whole(tmp_path):
    with pytest.raises(DescriptorsError, match="meta.json"):
        load_descriptors(tmp_path)
    extract(tiny(), photographs(tmp_path / "jpg"), FAST, out=tmp_path / "out")
    (tmp_path / "out" / "names.txt").write_text("one\n")
    with pytest.raises(DescriptorsError, match="names.txt: is damaged or was changed"):
        load_descriptors(tmp_path / "out")


def test_40_bad_among_400(tmp_path):
    paths, good = photographs(tmp_path / "jpg", 400), []
    whole = paths[0].read_bytes()
    kinds = [lambda p: p.write_bytes(b""), lambda p: p.write_bytes(whole[:len(whole) // 2]),
             lambda p: p.write_text("words"), lambda p: Image.new("L", (1, 99)).save(p), lambda p: p.unlink()]
    bad = paths[3::10]
    for number, path in enumerate(bad):
        kinds[number % len(kinds)](path)
    good = [path for path in paths if path not in bad]
    found = extract(tiny(), paths, FAST, out=tmp_path / "out")
    assert [name for name, _ in found.bad] == list(map(str, bad)) and len(bad) == 40
    assert found.names == tuple(map(str, good)) and found.vectors.shape == (360, 8)
    assert all(str(path) in reason for path, (_, reason) in zip(bad, found.bad, strict=True))
    lines = (tmp_path / "out" / "bad.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == list(map(str, bad))
    only_good = extract(tiny(), good, FAST)
    assert ((only_good.vectors * found.vectors).sum(1) > 1 - 1e-6).all()


def test_nothing_and_nothing_good(tmp_path):
    assert extract(tiny(), [], FAST).vectors.shape == (0, 8)
    assert extract(tiny(), [], FAST, out=tmp_path / "none").vectors.shape == (0, 8)
    found = extract(tiny(), [tmp_path / "missing.jpg"], out=tmp_path / "bad")
    assert found.vectors.shape == (0, 8) and len(found.bad) == 1


def test_bad_arguments(tmp_path):
    paths = photographs(tmp_path, 2)
    with pytest.raises(ValueError, match="as many names"):
        extract(tiny(), paths, FAST, names=["one"])
    outside = extract(tiny(), paths, FAST, boxes=[(500, 500, 600, 600), None])
    assert len(outside.names) == 1 and "box" in outside.bad[0][1]
    for options in ({"sizes": ()}, {"sizes": (0,)}, {"crop_order": "x"}, {"precision": "float16"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ExtractionSettings(**options)
    with pytest.raises(ValueError, match="device"):
        pick_device("abacus")


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from rmaclib.extraction import batches, descriptors
from test_descriptors import FAST, tiny
batches.CHUNK = 4
extract_chunk = descriptors._extract_chunk
def slow(*arguments):
    import time; time.sleep(0.15); return extract_chunk(*arguments)
descriptors._extract_chunk = slow
descriptors.extract(tiny(), sorted(Path(sys.argv[2]).iterdir()), FAST, out=sys.argv[3])
"""


def test_killed_and_started_again_gives_the_same_bytes(tmp_path):
    photographs(tmp_path / "jpg", 60)
    (tmp_path / "jpg" / "0007.jpg").write_bytes(b"")

    def start(out):
        return subprocess.Popen([sys.executable, "-c", RUN, os.path.dirname(__file__), tmp_path / "jpg", out])

    assert start(tmp_path / "whole").wait() == 0
    for kills in range(2):
        process = start(tmp_path / "killed")
        deadline = time.time() + 60
        while len(list((tmp_path / "killed").glob("partial/0*.npz"))) < 3 * (kills + 1):
            assert time.time() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(DescriptorsError):
            load_descriptors(tmp_path / "killed")
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "partial").glob("0*.npz")}
    assert 6 <= len(done) < 15
    assert start(tmp_path / "killed").wait() == 0
    for name in ("descriptors.npy", "names.txt", "bad.txt", "meta.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert len(load_descriptors(tmp_path / "killed").bad) == 1


def test_bfloat16_only_where_the_probes_keep_it(tmp_path, monkeypatch):
    paths = photographs(tmp_path, 4)
    monkeypatch.setattr(batches, "_multiplies_bfloat16", lambda device: True)
    auto = ExtractionSettings((64,), device="cpu")
    for least, expected in ((-1, True), (1.1, False)):
        monkeypatch.setattr(batches, "_PROBE_COSINE", least)
        with batches.Extractor(tiny(), auto, descriptors._one_descriptor) as extractor:
            extractor.choose_precision([(path, None) for path in paths])
            assert extractor.half is expected


def test_learn_whitening(tmp_path):
    network, paths = tiny(), photographs(tmp_path, 40)
    whitening = learn_whitening(network, [*paths, tmp_path / "missing.jpg"], FAST, dim=3)
    assert whitening.weight.shape == (3, 8) and whitening.count > 40
    network.set_whitening(whitening)
    assert extract(network, paths, FAST).vectors.shape == (40, 3)


def test_meta_says_what_was_done(tmp_path):
    extract(tiny(), photographs(tmp_path / "jpg", 3), FAST, out=tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["settings"]["sizes"] == [64] and meta["network"]["levels"] == 2 and meta["bad"] == []


# --- the network stays as it is -----------------------------------------------------------------------------------


def state_of(network):
    return ([module.training for module in network.modules()],
            {name: (tensor.device, tensor.dtype, tensor.clone()) for name, tensor in network.state_dict().items()})


@pytest.mark.parametrize("use", [
    lambda network, paths: extract(network, paths, FAST),
    lambda network, paths: extract_image(network, read_image(paths[0]), FAST),
    lambda network, paths: learn_whitening(network, paths, FAST),
    lambda network, paths: extract_image(network, read_image(paths[0]), FAST, (900, 900, 950, 950)),
    lambda network, paths: learn_whitening(network, paths[:1], FAST, dim=99),
])
def test_the_network_is_left_as_it_was(tmp_path, use):
    """Training mode, and of some modules another than of the rest; also when it fails."""
    network, paths = tiny().train(), photographs(tmp_path, 4)
    network.backbone.body[0].eval()
    modes, tensors = state_of(network)
    try:
        use(network, paths)
    except ValueError:
        pass
    assert state_of(network)[0] == modes
    for name, (device, dtype, values) in state_of(network)[1].items():
        assert (device, dtype) == tensors[name][:2] and torch.equal(values, tensors[name][2])


def test_shared_features_to_a_folder(tmp_path):
    one, paths = tiny(), photographs(tmp_path / "jpg", 4)
    shared = SharedFeatures({"one": one, "two": RMAC(NetworkSettings("tiny", grid="whole"), one.backbone).eval()})
    memory = extract(shared, paths, FAST).vectors
    assert np.array_equal(extract(shared, paths, FAST, out=tmp_path / "out").vectors, memory)
    assert np.array_equal(extract(shared, paths, FAST, out=tmp_path / "out").vectors, memory)
    other = SharedFeatures({"one": one, "two": RMAC(NetworkSettings("tiny", grid="pixel"), one.backbone).eval()})
    with pytest.raises(DescriptorsError, match="network.two"):
        extract(other, paths, FAST, out=tmp_path / "out")


# --- names, repetitions -------------------------------------------------------------------------------------------


def test_names_that_are_no_text_are_left_out(tmp_path):
    paths = photographs(tmp_path / "jpg", 4)
    names = ["two\nlines.jpg", os.fsdecode(b"caf\xe9.jpg")]
    for number, name in enumerate(names):
        paths[number] = paths[number].rename(paths[number].with_name(name))
    memory = extract(tiny(), paths, FAST)
    found = extract(tiny(), paths, FAST, out=tmp_path / "out")
    assert found.names == memory.names == tuple(map(str, paths[2:])) and len(found.vectors) == 2
    assert found.bad == memory.bad and [reason for _, reason in found.bad] == ["its name is no line of UTF-8 text"] * 2
    lines = (tmp_path / "out" / "bad.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 and "two\\nlines" in lines[0] and "caf\\udce9" in lines[1]
    # A name of its own makes such a file usable; what is said about it is text.
    paths[0].write_bytes(b"")
    named = extract(tiny(), paths, FAST, names=list("abcd"), out=tmp_path / "named")
    assert named.names == ("b", "c", "d") and named.bad[0][0] == "a"


def test_an_image_that_is_listed_twice_is_taken_once(tmp_path, capfd):
    paths = photographs(tmp_path / "jpg", 3)
    for out in (None, tmp_path / "out"):
        found = extract(tiny(), [*paths, paths[1], paths[1]], FAST, out=out)
        assert found.names == tuple(map(str, paths)) and len(found.vectors) == 3
        assert found.repeated == (str(paths[1]),)
        assert "1 images are listed more than once" in capfd.readouterr().err
    assert load_descriptors(tmp_path / "out").repeated == (str(paths[1]),)
    both = extract(tiny(), [paths[0]] * 3, FAST, names=["a", "b", "a"], boxes=[None, None, (0, 0, 30, 30)])
    assert both.names == ("a", "b", "a") and both.repeated == ()  # other names or boxes: not the same


# --- damage, left-overs, foreign folders --------------------------------------------------------------------------


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """A run of three chunks that was killed after the second, and what it makes when it ends well."""
    monkeypatch.setattr(batches, "CHUNK", 2)
    network, paths = tiny(), photographs(tmp_path / "jpg", 6)
    extract(network, paths, FAST, out=tmp_path / "whole")

    def dies(run, *arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        save = Run.save
        patch.setattr(Run, "save", lambda run, number, chunk: save(run, number, chunk) if number < 2 else dies(run))
        with pytest.raises(KeyboardInterrupt):
            extract(network, paths, FAST, out=tmp_path / "out")
    return network, paths, tmp_path / "out"


def same_as_whole(out):
    names = {".rmac.json", ".rmac.lock", "descriptors.npy", "names.txt", "bad.txt", "meta.json"}
    assert set(os.listdir(out)) == names == set(os.listdir(out.with_name("whole")))
    for name in names - {".rmac.lock"}:
        assert (out / name).read_bytes() == (out.with_name("whole") / name).read_bytes(), name


@pytest.mark.parametrize("file", ["000000.npz", "000001.npz", "meta.json"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:len(data) // 2],
                                    lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:]])
def test_a_damaged_piece_is_made_again_and_told(killed, capfd, file, damage):
    network, paths, out = killed
    path = out / "partial" / file
    path.write_bytes(damage(path.read_bytes()))
    extract(network, paths, FAST, out=out)
    assert f"{path}: " in capfd.readouterr().err
    same_as_whole(out)


def test_a_chunk_in_the_place_of_another_is_not_taken(killed):
    """The chunk itself says what it is: a copied or renamed file isn't believed."""
    network, paths, out = killed
    shutil.copy(out / "partial" / "000001.npz", out / "partial" / "000000.npz")
    extract(network, paths, FAST, out=out)
    same_as_whole(out)


def test_left_overs_of_a_run_killed_at_its_very_end_go(killed, monkeypatch):
    network, paths, out = killed
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "remove", lambda folder, names: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            extract(network, paths, FAST, out=out)
    assert (out / "partial" / "000002.npz").exists() and (out / "meta.json").exists()
    extract(network, paths, FAST, out=out)
    same_as_whole(out)


def test_a_damaged_meta_is_made_again_where_the_chunks_are_there(killed, monkeypatch, capfd):
    network, paths, out = killed
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "remove", lambda folder, names: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            extract(network, paths, FAST, out=out)
    (out / "meta.json").write_bytes(b"")
    extract(network, paths, FAST, out=out)
    assert "meta.json" in capfd.readouterr().err
    same_as_whole(out)
    (out / "meta.json").write_bytes(b"")
    with pytest.raises(DescriptorsError, match="meta.json: expected what descriptors.*; remove the folder"):
        extract(network, paths, FAST, out=out)


def test_a_folder_of_the_user_is_refused_and_untouched(tmp_path):
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


def test_another_run_in_an_older_folder_is_told(tmp_path):
    network, paths, out = tiny(), photographs(tmp_path / "jpg", 3), tmp_path / "out"
    extract(network, paths, FAST, out=out)
    meta = json.loads((out / "meta.json").read_text())
    del meta["checksum"], meta["checksums"], meta["repeated"]
    (out / "meta.json").write_text(json.dumps(meta))
    (out / ".rmac.json").unlink()
    with pytest.raises(DescriptorsError, match="holds descriptors made otherwise: images; choose another folder"):
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
def test_the_header_of_the_vectors_is_not_believed(tmp_path, head, checked):
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
    monkeypatch.setattr("rmaclib.foundation.files.shutil.disk_usage", lambda path: SimpleNamespace(free=500))
    monkeypatch.setattr(descriptors, "Extractor", None)
    with pytest.raises(OutputError, match="descriptors of 12 images need 0.0 MB"):
        extract(tiny(), photographs(tmp_path / "jpg", 12), FAST, out=tmp_path / "out")


def test_two_processes_on_one_folder_both_end_well(tmp_path):
    photographs(tmp_path / "jpg", 20)
    runs = [subprocess.Popen([sys.executable, "-c", RUN, os.path.dirname(__file__), tmp_path / "jpg", tmp_path / "out"],
                             stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors
    assert len(load_descriptors(tmp_path / "out").names) == 20


@pytest.mark.parametrize("options, message", [
    ({"sizes": "512"}, "sizes: expected a list, got '512'"), ({"sizes": (512.0,)}, "sizes.0"),
    ({"sizes": True}, "sizes"), ({"sizes": [64, -1]}, "sizes.1: expected at least 1, got -1"),
    ({"enlarge": 1}, "enlarge"), ({"device": 3}, "device"), ({"size": 3}, "unknown setting 'size'")])
def test_settings_are_strict(options, message):
    with pytest.raises(InputError, match=message):
        ExtractionSettings(**options)
    assert ExtractionSettings(64).sizes == ExtractionSettings([64]).sizes == (64,)
    with pytest.raises(InputError, match="device: 'meta' can't be used"):
        pick_device("meta")
