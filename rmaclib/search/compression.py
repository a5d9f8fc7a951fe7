"""Shorter descriptors (Section 5): fewer dimensions by PCA, and codes of a few bytes by faiss.

The similarity is the cosine throughout. Vectors are brought to unit length before they are coded, and again after a
PCA. Of a query and a coded vector the dot product with the decoded vector is taken: a decoded vector is the mean
of what shares its code, so that this is the expected cosine. It is not normalised, which would spoil that.
"""

from dataclasses import replace
from typing import Annotated, Literal

import faiss
import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import Field, settings
from rmaclib.ranking import normalise_rows
from rmaclib.whitening import Whitening, fit_whitening

KINDS = ("pq", "opq", "pq-fast", "scalar", "binary")
_SCALARS = {4: faiss.ScalarQuantizer.QT_4bit, 6: faiss.ScalarQuantizer.QT_6bit, 8: faiss.ScalarQuantizer.QT_8bit,
            16: faiss.ScalarQuantizer.QT_fp16}  # by bits a number
_ROWS = 16384  # rows worked on at a time
_LARGEST = 2**16  # training vectors that a codebook uses at most


def fit_pca(vectors: np.ndarray, dim: int, whiten: bool = False, shrinkage: float = 0.0) -> Whitening:
    """Principal components of training descriptors; never give it a test set.

    vectors: (N, D), N of at least 2; dim: 1..D
    whiten: False turns and cuts only; True also makes the kept directions equally strong (rmac.fit_whitening, where
      shrinkage is explained)
    """
    found = fit_whitening(vectors, dim, shrinkage)
    return found if whiten else replace(found, weight=_of_unit_length(found.weight))


