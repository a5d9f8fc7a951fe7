import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rmaclib.backbones import Backbone, Layer
from rmaclib.foundation.errors import InputError
from rmaclib.network import RMAC, SharedFeatures, create_network
from rmaclib.network_settings import GRIDS, POOLINGS, NetworkSettings
from rmaclib.pooling import average_pool_regions, gem_pool_regions, l2, max_pool_regions, pool_each, pool_regions
from rmaclib.regions import VARIANTS, Rectangle, rigid_grid
from rmaclib.whitening import fit_whitening


def tiny_backbone(channels=6):
    """Stride 4, random weights: enough to test everything behind the features."""
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(3, channels, 4, stride=4), nn.ReLU())
    return Backbone("tiny", body, [Layer("last", 4, channels)], (0.5,) * 3, (0.5,) * 3)


def tiny(dim=None, **options):
    return RMAC(NetworkSettings("tiny", dim=dim, **options), tiny_backbone()).eval()


def test_pooling_equals_a_loop_over_cells():
    features = torch.randn(2, 3, 5, 7)
    regions = [*rigid_grid(5, 7), (1, 2, 3, 1)]
    for pool, reduce in ((max_pool_regions, max), (average_pool_regions, lambda cells: sum(cells) / len(cells))):
        pooled = pool(features, regions)
        assert pooled.shape == (2, len(regions), 3)
        for b, r, c in itertools.product(range(2), range(len(regions)), range(3)):
            x, y, *size = regions[r]
            cells = [features[b, c, v, u].item() for v in range(y, y + size[-1]) for u in range(x, x + size[0])]
            assert pooled[b, r, c].item() == pytest.approx(reduce(cells), abs=1e-6)


def test_gem_pooling_equals_a_loop_over_cells():
    features = torch.rand(2, 3, 5, 7) - 0.2
    regions = [*rigid_grid(5, 7), (1, 2, 3, 1)]
    for power in (1.0, 3.0, torch.tensor(4.5)):
        pooled = gem_pool_regions(features, regions, power)
        assert pooled.shape == (2, len(regions), 3)
        for b, r, c in itertools.product(range(2), range(len(regions)), range(3)):
            x, y, *size = regions[r]
            cells = [max(1e-6, features[b, c, v, u].item()) ** float(power)
                     for v in range(y, y + size[-1]) for u in range(x, x + size[0])]
            assert pooled[b, r, c].item() == pytest.approx((sum(cells) / len(cells)) ** (1 / float(power)), rel=1e-4)
    large = features.double() + 0.8
    assert torch.allclose(gem_pool_regions(large, regions, 300.0), max_pool_regions(large, regions), rtol=0.02)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_regions_of_each_image_are_pooled_as_those_of_all(pooling):
    features = torch.rand(2, 3, 5, 7)
    regions = [[Rectangle(0, 0, 7, 5)], [Rectangle(1, 2, 3, 1), Rectangle(4, 0, 2, 5)]]
    for image, (vectors, rectangles) in enumerate(zip(pool_each(features, regions, pooling), regions, strict=True)):
        assert torch.allclose(vectors, pool_regions(features[image:image + 1], rectangles, pooling)[0])


def test_gem_gradient_reaches_features_and_exponent():
    features = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    power = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, p: gem_pool_regions(f, rigid_grid(3, 4, 2), p), (features, power))
    zeros = torch.zeros(1, 2, 3, 4, requires_grad=True)
    gem_pool_regions(zeros, [(0, 0, 3)], power.float()).sum().backward()
    assert torch.isfinite(zeros.grad).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_gem_network_has_an_exponent_that_learns(grid):
    network = tiny(dim=4, pooling="gem", grid=grid)
    assert network.power.item() == 3 and "power" in dict(network.named_parameters())
    network(torch.rand(1, 3, 20, 28))[0, 0].backward()
    assert network.power.grad != 0
    assert "power" not in network.change(pooling="max").state_dict()
    assert network.change(pooling="gem").power.item() == 3


def test_pooling_edges():
    features = torch.randn(2, 3, 5, 7)
    assert max_pool_regions(features, []).shape == (2, 0, 3)
    for region in [(0, 0, 6), (5, 0, 3), (-1, 0, 2), (0, 0, 0), (6, 4, 1, 2)]:
        with pytest.raises(ValueError, match="5×7"):
            max_pool_regions(features, [region])
    with pytest.raises(ValueError, match="B, C, H, W"):
        max_pool_regions(features[0], [])


def test_gradients():
    features = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: max_pool_regions(f, rigid_grid(3, 4, 2)), (features,))
    vectors = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(l2, (vectors,))


