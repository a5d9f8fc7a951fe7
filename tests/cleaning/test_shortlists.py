import copy
import json
import multiprocessing
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rmaclib.backbones import BackboneError
from rmaclib.checkpoints import save_network
from rmaclib.cleaning.shortlists import DescriptorShortlists, ShortlistError
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.foundation.errors import InputError

SETTINGS = ExtractionSettings((64,), precision="float32", device="cpu")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shortlists")
    rng = np.random.default_rng(0)
    pictures = [folder / f"{number}.png" for number in range(5)]
    for path in pictures:
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(path)
    (folder / "bad.png").write_text("no picture")
    return [*pictures[:2], folder / "bad.png", *pictures[2:]]


@pytest.fixture(scope="module")
def shortlists(lite0, tmp_path_factory):
    """By a checkpoint, so that the process extracts with the very same network."""
    file = tmp_path_factory.mktemp("network") / "lite0.safetensors"
    save_network(file, lite0)
    return DescriptorShortlists(str(file), 64)


def test_the_nearest_without_oneself(lite0, shortlists, paths):
    nearest = shortlists(paths, 2)
    assert nearest.shape == (6, 2) and (nearest[2] == -1).all()
    good = [0, 1, 3, 4, 5]
    vectors = extract(lite0, [paths[n] for n in good], SETTINGS, progress=False).vectors
    for row, number in enumerate(good):
        order = np.argsort(-vectors @ vectors[row], kind="stable")
        assert nearest[number].tolist() == [good[n] for n in order if n != row][:2]


def test_fewer_images_than_neighbours_and_copies(shortlists, paths):
    assert shortlists(paths[:2], 9).tolist() == [[1], [0]]
    assert shortlists(paths[2:3], 9).shape == (1, 0)
    copies = shortlists([paths[0]] * 3, 2)
    assert copies.shape == (3, 2) and all(row not in copies[row] for row in range(3))
    assert "efficientnet_lite0" in shortlists.name and "64" in shortlists.name


def test_an_unknown_network_is_named():
    with pytest.raises(BackboneError, match="nothing"):
        DescriptorShortlists("nothing")


def test_a_killed_process_is_an_error(lite0, paths, tmp_path):
    save_network(tmp_path / "lite0.safetensors", lite0)
    others = set(multiprocessing.active_children())
    with closing(DescriptorShortlists(str(tmp_path / "lite0.safetensors"), 64)) as shortlists:
        (process,) = set(multiprocessing.active_children()) - others
        process.kill()
        with pytest.raises(ShortlistError, match="descriptors of 6 images for shortlists was killed"):
            shortlists(paths, 2)


def test_a_process_that_is_killed_while_it_loads_is_an_error():
    others = set(multiprocessing.active_children())

    def kill_the_new_one():
        while not (started := set(multiprocessing.active_children()) - others):
            time.sleep(0.01)
        started.pop().kill()

    threading.Thread(target=kill_the_new_one, daemon=True).start()
    with pytest.raises(ShortlistError, match="efficientnet_lite0: the process that loads it .* was killed"):
        DescriptorShortlists("efficientnet_lite0", 64)


def test_cleaning_does_not_load_torch():
    code = ("import sys, rmaclib.cli, rmaclib.commands.clean, rmaclib.cleaning.shortlists; "
            "sys.exit('torch' in sys.modules or 'faiss' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_identity_is_what_makes_the_descriptors(lite0, shortlists, tmp_path):
    """Two checkpoints of one name and size, other weights or levels: not the same shortlists."""
    other = copy.deepcopy(lite0)
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    identities = [shortlists.identity]
    for network in (other, copy.deepcopy(lite0).change(levels=2)):
        save_network(tmp_path / "other.safetensors", network)
        with closing(DescriptorShortlists(str(tmp_path / "other.safetensors"), 64)) as others:
            identities.append(others.identity)
    assert identities[0]["weights"] != identities[1]["weights"]
    assert identities[0]["network"]["levels"] == 3 and identities[2]["network"]["levels"] == 2
    assert identities[0]["settings"]["sizes"] == (64,) and json.loads(json.dumps(identities))
    with pytest.raises(InputError, match="size: expected"):
        DescriptorShortlists("efficientnet_lite0", 0)


STARTED = """
import multiprocessing, sys, time
from rmaclib.cleaning.shortlists import DescriptorShortlists
if __name__ == "__main__":
    shortlists = DescriptorShortlists(sys.argv[1], 64)
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


def test_the_process_ends_with_the_one_that_started_it(lite0, tmp_path):
    save_network(tmp_path / "lite0.safetensors", lite0)
    (tmp_path / "started.py").write_text(STARTED)
    parent = subprocess.Popen([sys.executable, tmp_path / "started.py", tmp_path / "lite0.safetensors"],
                              stdout=subprocess.PIPE, text=True)
    worker = Path(f"/proc/{parent.stdout.readline().strip()}/stat")
    assert worker.exists()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while worker.exists() and worker.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the worker is still alive"
        time.sleep(0.05)
