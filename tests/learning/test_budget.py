"""What a training chooses where nothing is given, and how long it takes."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from learning_pictures import SIZE, tiny

from rmaclib import presets
from rmaclib.foundation.settings import from_mapping
from rmaclib.learning import RankingSettings
from rmaclib.learning.budget import PAPER, STAGES, Timing, laptop, measure, within
from rmaclib.learning.folder import training_folder


@pytest.mark.parametrize("stage", STAGES)
def test_the_papers_settings_are_the_defaults_of_the_classes(stage):
    assert from_mapping(STAGES[stage], PAPER[stage]) == STAGES[stage]()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("images", [10, 100_000])
def test_the_laptops_settings_are_settings(stage, device, images):
    """Of either device and size; on a processor those of a small collection are the preset."""
    settings = from_mapping(STAGES[stage], laptop(stage, torch.device(device), images))
    assert laptop(stage, torch.device("cpu"), 10) == presets.laptop.values(stage)
    assert settings.optimizer == "adamw" and settings.updates < 4096
    assert laptop(stage, torch.device("cpu"), 10)["updates"] < laptop(stage, torch.device("cpu"), 10_000)["updates"]


def test_seconds_by_hand():
    timing = Timing(image=0.5, update=2.0, before=10, refresh=100, validation=20)
    settings = RankingSettings(updates=10, refresh=4, evaluate_every=4)
    # Three pools, a validation before and three after.
    assert timing.seconds(settings) == pytest.approx(10 * 2 + 0.5 * (10 + 3 * 100 + 4 * 20))


@pytest.mark.parametrize("update", [0.01, 1, 5, 20, 1000])
def test_as_many_updates_as_there_is_time_for(update):
    timing, settings = Timing(0.1, update, 0, 150, 24), from_mapping(RankingSettings, laptop(
        "ranking", torch.device("cpu"), 150))
    updates = timing.updates("ranking", settings, 600)
    assert 8 <= updates <= settings.updates
    chosen = replace(settings, **within("ranking", updates))
    assert updates == 8 or timing.seconds(chosen) <= 600
    more = replace(settings, **within("ranking", updates + 4))
    assert updates == settings.updates or timing.seconds(more) > 600


@pytest.mark.parametrize("stage, more", [("ranking", {"triplets": 3}),
                                         ("classification", {"shorter": (40, 60), "side": 32, "batch": 5}),
                                         ("proposals", {"images": 4, "samples": 8, "anchors": 2, "hidden": 4})])
def test_an_update_is_measured_on_a_copy(images, stage, more, tmp_path):
    images = replace(images, boxes=((5.0, 5.0, 50.0, 40.0),) * 25)
    network = tiny(images)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    chosen = laptop(stage, torch.device("cpu"), 25) | {"size": SIZE, "device": "cpu"} | more
    settings = from_mapping(STAGES[stage], chosen)
    timing = measure(stage, network, images, settings, images, tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".rmac.json", ".rmac.lock"]
    assert 0 < timing.image < 5 and 0 < timing.update < 30 and timing.validation >= 25
    assert network.proposer is None and before.keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in before.items())
    assert np.isfinite(timing.seconds(settings))


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import torch
from learning_pictures import SIZE, tiny
from rmaclib.datasets import open_collection
from rmaclib.learning import RankingSettings
from rmaclib.learning.budget import measure

def die(*forward):  # in the update: what comes before needs no gradient
    if torch.is_grad_enabled():
        os._exit(9)

images = open_collection(sys.argv[2])
network = tiny(images)
network.backbone.body.register_forward_hook(die)
settings = RankingSettings(size=SIZE, device="cpu", triplets=3)
measure("ranking", network, images, settings, images, Path(sys.argv[3]))
"""


def test_what_a_process_killed_while_it_measured_left_is_removed_by_the_next(images, tmp_path):
    (tmp_path / "temporary").mkdir()
    ended = subprocess.run([sys.executable, "-c", KILLED, os.path.dirname(__file__), images.root, tmp_path / "out"],
                           env={**os.environ, "TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1"})
    assert ended.returncode == 9 and not list((tmp_path / "temporary").rglob("*.safetensors"))
    assert (tmp_path / "out/measured/best.safetensors").exists()  # of the validation before the update
    (tmp_path / "out/measured/mine.txt").write_text("mine")
    with training_folder(tmp_path / "out"):
        assert os.listdir(tmp_path / "out/measured") == ["mine.txt"]
    (tmp_path / "out/measured/mine.txt").unlink()
    settings = RankingSettings(size=SIZE, device="cpu", triplets=3)
    assert measure("ranking", tiny(images), images, settings, images, tmp_path / "out").update > 0
    assert sorted(os.listdir(tmp_path / "out")) == [".rmac.json", ".rmac.lock"]