def test_network_by_hand():
    """features → regions → L2 → shift → fully connected → L2 → sum → L2, in plain NumPy."""
    network = tiny(dim=4, levels=2)
    with torch.no_grad():
        network.shift.normal_()
    images = torch.rand(2, 3, 24, 36)
    with torch.inference_mode():
        descriptors = network(images).numpy()
        features = network.backbone(images).numpy()
    weight, bias, shift = (p.detach().numpy() for p in (network.fc.weight, network.fc.bias, network.shift))
    for feature, descriptor in zip(features, descriptors, strict=True):
        total = np.zeros(4)
        for x, y, side in rigid_grid(6, 9, 2):
            vector = feature[:, y:y + side, x:x + side].max((1, 2))
            vector = weight @ (vector / np.linalg.norm(vector) + shift) + bias
            total += vector / np.linalg.norm(vector)
        assert np.allclose(descriptor, total / np.linalg.norm(total), atol=1e-5)


def test_gradient_reaches_everything_and_all_zero_maps_stay_finite():
    network = tiny(dim=4)
    network(torch.rand(1, 3, 20, 28)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    for network in (tiny(), tiny(dim=4)):
        features = torch.zeros(1, 6, 5, 7, requires_grad=True)
        descriptor = network.aggregate([features], (20, 28))
        descriptor.sum().backward()
        assert descriptor.isfinite().all() and features.grad.isfinite().all()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [(4, 4), (4, 200), (200, 4), (1, 1), (37, 53), (64, 64)])
def test_any_size_and_grid(grid, size):
    with torch.inference_mode():
        descriptor = tiny(grid=grid)(torch.rand(2, 3, *size))
    assert descriptor.shape == (2, 6)
    assert torch.allclose(descriptor.norm(dim=1), torch.ones(2), atol=1e-5)


def test_whole_grid_is_mac():
    network = tiny(grid="whole")
    images = torch.rand(3, 3, 24, 36)
    with torch.inference_mode():
        assert torch.allclose(network(images), l2(network.backbone(images).amax((2, 3))), atol=1e-6)


def test_batch_gives_what_each_image_gives_alone(lite0):
    images = torch.randint(0, 256, (4, 3, 160, 224), dtype=torch.uint8)
    with torch.inference_mode():
        together = lite0(images)
        alone = torch.cat([lite0(image[None]) for image in images])
    assert torch.cosine_similarity(together, alone).min() >= 1 - 1e-6


def test_whitening_makes_covariance_one_and_projects():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5000, 8)) @ rng.normal(size=(8, 8)) + 3
    whitening = fit_whitening(vectors)
    white = (vectors + whitening.shift) @ whitening.weight.T
    assert np.allclose(np.cov(white.T), np.eye(8), atol=1e-8) and np.allclose(white.mean(0), 0, atol=1e-8)
    assert (np.diff(whitening.variances) <= 0).all() and whitening.count == 5000
    fewer = fit_whitening(vectors, dim=3)
    assert np.allclose(fewer.weight, whitening.weight[:3])
    values = np.linalg.eigvalsh(np.cov(vectors.T))[::-1]
    assert np.allclose(whitening.variances, values)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.floats(0, 1))
def test_whitening_of_blocks_equals_whitening_of_all(sizes, shrinkage):
    rng = np.random.default_rng(1)
    blocks = [rng.normal(size=(size, 4)) + 100 for size in [*sizes, 30]]
    of_all, of_blocks = (fit_whitening(vectors, None, shrinkage) for vectors in (np.concatenate(blocks), iter(blocks)))
    assert np.allclose(of_all.weight, of_blocks.weight, atol=1e-6) and np.allclose(of_all.shift, of_blocks.shift)


def test_shrinkage_moves_towards_equal_scales():
    vectors = np.random.default_rng(2).normal(size=(1000, 3)) * [10, 1, 0.1]
    norms = [np.linalg.norm(fit_whitening(vectors, shrinkage=s).weight, axis=1) for s in (0, 0.5, 1)]
    spread = [n.max() / n.min() for n in norms]
    assert spread[0] > 50 and spread[0] > spread[1] > spread[2] and spread[2] == pytest.approx(1)


def test_whitening_without_variance_is_finite():
    vectors = np.random.default_rng(3).normal(size=(100, 4)) * [1, 1, 0, 0]  # two dead channels
    whitening = fit_whitening(vectors)
    assert np.isfinite(whitening.weight).all() and not whitening.weight[2:].any()
    assert not fit_whitening(np.ones((5, 3))).weight.any()


