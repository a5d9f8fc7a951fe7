"""Speed and memory of a GPU at the paper's size: ResNet-101 on images of 800 pixels, extraction and training.

    python tests/benchmarks/gpu_speed.py --record _build/gpu/results

Speed and memory don't depend on the weights. They are random, with batch statistics of the images, as after training.
The images are those of the embedded data set, enlarged and written as JPEG, in their many shapes. An update is one of
training (deterministic kernels) in the worst case: every image of its triplets is different, and each has a gradient.
Three arithmetics, float32 in two kinds:

  float32   cuDNN may not round: TF32 off
  tf32      PyTorch's default for float32: convolutions round their input to ten bits
  bfloat16  the backbone under autocast

The peer of an update is the plain three-stream step, one triplet after the other, in the same arithmetic. Its memory is
compared with that of the plain batch, with all triplets in one graph. Gradients are compared in float64. Whether a
network learns as much in bfloat16 is measured with a small one with ImageNet weights, on the embedded data set.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from learning_speed import difference, three_streams, three_streams_at_once
from torch import Tensor

from rmaclib.backbones import create_backbone
from rmaclib.datasets import open_collection
from rmaclib.datasets.types import LabelledImages
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.whitening import learn_whitening
from rmaclib.foundation.environment import prepare_process
from rmaclib.images import read_image, resize_longer
from rmaclib.learning import RankingSettings, Tuples, Views, accumulate, train_ranking, triplet
from rmaclib.learning.loop import repeatable
from rmaclib.network import RMAC, NetworkSettings, create_network
from rmaclib.results import record

ARITHMETICS = ("float32", "tf32", "bfloat16")
MARGIN = 5.0  # more than two squared distances of unit vectors differ by: no triplet is satisfied
PLAIN_BATCH, OURS = 8, (16, 64, 256)  # triplets
GIB = 2**30


def enlarged(source: LabelledImages, folder: Path, count: int, size: int) -> LabelledImages:
    """Image files with a longer side of `size` pixels; the source is repeated when it has too few."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}.jpg" for number in range(count)]

    def write(number: int) -> None:
        picture = read_image(source.paths[number % len(source.paths)])
        resize_longer(picture, size, enlarge=True).save(paths[number], quality=92)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(count)))
    names = tuple(path.name for path in paths)
    return LabelledImages(source.name, folder, names, tuple(paths), tuple(range(count)), (None,) * count)


def network_of(backbone: str, levels: int, dim: int, sample: Sequence[Tensor]) -> RMAC:
    """On the GPU, with random weights and the batch statistics of the sample."""
    torch.manual_seed(0)
    network = create_network(NetworkSettings(backbone, levels=levels, dim=dim), pretrained=False).cuda().train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all images
    with torch.no_grad():
        for image in sample:
            network.backbone(image[None].cuda())
    return network.eval()


@contextmanager
def arithmetic(name: str) -> Iterator[None]:
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=name != "float32"):
        yield


def plain(network: RMAC, images: Sequence[Tensor], triplets: np.ndarray, half: bool) -> None:
    three_streams(lambda place: extract_one(network, images[place], half), triplets, MARGIN)


def plain_batch(network: RMAC, images: Sequence[Tensor], triplets: np.ndarray, half: bool) -> None:
    three_streams_at_once(lambda place: extract_one(network, images[place], half), triplets, MARGIN)


def extract_one(network: RMAC, image: Tensor, half: bool) -> Tensor:
    """(1, D) of an image, computed as in an update."""
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        maps = network.backbone.maps(image[None].cuda())
    return network.aggregate([each.float() if half else each for each in maps], image.shape[-2:])


def ours(network: RMAC, images: Sequence[Tensor], triplets: np.ndarray, half: bool) -> None:
    """One update."""
    used, local = np.unique(triplets, return_inverse=True)
    assert used.tolist() == list(range(len(images)))
    other = ~torch.eye(len(used), dtype=torch.bool)
    tuples = Tuples(torch.from_numpy(local.reshape(-1, 3)).cuda(), other.cuda(), other.cuda())
    step = accumulate(network, images, partial(triplet, tuples=tuples, margin=MARGIN), half=half,
                      sizes=getattr(images, "sizes", None))
    assert step.computed == len(used)


