"""How much faster extract() is than a plain loop, and how much memory it takes.

    RMACLIB_DATA=FOLDER python tests/benchmarks/extraction_speed.py --record _build/photos/results

The peer is what one writes first: read an image, run the same network on it in float32, one after the other.
Both sides get the same images, in turns within one run, and their descriptors are compared. Memory is the
peak of a new process that extracts descriptors of some, or all, of the images.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from rmaclib.backbones import create_backbone
from rmaclib.datasets import open_dataset
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.images import read_image, resize_longer
from rmaclib.network import RMAC, NetworkSettings, create_network
from rmaclib.results import record

NETWORK = NetworkSettings("efficientnet_lite0", levels=3)
# Prints the peak of its memory in MiB.
MEMORY = """
import resource, sys
from tests.benchmarks.extraction_speed import NETWORK, create_network, extract, ExtractionSettings, open_dataset
paths = open_dataset(sys.argv[1]).paths[:int(sys.argv[2])]
extract(create_network(NETWORK), paths, ExtractionSettings((int(sys.argv[3]),)), out=sys.argv[4], progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


class PlainBackbone(torch.nn.Module):
    """The same layers in the default memory format, with a plain normalisation in front."""

    def __init__(self, backbone):
        super().__init__()
        self.inner, self.layers, self.name, self.mean = backbone, backbone.layers, "plain", backbone.mean

    def maps(self, images):
        return (self.inner.body((images / 255 - self.inner.mean) / self.inner.std),)


@torch.inference_mode()
def plain(network: RMAC, paths: list[Path], size: int) -> np.ndarray:
    """(N, D) descriptors, one image after the other."""
    vectors = []
    for path in paths:
        pixels = torch.from_numpy(np.array(resize_longer(read_image(path), size))).permute(2, 0, 1)[None].float()
        vectors.append(network(pixels.contiguous())[0].numpy())
    return np.stack(vectors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="oxford5k_subset")
    parser.add_argument("--images", type=int, default=150, help="images timed in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--record", type=Path, help="folder of result records to write to")
    options = parser.parse_args()

    data = open_dataset(options.dataset)
    paths = list(data.paths[:options.images])
    network = create_network(NETWORK)
    peer = RMAC(NETWORK, PlainBackbone(create_backbone(NETWORK.backbone))).eval()
    settings = ExtractionSettings((options.size,))
    plain(peer, paths[:5], options.size)
    extract(network, paths[:5], settings, progress=False)
    seconds, started = {"plain": [], "ours": []}, time.monotonic()
    for _ in range(options.rounds):
        begin = time.monotonic()
        expected = plain(peer, paths, options.size)
        middle = time.monotonic()
        vectors = extract(network, paths, settings, progress=False).vectors
        seconds["plain"].append(middle - begin)
        seconds["ours"].append(time.monotonic() - middle)
    cosine = float((expected * vectors).sum(1).min())
    ratio = float(np.median(seconds["plain"]) / np.median(seconds["ours"]))
    print(f"plain {[f'{s:.1f}' for s in seconds['plain']]} s, ours {[f'{s:.1f}' for s in seconds['ours']]} s: "
          f"{ratio:.2f} times the images per second; least cosine {cosine:.6f}")

    peaks = {}
    for count in (min(200, len(data.paths)), len(data.paths)):
        with tempfile.TemporaryDirectory() as folder:
            arguments = [options.dataset, str(count), str(options.size), folder]
            done = subprocess.run([sys.executable, "-c", MEMORY, *arguments],
                                  capture_output=True, text=True, check=True)
        peaks[count] = float(done.stdout)
        print(f"{count} images: peak memory {peaks[count]:.0f} MiB")
    few, many = peaks.values()
    growth = many / few - 1
    if options.record:
        for key, value, unit in (("speed_ratio", ratio, "times"), ("least_cosine", cosine, "cosine"),
                                 ("peak_memory", many, "MiB"), ("memory_growth", growth, "share")):
            record(options.record, f"benchmarks/{data.name}/{key}", value, unit=unit, protocol="describe_speed",
                   dataset={"name": data.name, "counts": data.counts},
                   settings={"network": asdict(NETWORK), "describe": asdict(settings), "images": options.images,
                             "rounds": options.rounds},
                   seed=None, seconds=time.monotonic() - started, notebook="benchmarks", profile="photos")
    good = ratio >= 1.4 and cosine >= 0.999 and many < 2048 and abs(growth) <= 0.1
    print("within its bounds (1.4 times, cosine 0.999, 2 GiB, 10 %)" if good else "OUT OF BOUNDS")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
