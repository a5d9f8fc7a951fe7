"""Train the network of the package on photographs: make train-release SEED=0

Cleaning (Section 3), classification on all images, ranking on the cleaned ones (Section 4.2), by recipe.yml beside this
file. Training says how long it takes before it starts. A killed run given the same arguments again goes on.
"""

import argparse
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import yaml

import rmaclib
from rmaclib.checkpoints import load_network, save_network
from rmaclib.cleaning import clean_settings
from rmaclib.datasets import LabelledImages, open_collection, open_dataset
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.whitening import learn_whitening, training_sample
from rmaclib.learning.pairs import Relations
from rmaclib.learning.validation import Validation
from rmaclib.network import RMAC, NetworkSettings
from rmaclib.results import record

RECIPE = Path(__file__).with_name("recipe.yml")
_NAME = "release"  # of the records


def select_landmarks(images: LabelledImages, names: list[str], inside: bool = True) -> LabelledImages:
    """Select the images of some landmarks, or (not inside) of all others.

    Raises:
        SystemExit: A landmark that the collection doesn't have.
    """
    label_names = images.label_names or ()
    if unknown := sorted(set(names) - set(label_names)):
        raise SystemExit(f"error: {images.name}: expected the landmarks of {RECIPE.name}, "
                         f"found no {', '.join(unknown)}")
    chosen = {label for label, name in enumerate(label_names) if name in names}
    return images.part([index for index, label in enumerate(images.labels) if (label in chosen) == inside])


class Release:
    """The training of one seed and form: its images, and its steps in order."""

    def __init__(self, form: str, seed: int, out: Path):
        self.form, self.seed, self.out = form, seed, out
        self.recipe = yaml.safe_load(RECIPE.read_text())
        self.settings = NetworkSettings(**self.recipe["networks"][form])
        self.extraction = ExtractionSettings((self.recipe["size"],), precision="float32")
        recipe, collection = self.recipe, open_collection(self.recipe["collection"])
        apart = recipe["held_out"] + recipe["kept_apart"]
        # Landmarks are cleaned one by one: those that are held out don't touch the others.
        clean = rmaclib.clean(collection, clean_settings(recipe["cleaning"]), out=out / "cleaning").clean
        self.all, self.clean = (select_landmarks(images, apart, inside=False) for images in (collection, clean))
        self.held_out, self.kept_apart = (select_landmarks(clean, recipe[part]) for part in ("held_out", "kept_apart"))

    def train(self) -> RMAC:
        """C-Full → R-Clean; the trained network as it is shipped, in half precision."""
        folder, recipe = self.out / f"{self.form}_{self.seed}", self.recipe
        classified = rmaclib.train(self.all, out=folder / "C-Full", stage="classification", network=self.settings,
                                   validation=self.held_out,
                                   settings={**recipe["classification"], "seed": self.seed})
        ranked = rmaclib.train(self.clean, out=folder / "R-Clean", network=classified.network,
                               validation=self.held_out, graphs=self.out / "cleaning",
                               settings={**recipe["ranking"], "seed": self.seed, "dim": self.settings.dim})
        save_network(folder / "network.safetensors", ranked.network, half=True)
        return load_network(folder / "network.safetensors")

    def untrained(self) -> RMAC:
        """The same form off the shelf, with the whitening that ranking would start from."""
        network, ranking = rmaclib.create_network(replace(self.settings, dim=None)), self.recipe["ranking"]
        sample = training_sample(self.clean, ranking["whiten_images"], self.seed)
        at_size = ExtractionSettings((ranking["size"],), precision="float32")
        return network.set_whitening(learn_whitening(network, sample, at_size, dim=self.settings.dim))

    def measure(self, network: RMAC, name: str) -> None:
        """Record the scores of a network on the landmarks held out and kept apart, and on the test sets."""
        for part, images in (("held_out", self.held_out), ("kept_apart", self.kept_apart)):
            started = time.monotonic()
            validation = Validation(images, Relations(np.array(images.labels)), self.extraction, {})
            self._record(network, name, validation(network), started, "leave-one-out",
                         {"name": part, "counts": images.counts})
        for test in map(open_dataset, self.recipe["tests"]):
            started = time.monotonic()
            evaluation = rmaclib.evaluate(network, test, settings=self.extraction)
            self._record(network, name, evaluation.scores["mAP"], started, evaluation.protocol,
                         {"name": test.name, "counts": test.counts})

    def _record(self, network: RMAC, name: str, score: float, started: float, protocol: str, dataset: dict) -> None:
        print(f"{self.form}, {name}, {dataset['name']}: mAP {100 * score:.1f}", flush=True)
        record(self.out / "results", f"{_NAME}/{dataset['name']}/{self.form}/{name}_{self.seed}", score, unit="mAP",
               protocol=protocol, dataset=dataset, seed=self.seed, seconds=time.monotonic() - started,
               settings={"network": asdict(network.settings), "extraction": asdict(self.extraction),
                         "recipe": self.recipe}, notebook=_NAME, profile=_NAME)


def main() -> None:
    """Train, measure, and write the network in half precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="every random choice follows from it (default: 0)")
    parser.add_argument("--form", choices=("ours", "paper"), default="ours", help="which network (default: ours)")
    parser.add_argument("--out", type=Path, default=Path("_build/release"), help="(default: _build/release)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    release = Release(options.form, options.seed, options.out)
    release.measure(release.untrained(), "untrained")
    release.measure(release.train(), "trained")


if __name__ == "__main__":
    main()
