from dataclasses import replace

import numpy as np
import pytest
import torch
from learning_pictures import SIZE, tiny

from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.foundation.errors import InputError
from rmaclib.learning import LearningError, whitening
from rmaclib.network import NetworkSettings, create_network

EXTRACTION = ExtractionSettings((SIZE,), precision="float32", device="cpu")


def whitened(collection, out, **options):
    return whitening.whiten(tiny(), collection, options.pop("settings", EXTRACTION),
                            **{"dim": 6, "images": 20, "seed": 0, "out": out, "progress": False, **options})


def test_a_run_that_goes_on_starts_from_the_same_weights(images, tmp_path):
    first = whitened(images, tmp_path)
    written = (tmp_path / "whitening.safetensors").stat().st_mtime_ns
    again = whitened(images, tmp_path)
    assert (tmp_path / "whitening.safetensors").stat().st_mtime_ns == written  # nothing was learned again
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in first.state_dict().items())
    assert first.settings == again.settings and first.settings.dim == 6


def test_another_whitening_is_rejected_once_a_run_has_begun(images, tmp_path):
    whitened(images, tmp_path)
    assert whitened(images, tmp_path, dim=5).settings.dim == 5  # nothing had begun
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(LearningError, match=r"a whitening with other dim \(5, now 4\)"):
        whitened(images, tmp_path, dim=4)
    with pytest.raises(LearningError, match="images, settings.sizes"):
        whitened(images, tmp_path, dim=5, images=9, settings=replace(EXTRACTION, sizes=(64,)))


def test_the_whitening_of_a_network_with_other_maps_is_rejected(images, tmp_path):
    whitened(images, tmp_path)
    (tmp_path / "run.json").write_text("{}")
    network = create_network(NetworkSettings("efficientnet_lite0:blocks.5.0.expansion+last"), pretrained=False)
    with pytest.raises(LearningError, match="a whitening with other network.backbone"):
        whitening.whiten(network, images, EXTRACTION, dim=6, images=20, seed=0, out=tmp_path, progress=False)


def test_a_damaged_file_is_made_again_or_named(images, tmp_path, noted):
    first = whitened(images, tmp_path)
    path = tmp_path / "whitening.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with noted("whitening.safetensors: was damaged, made again"):
        assert torch.equal(whitened(images, tmp_path).fc.weight, first.fc.weight)
    path.write_bytes(b"")
    (tmp_path / "state.safetensors").write_bytes(b"")
    with pytest.raises(LearningError, match="whitening.safetensors: .*remove it and .*state.safetensors"):
        whitened(images, tmp_path)


@pytest.mark.parametrize("dim", [0, -1, 10**6])
def test_dimensions_that_there_are_not(images, tmp_path, dim):
    with pytest.raises(InputError, match=r"dim: expected 1\.\."):
        whitened(images, tmp_path, dim=dim)
    assert not list(tmp_path.iterdir())


def test_it_is_the_whitening_of_the_images(images, tmp_path):
    network = whitened(images, tmp_path, images=25, dim=4)
    with torch.no_grad():
        vectors = torch.cat([network.fc(part + network.shift) for path in images.paths for part in
                             network.region_vectors(network.backbone.maps(_pixels(path)),
                                                    _pixels(path).shape[-2:])[0]])
    assert np.allclose(np.cov(vectors.numpy().T), np.eye(4), atol=1e-2)


def _pixels(path):
    from PIL import Image
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
