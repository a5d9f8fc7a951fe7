"""Networks with several feature maps in extraction, learning and search."""

from functools import partial

import numpy as np
import pytest
import torch
from learning_pictures import SIZE, pictures, tiny

from rmaclib.checkpoints import load_network, save_network
from rmaclib.extraction.batches import ExtractionSettings, Extractor
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.whitening import learn_whitening
from rmaclib.foundation.errors import InputError
from rmaclib.images import read_image
from rmaclib.learning import LOSSES, Tuples, accumulate, train
from rmaclib.learning.whitening import whiten
from rmaclib.search.index import Index
from rmaclib.whitening import fit_whitening

PAIR = "timm:test_efficientnet:blocks.3.0.bn1+last"
EXTRACTION = ExtractionSettings((SIZE,), precision="float32", device="cpu")
FEW = {"updates": 1, "triplets": 3, "pool": 15, "size": SIZE, "device": "cpu"}


@pytest.fixture(scope="module")
def network(images):
    return tiny(images, backbone=PAIR, levels=2)


def test_the_whitening_of_each_map_in_one_pass(images):
    network = tiny(backbone=PAIR)
    whitenings = learn_whitening(network, images.paths, EXTRACTION, dim=7, shrinkage=0.1, progress=False)
    for place, (whitening, dim) in enumerate(zip(whitenings, (4, 3), strict=True)):
        vectors = []
        for path in images.paths:
            pixels = torch.from_numpy(np.array(read_image(path))).permute(2, 0, 1)[None]
            with torch.inference_mode():
                vectors += network.region_vectors(network.backbone.maps(pixels), pixels.shape[-2:])[place]
        expected = fit_whitening(torch.cat(vectors).numpy(), dim, 0.1)
        assert whitening.count == expected.count
        assert np.allclose(whitening.shift, expected.shift, atol=1e-5)
        assert np.allclose(whitening.variances, expected.variances, rtol=1e-3)
    most = network.backbone.dims[-1]
    for wrong in (1, most + 1):
        with pytest.raises(InputError, match=rf"dim: expected 2..{most}, the channels of {PAIR.split('+')[0]}"):
            learn_whitening(network, images.paths, EXTRACTION, dim=wrong)
    of_all = learn_whitening(network, images.paths[:4], EXTRACTION, progress=False)
    assert sum(len(whitening.weight) for whitening in of_all) == most


def test_half_precision_is_compared_for_each_map(network, images):
    def maps(network, pixels):
        return tuple(torch.cat(of_map) for of_map in network.region_vectors(network.backbone.maps(pixels[0]),
                                                                            pixels[0].shape[-2:]))

    with Extractor(network, EXTRACTION, maps) as extractor:
        assert extractor.half_is_close([(images.paths[0], None)])

    def one_map_is_lost(network, pixels):
        good, lost = maps(network, pixels)
        return good, torch.randn_like(lost)

    with Extractor(network, EXTRACTION, one_map_is_lost) as extractor:
        assert not extractor.half_is_close([(images.paths[0], None)])


@pytest.mark.parametrize("half", [False, True])
def test_two_passes_give_the_gradient_of_one_graph(half, images):
    network = tiny(images, backbone=PAIR, levels=2)
    network = network if half else network.double()
    generator = torch.Generator().manual_seed(5)
    batch = [torch.rand(3, *shape, generator=generator, dtype=torch.float32 if half else torch.float64)
             for shape in ((64, 48), (48, 64), (64, 48), (20, 20))]
    same = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=torch.bool)
    tuples = Tuples(torch.tensor([[0, 1, 2], [2, 3, 0]]), same, ~same & ~torch.eye(4, dtype=torch.bool))
    loss = partial(LOSSES["triplet"], margin=0.5, tuples=tuples)
    network.zero_grad()
    loss(torch.cat([network(image[None]) for image in batch])).backward()
    expected = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    accumulate(network, batch, loss, pixels=2 * 64 * 48, half=half)
    assert {"map_weights", "fc.0.weight", "fc.1.weight", "shift"} < expected.keys()
    for name, parameter in network.named_parameters():
        error = float((parameter.grad - expected[name]).norm() / expected[name].norm().clamp(min=1e-12))
        assert error < 1e-7 or half and error < 0.5, (name, error)


def test_the_whitening_of_a_run_is_kept(images, tmp_path):
    start = partial(whiten, collection=images, settings=EXTRACTION, dim=7, images=12, seed=0, out=tmp_path,
                    progress=False)
    first = start(tiny(backbone=PAIR))
    written = (tmp_path / "whitening.safetensors").stat().st_mtime_ns
    again = start(tiny(backbone=PAIR))
    assert (tmp_path / "whitening.safetensors").stat().st_mtime_ns == written
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in first.state_dict().items())
    with pytest.raises(InputError, match="dim: expected 2.."):
        start(tiny(backbone=PAIR), dim=1)


@pytest.mark.parametrize("stage, settings", [
    ("ranking", FEW | {"dim": 7, "whiten_images": 12}),
    ("classification", {"updates": 1, "batch": 6, "shorter": (64, 64), "side": 64, "dim": 7, "size": SIZE,
                        "device": "cpu"})])
def test_training(images, tmp_path, stage, settings):
    save_network(tmp_path / "start.safetensors", tiny(backbone=PAIR))
    trained = train(images, out=tmp_path / "out", stage=stage, network=tmp_path / "start.safetensors",
                    validation=images, settings=settings)
    best = load_network(tmp_path / "out/best.safetensors")
    assert best.settings.backbone == PAIR and best.settings.dim == (7 if stage == "ranking" else None)
    assert trained.score is not None and len(trained.history) == 2 and np.isfinite(trained.history[1]["loss"])


def test_proposals_are_not_trained(images, tmp_path):
    boxed = images.__class__(**{**vars(images), "boxes": ((0, 0, 40, 40),) * len(images.names)})
    with pytest.raises(InputError, match="proposals: expected a network of one feature map"):
        train(boxed, out=tmp_path / "out", stage="proposals", network=tiny(backbone=PAIR), settings={
            "updates": 1, "device": "cpu", "size": SIZE})


def test_an_index(network, tmp_path):
    photos = pictures(tmp_path / "photos", landmarks=3, each=2)
    index = Index.build(photos.paths, network, EXTRACTION, out=tmp_path / "index")
    again = Index.load(tmp_path / "index")
    assert again.network.settings == network.settings == index.network.settings
    descriptors = extract(network, photos.paths, EXTRACTION, progress=False).vectors
    assert descriptors.shape == (6, network.dim)
    results = again.search(photos.paths[0], k=2)
    assert str(photos.paths[0]) in str(results[0])
