from dataclasses import replace

import numpy as np
import pytest
from learning_pictures import SIZE, pictures, tiny

from rmaclib.datasets.types import LabelledImages
from rmaclib.evaluation.average_precision import average_precision
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.learning import LearningError, Relations, Validation, hold_out, leave_one_out

SETTINGS = ExtractionSettings((SIZE,), device="cpu", precision="float32")


def test_leave_one_out_equals_rankings_scored_one_by_one():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(30, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = random.integers(0, 8, 30)
    relations = Relations(labels)
    every = np.arange(30)
    relevant, irrelevant = relations.relevant(every), relations.irrelevant(every)
    relevant[3, :] = relevant[:, 3] = False  # image 3 is neither relevant nor irrelevant to those of its label
    expected = []
    for query in np.flatnonzero(relevant.any(1)):
        ranking = np.argsort(-(vectors @ vectors[query]), kind="stable")
        junk = [query, *(i for i in every if not relevant[query, i] and not irrelevant[query, i] and i != query)]
        expected.append(average_precision(ranking, np.flatnonzero(relevant[query]), junk))
    assert len(expected) < 30 and leave_one_out(vectors, relevant, irrelevant) == pytest.approx(np.mean(expected))


def test_leave_one_out_by_hand():
    vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1.0]])
    relevant = np.zeros((4, 4), bool)
    relevant[0, 2] = relevant[2, 0] = True
    irrelevant = ~relevant & ~np.eye(4, dtype=bool)
    # Query 0 ranks 1, 2, 3: a hit at 2, (0 / 1 + 1 / 2) / 2. Query 2 ranks 1, 3, 0: a hit at 3, (0 / 2 + 1 / 3) / 2.
    assert leave_one_out(vectors, relevant, irrelevant) == pytest.approx((1 / 4 + 1 / 6) / 2)
    irrelevant[0, 1] = False  # junk
    assert leave_one_out(vectors, relevant, irrelevant) == pytest.approx((1 + 1 / 6) / 2)
    assert np.isnan(leave_one_out(vectors, relevant & False, irrelevant))


def test_validation_measures_the_network_and_notes_bad_images(tmp_path):
    images = pictures(tmp_path, landmarks=3, each=4)
    network, bad = tiny(images), {}
    (tmp_path / "1/2.png").write_bytes(b"")
    score = Validation(images, Relations(images.labels), SETTINGS, bad)(network)
    good = [index for index in range(12) if images.names[index] != "1/2.png"]
    vectors = extract(network, [images.paths[index] for index in good], SETTINGS).vectors
    relations = Relations(np.array(images.labels)[good])
    every = np.arange(11)
    assert score == pytest.approx(leave_one_out(vectors, relations.relevant(every), relations.irrelevant(every)))
    assert list(bad) == ["1/2.png"]
    for path in images.paths[1:]:
        path.unlink(missing_ok=True)
    with pytest.raises(LearningError, match="none of the 1 validation images"):
        Validation(images, Relations(images.labels), SETTINGS, bad)(network)


@pytest.mark.parametrize("labels", [(0, 0, 0), (0, 1, 2)])
def test_validation_needs_relevant_and_irrelevant_images(tmp_path, labels):
    images = pictures(tmp_path, landmarks=1, each=3)
    with pytest.raises(LearningError, match="several landmarks"):
        Validation(replace(images, labels=labels), Relations(labels), SETTINGS, {})


def collection(labels):
    names = tuple(map(str, range(len(labels))))
    return LabelledImages("c", None, names, names, tuple(labels), (None,) * len(names), ("a", "b", "c"))


def test_hold_out():
    images = collection([0] * 40 + [1] * 4 + [2] * 3)
    kept, held_out = hold_out(images, share=0.1, seed=1)
    assert [np.bincount(part.labels, minlength=3).tolist() for part in (kept, held_out)] == [[36, 2, 3], [4, 2, 0]]
    assert sorted(kept.names + held_out.names) == sorted(images.names)
    assert all(images.labels[int(name)] == label for name, label in zip(held_out.names, held_out.labels, strict=True))
    assert (kept.name, held_out.name, kept.label_names) == ("c_train", "c_validation", ("a", "b", "c"))
    assert hold_out(images, 0.1, 1)[1].names == held_out.names != hold_out(images, 0.1, 2)[1].names
    with pytest.raises(LearningError, match="four images or more"):
        hold_out(collection([0, 0, 0, 1, 1]))
