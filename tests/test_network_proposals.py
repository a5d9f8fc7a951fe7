"""Proposed regions pooled by the network (Section 4.3)."""

import pytest
import torch
from torch import nn

from rmaclib.backbones import Backbone, Layer
from rmaclib.network import RMAC, NetworkSettings
from rmaclib.pooling import l2

ANCHORS = ((0.2, 0.2), (0.5, 0.3), (0.9, 0.9))


def whole_network(**options) -> RMAC:
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.ReLU())
    backbone = Backbone("tiny", layers, [Layer("last", 8, 6)], (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    model = RMAC(NetworkSettings("tiny", levels=2, dim=4), backbone)
    model.add_proposer(ANCHORS)
    with torch.no_grad():
        for parameter in model.proposer.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model.change(**options).eval()


@pytest.mark.parametrize("regions", ["grid", "proposals", "both"])
def test_descriptor_by_loops(regions):
    model, images = whole_network(regions=regions, proposals=5), torch.rand(3, 3, 40, 64)
    with torch.no_grad():
        descriptors = model(images)
        for image, descriptor in zip(images, descriptors, strict=True):
            features = model.backbone(image[None])
            pooled = [] if regions == "proposals" else [tuple(region) for region in model.grid((5, 8), (40, 64), 8)]
            pooled = [(x, y, side, side) for x, y, side in pooled]
            if regions != "grid":
                pooled += model.proposer.propose(features, (40, 64), 5)[0].regions
            vectors = [l2(features[0, :, y:y + height, x:x + width].amax((1, 2))) for x, y, width, height in pooled]
            total = sum(l2(model.fc(vector + model.shift)) for vector in vectors)
            assert torch.allclose(descriptor, l2(total), atol=1e-6)


@pytest.mark.parametrize("pooling", ["max", "average", "gem"])
def test_each_image_is_pooled_as_alone(pooling):
    model, images = whole_network(regions="proposals", proposals=6, pooling=pooling), torch.rand(3, 3, 48, 64)
    with torch.no_grad():
        features = model.backbone(images)
        (together,) = model.region_vectors([features], (48, 64))
        regions = [proposals.regions for proposals in model.proposer.propose(features, (48, 64), 6)]
        for image, vectors, rectangles in zip(features, together, regions, strict=True):
            cells = [image[:, y:y + height, x:x + width].flatten(1) for x, y, width, height in rectangles]
            pooled = {"max": lambda values: values.max(1).values, "average": lambda values: values.mean(1),
                      "gem": lambda values: values.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3)}[pooling]
            assert torch.allclose(vectors, l2(torch.stack([pooled(values) for values in cells])), atol=1e-6)


def test_half_precision_pools_the_same_regions_and_proposes_in_full():
    model, features = whole_network(regions="both", proposals=6), torch.rand(2, 6, 5, 6).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (half,) = model.region_vectors([features], (40, 48))
    (whole_precision,) = model.region_vectors([features.float()], (40, 48))
    assert all(vectors.dtype == torch.float32 for vectors in half)
    assert all(torch.allclose(*pair, atol=1e-2) for pair in zip(half, whole_precision, strict=True))


def test_gradient_goes_through_pooled_proposals():
    model = whole_network(regions="proposals").double()
    features = torch.rand(1, 6, 4, 5, dtype=torch.float64)
    regions = model.proposer.propose(features, (32, 40), 32)[0].regions

    def descriptor(features):
        vectors = torch.stack([features[0, :, y:y + height, x:x + width].amax((1, 2))
                               for x, y, width, height in regions])
        return l2(l2(model.fc(l2(vectors) + model.shift)).sum(0))

    jacobian_by_hand = torch.autograd.functional.jacobian(descriptor, features)
    jacobian = torch.autograd.functional.jacobian(lambda features: model.aggregate([features], (32, 40))[0], features)
    assert torch.allclose(jacobian, jacobian_by_hand, atol=1e-9)


@pytest.mark.parametrize("size", [(8, 8), (8, 60), (56, 8), (100, 20)])
def test_descriptors_of_tiny_maps_are_finite(size):
    for regions in ("proposals", "both"):
        with torch.no_grad():
            descriptors = whole_network(regions=regions)(torch.zeros(1, 3, *size))
        assert torch.isfinite(descriptors).all()
        assert float(descriptors.norm()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("options, message", [
    ({"regions": "squares"}, "expected one of"), ({"regions": "proposals"}, "trained to propose"),
    ({"proposals": 0}, "at least 1")])
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**options)
