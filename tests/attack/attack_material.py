"""The material: a small collection, a small network, and the commands that write a folder."""

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "cleaning"))
from cleaning_pictures import VIEWS, texture, turned, warped  # noqa: E402 - of the tests of cleaning

LANDMARKS, EACH = 5, 4
_VIEWS = (*VIEWS, turned(-4, 0.85, (8, 8)))
_TRAINING = """triplets: 2
pool: 10
refresh: 1
hardest: 5
evaluate_every: 1
save_every: 1
lr: 1.0e-4
"""
SMALL = ("--size", "64", "--device", "cpu")


def make(folder: str) -> None:
    """photos/: 5 landmarks in sub-folders, 4 pictures each, and a file that is none; more/: 4 pictures;
    network.safetensors: random weights, whitened to 8 dimensions; proposing.safetensors: it, with a proposal network;
    training.yml."""
    root = Path(folder)
    for landmark in range(LANDMARKS):
        for number in range(EACH):
            picture(root / "photos" / f"{landmark}" / f"{number}.png", landmark, number)
    (root / "photos" / "0" / "broken.jpg").write_text("no picture")
    for number in range(EACH):
        picture(root / "more" / "9" / f"{number}.png", 9, number)
    (root / "training.yml").write_text(_TRAINING)
    network(root / "network.safetensors")


def picture(path: Path, landmark: int, number: int) -> None:
    """A view of a landmark, 160×120 pixels; the same arguments give the same file."""
    grey = warped(texture(landmark), _VIEWS[number % len(_VIEWS)], texture(1000 + 10 * landmark + number))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(cv2.resize(grey, (160, 120), interpolation=cv2.INTER_AREA)).convert("RGB").save(path)


def network(path: Path) -> None:
    """Save a network of 1.4 MB, and beside it proposing.safetensors."""
    import torch

    from rmaclib.checkpoints import save_network
    from rmaclib.network import NetworkSettings, create_network
    from rmaclib.whitening import fit_whitening

    torch.manual_seed(3)
    small = create_network(NetworkSettings("timm:test_efficientnet", levels=1), pretrained=False)
    channels = small.dim
    vectors = np.random.default_rng(3).standard_normal((4 * channels, channels)).astype(np.float32)
    small.set_whitening(fit_whitening([vectors], 8, 0.1))
    save_network(path, small)
    small.add_proposer(((0.4, 0.4), (0.7, 0.5)), 8)
    save_network(path.with_name("proposing.safetensors"), small)


def commands(root: Path, out: Path) -> dict[str, tuple]:
    """The commands that write a folder: name -> arguments; "add" adds to an index made by "index"."""
    photos, small = root / "photos", ("--network", root / "network.safetensors", *SMALL)
    return {
        "extract": ("extract", photos, "--out", out, *small),
        "index": ("index", photos, "--out", out, *small),
        "add": ("index", root / "more", "--out", out),
        "clean": ("clean", photos, "--out", out, "--size", "160", "--keypoints", "200", "--thumbnails", "2"),
        "train": ("train", photos, "--out", out, *small, "--updates", "2", "--settings", root / "training.yml"),
    }


def begin(root: Path, name: str, out: Path) -> tuple:
    """Prepare an output folder for a command; returns its arguments."""
    out.parent.mkdir(parents=True)
    if name == "add":
        shutil.copytree(root / "whole" / "index" / "out", out)
    return commands(root, out)[name]
