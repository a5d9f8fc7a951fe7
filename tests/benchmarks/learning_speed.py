"""How much faster one update is than a plain three-stream step on the same triplets, and how much memory it takes.

    RMACLIB_DATA=FOLDER python tests/benchmarks/learning_speed.py --graphs CLEANED --run TRAINED --record RESULTS

The plain step is what one writes first: query, positive and negative of each triplet through the network, a triplet
after the other, and the gradient of its loss after each. Its threads share the work of one layer, those of an update
take an image each; where the plain step is faster on one thread, an update is compared with that. Both sides get the
same triplets, in turns within one run. An update computes an image once however many triplets it is in, and leaves
out images without a gradient. The gain grows with the shares of both, which are printed. The triplets are mined from
the verified pairs with the network off the shelf, where training begins. With --run they are the last ones that a run
of training (notebook 03, rmac train --graphs) has mined, on the network at the end of the run. Wall times need a quiet
machine; processor times are printed as well. The gradients are compared in float64, on a few triplets: in float32,
rounding moves the maximum of a region from one cell to another.

Memory is the peak of a new process (Linux) minus its memory before the step. There the plain step is a batch: all
triplets in one graph, as a loss over the whole batch needs it. The plain batch is measured at 16 triplets, ours at
16, 64 and 256; medians over several processes each, as malloc's share varies. An update needs memory for its largest
images, one per thread, and 16 triplets may contain none as large as 256 do. So ours is also measured at the 16 of the
256 triplets with the largest images: what 256 take beyond that isn't due to larger images.
"""

import argparse
import copy
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from rmaclib.cleaning import CleanSettings, clean
from rmaclib.datasets import LabelledImages, open_collection
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.whitening import learn_whitening, training_sample
from rmaclib.foundation.environment import prepare_process
from rmaclib.learning import Relations, Tuples, Views, accumulate, mine, triplet, verified_pairs
from rmaclib.network import RMAC, NetworkSettings, create_network
from rmaclib.results import record

NETWORK = NetworkSettings("efficientnet_lite0", levels=2, dim=512)
MARGIN, HARDEST, FEW = 0.1, 25, 8
PLAIN_BATCH, OURS = 16, (16, 64, 256)
# Prints the peak of a step's memory in MiB: a key of SIDES, graphs, size, file of triplets, how many of them.
MEMORY = """
import sys
from pathlib import Path
from tests.benchmarks.learning_speed import memory
print(memory(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
"""


def pixels(network: RMAC, collection: LabelledImages, index: int, size: int) -> Tensor:
    """(1, 3, H, W) uint8, as training loads the image."""
    return Views(collection, [index], size, backbone=network.backbone)[0][None]


def three_streams(extract_one: Callable[[int], Tensor], triplets: np.ndarray, margin: float) -> None:
    """One triplet after the other; adds the gradient of the mean loss. extract_one(index): (1, D) of an image."""
    for images in triplets.tolist():
        query, positive, negative = map(extract_one, images)
        gap = (query - positive).square().sum() - (query - negative).square().sum()
        ((margin + gap).clamp(min=0) / 2 / len(triplets)).backward()


def three_streams_at_once(extract_one: Callable[[int], Tensor], triplets: np.ndarray, margin: float) -> None:
    """All triplets in one graph."""
    streams = [torch.cat([extract_one(index) for index in images]) for images in triplets.T.tolist()]
    near, far = ((streams[0] - other).square().sum(1) for other in streams[1:])
    ((margin + near - far).clamp(min=0).mean() / 2).backward()


def plain(network: RMAC, collection: LabelledImages, triplets: np.ndarray, size: int) -> None:
    three_streams(lambda index: network(pixels(network, collection, index, size)), triplets, MARGIN)


def plain_batch(network: RMAC, collection: LabelledImages, triplets: np.ndarray, size: int) -> None:
    three_streams_at_once(lambda index: network(pixels(network, collection, index, size)), triplets, MARGIN)


def ours(network: RMAC, collection: LabelledImages, triplets: np.ndarray, size: int) -> tuple[int, int]:
    """One update; returns how many images it has, and how many have a gradient."""
    images, local = np.unique(triplets, return_inverse=True)
    relations, views = Relations(collection.labels), Views(collection, images, size, backbone=network.backbone)
    tuples = Tuples(torch.from_numpy(local.reshape(-1, 3)), *(
        torch.from_numpy(matrix) for matrix in (relations.relevant(images), relations.irrelevant(images))))
    step = accumulate(network, views, partial(triplet, tuples=tuples, margin=MARGIN), sizes=views.sizes)
    return len(images), step.computed


