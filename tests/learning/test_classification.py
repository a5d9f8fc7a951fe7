from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_pictures import SIZE, pictures, stopped_equals_whole, tiny
from torch.nn import functional

from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.whitening import learn_whitening
from rmaclib.learning import (
    ClassificationSettings,
    Classifier,
    LearningError,
    Relations,
    Validation,
    classification,
    train_classification,
)
from rmaclib.learning.classification import ClassificationStep, turns

SETTINGS = ClassificationSettings(batch=10, shorter=(40, 60), side=32, size=SIZE, optimizer="adamw", lr=1e-3, updates=5,
                                  evaluate_every=2, save_every=2, device="cpu")


@settings(max_examples=50)
@given(count=st.integers(1, 20), batch=st.integers(1, 30), seed=st.integers(0, 1000))
def test_every_image_has_its_turn(count, batch, seed):
    drawn = np.concatenate([turns(count, start * batch, batch, seed) for start in range(8)])
    for start in range(0, len(drawn) - count + 1, count):
        assert sorted(drawn[start:start + count]) == list(range(count))


def test_turns_are_shuffled_anew_and_by_the_seed():
    orders = [turns(30, start, 30, seed).tolist() for start, seed in ((0, 0), (30, 0), (0, 1))]
    assert orders[0] != orders[1] and orders[0] != orders[2] and orders[0] != sorted(orders[0])


@pytest.mark.parametrize("head", ["average", "max"])
def test_classifier_by_hand(head):
    model = Classifier(tiny().backbone, 3, head, seed=2).eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        maps, outputs = model.backbone(images), model(images)
    for features, scores in zip(maps, outputs, strict=True):
        cells = features.flatten(1)
        vector = cells.max(1).values if head == "max" else cells.sum(1) / 6
        assert torch.allclose(scores, model.linear.weight @ vector + model.linear.bias, atol=1e-5)
    other = Classifier(tiny().backbone, 3, head, seed=3)
    assert torch.equal(model.linear.weight, Classifier(tiny().backbone, 3, head, seed=2).linear.weight)
    assert not torch.equal(model.linear.weight, other.linear.weight)


def test_the_linear_layer_is_fitted():
    """Its gradient is zero where it is fitted: the cross-entropy's is minus the ridge's."""
    model = Classifier(tiny().backbone, 3, "average", seed=2)
    random = torch.Generator().manual_seed(0)
    targets = torch.arange(60) % 3
    features = torch.randn(60, model.linear.in_features, generator=random) + 2 * torch.eye(3).repeat(
        1, model.linear.in_features)[:, :model.linear.in_features][targets]
    model.fit(features, targets)
    functional.cross_entropy(model.linear(features), targets).backward()
    assert torch.allclose(model.linear.weight.grad, -classification._RIDGE * model.linear.weight, atol=1e-5)
    assert model.linear.bias.grad.abs().max() < 1e-5
    assert (model.linear(features).argmax(1) == targets).float().mean() > 0.95


def test_learning_begins_with_a_fitted_layer(tmp_path):
    images = pictures(tmp_path / "pictures")

    def run(fit):
        return train_classification(tiny(), images, replace(SETTINGS, updates=1, fit=fit), out=tmp_path / str(fit),
                                    progress=False)

    first = [run(fit).history[0] for fit in (0, 25)]
    assert first[1]["loss"] < 0.9 * first[0]["loss"] and first[1]["accuracy"] > first[0]["accuracy"]
    # A run that goes on has the weights of its state: nothing is fitted, which would need images that can be read.
    for path in images.paths:
        path.unlink()
    with pytest.raises(LearningError, match="other images.files"):
        run(25)


