"""What one of several processes does in test_distributed: python learning_process.py WHAT PICTURES OUT."""

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from learning_pictures import scripted, tiny
from safetensors.torch import save_file
from test_classification import SETTINGS as CLASSIFICATION
from test_gradients import Missing, gradient, some_images, update
from test_ranking_stage import SETTINGS, run

from rmaclib.datasets import open_collection
from rmaclib.learning import LoopSettings, UnreadableError, accumulate, loop, train_classification, triplet
from rmaclib.learning.distributed import is_main, processes, rank_and_count, sum_gradients


def gradients(out: Path) -> None:
    """The gradient of one update of some images, and what happens when one process can't read its image."""
    network, images = tiny(dim=6, levels=2).double(), some_images()
    network.zero_grad()
    loss = partial(triplet, tuples=update(), margin=0.3)
    accumulated = accumulate(network, images, loss, sizes=[image.shape[-2:] for image in images])
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    sum_gradients(network.parameters())
    try:
        accumulate(network, Missing(images), loss, sizes=[image.shape[-2:] for image in images])
        places = []
    except UnreadableError as error:
        places = error.places
    save_file({"gradient": gradient(network), "descriptors": accumulated.descriptors, "loss": accumulated.loss,
               "places": torch.tensor(places)}, out / f"{rank_and_count()[0]}.safetensors")


def trains(images, out: Path) -> None:
    """Two stages, a few updates each."""
    few = {"updates": 3, "evaluate_every": 3}
    run(images, out / "ranking", replace(SETTINGS, **few))
    train_classification(tiny(), images, replace(CLASSIFICATION, **few), out=out / "classification", validation=images,
                         progress=False)


def stops(out: Path) -> None:
    """Trains with patience; by the scores of the second process alone it would go on to the last update."""
    settings = LoopSettings(lr=1e-3, updates=8, evaluate_every=1, save_every=3, patience=2, device="cpu")
    scores = {update: -update if is_main() else update for update in range(9)}
    trained = loop.run(scripted(settings, scores), out=out / "stops", progress=False)
    assert (len(trained.history), trained.best_update, trained.score) == (3, 0, 0)


def dies(images, out: Path) -> None:
    """Trains, and the second process ends without a word after its first step."""
    step = torch.optim.SGD.step

    def last(self, *closure):
        step(self, *closure)
        if not is_main():
            os._exit(3)

    torch.optim.SGD.step = last
    run(images, out)


if __name__ == "__main__":
    what, images, out = sys.argv[1], open_collection(sys.argv[2]), Path(sys.argv[3])
    with processes(30):
        if what == "dies":
            dies(images, out)
        else:
            gradients(out)
            trains(images, out)
            stops(out)
