import numpy as np
import pytest

from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.resolutions import combine, resolutions


def test_the_papers_resolutions():
    assert resolutions(800) == (550, 800, 1050)
    assert resolutions(512) == (352, 512, 672)


def test_the_sum_is_what_extract_does_with_several_sizes(little, lite0):
    paths = sorted((little / "jpg").iterdir())[:4]

    def extracted(*sizes):
        return extract(lite0, paths, ExtractionSettings(sizes, precision="float32", device="cpu")).vectors

    together = extracted(96, 128, 160)
    np.testing.assert_allclose(combine([extracted(size) for size in (96, 128, 160)]), together, atol=1e-5)


def test_power_mean_by_hand():
    first, second = np.array([[1.0, 0, 0]]), np.array([[0, 0.6, 0.8]])
    mean = np.array([1 / 2, 0.36 / 2, 0.64 / 2])**0.5
    np.testing.assert_allclose(combine([first, second], 2.0), [mean / np.linalg.norm(mean)], atol=1e-6)
    np.testing.assert_allclose(combine([first, second]), [np.array([1, 0.6, 0.8]) / 2**0.5], atol=1e-6)
    np.testing.assert_allclose(combine([first]), first)


def test_bad_arguments():
    vectors = np.eye(3)
    with pytest.raises(ValueError, match="arrays of one shape"):
        combine([vectors, vectors[:2]])
    with pytest.raises(ValueError, match="arrays of one shape"):
        combine([])
    with pytest.raises(ValueError, match="power: expected more than 0"):
        combine([vectors], 0)
    with pytest.raises(ValueError, match="no negative values with power 3"):
        combine([vectors, -vectors], 3)
