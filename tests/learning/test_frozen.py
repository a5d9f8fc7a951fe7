"""Early layers that keep their weights: which they are, and that the others learn as they would."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from learning_pictures import scripted, stopped_equals_whole, tiny
from safetensors.torch import load_file
from test_classification import SETTINGS as CLASSIFICATION
from test_gradients import some_images, update
from test_ranking_stage import SETTINGS, run

from rmaclib.backbones import create_backbone
from rmaclib.backbones.folding import Folded
from rmaclib.foundation.errors import InputError
from rmaclib.learning import LoopSettings, ProposalSettings, accumulate, loop, train_classification, triplet
from rmaclib.learning.frozen import early_parameters, frozen_layers

LAYER = "blocks.1"  # of the small network
EARLY = ("conv_stem", "bn1", "blocks.0", "blocks.1")


def is_early(name):
    return name.removeprefix("backbone.body.model.").startswith(tuple(f"{layer}." for layer in EARLY))


@pytest.mark.parametrize("layer, last, count", [
    ("conv_stem", "conv_stem.weight", 1), ("bn1", "bn1.bias", 3),
    ("blocks.0", "blocks.0.0.bn2.bias", 9), ("blocks", "blocks.6.0.bn3.bias", 144),
    ("blocks.1.0.conv_pw", "blocks.1.0.conv_pw.weight", 10), ("bn2", "bn2.bias", 147)])
def test_the_parameters_up_to_a_layer(layer, last, count):
    backbone = create_backbone("efficientnet_lite0", pretrained=False)
    names = {id(parameter): name for name, parameter in backbone.body.model.named_parameters()}
    early = [names[id(parameter)] for parameter in early_parameters(backbone, layer)]
    assert (early[-1], len(early)) == (last, count) and early == list(names.values())[:count]


@pytest.mark.parametrize("name", ["resnet50", "resnet50:layer3+last"])
def test_layers_have_the_names_of_their_library(name):
    backbone = create_backbone(name, pretrained=False)
    early = early_parameters(backbone, "layer2")  # a first convolution, and two stages of a known size
    assert sum(parameter.numel() for parameter in early) == 9_408 + 128 + 215_808 + 1_219_584


def test_what_a_layer_is_a_part_of_goes_on_behind_it():
    backbone = tiny().backbone
    block = backbone.body.model.get_submodule(LAYER)
    block.scale = torch.nn.Parameter(torch.ones(1))
    inner = next(name for name, module in block.named_modules() if isinstance(module, torch.nn.Conv2d))
    early = {id(parameter) for parameter in early_parameters(backbone, f"{LAYER}.{inner}")}
    assert id(block.scale) not in early
    assert id(block.scale) in {id(parameter) for parameter in early_parameters(backbone, LAYER)}


@pytest.mark.parametrize("layer", ["block.3", "blocks.9", "", "model.blocks.1", "blocks.1."])
def test_an_unknown_layer(images, tmp_path, layer):
    backbone = create_backbone("efficientnet_lite0", pretrained=False)
    with pytest.raises(InputError, match=r"frozen: expected a layer of efficientnet_lite0, such as .*, got") as error:
        early_parameters(backbone, layer)
    named = str(error.value).split("such as ")[1].split(", got")[0].split(", ")
    assert len(named) == 5 and all(backbone.body.model.get_submodule(name) for name in named)
    with pytest.raises(InputError, match="frozen"):
        replace(scripted(LoopSettings(device="cpu")), settings=LoopSettings(frozen=layer))


def test_parameters_require_a_gradient_again_afterwards():
    network = tiny(dim=4)
    network.backbone.body.model.bn1.bias.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    with pytest.raises(KeyboardInterrupt), frozen_layers(network.backbone, LAYER):
        assert all(parameter.requires_grad != is_early(name) for name, parameter in network.named_parameters())
        raise KeyboardInterrupt
    assert {name: parameter.requires_grad for name, parameter in network.named_parameters()} == before


def test_the_gradient_of_the_other_layers_stays_and_early_layers_record_nothing():
    network, images = tiny(dim=6, levels=2).double(), some_images()
    loss = partial(triplet, tuples=update(), margin=0.3)
    accumulate(network, images, loss)
    expected = {name: parameter.grad for name, parameter in network.named_parameters()}
    network.zero_grad()
    with frozen_layers(network.backbone, LAYER):
        accumulate(network, images, loss)
        body = Folded(network).copy.backbone.body.model
    for name, parameter in network.named_parameters():
        if is_early(name):
            assert parameter.grad is None and expected[name].any()
        else:
            assert torch.allclose(parameter.grad, expected[name], rtol=1e-9, atol=1e-12), name
    recorded = {}
    for name in ("blocks.0", "blocks.1", "blocks.2"):
        body.get_submodule(name).register_forward_hook(
            lambda module, given, output, name=name: recorded.update({name: output.requires_grad}))
    body.forward_features(images[0][None])
    assert recorded == {"blocks.0": False, "blocks.1": False, "blocks.2": True}


def test_a_convolution_whose_normalisation_learns_is_differentiated():
    network, images = tiny(dim=6).double(), some_images()[:1]
    accumulate(network, images, lambda descriptors: descriptors[:, 0].sum())
    expected = network.backbone.body.model.bn1.weight.grad
    network.zero_grad()
    with frozen_layers(network.backbone, "conv_stem"):
        accumulate(network, images, lambda descriptors: descriptors[:, 0].sum())
    assert network.backbone.body.model.conv_stem.weight.grad is None
    assert torch.allclose(network.backbone.body.model.bn1.weight.grad, expected, rtol=1e-9, atol=1e-12)


def changed(before, after):
    """Names of the parameters that differ."""
    return {name for name, parameter in after.named_parameters() if not torch.equal(parameter, before[name])}


def test_ranking_with_frozen_layers_goes_on_to_the_same_result(images, tmp_path):
    frozen, network = replace(SETTINGS, frozen=LAYER, updates=4), tiny(images)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}

    def trained(out, **options):
        return run(images, out, frozen, network=tiny(images), **options)

    stopped_equals_whole(trained, 3, tmp_path)
    state = load_file(tmp_path / "whole/state.safetensors")
    other = {name for name in before if not is_early(name)}
    after = {name: state[f"model.{name}"] for name in before}
    assert {name for name in before if not torch.equal(after[name], before[name])} == other
    remembered = {name.split(".")[1] for name in state if name.startswith("optimizer.")}
    assert len(remembered) == len(other) < len(before)


def test_classification_with_frozen_layers(images, tmp_path):
    network = tiny()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    train_classification(network, images, replace(CLASSIFICATION, frozen=LAYER, updates=2, fit=0), out=tmp_path,
                         progress=False)
    assert changed(before, network) == {name for name in before if not is_early(name)}
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_layer_must_be_left_that_learns(tmp_path):
    settings = LoopSettings(frozen="bn2", updates=2, device="cpu")
    with pytest.raises(InputError, match="frozen: expected a layer with others behind it that learn, got 'bn2'"):
        loop.run(scripted(settings), out=tmp_path)
    with pytest.raises(InputError, match="frozen: expected with `backbone: true` only, got 'blocks.1'"):
        ProposalSettings(frozen="blocks.1")
    assert ProposalSettings(frozen="blocks.1", backbone=True).frozen == "blocks.1"
