import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rmaclib.backbones import Backbone
from rmaclib.images import fit, read_image
from rmaclib.rmac import RMAC, NetworkSettings
from rmaclib.search import descriptors
from rmaclib.search.descriptors import (
    DescribeSettings,
    DescriptorsError,
    describe,
    learn_whitening,
    load_descriptors,
    pick_device,
)

FAST = DescribeSettings(sizes=(64,), device="cpu", precision="float32")
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
    found = describe(network, paths, DescribeSettings(sizes, device="cpu", precision="float32"), boxes=boxes)
    expected = [alone(network, path, sizes, box) for path, box in zip(paths, boxes, strict=True)]
    assert found.vectors.dtype == np.float32 and found.bad == ()
    assert found.names == tuple(map(str, paths))
    assert ((found.vectors * expected).sum(1) > 1 - 1e-6).all()


def test_folder_equals_memory_and_is_loaded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(descriptors, "CHUNK", 5)
    network, paths = tiny(), photographs(tmp_path / "jpg")
    names = [path.stem for path in paths]
    memory = describe(network, paths, FAST, names=names)
    folder = describe(network, paths, FAST, names=names, out=tmp_path / "out")
    assert isinstance(folder.vectors, np.memmap) and np.array_equal(folder.vectors, memory.vectors)
    assert folder.names == memory.names == tuple(names)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".rmac.json", ".rmac.lock", "bad.txt", "descriptors.npy", "meta.json", "names.txt"]
    monkeypatch.setattr(descriptors, "Extractor", None)  # a finished run computes nothing
    again = describe(network, paths, FAST, names=names, out=tmp_path / "out")
    assert np.array_equal(again.vectors, memory.vectors)


def test_a_folder_of_something_else_is_refused(tmp_path):
    network, paths = tiny(), photographs(tmp_path / "jpg")
    describe(network, paths, FAST, out=tmp_path / "out")
    with pytest.raises(DescriptorsError, match="made otherwise: images"):
        describe(network, paths[:-1], FAST, out=tmp_path / "out")
    with pytest.raises(DescriptorsError, match=r"settings.sizes \(\[64\], now \[48\]\)"):
        describe(network, paths, DescribeSettings((48,), device="cpu"), out=tmp_path / "out")
    with torch.no_grad():
        network.backbone.body[0].weight.mul_(2)
    with pytest.raises(DescriptorsError, match="otherwise: weights"):
        describe(network, paths, FAST, out=tmp_path / "out")


def test_load_refuses_what_is_not_whole(tmp_path):
    with pytest.raises(DescriptorsError, match="meta.json"):
        load_descriptors(tmp_path)
    describe(tiny(), photographs(tmp_path / "jpg"), FAST, out=tmp_path / "out")
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
    found = describe(tiny(), paths, FAST, out=tmp_path / "out")
    assert [name for name, _ in found.bad] == list(map(str, bad)) and len(bad) == 40
    assert found.names == tuple(map(str, good)) and found.vectors.shape == (360, 8)
    assert all(str(path) in reason for path, (_, reason) in zip(bad, found.bad, strict=True))
    lines = (tmp_path / "out" / "bad.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == list(map(str, bad))
    only_good = describe(tiny(), good, FAST)
    assert ((only_good.vectors * found.vectors).sum(1) > 1 - 1e-6).all()


def test_nothing_and_nothing_good(tmp_path):
    assert describe(tiny(), [], FAST).vectors.shape == (0, 8)
    assert describe(tiny(), [], FAST, out=tmp_path / "none").vectors.shape == (0, 8)
    found = describe(tiny(), [tmp_path / "missing.jpg"], out=tmp_path / "bad")
    assert found.vectors.shape == (0, 8) and len(found.bad) == 1


def test_bad_arguments(tmp_path):
    paths = photographs(tmp_path, 2)
    with pytest.raises(ValueError, match="as many names"):
        describe(tiny(), paths, FAST, names=["one"])
    outside = describe(tiny(), paths, FAST, boxes=[(500, 500, 600, 600), None])
    assert len(outside.names) == 1 and "box" in outside.bad[0][1]
    for options in ({"sizes": ()}, {"sizes": (0,)}, {"crop_order": "x"}, {"precision": "float16"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            DescribeSettings(**options)
    with pytest.raises(ValueError, match="device"):
        pick_device("abacus")


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from rmaclib.search import descriptors
from test_descriptors import FAST, tiny
descriptors.CHUNK = 4
describe = descriptors._describe_chunk
def slow(*arguments):
    import time; time.sleep(0.15); return describe(*arguments)
descriptors._describe_chunk = slow
descriptors.describe(tiny(), sorted(Path(sys.argv[2]).iterdir()), FAST, out=sys.argv[3])
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
    monkeypatch.setattr(descriptors, "_multiplies_bfloat16", lambda device: True)
    auto = DescribeSettings((64,), device="cpu")
    for least, expected in ((-1, True), (1.1, False)):
        monkeypatch.setattr(descriptors, "_PROBE_COSINE", least)
        with descriptors.Extractor(tiny(), auto, descriptors._one_descriptor) as extractor:
            extractor.choose_precision([(path, None) for path in paths])
            assert extractor.half is expected


def test_learn_whitening(tmp_path):
    network, paths = tiny(), photographs(tmp_path, 40)
    whitening = learn_whitening(network, [*paths, tmp_path / "missing.jpg"], FAST, dim=3)
    assert whitening.weight.shape == (3, 8) and whitening.count > 40
    network.set_whitening(whitening)
    assert describe(network, paths, FAST).vectors.shape == (40, 3)


def test_meta_says_what_was_done(tmp_path):
    describe(tiny(), photographs(tmp_path / "jpg", 3), FAST, out=tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert meta["settings"]["sizes"] == [64] and meta["network"]["levels"] == 2 and meta["bad"] == []
