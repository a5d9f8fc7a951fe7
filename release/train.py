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
from rmaclib.checkpoints import fingerprint, load_network, save_network
from rmaclib.cleaning import clean_settings
from rmaclib.datasets import LabelledImages, open_collection, open_dataset
from rmaclib.evaluation import interval, paired_bootstrap
from rmaclib.evaluation.chain import leave_one_out_precisions, query_precisions
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.whitening import learn_whitening, training_sample
from rmaclib.foundation.errors import OutputError, RmacError
from rmaclib.foundation.files import read_json, write_json
from rmaclib.learning import Trained
from rmaclib.network import RMAC, NetworkSettings
from rmaclib.results import record

RECIPE = Path(__file__).with_name("recipe.yml")
_MADE_BY = "recipe.json"  # beside a training: what it was made by
_NOTEBOOK, _PROFILE = "train", "release"  # of the records: release/train.py


class Images:
    """The images of a recipe: those that are learned from, noisy and cleaned, those that are not, the test sets."""

    def __init__(self, recipe: dict, out: Path):
        collection = open_collection(recipe["collection"])
        self.tests = [open_dataset(name) for name in recipe["tests"]]  # one that is missing is noticed now
        apart = recipe["held_out"] + recipe["kept_apart"]
        # Landmarks are cleaned one by one: those that are held out don't touch the others.
        clean = rmaclib.clean(collection, clean_settings(recipe["cleaning"]), out=out / "cleaning").clean
        self.all, self.clean = (images.of_landmarks(apart, others=True) for images in (collection, clean))
        self.held_out, self.kept_apart = (clean.of_landmarks(recipe[part]) for part in ("held_out", "kept_apart"))


class Release:
    """The training of one seed and form: its steps in order."""

    def __init__(self, form: str, seed: int, out: Path, recipe: dict, images: Images):
        self.form, self.seed, self.out, self.recipe, self.images = form, seed, out, recipe, images
        self.settings = NetworkSettings(**recipe["networks"][form])
        self.extraction = ExtractionSettings((recipe["size"],), precision="float32")
        self.folder = out / f"{form}_{seed}"
        made_by = {name: recipe[name] for name in recipe if name not in ("networks", "tests", "size", "tries")}
        made_by["network"] = recipe["networks"][form]
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / _MADE_BY).exists():
            write_json(self.folder / _MADE_BY, made_by)
        elif read_json(self.folder / _MADE_BY, OutputError, "the recipe of a training") != made_by:
            raise OutputError(f"{self.folder}: was trained by another {RECIPE.name}; choose another --out, or remove "
                              "it to train again")

    def classified(self, name: str, images: LabelledImages) -> Trained:
        """C-Full or C-Clean: classification on the images given."""
        return rmaclib.train(images, out=self.folder / name, stage="classification", network=self.settings,
                             validation=self.images.held_out,
                             settings={**self.recipe["classification"], "seed": self.seed})

    def start(self) -> Path:
        """C-Full, whitened: the file of the network that ranking starts from."""
        start = self.folder / "start.safetensors"
        classified = self.classified("C-Full", self.images.all)
        if not start.exists():
            save_network(start, self._whitened(classified.network))
        return start

    def ranked(self, name: str = "R-Clean", **settings: object) -> Trained:
        """C-Full → R-Clean, with the settings of the recipe but for those given."""
        return self._ranked(name, self.start(), self.images.clean, self.out / "cleaning", **settings)

    def _ranked(self, name: str, start: Path, images: LabelledImages, graphs: Path | None,
                **settings: object) -> Trained:
        return rmaclib.train(images, out=self.folder / name, network=start, validation=self.images.held_out,
                             graphs=graphs, settings={**self.recipe["ranking"], "seed": self.seed, **settings})

    def configurations(self) -> dict[str, RMAC]:
        """The other configurations of Section 4.2: each step alone, on the noisy list and on the clean one."""
        whitened = self.folder / "whitened.safetensors"
        if not whitened.exists():
            save_network(whitened, self.untrained())
        images, graphs = self.images, self.out / "cleaning"
        return {"off_the_shelf": rmaclib.create_network(replace(self.settings, dim=None)),
                "c-full": load_network(self.start()),
                "c-clean": self._whitened(self.classified("C-Clean", images.clean).network),
                "r-full": self._ranked("R-Full alone", whitened, images.all, None).network,
                "r-clean": self._ranked("R-Clean alone", whitened, images.clean, graphs).network}

    def train(self) -> RMAC:
        """C-Full → R-Clean → a new whitening; the trained network as it is shipped, in half precision."""
        trained = self.folder / "network.safetensors"
        if not trained.exists():
            save_network(trained, self._whitened(self.ranked().network), half=True)
        return load_network(trained)

    def untrained(self) -> RMAC:
        """The same form off the shelf, whitened as the network that ranking starts from."""
        return self._whitened(rmaclib.create_network(replace(self.settings, dim=None)))

    def _whitened(self, network: RMAC) -> RMAC:
        """Give a network a whitening learned on images of the noisy list."""
        sample = training_sample(self.images.all, self.recipe["whitening"]["images"], self.seed)
        at_size = ExtractionSettings((self.recipe["whitening"]["size"],), precision="float32")
        return network.set_whitening(learn_whitening(network, sample, at_size, dim=self.settings.dim))

    def precisions(self, network: RMAC) -> dict[str, tuple[str, dict, np.ndarray]]:
        """Measure a network on the landmarks held out and kept apart, and on the test sets.

        Returns:
            Name of a set -> protocol, what a record tells about the set, average precision of each query.
        """
        measured = {}
        for part, images in (("held_out", self.images.held_out), ("kept_apart", self.images.kept_apart)):
            label_of = dict(zip(images.names, images.labels, strict=True))
            described = rmaclib.extract(network, images.paths, self.extraction, names=images.names)
            values = leave_one_out_precisions(described.vectors, [label_of[name] for name in described.names])
            measured[part] = "leave one out", {"name": part, "counts": images.counts}, values[~np.isnan(values)]
        for test in self.images.tests:
            evaluation = rmaclib.evaluate(network, test, settings=self.extraction)
            measured[test.name] = (evaluation.protocol, {"name": test.name, "counts": test.counts},
                                   np.array(list(query_precisions(evaluation).values())))
        return measured


