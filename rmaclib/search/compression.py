"""Shorter descriptors (Section 5): fewer dimensions by PCA, and codes of a few bytes by faiss.

The similarity is the cosine throughout. Vectors are ℓ2-normalised before they are coded, and again after a PCA. A query
is compared with a coded vector by the dot product with the decoded vector. A decoded vector is the mean of the training
vectors that share its code, so this is the expected cosine; normalising it would spoil that.
"""

from typing import Annotated, Literal, get_args

import faiss
import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import Field, settings
from rmaclib.ranking import normalise_rows
from rmaclib.whitening import Whitening, fit_whitening

Kind = Literal["pq", "opq", "pq-fast", "scalar", "binary"]
KINDS = get_args(Kind)
_SCALARS = {4: faiss.ScalarQuantizer.QT_4bit, 6: faiss.ScalarQuantizer.QT_6bit, 8: faiss.ScalarQuantizer.QT_8bit,
            16: faiss.ScalarQuantizer.QT_fp16}  # by bits per dimension
_ROWS = 16384  # rows worked on at a time
_LARGEST = 2**16  # training vectors that a codebook uses at most


def fit_pca(vectors: np.ndarray, dim: int, whiten: bool = False, shrinkage: float = 0.0) -> Whitening:
    """Learn the principal components of training descriptors. Never give it a test set.

    Args:
        vectors: (N, D) training descriptors, N at least 2.
        dim: Components to keep, 1..D.
        whiten: False only rotates and cuts; True also scales the kept directions to equal variance.
        shrinkage: 0..1, see :func:`rmaclib.whitening.fit_whitening`.

    Returns:
        The linear map, for :func:`project`.

    Raises:
        InputError: Too few vectors, values that aren't finite, dim or shrinkage out of range.
    """
    whitening = fit_whitening(vectors, dim, shrinkage)
    if whiten:
        return whitening
    return Whitening(whitening.shift, _unit_rows(whitening.weight), whitening.variances, whitening.count)


def _unit_rows(directions: np.ndarray) -> np.ndarray:
    """Directions without their scale, in float64; a direction without variance is a row of zeros, and stays."""
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    return directions / np.where(norms == 0, 1, norms)


def project(vectors: np.ndarray, pca: Whitening) -> np.ndarray:
    """Project descriptors on the directions of a PCA and ℓ2-normalise them.

    Args:
        vectors: (N, D); may be a memory map.
        pca: Of fit_pca, with dim directions.

    Returns:
        (N, dim) float32, ℓ2-normalised.

    Raises:
        InputError: The vectors have another dimension than the PCA.
    """
    if vectors.ndim != 2 or vectors.shape[1] != len(pca.shift):
        raise InputError(f"vectors: expected (N, {len(pca.shift)}), got shape {vectors.shape}")
    projected = np.empty((len(vectors), len(pca.weight)), np.float32)
    for start in range(0, len(vectors), _ROWS):
        block = np.asarray(vectors[start:start + _ROWS], np.float64)
        projected[start:start + _ROWS] = normalise_rows((block + pca.shift) @ pca.weight.T)
    return projected


@settings
class CodeSettings:
    """How a descriptor is coded.

    Attributes:
        kind: One of

            - "pq": product quantization (Jégou et al. 2011): ``size`` pieces, each coded by the nearest of the 256
              words of its codebook;
            - "opq": the same after a learned rotation (Ge et al. 2013);
            - "pq-fast": twice as many pieces with 16 words each, compared in registers;
            - "scalar": each dimension in 4, 6, 8 or 16 bits, whichever makes ``size`` bytes;
            - "binary": the signs after a learned rotation (Gong et al. 2013), compared by Hamming distance.
        size: Bytes of a code.
        dim: Dimensions kept by a PCA before coding; None for all.
    """

    kind: Kind = "pq"
    size: Annotated[int, Field(ge=1)] = 64
    dim: Annotated[int, Field(ge=1)] | None = None


def train_codes(vectors: np.ndarray, settings: CodeSettings) -> faiss.Index:
    """Learn codebooks on training descriptors. Never give it a test set.

    Args:
        vectors: (N, D) training descriptors of any length. N is at least the number of words of a codebook (256, or
            16 with "pq-fast"), better forty times as many. Of more than 65,536 an even sample is used.
        settings: Kind and size of the codes.

    Returns:
        A trained, empty faiss index of codes, for :func:`fill` and :func:`rank_codes`. Give its own methods
        ℓ2-normalised vectors only.

    Raises:
        InputError: Too few vectors, or a size or dim that the descriptors' dimension does not allow.
    """
    sample = np.linspace(0, len(vectors) - 1, min(len(vectors), _LARGEST)).astype(np.int64)
    vectors = normalise_rows(vectors[sample])
    dim = vectors.shape[1]
    transforms: list[faiss.VectorTransform] = []
    if settings.dim is not None:
        if settings.dim > dim:
            raise InputError(f"dim: expected at most {dim} (the vectors' dimension), got {settings.dim}")
        pca = fit_pca(vectors, settings.dim)
        vectors, dim = project(vectors, pca), settings.dim
        transforms = [_as_transform(pca), faiss.NormalizationTransform(dim, 2.0)]
    index = _empty_codes(settings, dim, len(vectors))
    index.train(vectors)
    if transforms and not isinstance(index, faiss.IndexPreTransform):
        index = faiss.IndexPreTransform(index)
    for transform in reversed(transforms):
        index.prepend_transform(transform)
    return index


