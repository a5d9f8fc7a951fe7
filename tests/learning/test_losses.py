import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaclib.learning import LOSSES, Tuples, average_precision_loss, contrastive, triplet, triplet_distances
from rmaclib.learning.losses import _BINS
from rmaclib.pooling import l2


def tuples(triplets, count, relevant=()):
    """Tuples in which the given pairs are relevant and all others irrelevant."""
    near = torch.zeros(count, count, dtype=torch.bool)
    for i, j in relevant:
        near[i, j] = near[j, i] = True
    return Tuples(torch.tensor(triplets).reshape(-1, 3), near, ~near & ~torch.eye(count, dtype=torch.bool))


def on_circle(*degrees):
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_triplet_by_hand():
    # Squared distances: 90 degrees 2, 60 degrees 1, 180 degrees 4.
    vectors = on_circle(0, 90, 60, 180)
    given = tuples([(0, 1, 2), (0, 2, 1), (0, 1, 3)], 4)
    assert triplet_distances(vectors, given.triplets)[0].tolist() == pytest.approx([2, 1, 2])
    assert triplet_distances(vectors, given.triplets)[1].tolist() == pytest.approx([1, 2, 4])
    assert triplet(vectors, given).item() == pytest.approx((0.1 + 2 - 1) / 2 / 3)
    assert triplet(vectors, given, margin=1.5).item() == pytest.approx((1.5 + 2 - 1 + 1.5 + 1 - 2) / 2 / 3)


def test_contrastive_by_hand():
    vectors = on_circle(0, 60, 90)
    given = tuples([(0, 1, 2), (0, 2, 1)], 3)
    # Positives 1 and 2 squared; negatives at √2, beyond 1.2, and at 1.
    assert contrastive(vectors, given, margin=1.2).item() == pytest.approx((1 + 2 + 0.2**2) / 2 / 2)


def test_average_precision_by_hand():
    # Cosines to image 0 on the centres of bins, so that bins are ranks.
    step = 2 / (_BINS - 1)
    vectors = torch.stack([torch.tensor([c, math.sqrt(1 - c * c)], dtype=torch.float64)
                           for c in (1, 1 - step, 1 - 2 * step, 1 - 3 * step)])
    given = tuples([(0, 1, 2)], 4, relevant=[(0, 1), (0, 3)])
    one_query = Tuples(given.triplets, given.relevant & torch.tensor([True, False, False, False])[:, None],
                       given.irrelevant)
    assert average_precision_loss(vectors, one_query).item() == pytest.approx(1 - (1 + 2 / 3) / 2)
    unjudged = one_query._replace(irrelevant=torch.zeros(4, 4, dtype=torch.bool))
    assert average_precision_loss(vectors, unjudged).item() == pytest.approx(0)


def average_precision_in_loops(vectors, given):
    width, scores = 2 / (_BINS - 1), []
    for query in range(len(vectors)):
        if not given.relevant[query].any():
            continue
        hits = total = score = 0
        for number in range(_BINS):
            centre, here = 1 - number * width, 0
            for other in range(len(vectors)):
                share = max(0, 1 - abs(float(vectors[query] @ vectors[other]) - centre) / width)
                if given.relevant[query, other]:
                    here += share
                if given.relevant[query, other] or given.irrelevant[query, other]:
                    total += share
            hits += here
            score += here * hits / total if total else 0
        scores.append(score / int(given.relevant[query].sum()))
    return 1 - np.mean(scores)


def in_loops(name, vectors, given):
    values = []
    for q, p, n in given.triplets.tolist():
        near, far = (float((vectors[q] - vectors[other]).square().sum()) for other in (p, n))
        values.append(max(0, 0.1 + near - far) / 2 if name == "triplet" else
                      (near + max(0, 0.7 - math.sqrt(far)) ** 2) / 2)
    return average_precision_in_loops(vectors, given) if name == "average_precision" else np.mean(values)


@st.composite
def updates(draw):
    """Unit vectors and tuples among them: labels decide, and some pairs are neither relevant nor irrelevant."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(4, 9))
    labels = np.append([0, 0, 1, 1], random.integers(0, 3, count - 4))
    relevant = (labels[:, None] == labels) & ~np.eye(count, dtype=bool)
    if draw(st.booleans()):
        relevant[0, 4:] = relevant[4:, 0] = False
    triplets = [(q, p, n) for q in range(count) for p in np.flatnonzero(relevant[q])
                for n in np.flatnonzero(labels != labels[q])]
    chosen = [triplets[place] for place in random.choice(len(triplets), min(6, len(triplets)), replace=False)]
    irrelevant = labels[:, None] != labels
    return (l2(torch.from_numpy(random.normal(size=(count, 5)))),
            Tuples(torch.tensor(np.array(chosen)), torch.from_numpy(relevant), torch.from_numpy(irrelevant)))


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=25)
@given(drawn=updates())
def test_equals_loops_and_gradient(name, drawn):
    vectors, given = drawn
    assert LOSSES[name](vectors, given).item() == pytest.approx(in_loops(name, vectors, given), abs=1e-9)
    vectors.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: LOSSES[name](l2(v), given), (vectors,))


@pytest.mark.parametrize("name", LOSSES)
def test_equal_descriptors_have_a_finite_gradient(name):
    vectors = torch.ones(4, 3, requires_grad=True)
    given = tuples([(0, 1, 2), (1, 0, 3)], 4, relevant=[(0, 1)])
    LOSSES[name](l2(vectors), given).backward()
    assert torch.isfinite(vectors.grad).all()


def test_average_precision_needs_a_relevant_pair():
    with pytest.raises(ValueError, match="relevant"):
        average_precision_loss(on_circle(0, 1), tuples([(0, 1, 1)], 2))


def test_better_rankings_cost_less():
    given = tuples([(0, 1, 2)], 3, relevant=[(0, 1)])
    for loss in LOSSES.values():
        assert loss(on_circle(0, 10, 90), given) < loss(on_circle(0, 80, 15), given)
