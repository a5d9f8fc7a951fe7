"""Feature maps of several layers: the right maps, the right part of the network, the right errors."""

import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from rmaclib.backbones import BackboneError, Layer, create_backbone
from rmaclib.backbones.folding import Folded
from rmaclib.backbones.layers import LAST, names_of_layers, split_name, with_layers
from rmaclib.extraction.batches import Workers

PAIR = "efficientnet_lite0:blocks.5.0.expansion+last"


@pytest.mark.parametrize("name, parts", [
    ("resnet50", ("resnet50", ("last",))), ("resnet50:layer3+layer4", ("resnet50", ("layer3", "layer4"))),
    ("timm:resnet18", ("timm:resnet18", ("last",))), ("timm:resnet18.a1:layer3", ("timm:resnet18.a1", ("layer3",)))])
def test_names(name, parts):
    assert split_name(name) == parts


@pytest.mark.parametrize("name, message", [
    ("resnet50:", "different layers"), ("resnet50:layer3++last", "different layers"),
    ("resnet50:last+last", "different layers"), ("resnet50:layer3:last", "expected NETWORK:LAYER"),
    ("timm:resnet18:layer3:last", "expected NETWORK:LAYER"), ("resnet:layer3", "expected one of"),
    ("resnet50:layer5", "such as .*layer4, .*rmac backbones --network resnet50.*got 'layer5'"),
    ("resnet50:avgpool", "got 'avgpool'"),  # behind the last map
    ("timm:test_efficientnet:global_pool", "got 'global_pool'"),  # known, but not run
    ("efficientnet_lite0:blocks.5.0.expanson", "such as blocks.5.0.expansion.*got 'blocks.5.0.expanson'"),
    ("efficientnet_lite0:last+blocks.5.0.expansion", "in the order in which they are run, got last"),
    ("resnet50:layer4+last", "different layers in the order"), ("resnet50:layer4.2+layer4", "different layers in the"),
    ("efficientnet_lite0:blocks.5.0.bn1+last", "blocks.5.0.bn1: .*changes in place")])
def test_layers_that_cannot_be_had(name, message):
    with pytest.raises(BackboneError, match=message):
        create_backbone(name, pretrained=False)


@pytest.mark.parametrize("name, modules, layers", [
    (PAIR, ["blocks.5.0.expansion", None], [(16, 672), (32, 1280)]),
    ("efficientnet_lite0:blocks.0+blocks.6.0.expansion+blocks.6+last", ["blocks.0", "blocks.6.0.expansion", "blocks.6",
                                                                        None],
     [(2, 16), (32, 1152), (32, 320), (32, 1280)]),
    ("resnet50:layer3+layer4", ["6", "7"], [(16, 1024), (32, 2048)]),
    ("vgg16:features.22+last", ["22", None], [(8, 512), (16, 512)]),
    ("timm:test_efficientnet:blocks.1+last", ["blocks.1", None], [(4, 24), (32, 256)])])
