import weakref
from functools import partial

import numpy as np
import pytest
import torch
from learning_pictures import tiny

from rmaclib.images import ImageError
from rmaclib.learning import LOSSES, Tuples, accumulate, triplet
from rmaclib.learning.errors import UnreadableError
from rmaclib.learning.gradients import _groups, _Runner

LABELS = np.array([0, 0, 0, 1, 1, 2, 2])


def update(triplets=((0, 1, 3), (0, 2, 3), (3, 4, 5), (5, 6, 1), (1, 0, 6))):
    same = torch.from_numpy(LABELS[:, None] == LABELS)
    return Tuples(torch.tensor(triplets), same & ~torch.eye(len(LABELS), dtype=torch.bool), ~same)


def some_images(dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    shapes = [(64, 48), (48, 64), (64, 48), (64, 48), (48, 64), (20, 20), (64, 48)]
    return [torch.rand(3, *shape, generator=generator, dtype=dtype) for shape in shapes]


def gradient(network):
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def three_streams(network, images, loss, tuples):
    """Query, positive and negative of each triplet through the network, one by one, in one graph."""
    network.zero_grad()
    streams = [network(images[index][None])[0] for triplet in tuples.triplets.tolist() for index in triplet]
    place = torch.arange(len(streams)).view(-1, 3)
    value = loss(torch.stack(streams), tuples._replace(triplets=place))
    value.backward()
    return value.detach(), gradient(network)


def in_one_graph(network, images, loss):
    network.zero_grad()
    value = loss(torch.cat([network(image[None]) for image in images]))
    value.backward()
    return value.detach(), gradient(network)


def relative_error(gradient, expected):
    return float((gradient - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def network():
    return tiny(dim=6, levels=2).double()


@pytest.mark.parametrize("name", ["triplet", "contrastive"])
def test_equals_three_streams(network, name):
    images, tuples = some_images(), update()
    loss = partial(LOSSES[name], margin=0.3)
    expected_value, expected = three_streams(network, images, loss, tuples)
    network.zero_grad()
    accumulated = accumulate(network, images, partial(loss, tuples=tuples), pixels=2 * 64 * 48)
    assert accumulated.loss == pytest.approx(expected_value.item(), rel=1e-9)
    assert accumulated.descriptors.shape == (7, 6)
    assert relative_error(gradient(network), expected) < 1e-9


@pytest.mark.parametrize("pixels", [1, 3 * 64 * 48, 10**9])
@pytest.mark.parametrize("loss", [partial(LOSSES["average_precision"], tuples=update()),
                                  lambda d: (d @ d.T).exp().sum(), lambda d: d[0] @ d[3]])
def test_equals_one_graph_for_any_loss(network, loss, pixels):
    images = some_images()
    expected_value, expected = in_one_graph(network, images, loss)
    network.zero_grad()
    accumulated = accumulate(network, images, loss, pixels=pixels)
    assert accumulated.loss == pytest.approx(expected_value.item(), rel=1e-9)
    assert relative_error(gradient(network), expected) < 1e-9


def test_adds_to_the_gradient_there_is(network):
    images, loss = some_images(), partial(triplet, tuples=update(), margin=0.3)
    network.zero_grad()
    accumulate(network, images, loss)
    once = gradient(network).clone()
    accumulate(network, images, loss)
    assert relative_error(gradient(network), 2 * once) < 1e-12


def test_the_number_of_threads_changes_nothing(network):
    images, loss, gradients = some_images(), partial(triplet, tuples=update(), margin=0.3), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            network.zero_grad()
            accumulate(network, images, loss, pixels=2 * 64 * 48)
            gradients.append(gradient(network))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*gradients)


class Counted(list):
    """Images that count how often each is read."""

    def __init__(self, images):
        super().__init__(images)
        self.reads = [0] * len(images)

    def __getitem__(self, index):
        self.reads[index] += 1
        return super().__getitem__(index)


def test_images_without_gradient_are_not_run_again(network):
    images = Counted(some_images())
    tuples = update(((0, 1, 3), (3, 4, 5)))
    with torch.no_grad():
        vectors = torch.cat([network(image[None]) for image in images])
    near, far = ((vectors[0] - vectors[other]).square().sum() for other in (1, 3))
    first_only = float(far - near) + 1e-3
    margins = torch.tensor([first_only, -10.0], dtype=torch.float64)

    def loss(descriptors):
        query, positive, negative = descriptors[tuples.triplets].unbind(1)
        return (margins + (query - positive).square().sum(1) - (query - negative).square().sum(1)).clamp(min=0).sum()

    images.reads = [0] * 7
    accumulated = accumulate(network, images, loss, sizes=[image.shape[-2:] for image in some_images()])
    assert accumulated.computed == 3 and images.reads == [2, 2, 1, 2, 1, 1, 1]


def test_training_mode_is_an_error(network):
    images, loss = some_images(), lambda d: d.sum()
    network.backbone.body.train()
    try:
        with pytest.raises(ValueError, match="evaluation mode"):
            accumulate(network, images, loss)
    finally:
        network.eval()


def test_bfloat16_is_near(network):
    single = tiny(dim=6, levels=2)
    images, loss = some_images(torch.float32), partial(triplet, tuples=update(), margin=1.0)
    gradients = []
    for half in (False, True):
        single.zero_grad()
        accumulate(single, images, loss, half=half)
        gradients.append(gradient(single).clone())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.9 and not torch.equal(*gradients)


class Missing(list):
    """Images of which two can't be read."""

    def __getitem__(self, index):
        if index in (2, 5):
            raise ImageError(f"{index}.jpg", "gone")
        return super().__getitem__(index)


def test_images_that_cannot_be_read_are_named_together(network):
    network.zero_grad()
    with pytest.raises(UnreadableError) as caught:
        accumulate(network, Missing(some_images()), partial(triplet, tuples=update()),
                   sizes=[image.shape[-2:] for image in some_images()])
    assert caught.value.places == [2, 5]
    assert all(parameter.grad is None for parameter in network.parameters())


def test_groups():
    sizes = [(2, 3), (3, 2), (2, 3), (2, 3), (3, 2)]
    assert _groups([0, 1, 2, 3, 4], sizes, 12) == [[0, 2], [1, 4], [3]]
    assert _groups([1, 3], sizes, 1) == [[1], [3]]
    assert _groups([0, 1], [(2, 2), (3, 3)], 8) == [[1], [0]] and _groups([], [], 8) == []


def test_zero_maps_stay_finite():
    network = tiny(dim=4)
    with torch.no_grad():
        network.backbone.body.model.bn2.bias.fill_(-100)
        network.backbone.body.model.bn2.weight.zero_()
    network.zero_grad()
    accumulate(network, some_images(torch.float32), lambda descriptors: descriptors[:, 0].sum())
    assert torch.isfinite(gradient(network)).all()


def test_no_gradient_is_in_memory_while_the_next_one_is_computed():
    """Each is as large as the network."""
    class Result:
        pass

    def compute(group, batch):
        in_memory.append(len(alive))
        result = Result()
        alive.add(result)
        return result

    alive, in_memory, threads = weakref.WeakSet(), [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _Runner(some_images(), torch.device("cpu")) as run:
            for _, result, _ in run([[index] for index in range(7)], compute):
                del result
    finally:
        torch.set_num_threads(threads)
    assert in_memory == [0] * 7