def test_gradient_of_a_batch_is_that_of_its_mean_cross_entropy(images):
    model = Classifier(tiny().backbone, 5, "average", seed=0).eval()
    batch, targets = ClassificationStep(model, images, SETTINGS, {})._batch(3)
    assert batch.shape == (10, 3, 32, 32)
    value = functional.cross_entropy(model(batch), targets)
    value.backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    for pixels in (1, 3 * 32 * 32, 10**6):
        model.zero_grad()
        row = ClassificationStep(model, images, replace(SETTINGS, pixels=pixels), {})(3)
        assert row["loss"] == pytest.approx(value.item(), rel=1e-5)
        assert row["accuracy"] == (model(batch).argmax(1) == targets).float().mean()
        gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        assert float((gradient - expected).norm() / expected.norm()) < 1e-5


def test_learns_and_gives_a_network_without_whitening(images, tmp_path):
    network = tiny(images)
    # 25 images are too few for a whitening that does good.
    longer = replace(SETTINGS, updates=30, schedule="constant", evaluate_every=30, dim=None)
    trained = train_classification(network, images, longer, out=tmp_path, validation=images, progress=False)
    losses = [row["loss"] for row in trained.history[1:]]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    assert trained.score > trained.history[0]["validation"] + 0.1
    assert trained.network.fc is None and trained.network.settings.dim is None
    # The backbone given is the one that was trained, and what is kept is R-MAC on it.
    with torch.no_grad():
        picture = torch.rand(1, 3, 64, 64)
        assert torch.allclose(trained.network.backbone(picture), network.backbone(picture))


@pytest.mark.parametrize("dim", [None, 5, 512])
def test_validation_is_of_descriptors_as_they_are_used(images, dim, tmp_path):
    trained = train_classification(tiny(), images, replace(SETTINGS, updates=1, dim=dim), out=tmp_path,
                                   validation=images, progress=False)
    network, extraction = tiny(), ExtractionSettings((SIZE,), precision="float32", device="cpu")
    if dim:
        network.set_whitening(learn_whitening(network, images.paths, extraction,
                                              dim=min(dim, network.backbone.channels), progress=False))
    expected = Validation(images, Relations(images.labels), extraction, {})(network)
    assert trained.history[0]["validation"] == pytest.approx(expected, abs=1e-6) and expected < 1


def test_stopped_and_started_again_gives_the_same_result(images, tmp_path):
    def run(out, **more):
        return train_classification(tiny(), images, SETTINGS, out=out, validation=images, progress=False, **more)

    stopped_equals_whole(run, 3, tmp_path)


def test_labels_may_have_gaps_and_bad_images_are_left_out(tmp_path):
    images = pictures(tmp_path / "pictures", landmarks=2, each=3)
    images = replace(images, labels=tuple(7 * label + 3 for label in images.labels))
    images.paths[1].write_bytes(b"")
    trained = train_classification(tiny(), images, replace(SETTINGS, batch=6, updates=2), out=tmp_path / "out",
                                   progress=False)
    assert list(trained.bad) == ["0/1.png"] and trained.history[0]["accuracy"] in np.arange(6) / 5
    for path in images.paths:
        path.unlink()
    for fit, what in ((0, "update 1: none of its images"), (9, "can't be fitted: none of the images")):
        with pytest.raises(LearningError, match=what):
            train_classification(tiny(), images, replace(SETTINGS, fit=fit), out=tmp_path / str(fit), progress=False)


def test_a_single_label(images, tmp_path):
    with pytest.raises(LearningError, match="two landmarks or more"):
        train_classification(tiny(), replace(images, labels=(0,) * 25), SETTINGS, out=tmp_path)


def test_divergence_is_told(images, tmp_path):
    with pytest.raises(LearningError, match="update 1: training has diverged, the norm of all weights"):
        train_classification(tiny(), images, replace(SETTINGS, optimizer="sgd", lr=1e30), out=tmp_path, progress=False)
    assert not (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize("options", [
    {"shorter": (200, 512)}, {"shorter": (512, 256)}, {"shorter": (256,)}, {"shorter": (256.5, 300)}, {"batch": 0},
    {"head": "gem"}, {"side": 0}, {"size": 0}, {"dim": 0}])
def test_bad_settings_of_classification(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ClassificationSettings(**options)