@torch.no_grad()
def test_the_maps_are_what_the_layers_give(name, modules, layers):
    torch.manual_seed(1)
    backbone = create_backbone(name, pretrained=False).eval()
    torch.manual_seed(1)
    plain = create_backbone(split_name(name)[0], pretrained=False).eval()
    assert backbone.name == name and [layer[1:] for layer in backbone.layers] == layers
    assert [layer.name for layer in backbone.layers] == name.rpartition(":")[2].split("+")
    assert backbone.stride == max(stride for stride, _ in layers) and backbone.channels == layers[-1][1]
    state = plain.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in backbone.state_dict().items())
    images, outputs = torch.rand(2, 3, 96, 128), {}
    root = getattr(plain.body, "model", plain.body)
    for module in filter(None, modules):
        root.get_submodule(module).register_forward_hook(
            lambda layer, inputs, output, module=module: outputs.update({module: output.clone()}))
    outputs[None] = plain(images)
    maps = backbone.maps(images)
    assert all(torch.equal(of_layer, outputs[module]) for of_layer, module in zip(maps, modules, strict=True))
    assert torch.equal(backbone(images), maps[-1])
    assert [(96 // of_layer.shape[2], of_layer.shape[1]) for of_layer in maps] == layers


def test_a_plain_name_is_the_last_layer():
    plain, named = (create_backbone(name, pretrained=False) for name in ("resnet50", "resnet50:last"))
    assert type(plain.body) is type(named.body) is nn.Sequential
    assert plain.layers == named.layers == (Layer("last", 32, 2048),)
    images = torch.rand(1, 3, 64, 64)
    assert len(plain.maps(images)) == 1


def test_layers_that_are_not_needed_are_left_out():
    whole, part = (create_backbone(name, pretrained=False) for name in
                   ("efficientnet_lite0", "efficientnet_lite0:blocks.5.0.expansion"))
    gone = whole.state_dict().keys() - part.state_dict().keys()
    assert {"body.model.blocks.5.0.conv_dw.weight", "body.model.blocks.6.0.conv_pw.weight",
            "body.model.conv_head.weight"} < gone
    assert "body.model.blocks.5.0.conv_pw.weight" not in gone and part.maps(torch.rand(1, 3, 64, 64))[0].shape[1] == 672


class Twice(nn.Module):
    """A layer that is run twice, one whose output isn't a map, one that isn't run."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Conv2d(3, 4, 2, 2), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.pooled, self.unused = nn.Flatten(), nn.ReLU()

    def forward(self, images):
        maps = self.again(self.again(self.first(images)))
        return maps * self.pooled(maps).mean()


def layers_of(model, *layers):
    return with_layers("ours", model, names_of_layers(model, model), Layer(LAST, 2, 4), layers)


@torch.no_grad()
def test_a_layer_that_is_run_twice_gives_its_last_map():
    model, images = Twice(), torch.rand(1, 3, 8, 8)
    expected = model.again(model.again(model.first(images)))
    maps, layers = layers_of(copy.deepcopy(model), "again.0", "again", "last")
    assert torch.equal(maps(images)[0], model.again[0](model.again(model.first(images))))
    assert torch.equal(maps(images)[1], expected) and torch.equal(maps(images)[2], model(images))
    assert layers == (Layer("again.0", 2, 4), Layer("again", 2, 4), Layer("last", 2, 4))


@pytest.mark.parametrize("layer, message", [("pooled", r"expected a feature map .* got \(1, 65536\)"),
                                            ("unused", "got 'unused'"), ("unknown", "got 'unknown'")])
def test_layers_without_a_map(layer, message):
    with pytest.raises(BackboneError, match=message):
        layers_of(Twice(), layer, "last")


class Silent(nn.Sequential):
    def forward(self, images):
        assert images.shape[1] == 3 and not super().forward(images)
        return images


class Branching(nn.Sequential):
    def forward(self, images):
        return super().forward(images) if images.mean() > 0 else images


def test_a_network_whose_way_depends_on_its_values_says_so():
    with pytest.raises(BackboneError, match="ours: can't give the maps of 0"):
        layers_of(Branching(nn.Conv2d(3, 4, 2, 2), nn.ReLU()), "0", "last")
    with pytest.raises(BackboneError, match="ours: can't give the maps of 0 "):
        layers_of(Silent(nn.Conv2d(3, 4, 2, 2), nn.ReLU()), "0", "last")


def test_the_pixels_of_whole_cells_are_those_of_the_coarsest_map():
    backbone = create_backbone("efficientnet_lite0:blocks.5.0.expansion+last", pretrained=False)
    assert backbone.stride == 32 and backbone.whole_cells(70, 127) == (64, 96)


def test_dimensions_that_can_be_shared():
    backbone = create_backbone("timm:test_efficientnet:blocks.1+last", pretrained=False)  # 24 and 256 channels
    assert backbone.dims == range(2, 49)
    backbone.layers = backbone.layers[::-1]
    assert backbone.dims == range(2, 50)  # the first has the remainder
    backbone.layers = backbone.layers[:1]
    assert backbone.dims == range(1, 257)


@torch.no_grad()
def test_copies_and_threads_compute_the_same():
    backbone = create_backbone(PAIR, pretrained=False).eval()
    copied = copy.deepcopy(backbone)
    for parameter in copied.parameters():
        parameter.mul_(1.01)
    images = [torch.rand(1, 3, 64, 32 + 32 * (number % 3)) for number in range(12)]
    results = []
    for threads in (1, 4):
        with Workers(threads, on_cpu=True) as pool:
            results.append(list(pool.map(torch.no_grad()(backbone.maps), images)))
    for maps, others in zip(*results, strict=True):
        assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(maps, others, strict=True))
    # A copy computes with its own weights.
    assert not torch.allclose(copied.maps(images[0])[0], results[0][0][0], rtol=1e-3)


class Slow(Twice):
    def forward(self, images):
        time.sleep(0.01)  # others trace or compute meanwhile
        return super().forward(images)


@torch.no_grad()
def test_networks_can_be_used_while_others_are_made():
    body = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.ReLU())
    images, results, stop = torch.rand(1, 3, 16, 16), [], threading.Event()
    expected = body(images)

    def use():
        while not stop.is_set():
            results.append(body(images))

    with ThreadPoolExecutor(3) as pool:
        user, *made = pool.submit(use), *(pool.submit(layers_of, Slow(), "again.0", "last") for _ in range(20))
        try:
            assert all(len(each.result()[1]) == 2 for each in made)
        finally:
            stop.set()
        user.result()
    assert results and all(torch.equal(result, expected) for result in results)
    assert nn.Module.__call__.__module__ == "torch.nn.modules.module"  # torch.fx has put back what it replaced


def test_convolutions_are_folded():
    backbone = create_backbone(PAIR).eval()
    folded, plain = Folded(backbone), Folded(create_backbone("efficientnet_lite0").eval())
    assert len(folded.pairs) == len(plain.pairs) > 40
    images = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        for maps, of_copy in zip(backbone.maps(images), folded.copy.maps(images), strict=True):
            assert torch.cosine_similarity(maps.flatten(1), of_copy.flatten(1)) > 1 - 1e-6
