import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaclib.boxes import overlaps
from rmaclib.evaluation.boxes import object_recall
from rmaclib.proposals import (
    CANDIDATES,
    OVERLAP,
    ProposalNetwork,
    assign,
    fit_anchors,
    move,
    offsets_to,
    pixel_boxes,
    proposal_loss,
    usable_boxes,
)
from rmaclib.regions import Rectangle

ANCHORS = ((0.2, 0.2), (0.5, 0.3), (0.9, 0.9))


def network(seed=0, anchors=ANCHORS, spread=0.3) -> ProposalNetwork:
    """Random weights large enough for proposals to differ."""
    proposer = ProposalNetwork(6, anchors, 5, seed)
    with torch.no_grad():
        for parameter in proposer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)) * spread)
    return proposer


def iou_by_hand(a, b):
    across = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return across * down / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - across * down)


def test_anchors_by_hand():
    """A map of 2 rows and 3 columns of a picture 90 wide and 40 high: centres at 15, 45, 75 and 10, 30."""
    anchors = ProposalNetwork(6, [(0.2, 0.1), (0.4, 0.4)], 4).anchors((2, 3), (40, 90))
    assert anchors.shape == (12, 4)
    assert anchors[0].tolist() == pytest.approx([15 - 9, 10 - 4.5, 15 + 9, 10 + 4.5])
    assert anchors[1].tolist() == pytest.approx([15 - 18, 10 - 18, 15 + 18, 10 + 18])
    assert anchors[2].tolist() == pytest.approx([45 - 9, 10 - 4.5, 45 + 9, 10 + 4.5])  # the next column
    assert anchors[6].tolist() == pytest.approx([15 - 9, 30 - 4.5, 15 + 9, 30 + 4.5])  # the next row


def test_anchors_grow_with_the_picture():
    proposer = network()
    assert torch.allclose(proposer.anchors((4, 5), (128, 160)) * 2, proposer.anchors((4, 5), (256, 320)))


def test_scores_and_offsets_belong_to_their_anchors():
    """An anchor's objectness is channel a at its cell; a large one there makes it the first proposal."""
    proposer = network()
    with torch.no_grad():
        for parameter in proposer.parameters():
            parameter.zero_()
        proposer.hidden.weight[0, 0, 1, 1] = 1  # the first hidden channel is the first channel of the map
        proposer.objectness.weight[1, 0] = 5  # which makes the second anchor likely
        proposer.offsets.weight[4 * 1 + 2, 0] = 1  # and stretches it: offsets 4a … 4a + 3 are its own
    features = torch.zeros(1, 6, 3, 4)
    features[0, 0, 1, 2] = 1
    (proposals,) = proposer.propose(features, (96, 128), 3)
    assert proposals.scores[0] == pytest.approx(1 / (1 + np.exp(-5)), abs=1e-6)
    # Centre (80, 48); 0.5 · 128 wide, e times that, cut at the picture's border; 0.3 · 128 high.
    assert proposals.boxes[0].tolist() == pytest.approx([max(0, 80 - 32 * np.e), 48 - 19.2, 128, 48 + 19.2], abs=1e-3)
    assert proposals.regions[0] == Rectangle(0, 1, 4, 1)


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.floats(-1.5, 1.5)] * 4), min_size=1, max_size=5), st.integers(0, 1000))
def test_moving_is_the_inverse_of_offsets(offsets, seed):
    random = np.random.default_rng(seed)
    corner, size = random.uniform(-50, 50, (len(offsets), 2)), random.uniform(1, 100, (len(offsets), 2))
    anchors = torch.from_numpy(np.concatenate([corner, corner + size], 1))
    offsets = torch.tensor(offsets, dtype=torch.float64)
    assert torch.allclose(offsets_to(anchors, move(anchors, offsets)), offsets, atol=1e-9)


