"""An index that grows by small additions against one that is built at once: recall, and the time of an addition.

    python tests/benchmarks/index_growth.py --additions 300 --size 1000

The vectors are distributed like descriptors: thousands around centres, and synthetic distractors made of them
(rmaclib.search.distractors); queries are further ones of the same kind. Recall is of the ten nearest, against exact
search. The index is saved after each addition, as `rmac index` does; the one that is built at once is saved as well.
Everything runs on one thread.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # read when the libraries are loaded

import faiss  # noqa: E402
import numpy as np  # noqa: E402

from rmaclib.ranking import normalise_rows  # noqa: E402
from rmaclib.search.distractors import synthetic_distractors  # noqa: E402
from rmaclib.search.vector_index import VectorIndex  # noqa: E402

K, SEED = 10, 0
LOSS, SHARE = 0.01, 0.1  # of recall, and of the time to build at once, that are allowed


def like_descriptors(count: int, dim: int, seed: int = SEED) -> np.ndarray:
    """(count, dim) unit vectors around a tenth as many centres, some directions stronger than others."""
    rng = np.random.default_rng(seed)
    strength = 1 / np.sqrt(1 + np.arange(dim) / 8)
    centres = rng.normal(size=(max(3, count // 10), dim)) * strength
    noise = rng.normal(size=(count, dim)) * strength
    return normalise_rows(centres[rng.integers(0, len(centres), count)] + 0.7 * noise)


def recall(index: VectorIndex, vectors: np.ndarray, queries: np.ndarray) -> float:
    """Share of the K nearest that an index finds; names are the rows of `vectors`."""
    exact = faiss.knn(queries, vectors, K, faiss.METRIC_INNER_PRODUCT)[1]
    results = index.search(queries, K)
    return float(np.mean([len({int(neighbour.name) for neighbour in row} & set(rows.tolist())) / K
                          for row, rows in zip(results, exact, strict=True)]))


def grown(vectors: np.ndarray, additions: int, folder: Path) -> tuple[VectorIndex, list[float]]:
    """An index that was added to, loaded and saved so many times, and the seconds of each addition."""
    size, seconds = len(vectors) // additions, []
    VectorIndex(vectors.shape[1]).save(folder)
    for start in range(0, len(vectors), size):
        begin = time.perf_counter()
        index = VectorIndex.load(folder)
        block = vectors[start:start + size]
        index.add(block, [str(number) for number in range(start, start + len(block))], progress=False)
        index.save(folder)
        seconds.append(time.perf_counter() - begin)
    return index, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--additions", type=int, default=300)
    parser.add_argument("--size", type=int, default=1000, help="vectors of an addition")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    originals = like_descriptors(5000, options.dim)
    vectors = np.concatenate(list(synthetic_distractors(originals, options.additions * options.size, SEED)))
    queries = np.concatenate(list(synthetic_distractors(originals, options.queries, SEED + 1)))
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        whole = VectorIndex(options.dim)
        whole.add(vectors, [str(number) for number in range(len(vectors))], progress=False)
        whole.save(Path(folder) / "whole")
        at_once = time.perf_counter() - begin
        print(f"built at once: {at_once:.1f} s, recall@{K} {recall(whole, vectors, queries):.4f}\n{whole}", flush=True)
        index, seconds = grown(vectors, options.additions, Path(folder) / "grown")
        print(f"{options.additions} additions of {options.size:,}: recall@{K} {recall(index, vectors, queries):.4f}, "
              f"{np.mean(seconds):.2f} s each, median {np.median(seconds):.2f} s, slowest {max(seconds):.1f} s "
              f"(number {int(np.argmax(seconds)) + 1})\n{index}")
        good = (recall(index, vectors, queries) > recall(whole, vectors, queries) - LOSS
                and np.mean(seconds) < SHARE * at_once)
    print(f"within its bounds (recall {LOSS} less, a tenth of the time)" if good else "OUT OF BOUNDS")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