@pytest.mark.parametrize("vectors, options, message", [
    (np.zeros((1, 3)), {}, "at least 2"), (np.zeros((5, 3)), {"dim": 4}, "1..3"), (np.zeros(5), {}, "N, D"),
    (np.full((5, 3), np.nan), {}, "finite"), (np.zeros((5, 3)), {"shrinkage": 2}, "0..1"),
    (iter([]), {}, "at least 2")])
def test_whitening_bad_input(vectors, options, message):
    with pytest.raises(ValueError, match=message):
        fit_whitening(vectors, **options)


def test_network_starts_from_whitening():
    network, images = tiny(), torch.rand(8, 3, 40, 52)
    with torch.inference_mode():
        vectors = torch.cat(network.region_vectors(network.backbone.maps(images), (40, 52))[0]).numpy()
    whitening = fit_whitening(vectors, dim=3)
    network.set_whitening(whitening)
    assert network.dim == 3 and network.settings.dim == 3
    with torch.inference_mode():
        layer = network.fc(torch.from_numpy(vectors) + network.shift).numpy()
    assert np.allclose(np.cov(layer.T), np.eye(3), atol=1e-2)
    with pytest.raises(ValueError, match="6 dimensions"):
        tiny().set_whitening(fit_whitening(np.random.default_rng(0).normal(size=(9, 5))))


@pytest.mark.parametrize("options", [{"grid": "hexagons"}, {"pooling": "median"}, {"levels": 0}, {"dim": 0}])
def test_settings_reject(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        NetworkSettings(**options)


@pytest.mark.parametrize("options", [{"dim": 3}, {"dim": None}, {"backbone": "resnet50"}, {"anchors": ((0.2, 0.3),)},
                                     {"proposal_channels": 7}])
def test_what_needs_other_weights_cannot_be_changed(options):
    network = tiny(dim=4)
    with pytest.raises(InputError, match=f"{next(iter(options))}: can't be changed, it needs other weights"):
        network.change(**options)
    assert network.settings == NetworkSettings("tiny", dim=4)
    same = {name: getattr(network.settings, name) for name in options}
    assert network.change(levels=3, **same).settings.levels == 3


def test_a_learned_exponent_is_kept():
    network = tiny(pooling="gem")
    with torch.no_grad():
        network.power.fill_(4.5)
    assert network.change(levels=3).power.item() == 4.5
    assert "power" not in network.change(pooling="average").state_dict()
    assert network.change(pooling="gem").power.item() == 4.5 and network.power.requires_grad


@pytest.mark.parametrize("options, message", [
    ({"levels": 2.5}, "levels: expected a whole number, got 2.5"), ({"levels": 10**9}, "levels: expected at most"),
    ({"levels": True}, "levels"), ({"dim": 10**12}, "dim: expected at most"), ({"dim": "512"}, "dim"),
    ({"backbone": 3}, "backbone: expected text"), ({"anchors": [[0.2, float("nan")]]}, "anchors.0.1"),
    ({"anchors": [[0.2]]}, "anchors"), ({"anchors": [0.2, 0.3]}, "anchors.0"), ({"levles": 3}, "unknown setting"),
    ({"proposals": 10**9}, "proposals")])
def test_nonsense_in_settings(options, message):
    with pytest.raises(InputError, match=message):
        NetworkSettings(**options)


def test_a_backbone_by_its_name_is_off_the_shelf():
    by_name = create_network("timm:test_efficientnet", pretrained=False)
    assert by_name.settings == NetworkSettings("timm:test_efficientnet", levels=3) and not by_name.training
    assert create_network(pretrained=False).settings == NetworkSettings("efficientnet_lite0", levels=3)
    assert set(VARIANTS) < set(GRIDS)


def test_networks_that_share_a_backbone():
    backbone, images = tiny_backbone(), torch.rand(2, 3, 24, 36)
    settings = {"r-mac": NetworkSettings("tiny"), "mac": NetworkSettings("tiny", grid="whole", dim=4)}
    networks = {name: RMAC(own, backbone) for name, own in settings.items()}
    shared = SharedFeatures(networks).eval()
    with torch.inference_mode():
        parts = shared.split(shared(images).numpy() / 2)
        for name, network in networks.items():
            assert np.allclose(parts[name], network(images).numpy(), atol=1e-6)
    assert shared.dim == 10
    with pytest.raises(ValueError, match="the same backbone object"):
        SharedFeatures({"a": tiny(), "b": tiny()})


def test_a_network_without_proposals_says_what_is_needed():
    with pytest.raises(InputError, match="trained to propose regions"):
        tiny().require_proposer()