def _empty_codes(settings: CodeSettings, dim: int, count: int) -> faiss.Index:
    """Make faiss' index for the settings, before its training on `count` vectors of `dim` dimensions."""
    kind, size = settings.kind, settings.size
    words = {"pq": 256, "opq": 256, "pq-fast": 16}.get(kind, 2)
    if count < words:
        raise InputError(f"vectors: expected at least {words} to learn {kind!r} codes, got {count}")
    if kind == "scalar":
        if 8 * size % dim or 8 * size // dim not in _SCALARS:
            raise InputError(f"size: expected {', '.join(f'{dim * bits / 8:g}' for bits in _SCALARS)} bytes for "
                             f"{dim} dimensions of {', '.join(map(str, _SCALARS))} bits, got {size}")
        return faiss.IndexScalarQuantizer(dim, _SCALARS[8 * size // dim], faiss.METRIC_INNER_PRODUCT)
    if kind == "binary":
        if 8 * size > dim:
            raise InputError(f"size: expected at most {dim // 8} bytes, a bit for each of {dim} dimensions, got {size}")
        rotation = faiss.ITQTransform(dim, 8 * size, 8 * size < dim)
        return faiss.IndexPreTransform(rotation, faiss.IndexLSH(8 * size, 8 * size, False, False))
    return _empty_product_codes(settings, dim)


def _empty_product_codes(settings: CodeSettings, dim: int) -> faiss.Index:
    """The same for the kinds of product quantization."""
    pieces = 2 * settings.size if settings.kind == "pq-fast" else settings.size
    if dim % pieces:
        raise InputError(f"size: expected {dim} dimensions to fall into {pieces} equal pieces, got "
                         f"{settings.size} bytes")
    if settings.kind == "pq-fast":
        index = faiss.IndexPQFastScan(dim, pieces, 4, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexPQ(dim, pieces, 8, faiss.METRIC_INNER_PRODUCT)
    _silence(index.pq)
    if settings.kind == "opq":
        rotation = faiss.OPQMatrix(dim, pieces)
        rotation.pq = faiss.ProductQuantizer(dim, pieces, 8)
        _silence(rotation.pq)
        return faiss.IndexPreTransform(rotation, index)
    return index


def _silence(quantizer: faiss.ProductQuantizer) -> None:
    # faiss writes a line to standard error for each piece with fewer than 39 training vectors per word.
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
    """Code vectors.

    Args:
        codes: Trained by :func:`train_codes`; stays empty.
        vectors: (N, D) of any length; may be a memory map.

    Returns:
        A copy of ``codes`` that contains the vectors as its rows 0..N-1.

    Raises:
        InputError: The vectors have another dimension than the codes.
    """
    if vectors.ndim != 2 or vectors.shape[1] != codes.d:
        raise InputError(f"vectors: expected (N, {codes.d}), got shape {vectors.shape}")
    filled = faiss.deserialize_index(faiss.serialize_index(codes))  # faiss can't copy all of its transforms
    for start in range(0, len(vectors), _ROWS):
        filled.add(normalise_rows(vectors[start:start + _ROWS]))
    return filled


def rank_codes(filled: faiss.Index, queries: np.ndarray, top: int | None = None) -> np.ndarray:
    """Rank coded vectors by falling similarity to each query.

    Args:
        filled: Codes of N vectors, see :func:`fill`.
        queries: (Q, D) of any length.
        top: How many to return; all by default.

    Returns:
        (Q, min(top, N)) int64 row numbers, best first.
    """
    return filled.search(normalise_rows(queries), min(top or filled.ntotal, filled.ntotal))[1]


def decode(filled: faiss.Index) -> np.ndarray:
    """Reconstruct the vectors from their codes.

    Args:
        filled: Codes of N vectors, see :func:`fill`.

    Returns:
        (N, D) float32, not ℓ2-normalised; what a PCA dropped is 0.

    Raises:
        RuntimeError: The codes are "binary": faiss can't invert their rotation.
    """
    return filled.reconstruct_n(0, filled.ntotal)