def _of_unit_length(rows: np.ndarray) -> np.ndarray:
    """Directions without their scale; one without variance is a row of zeros, and stays."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)


def project(vectors: np.ndarray, pca: Whitening) -> np.ndarray:
    """Descriptors (N, D) in the directions of a PCA: (N, dim) float32, of unit length again."""
    if vectors.ndim != 2 or vectors.shape[1] != len(pca.shift):
        raise InputError(f"vectors: expected (N, {len(pca.shift)}), got shape {vectors.shape}")
    found = np.empty((len(vectors), len(pca.weight)), np.float32)
    for start in range(0, len(vectors), _ROWS):
        block = np.asarray(vectors[start:start + _ROWS], np.float64)
        found[start:start + _ROWS] = normalise_rows((block + pca.shift) @ pca.weight.T)
    return found


@settings
class CodeSettings:
    """How a descriptor is made a code.

    kind
      "pq"       product quantization (Jégou et al. 2011): `size` pieces, each the nearest of 256 of its codebook
      "opq"      the same behind a learned rotation (Ge et al. 2013)
      "pq-fast"  twice as many pieces of 16 codewords each, compared in registers
      "scalar"   every number in 4, 6, 8 or 16 bits, whichever makes `size`
      "binary"   the signs behind a learned rotation (Gong et al. 2013), compared by how many differ
    size: bytes of a code
    dim: dimensions kept by a PCA before; None for all
    """

    kind: Literal["pq", "opq", "pq-fast", "scalar", "binary"] = "pq"
    size: Annotated[int, Field(ge=1)] = 64
    dim: Annotated[int, Field(ge=1)] | None = None


def train_codes(vectors: np.ndarray, settings: CodeSettings) -> faiss.Index:
    """Learn codebooks on training descriptors; never give it a test set.

    vectors: (N, D) training descriptors of any length; at least as many as a codebook has words (256, or 16 with
      "pq-fast"), better forty times as many; more than 65,536 are thinned out evenly
    returns an empty faiss index of codes; fill() and rank_codes() use it, and give it unit vectors only
    raises InputError: too few vectors, a size or dim that the descriptor's dimension does not allow
    """
    chosen = np.linspace(0, len(vectors) - 1, min(len(vectors), _LARGEST)).astype(np.int64)
    vectors = normalise_rows(vectors[chosen])
    dim = vectors.shape[1]
    steps = []
    if settings.dim is not None:
        if settings.dim > dim:
            raise InputError(f"dim: expected at most {dim} (the vectors' dimension), got {settings.dim}")
        pca = fit_pca(vectors, settings.dim)
        vectors, dim = project(vectors, pca), settings.dim
        steps = [_as_transform(pca), faiss.NormalizationTransform(dim, 2.0)]
    index = _empty_codes(settings, dim, len(vectors))
    index.train(vectors)
    if steps and not isinstance(index, faiss.IndexPreTransform):
        index = faiss.IndexPreTransform(index)
    for step in reversed(steps):
        index.prepend_transform(step)
    return index


def _empty_codes(settings: CodeSettings, dim: int, count: int) -> faiss.Index:
    """faiss' index for settings, on vectors of `dim` numbers that `count` examples are there of."""
    kind, size = settings.kind, settings.size
    pieces = 2 * size if kind == "pq-fast" else size
    words = {"pq": 256, "opq": 256, "pq-fast": 16}.get(kind, 2)
    if count < words:
        raise InputError(f"vectors: expected at least {words} to learn {kind!r} codes, got {count}")
    if kind == "scalar":
        if 8 * size % dim or 8 * size // dim not in _SCALARS:
            raise InputError(f"size: expected {', '.join(f'{dim * bits / 8:g}' for bits in _SCALARS)} bytes for "
                             f"{dim} numbers of {', '.join(map(str, _SCALARS))} bits, got {size}")
        return faiss.IndexScalarQuantizer(dim, _SCALARS[8 * size // dim], faiss.METRIC_INNER_PRODUCT)
    if kind == "binary":
        if 8 * size > dim:
            raise InputError(f"size: expected at most {dim // 8} bytes, a bit for each of {dim} numbers, got {size}")
        rotation = faiss.ITQTransform(dim, 8 * size, 8 * size < dim)
        return faiss.IndexPreTransform(rotation, faiss.IndexLSH(8 * size, 8 * size, False, False))
    if dim % pieces:
        raise InputError(f"size: expected {dim} numbers to fall into {pieces} equal pieces, got {size} bytes")
    if kind == "pq-fast":
        index = faiss.IndexPQFastScan(dim, pieces, 4, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexPQ(dim, pieces, 8, faiss.METRIC_INNER_PRODUCT)
    _quiet(index.pq)
    if kind == "opq":
        rotation = faiss.OPQMatrix(dim, pieces)
        rotation.pq = faiss.ProductQuantizer(dim, pieces, 8)
        _quiet(rotation.pq)
        return faiss.IndexPreTransform(rotation, index)
    return index


def _quiet(quantizer: faiss.ProductQuantizer) -> None:
    # faiss writes a line to standard error for each piece that has fewer than 39 examples a word.
    quantizer.cp.min_points_per_centroid = 1


def _as_transform(pca: Whitening) -> faiss.LinearTransform:
    """faiss' form of a PCA: y = weight x + weight shift."""
    dim, size = pca.weight.shape
    linear = faiss.LinearTransform(size, dim, True)
    faiss.copy_array_to_vector(pca.weight.astype(np.float32).ravel(), linear.A)
    faiss.copy_array_to_vector((pca.weight @ pca.shift).astype(np.float32), linear.b)
    linear.is_trained = True
    return linear


def fill(codes: faiss.Index, vectors: np.ndarray) -> faiss.Index:
    """A copy of trained codes that holds (N, D) vectors, any length, as its rows 0..N-1."""
    if vectors.ndim != 2 or vectors.shape[1] != codes.d:
        raise InputError(f"vectors: expected (N, {codes.d}), got shape {vectors.shape}")
    filled = faiss.deserialize_index(faiss.serialize_index(codes))  # faiss can't copy all of its transforms
    for start in range(0, len(vectors), _ROWS):
        filled.add(normalise_rows(vectors[start:start + _ROWS]))
    return filled


def rank_codes(filled: faiss.Index, queries: np.ndarray, top: int | None = None) -> np.ndarray:
    """Rows of filled codes in order of falling similarity to each query.

    queries: (Q, D); top: how many to return, all by default; returns (Q, min(top, N)) int64
    """
    return filled.search(normalise_rows(queries), min(top or filled.ntotal, filled.ntotal))[1]


def decode(filled: faiss.Index) -> np.ndarray:
    """What the codes say the vectors were: (N, D) float32, not of unit length; what a PCA dropped is 0.

    raises RuntimeError for "binary" codes, whose rotation faiss can't turn back
    """
    return filled.reconstruct_n(0, filled.ntotal)
