"""An index of a million descriptors: time to build, bytes, queries per second and recall against exact search.

    RMACLIB_DATA=FOLDER python tests/benchmarks/index_million.py --record _build/photos/results

A million synthetic distractors are made of real descriptors (512 dimensions, whitened R-MAC); queries are further ones
of the same kind. Everything runs on one thread, in one run. Then 1,000 are added, and the index is loaded again.
Memory is the process' own (RssAnon, read every 20 ms): pages of mapped files don't count, since the system takes them
back when it needs them. A temporary folder takes 3 GB during the run.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # read when the libraries are loaded

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from rmaclib.datasets import open_collection, open_dataset  # noqa: E402
from rmaclib.extraction.batches import ExtractionSettings  # noqa: E402
from rmaclib.extraction.descriptors import extract  # noqa: E402
from rmaclib.extraction.whitening import learn_whitening, training_sample  # noqa: E402
from rmaclib.network import NetworkSettings, create_network  # noqa: E402
from rmaclib.results import record  # noqa: E402
from rmaclib.search.distractors import synthetic_distractors  # noqa: E402
from rmaclib.search.vector_index import VectorIndex  # noqa: E402

K, DIM, SEED = 10, 512, 0
SETTINGS = ExtractionSettings((256,), precision="float32")
Values = dict[str, tuple[float, str]]  # key of a record -> value, unit


def own_memory() -> float:
    """MiB of memory of the process, without mapped files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no RssAnon: this benchmark needs Linux")


class Peak:
    """Context that measures memory: `mebibytes` is the highest value."""

    def __enter__(self):
        self.mebibytes, self.done = own_memory(), threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while not self.done.wait(0.02):
            self.mebibytes = max(self.mebibytes, own_memory())

    def __exit__(self, *error):
        self.done.set()
        self.thread.join()


def real_descriptors(dataset: str, training: str) -> tuple[np.ndarray, dict, dict]:
    """Whitened descriptors of a data set, its name and counts, and the network's settings."""
    data, network = open_dataset(dataset), create_network(NetworkSettings("efficientnet_lite0", levels=3))
    sample = training_sample(open_collection(training), 200, SEED)
    network.set_whitening(learn_whitening(network, sample, SETTINGS, dim=DIM))
    vectors = extract(network, data.paths, SETTINGS, names=data.names).vectors
    return vectors, {"name": data.name, "counts": data.counts}, asdict(network.settings)


def write_descriptors(path: Path, real: np.ndarray, count: int, queries: np.ndarray) -> tuple[np.ndarray, float]:
    """Write `count` descriptors as .npy; returns the rows of each query's K nearest, and the seconds of that search."""
    best, rows, seconds = np.full((len(queries), K), -np.inf, np.float32), np.zeros((len(queries), K), np.int64), 0.0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, DIM)})
        start = 0
        for block in synthetic_distractors(real, count, SEED):
            file.write(block.tobytes())
            begin = time.perf_counter()
            similarities, places = faiss.knn(queries, block, K, faiss.METRIC_INNER_PRODUCT)
            similarities = np.concatenate([best, similarities], 1)
            order = np.argsort(-similarities, axis=1, kind="stable")[:, :K]
            best = np.take_along_axis(similarities, order, 1)
            rows = np.take_along_axis(np.concatenate([rows, places + start], 1), order, 1)
            seconds += time.perf_counter() - begin
            start += len(block)
    return rows, seconds


def build(vectors: np.ndarray, home: Path) -> Values:
    """Build an index of vectors named "image 0", "image 1", … and save it."""
    with Peak() as peak:
        begin = time.perf_counter()
        index = VectorIndex(DIM)
        index.add(vectors, [f"image {number}" for number in range(len(vectors))])
        index.save(home)
        seconds = time.perf_counter() - begin
    print(index, flush=True)
    size = sum(path.stat().st_size for path in home.iterdir())
    return {"million_build": (seconds, "s"), "million_build_memory": (peak.mebibytes, "MiB"),
            "million_bytes": (size / len(vectors), "bytes/image")}


def load_and_search(home: Path, queries: np.ndarray, exact: np.ndarray) -> Values:
    """Load the index and search it; exact: (Q, K) rows of each query's nearest."""
    begin = time.perf_counter()
    index = VectorIndex.load(home)
    load_seconds = time.perf_counter() - begin
    with Peak() as peak:
        begin = time.perf_counter()
        results = [index.search(query[None], K)[0] for query in queries]  # one at a time, as people do
        seconds = time.perf_counter() - begin
    recall = np.mean([len({neighbour.name for neighbour in row} & {f"image {n}" for n in near}) / K
                      for row, near in zip(results, exact, strict=True)])
    return {"million_load": (load_seconds, "s"), "million_queries": (len(queries) / seconds, "queries/s"),
            "million_search_memory": (peak.mebibytes, "MiB"), "million_recall": (float(recall), "share")}


def add_and_reload(home: Path, added: np.ndarray) -> Values:
    """Add vectors to the index, save it, and load it again."""
    index = VectorIndex.load(home)
    before = {path.name: path.stat().st_mtime_ns for path in home.iterdir()}
    count = len(index)
    begin = time.perf_counter()
    index.add(added, [f"more {number}" for number in range(len(added))])
    index.save(home)
    add_seconds = time.perf_counter() - begin
    written = sum(path.stat().st_size for path in home.iterdir() if before.get(path.name) != path.stat().st_mtime_ns)
    del index
    begin = time.perf_counter()
    index = VectorIndex.load(home)
    load_seconds = time.perf_counter() - begin
    assert len(index) == count + len(added)
    assert index.search(added[:50], 1)[7][0].name == "more 7"
    return {"million_add": (add_seconds, "s"), "million_add_bytes": (written / len(added), "bytes/image"),
            "million_reload": (load_seconds, "s")}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="oxford5k_subset")
    parser.add_argument("--training", default="landmarks48", help="collection that the whitening is learned on")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--added", type=int, default=1_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--record", type=Path, help="folder of result records to write to")
    parser.add_argument("--profile", default="photos")
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    started = time.monotonic()

    real, dataset, network = real_descriptors(options.dataset, options.training)
    queries = np.concatenate(list(synthetic_distractors(real, options.queries, SEED + 1)))
    added = np.concatenate(list(synthetic_distractors(real, options.added, SEED + 2)))
    print(f"{len(real)} real descriptors, {time.monotonic() - started:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file, home = Path(folder) / "vectors.npy", Path(folder) / "index"
        exact, exact_seconds = write_descriptors(file, real, options.count, queries)
        print(f"written, {time.monotonic() - started:.0f} s", flush=True)
        values: Values = {"million_exact_queries": (options.queries / exact_seconds, "queries/s")}
        values |= build(np.load(file, mmap_mode="r"), home)
        values |= load_and_search(home, queries, exact)
        values |= add_and_reload(home, added)

    for key, (value, unit) in values.items():
        print(f"{key}: {value:.4g} {unit}")
        if options.record:
            record(options.record, f"benchmarks/{dataset['name']}/{key}", value, unit=unit, protocol="index_million",
                   dataset=dataset,
                   settings={"network": network, "describe": asdict(SETTINGS), "vectors": options.count,
                             "queries": options.queries, "k": K, "threads": 1, "added": options.added},
                   seed=SEED, seconds=time.monotonic() - started, notebook="benchmarks", profile=options.profile)
    good = (values["million_reload"][0] < 2 and values["million_recall"][0] >= 0.9
            and values["million_build_memory"][0] < 2048)
    print("within its bounds (2 s to load, recall 0.9, 2 GiB)" if good else "OUT OF BOUNDS")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