def largest_first(network: RMAC, collection: LabelledImages, triplets: np.ndarray, size: int) -> np.ndarray:
    images, local = np.unique(triplets, return_inverse=True)
    areas = np.prod(Views(collection, images, size, backbone=network.backbone).sizes, axis=1)
    return triplets[np.argsort(-areas[local.reshape(-1, 3)].max(1), kind="stable")]


SIDES = {"plain": plain_batch, "ours": ours}


def memory(side: str, graphs: Path, size: int, file: str, count: int) -> float:
    torch.manual_seed(0)  # of the last layer, so that the same images have a gradient in every process
    network, collection = create_network(NETWORK), cleaned(graphs)
    triplets = np.load(file)[:count]
    pixels(network, collection, 0, size)
    # getrusage would return the peak of the process that started this one, if that was higher.
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the present memory
    before = peak_memory()
    SIDES[side](network, collection, triplets, size)
    return peak_memory() - before


def peak_memory() -> float:
    """Peak of this process's memory in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def cleaned(graphs: Path) -> LabelledImages:
    """The clean list of landmarks48, of graphs that are there (or are made now)."""
    return clean(open_collection("landmarks48"), CleanSettings(), out=graphs, report=False, progress=False).clean


def mined(network: RMAC, collection: LabelledImages, options) -> np.ndarray:
    """(max(OURS), 3) indices: triplets mined in a pool, as training does."""
    pool = np.sort(np.random.default_rng(0).choice(len(collection.names), min(options.pool, len(collection.names)),
                                                   replace=False))
    descriptors = extract(network, [collection.paths[index] for index in pool], ExtractionSettings((options.size,)),
                          names=[str(index) for index in pool])
    images = np.array([int(name) for name in descriptors.names], np.int64)
    relations = Relations(collection.labels, verified_pairs(collection, options.graphs))
    return mine(images, descriptors.vectors, relations, 1, max(OURS), HARDEST, np.random.default_rng(1)).triplets[0]


def load_run(folder: Path, collection: LabelledImages) -> tuple[RMAC, np.ndarray]:
    """The network of a finished run of ranking after its last update, and its last triplets, last first."""
    state = load_file(folder / "state.safetensors")
    weights = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    triplets = state["step.triplets"].numpy().reshape(-1, 3)[-max(OURS):]
    network = create_network(NETWORK)
    network.load_state_dict(weights)
    # With another list than the one that was trained on, the indices would be images of other landmarks.
    labels = np.asarray(collection.labels)[triplets]
    assert (labels[:, 0] == labels[:, 1]).all() and (labels[:, 0] != labels[:, 2]).all()
    return network.eval(), triplets[::-1].copy()


def difference(network: RMAC, first: Callable, second: Callable, *arguments) -> float:
    """Relative difference of two steps' gradients in float64; each is called with the network and the arguments."""
    network, gradients = copy.deepcopy(network).double(), []
    for step in (first, second):
        network.zero_grad()
        step(network, *arguments)
        gradients.append(gradient(network))
    return float((gradients[1] - gradients[0]).norm() / gradients[0].norm())


def gradient(network: RMAC) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def time_steps(network: RMAC, collection: LabelledImages, triplets: np.ndarray, size: int,
               rounds: int) -> tuple[float, float, int, int]:
    """Times the triplets per second, the same per processor second, distinct images, and those with a gradient."""
    threads = torch.get_num_threads()
    runs = dict.fromkeys([(plain, 1), (plain, threads), (ours, threads)])  # the first two are equal with one thread
    seconds, processor = {run: [] for run in runs}, {run: [] for run in runs}
    for _ in range(rounds):
        for step, count in runs:
            torch.set_num_threads(count)
            network.zero_grad()
            begin, processor_begin = time.monotonic(), time.process_time()
            counts = step(network, collection, triplets, size)
            seconds[step, count].append(time.monotonic() - begin)
            processor[step, count].append(time.process_time() - processor_begin)
    images, computed = counts  # of the last run, which is ours
    ratio, cost = (float(min(np.median(times[plain, 1]), np.median(times[plain, threads]))
                         / np.median(times[ours, threads])) for times in (seconds, processor))
    print(f"{len(triplets)} triplets: {images} distinct images of {3 * len(triplets)}, {computed} with a gradient")
    for step, count in runs:
        print(f"{step.__name__}, {count} threads: {', '.join(f'{s:.1f}' for s in seconds[step, count])} s")
    print(f"{ratio:.2f} times the triplets per second, {cost:.2f} times per processor second")
    return ratio, cost, images, computed


