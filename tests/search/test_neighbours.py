import os
import signal
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from rmaclib.backbones import BackboneError
from rmaclib.checkpoints import save_checkpoint
from rmaclib.search.descriptors import DescribeSettings, describe
from rmaclib.search.neighbours import DescriptorNeighbours, NeighboursError

SETTINGS = DescribeSettings((64,), precision="float32", device="cpu")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("neighbours")
    rng = np.random.default_rng(0)
    found = []
    for number in range(5):
        found.append(folder / f"{number}.png")
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(found[-1])
    (folder / "bad.png").write_text("no picture")
    return [*found[:2], folder / "bad.png", *found[2:]]


@pytest.fixture(scope="module")
def neighbours(lite0, tmp_path_factory):
    """Of a checkpoint, so that the process describes with the very same network."""
    file = tmp_path_factory.mktemp("network") / "lite0.safetensors"
    save_checkpoint(file, lite0)
    return DescriptorNeighbours(str(file), 64)


def test_the_nearest_without_oneself(lite0, neighbours, paths):
    found = neighbours(paths, 2)
    assert found.shape == (6, 2) and (found[2] == -1).all()
    good = [0, 1, 3, 4, 5]
    vectors = describe(lite0, [paths[n] for n in good], SETTINGS, progress=False).vectors
    for row, number in enumerate(good):
        order = np.argsort(-vectors @ vectors[row], kind="stable")
        assert found[number].tolist() == [good[n] for n in order if n != row][:2]


def test_fewer_images_than_neighbours_and_copies(neighbours, paths):
    assert neighbours(paths[:2], 9).tolist() == [[1], [0]]
    assert neighbours(paths[2:3], 9).shape == (1, 0)
    copies = neighbours([paths[0]] * 3, 2)
    assert copies.shape == (3, 2) and all(row not in copies[row] for row in range(3))
    assert "efficientnet_lite0" in neighbours.name and "64" in neighbours.name


def test_an_unknown_network_is_named():
    with pytest.raises(BackboneError, match="nothing"):
        DescriptorNeighbours("nothing")


def test_a_killed_process_is_told(lite0, paths, tmp_path):
    save_checkpoint(tmp_path / "lite0.safetensors", lite0)
    with closing(DescriptorNeighbours(str(tmp_path / "lite0.safetensors"), 64)) as neighbours:
        (number,) = neighbours._process._processes
        os.kill(number, signal.SIGKILL)
        with pytest.raises(NeighboursError, match="describes 6 images for shortlists was killed"):
            neighbours(paths, 2)


def test_cleaning_does_not_load_torch():
    code = ("import sys, rmaclib.cli, rmaclib.commands.clean, rmaclib.search.neighbours; "
            "sys.exit('torch' in sys.modules or 'faiss' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
