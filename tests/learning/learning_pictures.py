"""Small pictures and a small network to train on them; also imported by the processes that a test starts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from rmaclib.datasets.types import LabelledImages
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.whitening import learn_whitening
from rmaclib.learning import LoopSettings
from rmaclib.learning.folder import Inputs, identity_of
from rmaclib.learning.loop import Stage
from rmaclib.network import RMAC, NetworkSettings, create_network

SHAPES = ((64, 64), (64, 96), (96, 70), (96, 96))
SIZE = 96
# Of a training run.
FILES = [".rmac.json", ".rmac.lock", "bad.txt", "best.safetensors", "log.csv", "run.json", "state.safetensors"]


def pictures(folder, landmarks=5, each=5, seed=0, shapes=SHAPES) -> LabelledImages:
    """Smooth random pictures: those of one landmark are one picture under noise, in several shapes."""
    random = np.random.default_rng(seed)
    names, labels = [], []
    for label in range(landmarks):
        base = random.integers(0, 256, (5, 5, 3))
        for number in range(each):
            noisy = np.clip(base + random.normal(0, 50, base.shape), 0, 255).astype(np.uint8)
            names.append(f"{label}/{number}.png")
            labels.append(label)
            (folder / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).resize(shapes[number % len(shapes)], Image.Resampling.BICUBIC).save(
                folder / names[-1])
    paths = tuple(folder / name for name in names)
    return LabelledImages("pictures", folder, tuple(names), paths, tuple(labels), (None,) * len(names))


def tiny(images: LabelledImages | None = None, **options) -> RMAC:
    """A convolutional network with batch normalisation and random weights, whitened on the images."""
    torch.manual_seed(3)
    network = create_network(NetworkSettings(**{"backbone": "timm:test_efficientnet", "levels": 1,
                                                  **options}), pretrained=False)
    for module in network.modules():  # statistics as of a trained network: not zero, not one
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    if images is not None:
        network.set_whitening(learn_whitening(network, images.paths, ExtractionSettings((SIZE,), device="cpu"), dim=8,
                                              shrinkage=0.1, progress=False))
    return network


def stopping_after(update: int):
    """A `watch` of a training that stops it after an update, as Ctrl-C does."""
    def watch(history):
        if history[-1]["update"] == update:
            raise KeyboardInterrupt

    return watch


def stopped_equals_whole(run, update: int, folder):
    """run(out, watch=...) trains; stopped after an update and started again it ends as it does in one go.

    Returns what the whole run gave; its files are in folder / "whole".
    """
    with pytest.raises(KeyboardInterrupt):
        run(folder / "stopped", watch=stopping_after(update))
    stopped, whole = run(folder / "stopped"), run(folder / "whole")
    for again, straight in zip(stopped.history, whole.history, strict=True):
        assert {**again, "seconds": 0} == {**straight, "seconds": 0}
    again, straight = (load_file(folder / name / "state.safetensors") for name in ("stopped", "whole"))
    assert again.keys() == straight.keys() and all(torch.equal(again[key], straight[key]) for key in again)
    return whole


SCORES = {0: 0.5, 2: 0.6, 4: 0.6, 6: 0.4, 8: 0.7, 10: 0.5, 12: 0.7}  # of ``scripted``, after so many updates


class ScriptedStep:
    """An update whose gradient is one everywhere: the weights tell how many there were."""

    columns = ("loss",)

    def __init__(self, network: RMAC):
        self.network, self.update = network, 0

    def __call__(self, update):
        self.update = update
        for parameter in self.network.parameters():
            parameter.grad.add_(1)
        return {"loss": 1 / update}

    def state(self):
        return {}

    def restore(self, state):
        pass


def scripted(settings: LoopSettings, scores=SCORES) -> Stage:
    """A stage of training without images; its validation scores are given, by the update."""
    network = tiny()
    step = ScriptedStep(network)
    nothing = LabelledImages("nothing", Path(), (), (), (), ())
    identity = identity_of("scripted", network, settings, Inputs(nothing, nothing))
    return Stage(network, network, step, settings, identity, lambda: scores[step.update], {})