def measure_memory(network: RMAC, collection: LabelledImages, triplets: np.ndarray,
                   options: argparse.Namespace) -> tuple[float, float, float]:
    """Our memory over the plain batch's, and its growth with the triplets: as mined, and with the largest images."""
    options.work.mkdir(parents=True, exist_ok=True)
    as_mined, largest = options.work / "triplets.npy", options.work / "largest_first.npy"
    np.save(as_mined, triplets)
    np.save(largest, largest_first(network, collection, triplets, options.size))
    peaks = {}
    for kind, side, file, count in (("plain", "plain", as_mined, PLAIN_BATCH),
                                    *(("ours", "ours", as_mined, count) for count in OURS),
                                    ("ours, largest images", "ours", largest, min(OURS))):
        arguments = [side, str(options.graphs), str(options.size), str(file), str(count)]
        processes = [subprocess.run([sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True,
                                    check=True) for _ in range(options.rounds)]
        peaks[kind, count] = float(np.median([float(process.stdout) for process in processes]))
        print(f"{kind}, {count} triplets: {peaks[kind, count]:.0f} MiB")
    share = peaks["ours", PLAIN_BATCH] / peaks["plain", PLAIN_BATCH]
    growth, of_largest = (peaks["ours", max(OURS)] / peaks[kind, min(OURS)] - 1
                          for kind in ("ours", "ours, largest images"))
    print(f"from {min(OURS)} to {max(OURS)} triplets: {growth:+.1%}; from the {min(OURS)} with the largest images: "
          f"{of_largest:+.1%}")
    return share, growth, of_largest


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=Path, default=Path("_build/photos/cleaning/landmarks48"),
                        help="folder of a cleaning run on landmarks48")
    parser.add_argument("--run", type=Path,
                        help="folder of a finished run of ranking on the clean list; default: where training begins")
    parser.add_argument("--pool", type=int, default=1500, help="images that the first triplets are mined from")
    parser.add_argument("--triplets", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--work", type=Path, default=Path("_build/benchmarks"), help="folder for the mined triplets")
    parser.add_argument("--record", type=Path, help="folder of result records to write to")
    return parser.parse_args()


def main() -> int:
    prepare_process()
    options = parse_options()
    started, collection, threads = time.monotonic(), cleaned(options.graphs), torch.get_num_threads()
    if options.run:
        (network, every), state = load_run(options.run, collection), "trained"
    else:
        network, state = create_network(NetworkSettings(**{**asdict(NETWORK), "dim": None})), "start"
        network.set_whitening(learn_whitening(network, training_sample(open_collection("landmarks48"), 400),
                                              ExtractionSettings((options.size,)), dim=NETWORK.dim))
        every = mined(network, collection, options)
    triplets = every[:options.triplets]
    ratio, cost, images, computed = time_steps(network, collection, triplets, options.size, options.rounds)
    error = difference(network, plain, ours, collection, triplets[:FEW], options.size)
    print(f"relative difference of the gradients of {FEW} triplets in float64: {error:.1e}")
    share, growth, of_largest = measure_memory(network, collection, every, options)
    if options.record:
        name = f"update_{state}" + ("_one_thread" if threads == 1 else "")
        streams = 3 * len(triplets)
        for key, value, unit in (("speed_ratio", ratio, "times"), ("cost_ratio", cost, "times"),
                                 ("memory_share", share, "share"), ("memory_growth", growth, "share"),
                                 ("memory_growth_largest", of_largest, "share"),
                                 ("gradient_error", error, "ratio"), ("distinct_images", images / streams, "share"),
                                 ("computed_images", computed / streams, "share")):
            record(options.record, f"benchmarks/landmarks48/{name}_{key}", value, unit=unit, protocol="learning_speed",
                   dataset={"name": collection.name, "counts": collection.counts},
                   settings={"network": asdict(NETWORK), "size": options.size, "triplets": options.triplets,
                             "pool": options.pool, "hardest": HARDEST, "rounds": options.rounds, "threads": threads,
                             "plain_batch": PLAIN_BATCH, "ours": list(OURS)},
                   seed=0, seconds=time.monotonic() - started, notebook="benchmarks", profile="photos")
    good = ratio >= 2 and share <= 0.2 and abs(growth) <= 0.1 and error <= 1e-5
    print("within its bounds (2 times, a fifth of the memory, growth 10 %, gradients within 1e-5)" if good
          else "OUT OF BOUNDS")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
