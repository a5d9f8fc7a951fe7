"""Small pictures and a small network to extract descriptors with; also imported by the processes that a test starts."""

import time

import numpy as np
import torch
from PIL import Image
from torch import nn

from rmaclib.backbones import Backbone, Layer
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.network import RMAC, NetworkSettings

FAST = ExtractionSettings(sizes=(64,), device="cpu", precision="float32")
SHAPES = [(80, 60), (60, 80), (64, 64), (40, 30), (90, 30)]


class Unused(nn.Sequential):
    """Layers that may not be used."""

    def forward(self, images):
        raise AssertionError("expected that nothing is computed")


class StopsAtBlack(nn.Sequential):
    """Layers at which the user presses Ctrl-C when a black picture comes."""

    def forward(self, images):
        if (images == -1).flatten(1).all(1).any():
            raise KeyboardInterrupt
        return super().forward(images)


class Slow(nn.Sequential):
    """Layers that take their time."""

    def forward(self, images):
        time.sleep(0.05)
        return super().forward(images)


def tiny(channels=8, body=nn.Sequential):
    """A network of stride 8; every kind of body has the same weights."""
    torch.manual_seed(1)
    layers = body(nn.Conv2d(3, channels, 8, stride=8), nn.ReLU())
    return RMAC(NetworkSettings("tiny", levels=2), Backbone("tiny", layers, [Layer("last", 8, channels)], (0.5,) * 3,
                                                            (0.5,) * 3)).eval()


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
