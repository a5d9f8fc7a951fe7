"""An index of a million descriptors: time to build, bytes, queries per second and recall against exact search.

    RMACLIB_DATA=FOLDER python tests/benchmarks/index_million.py --record _build/photos/results

Real descriptors (512 numbers, whitened R-MAC) are made a million by rmaclib.search.distractors; queries are further
ones
of the same kind. Everything runs on one thread, in one run. Then 1,000 are added, and the index is loaded again.
Memory is what the process itself holds (RssAnon, looked at every 20 ms): pages of mapped files don't count, since the
system takes them back when it needs them. A temporary folder takes 3 GB for the time of the run.
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


def held() -> float:
    """MiB of memory that the process holds, mapped files apart."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no RssAnon: this benchmark needs Linux")


class Peak:
    """Context that watches memory: `mebibytes` is the highest value seen."""

    def __enter__(self):
        self.mebibytes, self.done = held(), threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while not self.done.wait(0.02):
            self.mebibytes = max(self.mebibytes, held())

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


def written(path: Path, real: np.ndarray, count: int, queries: np.ndarray) -> tuple[np.ndarray, float]:
    """Write `count` descriptors as .npy; returns the rows of each query's K nearest, and the seconds of that search."""
    best, rows, seconds = np.full((len(queries), K), -np.inf, np.float32), np.zeros((len(queries), K), np.int64), 0.0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, DIM)})
        start = 0
        for block in synthetic_distractors(real, count, SEED):
            file.write(block.tobytes())
            begin = time.perf_counter()
            found, places = faiss.knn(queries, block, K, faiss.METRIC_INNER_PRODUCT)
            every = np.concatenate([best, found], 1), np.concatenate([rows, places + start], 1)
            order = np.argsort(-every[0], axis=1, kind="stable")[:, :K]
            best, rows = (np.take_along_axis(part, order, 1) for part in every)
            seconds += time.perf_counter() - begin
            start += len(block)
    return rows, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="oxford5k_subset")
    parser.add_argument("--training", default="landmarks48", help="collection that the whitening is learned on")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--added", type=int, default=1_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--record", type=Path, help="folder of result records to write to")
    parser.add_argument("--profile", default="photos")
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    started = time.monotonic()

    real, dataset, network = real_descriptors(options.dataset, options.training)
    queries = np.concatenate(list(synthetic_distractors(real, options.queries, SEED + 1)))
    print(f"{len(real)} real descriptors, {time.monotonic() - started:.0f} s", flush=True)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        exact, exact_seconds = written(Path(folder) / "vectors.npy", real, options.count, queries)
        found["million_exact_queries"] = options.queries / exact_seconds, "queries/s"
        print(f"written, {time.monotonic() - started:.0f} s", flush=True)
        vectors = np.load(Path(folder) / "vectors.npy", mmap_mode="r")
        home = Path(folder) / "index"
        with Peak() as peak:
            begin = time.perf_counter()
            index = VectorIndex(DIM)
            index.add(vectors, [f"image {number}" for number in range(options.count)])
            index.save(home)
            found["million_build"] = time.perf_counter() - begin, "s"
        print(index, flush=True)
        found["million_build_memory"] = peak.mebibytes, "MiB"
        size = sum(path.stat().st_size for path in home.iterdir())
        found["million_bytes"] = size / options.count, "bytes/image"
        del index
        begin = time.perf_counter()
        index = VectorIndex.load(home)
        found["million_load"] = time.perf_counter() - begin, "s"
        with Peak() as peak:
            begin = time.perf_counter()
            answers = [index.search(query[None], K)[0] for query in queries]  # one at a time, as people ask
            found["million_queries"] = options.queries / (time.perf_counter() - begin), "queries/s"
        found["million_search_memory"] = peak.mebibytes, "MiB"
        found["million_recall"] = float(np.mean([len({answer.name for answer in row} & {f"image {n}" for n in near}) / K
                                                 for row, near in zip(answers, exact, strict=True)])), "share"
        before = {path.name: path.stat().st_mtime_ns for path in home.iterdir()}
        more = np.concatenate(list(synthetic_distractors(real, options.added, SEED + 2)))
        begin = time.perf_counter()
        index.add(more, [f"more {number}" for number in range(options.added)])
        index.save(home)
        found["million_add"] = time.perf_counter() - begin, "s"
        touched = sum(path.stat().st_size for path in home.iterdir()
                      if before.get(path.name) != path.stat().st_mtime_ns)
        found["million_add_bytes"] = touched / options.added, "bytes/image"
        del index
        begin = time.perf_counter()
        index = VectorIndex.load(home)
        found["million_reload"] = time.perf_counter() - begin, "s"
        assert len(index) == options.count + options.added
        assert index.search(more[:50], 1)[7][0].name == "more 7"
        del index, vectors

    for key, (value, unit) in found.items():
        print(f"{key}: {value:.4g} {unit}")
        if options.record:
            record(options.record, f"benchmarks/{dataset['name']}/{key}", value, unit=unit, protocol="index_million",
                   dataset=dataset,
                   settings={"network": network, "describe": asdict(SETTINGS), "vectors": options.count,
                             "queries": options.queries, "k": K, "threads": 1, "added": options.added},
                   seed=SEED, seconds=time.monotonic() - started, notebook="benchmarks", profile=options.profile)
    good = (found["million_reload"][0] < 2 and found["million_recall"][0] >= 0.9
            and found["million_build_memory"][0] < 2048)
    print("within its bounds (2 s to load, recall 0.9, 2 GiB)" if good else "OUT OF BOUNDS")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
