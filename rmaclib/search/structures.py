"""Structures: how a segment of an index is searched, by its number of vectors.

"flat" compares every vector, "hnsw" follows a graph of neighbours (Malkov and Yashunin 2016), "ivf-pq" searches some
cells of product-quantized codes (Jégou et al. 2011) and compares the best again in 8 bits per dimension.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import faiss
import numpy as np

from rmaclib.foundation.settings import Field, settings

PROBES = 32  # IVF-PQ: cells that are searched
_LINKS, _CONSTRUCTION, _VISITED = 32, 80, 128  # HNSW: links of a vector; candidates when building, when searching
_REFINED = 20  # IVF-PQ: candidates that are compared again, for each requested neighbour
_SAMPLES = 40  # IVF-PQ: training vectors for each cell


class Structure(NamedTuple):
    """How a segment is searched.

    Attributes:
        name: "flat", "hnsw" or "ivf-pq".
        reason: Why, for people to read.
    """

    name: str
    reason: str


@settings
class StructureLimits:
    """How many vectors a structure is chosen for.

    Attributes:
        flat_up_to: At most so many are compared one by one, which takes milliseconds.
        hnsw_up_to: At most so many get a graph of neighbours, which is built in minutes and, with the vectors, fits in
            memory.
    """

    flat_up_to: Annotated[int, Field(ge=0)] = 50_000
    hnsw_up_to: Annotated[int, Field(ge=0)] = 200_000


LIMITS = StructureLimits()


def choose_structure(count: int, limits: StructureLimits = LIMITS) -> Structure:
    """Choose the structure for a number of vectors, and say why.

    Args:
        count: Number of vectors.
        limits: Up to how many vectors each structure is used.
    """
    if count <= limits.flat_up_to:
        return Structure("flat", f"every vector is compared, exact: {count:,} are at most {limits.flat_up_to:,}")
    if count <= limits.hnsw_up_to:
        return Structure("hnsw", f"a graph of neighbours is followed: {count:,} are more than {limits.flat_up_to:,} "
                                 f"and at most {limits.hnsw_up_to:,}")
    return Structure("ivf-pq", f"{PROBES} of {cells(count)} cells are searched by product-quantized codes, the best "
                               f"compared in 8 bits per dimension: {count:,} are more than {limits.hnsw_up_to:,}")


def cells(count: int) -> int:
    """Number of cells of an IVF-PQ segment of `count` vectors: the power of two nearest to twice the square root."""
    return 2**round(np.log2(2 * count**0.5))


def create_structure(name: str, dim: int, count: int, sample: Callable[[np.ndarray], np.ndarray]) -> faiss.Index:
    """Make the faiss index of a structure, trained and empty.

    Args:
        name: Name of the structure.
        dim: Dimensions of a vector.
        count: Number of vectors that will be added.
        sample: Gives the ℓ2-normalised vectors of rising row numbers, to learn cells and codebooks on.
    """
    if name == "flat":
        return faiss.IndexFlatIP(dim)
    if name == "hnsw":
        index = faiss.IndexHNSWFlat(dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _CONSTRUCTION
        return index
    pieces = max(part for part in range(1, dim // 8 + 2) if dim % part == 0)  # of eight dimensions, or a few more
    index = faiss.index_factory(dim, f"IVF{cells(count)},PQ{pieces}x4fs,Refine(SQ8)", faiss.METRIC_INNER_PRODUCT)
    # An even sample of all that will be added, old and new; rising, which is fast to read from a memory map.
    index.train(sample(np.linspace(0, count - 1, min(count, _SAMPLES * cells(count))).astype(np.int64)))
    return index


def search_parameters(name: str, k: int, removed: np.ndarray) -> faiss.SearchParameters:
    """faiss' parameters of one search.

    Args:
        name: Name of the structure.
        k: Requested neighbours.
        removed: (N,) bool, rows that are left out.
    """
    options = {}
    if removed.any():
        options["sel"] = faiss.IDSelectorBitmap(np.packbits(~removed, bitorder="little"))
    if name == "flat":
        return faiss.SearchParameters(**options)
    if name == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=max(_VISITED, 2 * k), **options)
    inner = faiss.SearchParametersIVF(nprobe=PROBES, **options)
    refined = max(1.0, min(_REFINED, len(removed) / k))
    return faiss.IndexRefineSearchParameters(k_factor=refined, base_index_params=inner)
