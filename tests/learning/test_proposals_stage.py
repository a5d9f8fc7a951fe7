from dataclasses import replace

import numpy as np
import pytest
import torch
from learning_pictures import stopped_equals_whole, tiny
from PIL import Image, ImageOps
from safetensors.torch import load_file

from rmaclib.checkpoints import load_network
from rmaclib.datasets.types import LabelledImages
from rmaclib.evaluation.boxes import object_recall
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.proposals import feature_maps, propose_regions, seen_size
from rmaclib.foundation.errors import InputError
from rmaclib.learning import (
    LearningError,
    ProposalSettings,
    RankingSettings,
    proposals,
    read_log,
    train_proposals,
    train_ranking,
)

SETTINGS = ProposalSettings(images=6, samples=32, anchors=3, hidden=16, size=160, optimizer="adamw", lr=3e-3, updates=6,
                            evaluate_every=3, save_every=2, device="cpu")
EXTRACTION = ExtractionSettings((160,), precision="float32", device="cpu")


@pytest.fixture(scope="module")
def boxed(tmp_path_factory) -> LabelledImages:
    """20 pictures, each a chequered rectangle before a dark ground, and where it is."""
    folder, random = tmp_path_factory.mktemp("boxed"), np.random.default_rng(0)
    names, boxes = [], []
    for number in range(20):
        height, width = ((128, 160), (160, 128))[number % 2]
        across, down = random.integers(40, 72, 2)
        left, top = random.integers(0, width - across), random.integers(0, height - down)
        pixels = random.integers(0, 60, (height, width, 3)).astype(np.uint8)
        pixels[top:top + down, left:left + across] += (
            (np.add.outer(np.arange(down) // 6, np.arange(across) // 6) % 2)[..., None] * 140 + 40).astype(np.uint8)
        names.append(f"{number % 4}/{number}.png")
        (folder / str(number % 4)).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / names[-1])
        boxes.append(tuple(map(float, (left, top, left + across, top + down))))
    return LabelledImages("boxed", folder, tuple(names), tuple(folder / name for name in names),
                          tuple(number % 4 for number in range(20)), tuple(boxes))


def run(images, out, settings=SETTINGS, **options):
    return train_proposals(tiny(), images, settings, out=out, progress=False, **options)


def recall(network, images) -> float:
    proposed = [image.boxes for image in propose_regions(network, images.paths, EXTRACTION, 4, progress=False)]
    return object_recall(proposed, images.boxes, 0.5, 4)


def test_finds_what_the_boxes_show(boxed, tmp_path):
    before = tiny()
    before.add_proposer(((0.3, 0.3),))
    trained = run(boxed, tmp_path, replace(SETTINGS, updates=100, evaluate_every=50, images=10, lr=1e-2,
                                           schedule="constant"), validation=boxed)
    losses = [row["loss"] for row in trained.history[1:]]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    assert trained.score > trained.history[0]["validation"] + 0.05
    assert recall(trained.network, boxed) >= 0.7 > recall(before, boxed) + 0.3
    # The checkpoint has all that is needed, and the backbone is as it was.
    again = load_network(tmp_path / "best.safetensors")
    assert again.settings.anchors and again.settings == trained.network.settings
    assert recall(again, boxed) == recall(trained.network, boxed)
    for name, tensor in tiny().backbone.state_dict().items():
        assert torch.equal(tensor, trained.network.backbone.state_dict()[name])


@pytest.mark.parametrize("changes", [{}, {"pool": 8, "refresh": 2}, {"backbone": True}])
def test_stopped_and_started_again_gives_the_same_result(boxed, tmp_path, changes):
    settings = replace(SETTINGS, **changes)
    stopped_equals_whole(lambda out, **more: run(boxed, out, settings, validation=boxed, **more), 4, tmp_path)
    before, now = tiny().backbone.state_dict(), load_file(tmp_path / "whole" / "state.safetensors")
    if settings.backbone:  # the best network may be the first
        assert any(not torch.equal(tensor, now[f"model.1.{name}"]) for name, tensor in before.items())
    else:
        assert not any(name.startswith("model.1.") for name in now)


def test_boxes_are_those_of_the_picture_that_the_network_sees(boxed):
    """Scaled with it, and mirrored with it."""
    network = tiny(boxed).add_proposer(((0.4, 0.4),))
    step = proposals.ProposalStep(network, boxed, replace(SETTINGS, size=80), {})
    step._fill(np.arange(20), 0)
    for index in (0, 1):
        features, image_size, box = step._view(index)(False)
        assert image_size == seen_size(boxed.paths[index], ExtractionSettings((80,)))
        assert features.shape[-2:] == tuple(-(-side // 32) for side in image_size)
        assert box.tolist() == pytest.approx([value / 2 for value in boxed.boxes[index]], rel=1e-6)


@pytest.mark.parametrize("backbone", [False, True])
def test_a_mirrored_image_gives_the_map_of_its_mirror_image(boxed, backbone):
    """The network is not symmetric: the mirrored map of an image is another."""
    network = tiny()
    settings = replace(SETTINGS, backbone=backbone)
    step = proposals.ProposalStep(network.add_proposer(((0.4, 0.4),)), boxed, settings, {})
    if not backbone:
        step._fill(np.arange(20), 0)
    mirror = ImageOps.mirror(Image.open(boxed.paths[1]))
    with torch.no_grad():
        expected = network.backbone(torch.from_numpy(np.array(mirror)).permute(2, 0, 1)[None])[0]
    features, image_size, box = step._view(1)(True)
    assert torch.allclose(features, expected, atol=1e-2) and image_size == mirror.size[::-1]
    assert not torch.allclose(features, step._view(1)(False)[0].flip(-1), atol=1e-2)
    x1, y1, x2, y2 = boxed.boxes[1]
    assert box.tolist() == pytest.approx([mirror.width - x2, y1, mirror.width - x1, y2])


def test_proposals_are_watched_as_they_learn(boxed, tmp_path):
    watched = []
    trained = run(boxed, tmp_path, replace(SETTINGS, updates=3), validation=boxed,
                  watch=lambda history: watched.append([row["update"] for row in history]))
    assert watched == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]] and len(trained.history) == 4


def test_maps_are_those_of_the_backbone(boxed):
    network, bad = tiny(), {}
    maps = {index: (features, size)
            for index, features, size in feature_maps(network, boxed.paths[:3], EXTRACTION, bad)}
    assert sorted(maps) == [0, 1, 2] and not bad
    image = torch.from_numpy(np.array(Image.open(boxed.paths[1]))).permute(2, 0, 1)[None]
    with torch.no_grad():
        assert torch.allclose(maps[1][0], network.backbone(image)[0], atol=1e-4)
    assert maps[1][1] == (160, 128)


def test_a_network_that_has_proposals_goes_on_with_them(boxed, tmp_path):
    first = run(boxed, tmp_path / "first").network
    weights = {name: tensor.clone() for name, tensor in first.proposer.state_dict().items()}
    second = train_proposals(first, boxed, replace(SETTINGS, updates=1, lr=0.0, anchors=9), out=tmp_path / "second",
                             progress=False).network
    assert second.settings.anchors == first.settings.anchors
    assert all(torch.equal(weights[name], tensor) for name, tensor in second.proposer.state_dict().items())


def test_ranking_with_proposals_leaves_the_proposal_network_alone(boxed, tmp_path):
    network = tiny(boxed)
    network.add_proposer(((0.4, 0.4), (0.3, 0.5)))
    network.change(regions="both", proposals=4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    settings = RankingSettings(triplets=4, pool=20, updates=2, refresh=2, size=96, optimizer="adamw", lr=1e-3,
                               weight_decay=0.1, device="cpu")
    trained = train_ranking(network, boxed, settings, out=tmp_path, progress=False).network
    assert trained.settings.regions == "both"
    changed = {name for name, tensor in trained.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "fc.weight" in changed and not any(name.startswith("proposer") for name in changed)


def test_images_without_a_box_are_left_out(boxed, tmp_path):
    boxes = list(boxed.boxes)
    boxes[0], boxes[1], boxes[2] = None, (500, 500, 600, 600), (-30, -30, 60, 60)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    paths = (*boxed.paths[:-1], broken)
    images, bad = replace(boxed, boxes=tuple(boxes), paths=paths), {}
    assert proposals._with_boxes(images, bad).names == boxed.names[2:-1]
    assert list(bad) == [boxed.names[-1]] and "broken.png" in bad[boxed.names[-1]]
    trained = run(images, tmp_path / "out", replace(SETTINGS, updates=1))
    assert list(trained.bad) == [boxed.names[-1]]


def test_no_boxes(images, tmp_path):
    with pytest.raises(LearningError, match="expected images with boxes"):
        run(images, tmp_path)


def test_a_step_needs_a_proposal_network(boxed):
    with pytest.raises(InputError, match="expected one with a proposal network"):
        proposals.ProposalStep(tiny(), boxed, SETTINGS, {})


def test_only_a_network_with_proposals_proposes(boxed):
    with pytest.raises(ValueError, match="trained to propose"):
        propose_regions(tiny(), boxed.paths, EXTRACTION, 3)
    network = tiny().add_proposer(((0.4, 0.4),))
    with pytest.raises(ValueError, match="expected one"):
        propose_regions(network, boxed.paths, ExtractionSettings((64, 96), device="cpu"), 3)


def test_unreadable_images_have_no_proposals(boxed, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    good, bad = propose_regions(tiny().add_proposer(((0.4, 0.4),)), [boxed.paths[0], broken], EXTRACTION, 3,
                                progress=False)
    assert len(good.boxes) and not good.reason
    assert bad.boxes.shape == (0, 4) and "broken.png" in bad.reason
    assert (good.boxes >= 0).all() and (good.boxes <= [160, 128, 160, 128]).all()


@pytest.mark.parametrize("options", [{"images": 0}, {"samples": 1}, {"anchors": 0}, {"hidden": 0}, {"pool": 0}])
def test_bad_settings_of_proposals(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ProposalSettings(**options)


JOINT = RankingSettings(triplets=4, pool=20, updates=4, refresh=2, size=160, optimizer="adamw", lr=1e-3, propose=3,
                        save_every=2, device="cpu")


def test_ranking_and_proposals_learn_jointly(boxed, tmp_path):
    """The gradient of an update is the sum of those of both losses."""
    plain = {"optimizer": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "updates": 1, "schedule": "constant"}

    def gradients(train, settings, name):
        """A step of plain gradient descent takes the gradient off the weights."""
        network = tiny(boxed).add_proposer(((0.4, 0.4), (0.3, 0.5)))
        before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
        train(network, boxed, settings, out=tmp_path / name, progress=False)
        return {name: before[name] - parameter.detach() for name, parameter in network.named_parameters()}

    both = gradients(train_ranking, replace(JOINT, **plain), "both")
    ranking = gradients(train_ranking, replace(JOINT, propose=0, **plain), "ranking")
    proposals = gradients(train_proposals, ProposalSettings(images=3, size=160, backbone=True, flip=False, device="cpu",
                                                            **plain), "proposals")
    for name, gradient in both.items():
        assert torch.allclose(gradient, ranking[name] + proposals[name], rtol=1e-4, atol=1e-5), name
    for part, gradient, others in (("proposer", proposals, ranking), ("fc", ranking, proposals)):
        assert all(gradient[name].abs().max() > 0 for name in both if name.startswith(part))
        assert all(others[name].abs().max() == 0 for name in both if name.startswith(part))
    assert any(proposals[name].abs().max() > 1e-4 for name in both if name.startswith("backbone"))


def test_joint_learning_stopped_and_started_again(boxed, tmp_path):
    """From a network without proposals: it gets one that learns."""
    stopped_equals_whole(lambda out, **more: train_ranking(tiny(boxed), boxed, JOINT, out=out, progress=False, **more),
                         2, tmp_path)
    for row in read_log(tmp_path / "whole" / "log.csv"):
        assert row["objectness"] > 0 and row["boxes"] > 0 and row["active"] <= 1
        assert row["loss"] > row["objectness"] + row["boxes"]
    trained = load_network(tmp_path / "whole" / "best.safetensors")
    fresh = tiny(boxed)
    fresh.add_proposer(trained.settings.anchors)
    assert len(trained.settings.anchors) == 12
    assert any(not torch.equal(tensor, trained.state_dict()[name]) for name, tensor in fresh.state_dict().items()
               if name.startswith("proposer"))


def test_joint_learning_needs_boxes(boxed, tmp_path):
    with pytest.raises(LearningError, match="expected images with boxes"):
        train_ranking(tiny(boxed), replace(boxed, boxes=(None,) * 20), JOINT, out=tmp_path, progress=False)
