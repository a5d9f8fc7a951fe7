"""What only a GPU can show; skipped where there is none."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from learning_pictures import SIZE, stopped_equals_whole, tiny
from test_gradients import gradient, relative_error, some_images, three_streams, update

from rmaclib.backbones.folding import Folded
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.proposals import propose_regions
from rmaclib.learning import (
    ClassificationSettings,
    ProposalSettings,
    RankingSettings,
    accumulate,
    train_classification,
    train_proposals,
    train_ranking,
    triplet,
)
from rmaclib.learning.repeatable import repeatable

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICE = "cuda"
COMMON = {"size": SIZE, "lr": 1e-3, "updates": 6, "evaluate_every": 2, "save_every": 2, "device": DEVICE}
RANK = RankingSettings(triplets=6, pool=20, hardest=5, refresh=3, flip=True, crop=0.6, **COMMON)


@pytest.fixture
def boxed(images):
    return replace(images, boxes=((8.0, 8.0, 50.0, 56.0),) * len(images.names))


@pytest.mark.parametrize("pixels", [1, 3 * 64 * 48, None])
def test_gradient_equals_three_streams(pixels):
    network, images = tiny(dim=6, levels=2).double().cuda(), some_images()
    tuples = update()
    tuples = type(tuples)(*(part.cuda() for part in tuples))
    loss = partial(triplet, margin=0.3)
    value, expected = three_streams(network, [image.cuda() for image in images], loss, tuples)
    network.zero_grad()
    accumulated = accumulate(network, images, partial(loss, tuples=tuples), pixels=pixels)
    assert accumulated.loss.item() == pytest.approx(value.item(), rel=1e-9)
    assert relative_error(gradient(network), expected) < 1e-9


def test_trains_repeatably_and_with_cudnn():
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with repeatable():
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.enabled
        assert not torch.backends.cudnn.benchmark
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before


def on_both(network, images):
    """Descriptors made by a processor and by the GPU."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return [extract(network, images.paths, ExtractionSettings((SIZE, 64), device=device, precision="float32"),
                         progress=False).vectors for device in ("cpu", DEVICE)]


@pytest.mark.parametrize("pooling", ["max", "gem"])
def test_descriptors_are_those_of_a_processor(images, pooling):
    assert np.allclose(*on_both(tiny(images, pooling=pooling), images), atol=1e-4)


def test_extraction_leaves_the_network_as_and_where_it_is(images):
    for device in ("cpu", DEVICE):
        network = tiny(images).to(device)
        before = {name: (tensor.device, tensor.stride()) for name, tensor in network.state_dict().items()}
        extract(network, images.paths[:3], ExtractionSettings((SIZE,), device=DEVICE), progress=False)
        assert {name: (tensor.device, tensor.stride()) for name, tensor in network.state_dict().items()} == before


def test_a_convolution_and_its_normalisation_are_one_in_tf32_too(images):
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        assert Folded(tiny(images).cuda()).pairs


def test_half_precision_is_taken_where_it_keeps_the_descriptors(images):
    network = tiny(images)
    single, auto = (extract(network, images.paths, ExtractionSettings((SIZE,), device=DEVICE, precision=precision),
                            progress=False).vectors for precision in ("float32", "auto"))
    assert ((single * auto).sum(1) > 0.999).all()


@pytest.mark.parametrize("settings", [
    RANK, replace(RANK, optimizer="adamw", precision="bfloat16", loss="average_precision", margin=None)])
def test_ranking_stopped_and_started_again(images, tmp_path, settings):
    def run(out, **more):
        return train_ranking(tiny(images), images, settings, out=out, validation=images, progress=False, **more)

    trained = stopped_equals_whole(run, 4, tmp_path)
    assert trained.network.fc.weight.device.type == "cpu" and trained.history[1]["computed"] > 0


def test_classification_stopped_and_started_again(images, tmp_path):
    settings = ClassificationSettings(batch=10, shorter=(40, 60), side=32, optimizer="adamw", **COMMON)

    def run(out, **more):
        return train_classification(tiny(images), images, settings, out=out, validation=images, progress=False, **more)

    stopped_equals_whole(run, 4, tmp_path)


@pytest.mark.parametrize("backbone", [False, True])
def test_proposals_stopped_and_started_again(images, boxed, tmp_path, backbone):
    settings = ProposalSettings(images=6, samples=32, anchors=3, hidden=16, optimizer="adamw", backbone=backbone,
                                **COMMON)

    def run(out, **more):
        return train_proposals(tiny(), boxed, settings, out=out, validation=boxed, progress=False, **more)

    network = stopped_equals_whole(run, 4, tmp_path).network
    assert network.proposer is not None
    network.change(regions="both", proposals=4)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        boxes = [np.concatenate([image.boxes for image in propose_regions(network, images.paths, ExtractionSettings(
            (SIZE,), device=device, precision="float32"), 4, progress=False)]) for device in ("cpu", DEVICE)]
    assert np.allclose(*boxes, atol=0.1) and np.allclose(*on_both(network, images), atol=1e-3)


def test_joint_learning_stopped_and_started_again(images, boxed, tmp_path):
    settings = replace(RANK, propose=4)

    def run(out, **more):
        return train_ranking(tiny(images), boxed, settings, out=out, progress=False, **more)

    stopped_equals_whole(run, 4, tmp_path)