def test_moved_box_by_hand():
    boxes = move(torch.tensor([[10.0, 20, 30, 60]]), torch.tensor([[0.5, -0.25, np.log(2), 0]]))
    assert boxes[0].tolist() == pytest.approx([10, 10, 50, 50])  # centre 20+10, 40-10; 40 wide, 40 high


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 40), st.integers(0, 10**6))
def test_proposals_equal_the_loops(rows, columns, batch, count, seed):
    """Greedy suppression and distinct cells, one box after the other, on any map: 1×1, 1×N …"""
    proposer = network(seed)
    features = torch.rand(batch, 6, rows, columns, generator=torch.Generator().manual_seed(seed)) * 3
    height, width = 32 * rows - seed % 7, 32 * columns - seed % 11
    batch_proposals = proposer.propose(features, (height, width), count)
    assert len(batch_proposals) == batch
    for image, proposals in zip(features, batch_proposals, strict=True):
        assert 1 <= len(proposals.boxes) == len(proposals.scores) == len(proposals.regions) <= count
        scores, offsets = proposer(image[None])
        boxes = proposer.anchors((rows, columns), (height, width))
        likely = []
        for y in range(rows):
            for x in range(columns):
                for anchor in range(len(ANCHORS)):
                    place = (y * columns + x) * len(ANCHORS) + anchor
                    box = move(boxes[place:place + 1], offsets[0, 4 * anchor:4 * anchor + 4, y, x][None])[0].tolist()
                    box = [min(max(value, 0), (width, height)[axis % 2]) for axis, value in enumerate(box)]
                    if box[2] - box[0] >= 1 and box[3] - box[1] >= 1:
                        likely.append((float(scores[0, anchor, y, x].detach().sigmoid()), place, box))
        if not likely:  # all are outside
            assert proposals.regions == [Rectangle(0, 0, columns, rows)] and proposals.scores.tolist() == [0]
            continue
        likely.sort(key=lambda entry: (-entry[0], entry[1]))
        kept, cells = [], []
        for score, _, box in likely[:CANDIDATES]:
            if any(iou_by_hand(box, other) > OVERLAP for _, other in kept):
                continue
            kept.append((score, box))
            x1, y1 = (min(int(value * n / side + 0.5), n - 1) for value, n, side in
                      zip(box[:2], (columns, rows), (width, height), strict=True))
            x2, y2 = (max(first + 1, min(int(value * n / side + 0.5), n)) for first, value, n, side in
                      zip((x1, y1), box[2:], (columns, rows), (width, height), strict=True))
            region = Rectangle(x1, y1, x2 - x1, y2 - y1)
            if region not in [cell for cell, _, _ in cells]:
                cells.append((region, score, box))
        expected = cells[:count]
        # Boxes that overlap by OVERLAP to the last digit may go either way.
        if [region for region, _, _ in expected] != proposals.regions:
            near = [abs(iou_by_hand(a, b) - OVERLAP) for _, a in kept for _, _, b in likely]
            assert min(near) < 1e-5
            continue
        assert proposals.scores.tolist() == pytest.approx([score for _, score, _ in expected], abs=1e-5)
        assert np.allclose(proposals.boxes, [box for _, _, box in expected], atol=1e-2)


def test_fewer_proposals_are_the_first_of_more():
    features = torch.rand(1, 6, 7, 5)
    many, few = (network(3).propose(features, (220, 150), count)[0] for count in (40, 6))
    assert few.regions == many.regions[:6]
    assert torch.equal(few.boxes, many.boxes[:6])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_is_not_finite_proposes_the_whole_picture(value):
    batch_proposals = network().propose(torch.full((2, 6, 3, 4), value), (96, 128), 8)
    for proposals in batch_proposals:
        assert proposals.boxes.tolist() == [[0, 0, 128, 96]] and proposals.regions == [Rectangle(0, 0, 4, 3)]
        assert proposals.scores.tolist() == [0]


def test_proposals_do_not_depend_on_the_batch():
    features = torch.rand(3, 6, 5, 6)
    together = network(5).propose(features, (160, 190), 12)
    for number in range(3):
        (alone,) = network(5).propose(features[number:number + 1], (160, 190), 12)
        assert alone.regions == together[number].regions


# --- learning ---------------------------------------------------------------------------------------------------


def test_assignment_by_hand():
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30], [0, 0, 10, 4], [50, 50, 54, 54]])
    labels, owner = assign(anchors, torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]]))
    # Equal; 0.8; apart; 0.4, between the two limits; 0.16, and still the best of all for the second box.
    assert labels.tolist() == [1, 1, 0, -1, 1]
    assert owner.tolist()[:2] == [0, 0] and owner[4] == 1
    labels, _ = assign(anchors, torch.zeros(0, 4))
    assert labels.tolist() == [0] * 5


@pytest.mark.parametrize("boxes, positives", [
    ([], 0),  # no boxes: all is something else
    ([[30, 20, 90, 70]], None),  # one
    ([[0, 0, 128, 96]], None),  # one that covers all
    ([[500, 500, 600, 700]], 0),  # one outside: left out
    ([[-40, -40, 60, 60]], None),  # one that reaches out: clipped
    ([[10, 10, 10, 10]], 0),  # an empty one
])
@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (1, 6)])
def test_loss_is_finite_whatever_the_boxes(boxes, positives, shape):
    proposer = network()
    loss = proposal_loss(proposer, torch.rand(1, 6, *shape), (96, 128), [torch.tensor(boxes).reshape(-1, 4)], 16,
                          np.random.default_rng(0))
    (loss.objectness + loss.boxes).backward()
    assert torch.isfinite(loss.objectness) and torch.isfinite(loss.boxes)
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in proposer.parameters())
    assert loss.positives == positives if positives is not None else loss.positives >= 1
    if positives == 0:
        assert loss.boxes == 0


