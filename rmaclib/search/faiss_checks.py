"""Whether an index that faiss has read can be searched: faiss doesn't check a damaged file, and would crash."""

import faiss
import numpy as np

from rmaclib.search.index_folder import SegmentEntry


def find_damage(index: faiss.Index, entry: SegmentEntry, dim: int) -> str | None:
    """Check that the parts of a segment's index fit together.

    Args:
        index: As faiss has read it.
        entry: The segment in meta.json.
        dim: Dimensions of a vector.

    Returns:
        Why the index can't be searched; None when it can.
    """
    if entry.removed and max(entry.removed) >= entry.count:
        return f"row {max(entry.removed)} is removed"
    checks = {"flat": _flat_damage, "hnsw": _graph_damage, "ivf-pq": _cells_damage}
    if entry.structure not in checks:
        return f"structure {entry.structure!r}"
    return _outer_damage(index, entry.count, dim) or checks[entry.structure](index, entry.count, dim)


def _outer_damage(index: faiss.Index, count: int, dim: int) -> str | None:
    """What every index tells about itself."""
    if (index.ntotal, index.d) != (count, dim):
        return f"it has {index.ntotal} of {index.d} dimensions"
    if index.metric_type != faiss.METRIC_INNER_PRODUCT or not index.is_trained:
        return "another metric, or not trained"
    return None


def _flat_damage(index: faiss.Index, count: int, dim: int) -> str | None:
    """The vectors in float32, one after the other."""
    if not isinstance(index, faiss.IndexFlatIP):
        return type(index).__name__
    if index.code_size != 4 * dim or index.codes.size() != 4 * dim * count:
        return "codes of another size"
    return None


def _graph_damage(index: faiss.Index, count: int, dim: int) -> str | None:
    """HNSW: vectors, and links between them in levels."""
    if not isinstance(index, faiss.IndexHNSWFlat):
        return type(index).__name__
    storage, graph = faiss.downcast_index(index.storage), index.hnsw
    if damage := _outer_damage(storage, count, dim) or _flat_damage(storage, count, dim):
        return damage
    levels, offsets, links, of_level = (faiss.vector_to_array(part).astype(np.int64) for part in (
        graph.levels, graph.offsets, graph.neighbors, graph.cum_nneighbor_per_level))
    if (len(levels) != count or len(offsets) != count + 1 or not np.all((levels >= 1) & (levels < len(of_level)))
            or np.any(np.diff(of_level) < 0) or offsets[0] != 0 or offsets[-1] != len(links)
            or np.any(np.diff(offsets) != of_level[levels])):
        return "a graph whose parts don't fit together"
    if np.any((links < -1) | (links >= count)) or not 0 <= graph.entry_point < count:
        return "a graph with links to nowhere"
    if graph.max_level != levels[graph.entry_point] - 1 or graph.max_level != levels.max() - 1:
        return "a graph with other levels"
    return _level_damage(levels, offsets, links, of_level)


def _level_damage(levels: np.ndarray, offsets: np.ndarray, links: np.ndarray, of_level: np.ndarray) -> str | None:
    """A link in a level has to lead to a vector of that level, or the search would leave the array."""
    for level in range(1, int(levels.max())):
        for row in np.flatnonzero(levels > level):
            targets = links[offsets[row] + of_level[level]:offsets[row] + of_level[level + 1]]
            if np.any(levels[targets[targets >= 0]] <= level):
                return "a graph with links to another level"
    return None


def _cells_damage(index: faiss.Index, count: int, dim: int) -> str | None:
    """IVF-PQ: centres of cells, codebooks, and all vectors again in 8 bits per dimension."""
    if not isinstance(index, faiss.IndexRefine):
        return type(index).__name__
    coarse, fine = faiss.downcast_index(index.base_index), faiss.downcast_index(index.refine_index)
    if not isinstance(coarse, faiss.IndexIVFPQFastScan) or not isinstance(fine, faiss.IndexScalarQuantizer):
        return f"{type(coarse).__name__} and {type(fine).__name__}"
    centres, pieces = faiss.downcast_index(coarse.quantizer), coarse.pq
    if damage := (_outer_damage(coarse, count, dim) or _outer_damage(fine, count, dim)
                  or _outer_damage(centres, coarse.nlist, dim) or _flat_damage(centres, coarse.nlist, dim)):
        return damage
    if (fine.sq.qtype != faiss.ScalarQuantizer.QT_8bit or fine.code_size != dim or fine.codes.size() != dim * count
            or fine.sq.trained.size() != 2 * dim):
        return "codes of another size"
    if (pieces.d != dim or pieces.M != coarse.M or pieces.nbits != 4 or dim % pieces.M or coarse.bbs != 32
            or pieces.centroids.size() != 16 * dim or coarse.M2 != pieces.M + pieces.M % 2):
        return "codebooks of another size"
    return _lists_damage(coarse, count)


def _lists_damage(coarse: faiss.Index, count: int) -> str | None:
    """The codes in the cells of IVF-PQ: each vector is in one cell."""
    lists = faiss.downcast_InvertedLists(coarse.invlists)
    if (not isinstance(lists, faiss.BlockInvertedLists) or lists.nlist != coarse.nlist
            or lists.n_per_block != coarse.bbs or lists.block_size != coarse.bbs * coarse.M2 // 2):
        return "cells of another kind"
    sizes = [lists.list_size(number) for number in range(lists.nlist)]
    if sum(sizes) != count:
        return "cells of another size"
    rows = np.concatenate([faiss.rev_swig_ptr(lists.get_ids(number), size)
                           for number, size in enumerate(sizes) if size])
    if not np.array_equal(np.sort(rows), np.arange(count)):
        return "cells that don't have each vector once"
    return None
