import faiss
import numpy as np
import pytest

from rmaclib.ranking import normalise_rows, rank
from rmaclib.search.compression import (
    CodeSettings,
    decode,
    fill,
    fit_pca,
    project,
    rank_codes,
    train_codes,
)


def sample(count, seed, dim=32):
    """Vectors whose directions differ in strength, of any length, off the origin."""
    rng = np.random.default_rng(seed)
    return ((rng.normal(size=(count, dim)) * np.linspace(3, 0.3, dim) + 0.2) * rng.uniform(0.1, 9, (count, 1))
            ).astype(np.float32)


TRAINING, DATABASE, QUERIES = sample(600, 0), sample(200, 1), sample(9, 2)


def test_pca_by_hand():
    """Four points on a line through (1, 1): one direction, along (3, 4)."""
    points = np.array([1, 1]) + np.array([[-2], [-1], [1], [2]]) * np.array([0.6, 0.8])
    pca = fit_pca(points, 1)
    np.testing.assert_allclose(pca.shift, [-1, -1])
    np.testing.assert_allclose(pca.weight, [[0.6, 0.8]])
    np.testing.assert_allclose(project(points, pca), [[-1], [-1], [1], [1]])
    whitened = fit_pca(points, 1, whiten=True)
    np.testing.assert_allclose(whitened.weight, np.array([[0.6, 0.8]]) / np.sqrt(10 / 3))


@pytest.mark.parametrize("whiten", [False, True])
def test_pca_equals_the_singular_vectors(whiten):
    pca = fit_pca(TRAINING, 7, whiten)
    centred = TRAINING.astype(float) - TRAINING.mean(0, dtype=float)
    _, strengths, directions = np.linalg.svd(centred, full_matrices=False)
    expected = DATABASE.astype(float) - TRAINING.mean(0, dtype=float)
    expected = expected @ directions[:7].T / (strengths[:7] if whiten else 1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    projected = project(DATABASE, pca)
    assert projected.dtype == np.float32
    np.testing.assert_allclose(np.abs(projected), np.abs(expected), atol=1e-5)  # a direction's sign is free


def test_a_full_pca_of_centred_vectors_keeps_every_cosine():
    centred = TRAINING - TRAINING.mean(0)
    np.testing.assert_allclose(project(centred, fit_pca(centred, 32)) @ project(centred, fit_pca(centred, 32)).T,
                               normalise_rows(centred) @ normalise_rows(centred).T, atol=1e-5)


def test_a_direction_without_variance_is_dropped():
    flat = TRAINING.copy()
    flat[:, 3] = 7
    for whiten in (False, True):
        assert (fit_pca(flat, 32, whiten).weight[-1] == 0).all()
    with pytest.raises(ValueError, match=r"vectors: expected \(N, 32\)"):
        project(DATABASE[:, :9], fit_pca(flat, 4))


@pytest.mark.parametrize("settings", [
    CodeSettings("pq", 8), CodeSettings("pq", 4, 16), CodeSettings("opq", 4, 16), CodeSettings("pq-fast", 8),
    CodeSettings("scalar", 32), CodeSettings("scalar", 16), CodeSettings("scalar", 16, 16), CodeSettings("binary", 4),
    CodeSettings("binary", 2, 24)], ids=str)
def test_codes_have_the_requested_size_and_rank_what_is_near_first(settings):
    codes = train_codes(TRAINING, settings)
    filled = fill(codes, DATABASE)
    assert filled.sa_code_size() == settings.size and filled.ntotal == 200 and codes.ntotal == 0
    order = rank_codes(filled, QUERIES)
    assert order.shape == (9, 200) and all(sorted(row) == list(range(200)) for row in order.tolist())
    exact = rank(QUERIES, DATABASE)
    places = np.argsort(order, 1)[np.arange(9), exact[:, 0]]
    assert np.median(places) < 20  # of 200; by chance 100
    if settings.kind != "pq-fast":  # it rounds similarities to so few values that there are ties
        np.testing.assert_array_equal(rank_codes(filled, QUERIES, 3), rank_codes(filled, QUERIES * 4)[:, :3])
    np.testing.assert_array_equal(order, rank_codes(fill(codes, DATABASE * 2), QUERIES))


def test_product_quantization_equals_faiss_called_directly():
    peer = faiss.index_factory(32, "PQ8np", faiss.METRIC_INNER_PRODUCT)
    peer.train(normalise_rows(TRAINING))
    peer.add(normalise_rows(DATABASE))
    filled = fill(train_codes(TRAINING, CodeSettings("pq", 8)), DATABASE)
    ours, theirs = (index.search(normalise_rows(QUERIES), 50) for index in (filled, peer))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])


def test_similarity_is_the_dot_product_with_the_decoded_vector():
    for settings in (CodeSettings("pq", 8), CodeSettings("scalar", 16)):
        filled = fill(train_codes(TRAINING, settings), DATABASE)
        decoded = decode(filled)
        assert decoded.shape == (200, 32)
        np.testing.assert_array_equal(rank_codes(filled, QUERIES, 20), rank(QUERIES, decoded, 20, similarity="dot"))
    assert np.linalg.norm(decode(fill(train_codes(TRAINING, CodeSettings("pq", 8)), DATABASE)), axis=1).mean() < 0.99


def test_pca_before_coding_is_ours():
    codes = train_codes(TRAINING, CodeSettings("scalar", 32, 16))  # half precision: all but exact
    training = normalise_rows(TRAINING)
    pca = fit_pca(training, 16)
    expected = rank(project(normalise_rows(QUERIES), pca), project(normalise_rows(DATABASE), pca), 5)
    np.testing.assert_array_equal(rank_codes(fill(codes, DATABASE), QUERIES, 5), expected)
    turned_back = (project(normalise_rows(DATABASE), pca) - pca.weight @ pca.shift) @ pca.weight
    np.testing.assert_allclose(decode(fill(codes, DATABASE)), turned_back, atol=2e-3)


@pytest.mark.parametrize("settings, message", [
    (CodeSettings("pq", 5), "equal pieces"), (CodeSettings("pq-fast", 24), "equal pieces"),
    (CodeSettings("scalar", 5), "expected 16, 24, 32, 64 bytes for 32 dimensions"),
    (CodeSettings("binary", 8), "at most 4 bytes"), (CodeSettings("pq", 4, 64), "dim: expected at most 32")])
def test_what_the_dimension_does_not_allow(settings, message):
    with pytest.raises(ValueError, match=message):
        train_codes(TRAINING, settings)


def test_binary_codes_are_not_decoded():
    with pytest.raises(RuntimeError, match="reverse transform not implemented"):
        decode(fill(train_codes(TRAINING, CodeSettings("binary", 2)), DATABASE))


def test_bad_arguments():
    for options in ({"kind": "zip"}, {"size": 0}, {"dim": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            CodeSettings(**options)
    with pytest.raises(ValueError, match="at least 256 to learn 'pq' codes, got 255"):
        train_codes(TRAINING[:255], CodeSettings("pq", 8))
    with pytest.raises(ValueError, match="finite"):
        train_codes(TRAINING * np.nan, CodeSettings("pq", 8))
    with pytest.raises(ValueError, match=r"expected \(N, 32\)"):
        fill(train_codes(TRAINING, CodeSettings("pq-fast", 4)), DATABASE[:, :9])