def measured(run: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of a run, and the peak of its GPU memory in GiB, minus the memory before it.

    The first run is not counted.
    """
    seconds = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before, begin = torch.cuda.memory_allocated(), time.monotonic()
        run()
        torch.cuda.synchronize()
        seconds.append(time.monotonic() - begin)
    return float(np.median(seconds[1:])), (torch.cuda.max_memory_allocated() - before) / GIB


def learned(images: LabelledImages, settings: RankingSettings) -> tuple[float, float, float]:
    """Train a small network on the embedded data set.

    Returns its validation score at the end, the gain since the start, and the seconds with the validations.
    """
    network = create_network(NetworkSettings("efficientnet_lite0", levels=2))
    extraction = ExtractionSettings((settings.size,), device="cuda", precision="float32")
    network.set_whitening(learn_whitening(network, images.paths, extraction, dim=512, progress=False))
    with TemporaryDirectory() as folder:
        log = train_ranking(network, images, settings, out=folder, validation=open_collection("diorama_val"),
                            progress=False).history
    last = log[-1]["validation"]
    return last, last - log[0]["validation"], sum(row["seconds"] for row in log)


class Steps:
    """What is measured, and where it is recorded."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.started = options, time.monotonic()
        self.source = open_collection("diorama_train")
        self.collection = enlarged(self.source, options.work, max(options.images, 3 * max(OURS)), options.size)
        views = Views(self.collection, range(3 * max(OURS)), options.size,
                      backbone=create_backbone(options.backbone, pretrained=False))
        with ThreadPoolExecutor() as pool:
            self.loaded = list(pool.map(views.__getitem__, range(3 * max(OURS))))
        self.network = network_of(options.backbone, options.levels, options.dim, self.loaded[:32])
        self.backbone = options.backbone.replace(":", "_")

    def keep(self, key: str, value: float, unit: str, **settings) -> None:
        """settings: of a training, which has the whole data set; none for what is measured at the large size."""
        print(f"{key}: {value:.4g} {unit}", flush=True)
        options = self.options
        counts = self.source.counts if settings else {"images": options.images}
        settings = settings or {
            "network": asdict(self.network.settings), "size": options.size, "triplets": options.triplets,
            "rounds": options.rounds, "plain_batch": PLAIN_BATCH, "weights": "random"}
        if options.record:
            record(options.record, f"benchmarks/{self.source.name}/{key}", value, unit=unit, protocol="gpu_speed",
                   dataset={"name": self.source.name, "counts": counts}, settings=settings,
                   seed=0, seconds=time.monotonic() - self.started, notebook="benchmarks", profile="gpu")

    def extraction(self) -> None:
        paths, descriptors = self.collection.paths[:self.options.images], {}

        def run(name: str, settings: ExtractionSettings) -> None:
            descriptors[name] = extract(self.network, paths, settings, progress=False).vectors

        for name in ARITHMETICS:
            with arithmetic(name):
                settings = ExtractionSettings((self.options.size,), device="cuda",
                                              precision="bfloat16" if name == "bfloat16" else "float32")
                seconds, memory = measured(partial(run, name, settings), self.options.rounds)
            cosine = float((descriptors[name] * descriptors["float32"]).sum(1).min())
            self.keep(f"{self.backbone}_describe_{name}_speed", len(paths) / seconds, "images/s")
            self.keep(f"{self.backbone}_describe_{name}_memory", memory, "GiB")
            self.keep(f"{self.backbone}_describe_{name}_cosine", cosine, "cosine")

    def updates(self) -> None:
        count, network, rounds = 3 * self.options.triplets, self.network, self.options.rounds
        images, triplets = self.loaded[:count], np.arange(count).reshape(-1, 3)
        for name in ARITHMETICS:
            half = name == "bfloat16"
            with arithmetic(name), repeatable():
                seconds, memory = measured(partial(ours, network, images, triplets, half), rounds)
                self.keep(f"{self.backbone}_update_{name}_speed", count / seconds, "images/s")
                self.keep(f"{self.backbone}_update_{name}_memory", memory, "GiB")
                views = Views(self.collection, range(count), self.options.size, backbone=network.backbone)
                from_files, _ = measured(partial(ours, network, views, triplets, half), rounds)
                self.keep(f"{self.backbone}_update_{name}_from_files_speed", count / from_files, "images/s")
                peer, _ = measured(partial(plain, network, images, triplets, half), 1)
                self.keep(f"{self.backbone}_update_{name}_ratio", peer / seconds, "times")

    def memory(self) -> None:
        with arithmetic("tf32"), repeatable():
            for count in OURS:
                triplets = np.arange(3 * count).reshape(-1, 3)
                _, memory = measured(partial(ours, self.network, self.loaded[:3 * count], triplets, False), 1)
                self.keep(f"{self.backbone}_update_of_{count}_memory", memory, "GiB")
            few = np.arange(3 * PLAIN_BATCH).reshape(-1, 3)
            _, memory = measured(partial(plain_batch, self.network, self.loaded, few, False), 1)
            self.keep(f"{self.backbone}_plain_batch_of_{PLAIN_BATCH}_memory", memory, "GiB")
        error = difference(self.network, plain, ours, self.loaded[:6], few[:2], False)
        self.keep(f"{self.backbone}_gradient_error", error, "ratio")

    def training(self) -> None:
        updates = self.options.updates
        for name in ("float32", "bfloat16") if updates else ():
            settings = RankingSettings(size=320, triplets=24, pool=400, refresh=16, optimizer="adamw", lr=2e-5,
                                       schedule="constant", updates=updates, evaluate_every=updates,
                                       precision=name, device="cuda")
            score, gain, seconds = learned(self.source, settings)
            self.keep(f"learned_{name}_validation", score, "mAP", **asdict(settings))
            self.keep(f"learned_{name}_gain", gain, "points", **asdict(settings))
            self.keep(f"learned_{name}_seconds", seconds, "s", **asdict(settings))


def main() -> int:
    prepare_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet101")
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--triplets", type=int, default=64)
    parser.add_argument("--images", type=int, default=512, help="images of a round of extraction")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=64, help="of a small network that is trained; 0: none")
    parser.add_argument("--work", type=Path, default=Path("_build/benchmarks/enlarged"), help="folder for the images")
    parser.add_argument("--record", type=Path, help="folder of result records to write to")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("error: needs a GPU that PyTorch can use", file=sys.stderr)
        return 2
    steps = Steps(options)
    steps.extraction()
    steps.updates()
    steps.memory()
    steps.training()
    return 0


if __name__ == "__main__":
    sys.exit(main())