def test_loss_by_hand():
    """Of two anchors one is the landmark: log loss of both, smooth L1 of the first, divided by two."""
    proposer = ProposalNetwork(1, [(1.0, 0.5)], 1)
    features = torch.zeros(1, 1, 1, 2)  # scores and offsets are the biases
    with torch.no_grad():
        proposer.objectness.bias.fill_(0.3)
        proposer.offsets.bias.copy_(torch.tensor([0.5, 0.0, 0.05, 0.0]))
    # Anchors are 100 wide, 50 high about (25, 25) and (75, 25); the box is the first, 60 wide from its left border.
    box = torch.tensor([[0.0, 0, 75, 50]])
    loss = proposal_loss(proposer, features, (50, 100), [box], 16, np.random.default_rng(0))
    # IoU with the first 75/100; with the second 50/125, between the limits: it does not count.
    probability = 1 / (1 + np.exp(-0.3))
    assert loss.objectness.item() == pytest.approx(-np.log(probability), rel=1e-5)
    wanted = np.array([0.125, 0, np.log(0.75), 0])
    gaps = np.abs(np.array([0.5, 0, 0.05, 0]) - wanted)
    smooth = np.where(gaps < 1 / 9, 4.5 * gaps**2, gaps - 1 / 18)
    assert loss.boxes.item() == pytest.approx(smooth.sum(), rel=1e-5)
    assert loss.positives == 1


def test_gradient_of_the_loss():
    proposer = network(2).double()
    features = torch.rand(1, 6, 3, 4, dtype=torch.float64, requires_grad=True)
    box = torch.tensor([[30.0, 20, 90, 70]], dtype=torch.float64)

    def loss(features):
        losses = proposal_loss(proposer, features, (96, 128), [box], 20, np.random.default_rng(0))
        return losses.objectness + losses.boxes

    assert torch.autograd.gradcheck(loss, (features,))


def test_loss_of_a_batch_is_the_sum():
    proposer, features = network(), torch.rand(3, 6, 3, 4)
    boxes = [torch.tensor([[30.0, 20, 90, 70]]), torch.zeros(0, 4), torch.tensor([[0.0, 0, 50, 50], [60, 40, 120, 90]])]
    together = proposal_loss(proposer, features, (96, 128), boxes, 1000, np.random.default_rng(0))  # all anchors
    alone = [proposal_loss(proposer, features[n:n + 1], (96, 128), boxes[n:n + 1], 1000, np.random.default_rng(0))
             for n in range(3)]
    for part in range(3):
        assert abs(together[part] - sum(loss[part] for loss in alone)) < 1e-4


def test_usable_boxes_by_hand():
    usable = usable_boxes(torch.tensor([[-5.0, 2, 30, 90], [10, 10, 10.5, 40], [70, 0, 90, 9]]), (60, 64))
    assert usable.tolist() == [[0, 2, 30, 60]]


def test_anchors_are_the_shapes_of_the_boxes():
    random = np.random.default_rng(1)
    boxes, sizes = [], []
    for shape in [(0.2, 0.4)] * 30 + [(0.8, 0.5)] * 30:
        size = (400, 300) if len(boxes) % 2 else (300, 400)
        width, height = np.minimum(np.array(shape) * 400 * random.uniform(0.97, 1.03), size)
        boxes.append((0, 0, width, height))
        sizes.append(size)
    shapes = fit_anchors(boxes, sizes, 2)
    assert np.allclose(shapes, [(0.2, 0.4), (0.76, 0.5)], atol=0.05)
    assert fit_anchors(boxes, sizes, 2) == shapes
    assert fit_anchors([(0, 0, 10, 10)] * 4, [(40, 20)] * 4, 9) == ((0.25, 0.25),)
    with pytest.raises(ValueError, match="got none"):
        fit_anchors([(50, 0, 60, 10)], [(40, 20)], 3)


# --- recall -----------------------------------------------------------------------------------------------------


def test_recall_by_hand():
    proposals = [np.array([[0, 0, 10, 10], [0, 0, 10, 5]]), np.zeros((0, 4)), np.array([[0, 0, 4, 10.0]])]
    boxes = [(0, 0, 10, 5), (0, 0, 1, 1), (0, 0, 10, 10)]
    assert object_recall(proposals, boxes, 0.5, 1) == pytest.approx(1 / 3)
    assert object_recall(proposals, boxes, 0.9, 1) == 0
    assert object_recall(proposals, boxes, 0.9, 2) == pytest.approx(1 / 3)
    assert object_recall(proposals, boxes, 0.4, 2) == pytest.approx(2 / 3)
    assert np.isnan(object_recall([], [], 0.5, 8))


@settings(max_examples=50)
@given(st.lists(st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(1, 60)] * 2), min_size=2, max_size=6))
def test_overlaps_equal_the_loops(shapes):
    boxes = [(x, y, x + width, y + height) for x, y, width, height in shapes]
    assert overlaps(np.array(boxes[1:]), boxes[0]) == pytest.approx([iou_by_hand(box, boxes[0]) for box in boxes[1:]])


def test_cells_as_pixels_by_hand():
    boxes = pixel_boxes([(1, 0, 2), Rectangle(0, 1, 4, 1)], (2, 4), (60, 100))
    assert boxes.tolist() == [[25, 0, 75, 60], [0, 30, 100, 60]]