def keep(releases: list[Release], started: float) -> None:
    """Train some seeds; record their scores before training, after ranking and at the end, and gains with intervals."""
    networks = {"trained": [release.train() for release in releases],
                "ranked": [release.ranked().network for release in releases],
                "untrained": [release.untrained() for release in releases]}
    _keep(releases, networks, {"gain": ("untrained", "trained"), "ranked_gain": ("untrained", "ranked")}, started)


def keep_configurations(releases: list[Release], started: float) -> None:
    """Train the other configurations of some seeds; record their scores, gains, and what one is above another."""
    trained = [{"c-full_r-clean": release.ranked().network, **release.configurations()} for release in releases]
    networks = {name: [of_seed[name] for of_seed in trained] for name in trained[0]}
    networks["untrained"] = [release.untrained() for release in releases]
    pairs = {f"{name}/gain": ("untrained", name) for name in trained[0]}
    pairs |= {f"{name}/over_{other}": (other, name) for name, other in
              (("c-clean", "c-full"), ("r-clean", "r-full"), ("r-clean", "c-full"), ("c-full_r-clean", "r-clean"))}
    _keep(releases, networks, pairs, started)


def _keep(releases: list[Release], networks: dict[str, list[RMAC]], pairs: dict[str, tuple[str, str]],
          started: float) -> None:
    """Measure each network of each seed; record scores, and the paired difference of each pair, with intervals."""
    first = releases[0]
    weights = [fingerprint(network) for network in next(iter(networks.values()))]
    measured = {name: [release.precisions(network) for release, network in zip(releases, of_seeds, strict=True)]
                for name, of_seeds in networks.items()}
    for part, (protocol, dataset, _) in measured["untrained"][0].items():
        by_seed = {name: np.array([of_seed[part][2] for of_seed in measured[name]]) for name in networks}  # (S, Q)
        values = {name: (interval(each), "mAP") for name, each in by_seed.items()}
        for key, (before, after) in pairs.items():
            values[key] = paired_bootstrap(by_seed[before], by_seed[after]), "points"
        for place, release in enumerate(releases if len(releases) > 1 else ()):
            values |= {f"{name}_{release.seed}": (interval(each[place]), "mAP") for name, each in by_seed.items()}
        for name, (value, unit) in values.items():
            mean, low, high = (100 * each for each in value)
            sign = "+" if unit == "points" else ""
            for key, content in ((name, value.mean), (f"{name}_interval", f"[{low:{sign}.1f}, {high:{sign}.1f}]")):
                record(first.out / "results", f"{_NOTEBOOK}/{part}/{first.form}/{key}", content,
                       unit="" if isinstance(content, str) else unit, protocol=protocol, dataset=dataset,
                       seed=first.seed, seconds=time.monotonic() - started,
                       settings={"seeds": [release.seed for release in releases], "recipe": first.recipe,
                                 "network": asdict(first.settings), "extraction": asdict(first.extraction),
                                 "weights": weights},
                       notebook=_NOTEBOOK, profile=_PROFILE)
            print(f"{first.form}, {part}, {name}: {mean:.1f} [{low:.1f}, {high:.1f}]", flush=True)


def keep_tries(release: Release, started: float) -> None:
    """Train with each setting that is tried; record the best score on the held-out landmarks, which decides."""
    updates, images = release.recipe["tries"]["updates"], release.images
    for name, settings in release.recipe["tries"]["of"].items():
        trained = release.ranked(f"try_{name}", updates=updates, **settings)
        of = {"ranking": {**release.recipe["ranking"], "updates": updates, **settings}, "best": trained.best_update}
        record(release.out / "results", f"{_NOTEBOOK}/tries/{release.form}/{name}", trained.score, unit="mAP",
               protocol="leave one out", dataset={"name": "held_out", "counts": images.held_out.counts}, settings=of,
               seed=release.seed, seconds=time.monotonic() - started, notebook=_NOTEBOOK, profile=_PROFILE)
        print(f"{release.form}, {name}: {100 * trained.score:.1f} after {trained.best_update} updates", flush=True)


def main() -> None:
    """Train each seed, write its network in half precision, measure all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, nargs="+", default=[0],
                        help="every random choice of a training follows from it; several are measured together")
    parser.add_argument("--form", choices=("ours", "paper"), default="ours", help="which network (default: ours)")
    parser.add_argument("--out", type=Path, default=Path("_build/release"), help="(default: _build/release)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--configurations", action="store_true",
                      help="train and measure the other configurations of the paper too: each step alone, on the noisy "
                           "list and on the clean one; about an hour more on two cores")
    what.add_argument("--tries", action="store_true",
                      help="train shortly with each of the other settings of the recipe instead, with the first "
                           "seed: about an hour on two cores")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    started = time.monotonic()
    try:
        recipe = yaml.safe_load(RECIPE.read_text())
        images = Images(recipe, options.out)
        releases = [Release(options.form, seed, options.out, recipe, images) for seed in options.seed]
        if options.tries:
            keep_tries(releases[0], started)
        elif options.configurations:
            keep_configurations(releases, started)
        else:
            keep(releases, started)
    except RmacError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
