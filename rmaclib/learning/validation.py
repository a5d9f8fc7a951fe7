"""Retrieval among the images of a validation list, which chooses the best network of a training."""

from dataclasses import replace

import numpy as np
import torch

from rmaclib.datasets.types import LabelledImages
from rmaclib.evaluation.average_precision import trapezoid
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.foundation.errors import NotFiniteError
from rmaclib.learning import distributed
from rmaclib.learning.distributed import total
from rmaclib.learning.errors import LearningError
from rmaclib.learning.pairs import Relations
from rmaclib.learning.streams import Stream, generator
from rmaclib.learning.views import why_unreadable
from rmaclib.network import RMAC
from rmaclib.ranking import rank


def leave_one_out(descriptors: np.ndarray, relevant: np.ndarray, irrelevant: np.ndarray) -> float:
    """Measure retrieval when every image with a relevant other one is a query among the others.

    Args:
        descriptors: (n, D).
        relevant: (n, n) bool.
        irrelevant: (n, n) bool. Pairs that are neither, and the query itself, are skipped as junk.

    Returns:
        Mean average precision (trapezoid rule), 0..1; NaN when no image has a relevant other one.
    """
    queries = np.flatnonzero(relevant.any(1))
    if not len(queries):
        return float("nan")
    order = rank(descriptors[queries], descriptors)  # (Q, n)
    scores = []
    for query, ranking in zip(queries, order, strict=True):
        positive = relevant[query, ranking]
        ranks = np.cumsum(positive | irrelevant[query, ranking])[positive]
        scores.append(trapezoid(ranks, len(ranks)))
    return float(np.mean(scores))


def extract_together(network: RMAC, images: LabelledImages, indices: np.ndarray, settings: ExtractionSettings,
                     bad: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Extract descriptors of some images of a collection; of several processes each extracts its share.

    Args:
        network: As it is now.
        images: The collection.
        indices: (n,) which of its images.
        settings: Sizes, precision and device.
        bad: Filled with name -> reason for images that can't be read.

    Returns:
        (m,) int64, those of the indices that can be read, and (m, D) float32; the same in every process.
    """
    places = distributed.share(range(len(indices)))
    extracted = extract(network, [images.paths[indices[place]] for place in places], settings,
                        names=[str(place) for place in places], progress=False)
    descriptors, readable = torch.zeros(len(indices), network.dim), torch.zeros(len(indices), dtype=torch.int64)
    rows = [int(name) for name in extracted.names]
    descriptors[rows], readable[rows] = torch.from_numpy(np.array(extracted.vectors)), 1
    good = total(readable).numpy() == 1
    bad |= {images.names[index]: why_unreadable(images.paths[index]) for index in indices[~good]}
    return indices[good], total(descriptors).numpy()[good]


class Validation:
    """A validation list; calling it with a network measures that."""

    def __init__(self, images: LabelledImages, relations: Relations, settings: ExtractionSettings,
                 bad: dict[str, str]):
        """Check that retrieval can be measured.

        Args:
            images: The list.
            relations: Which of its images are relevant to each other.
            settings: How descriptors are extracted.
            bad: Filled with name -> reason for images that can't be read; they are left out.

        Raises:
            LearningError: No image has both a relevant and an irrelevant other one.
        """
        every = np.arange(len(images.names))
        if not (relations.relevant(every).any(1) & relations.irrelevant(every).any(1)).any():
            raise LearningError(f"{images.name}: expected validation images of several landmarks, two or more of "
                                "a landmark, found no image that has both a relevant and an irrelevant other one")
        self.images, self.relations, self.settings, self.bad = images, relations, settings, bad

    def __call__(self, network: RMAC) -> float:
        """Measure a network.

        Args:
            network: As it is now.

        Returns:
            Mean average precision of ``leave_one_out``, 0..1.

        Raises:
            NotFiniteError: Descriptors that are not finite.
            LearningError: No image that can be read has a relevant other one.
        """
        indices, descriptors = extract_together(network, self.images, np.arange(len(self.images.names)), self.settings,
                                                self.bad)
        if not np.isfinite(descriptors).all():
            raise NotFiniteError("descriptors of the validation images are not finite")
        score = leave_one_out(descriptors, self.relations.relevant(indices), self.relations.irrelevant(indices))
        if np.isnan(score):
            raise LearningError(f"{self.images.name}: none of the {len(indices)} validation images that can be read "
                                "has a relevant other one")
        return score


def hold_out(collection: LabelledImages, share: float = 0.1, seed: int = 0) -> tuple[LabelledImages, LabelledImages]:
    """Hold out a share of each landmark's images for validation, at least two.

    Landmarks that would keep fewer than two images for training are left whole.

    Args:
        collection: The images.
        share: 0..1.
        seed: Which images are chosen.

    Returns:
        The training images and the validation images.

    Raises:
        LearningError: No landmark has four images or more.
    """
    random = generator(seed, Stream.HELD_OUT)
    labels, is_held_out = np.array(collection.labels), np.zeros(len(collection.labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(2, round(share * len(members)))
        if len(members) - count >= 2:
            is_held_out[random.choice(members, count, replace=False)] = True
    if not is_held_out.any():
        raise LearningError(f"{collection.name}: expected a landmark with four images or more to hold out some for "
                            "validation, found none; give a validation list")
    training = collection.part(np.flatnonzero(~is_held_out).tolist(), f"{collection.name}_train")
    return (replace(training, skipped=collection.skipped),
            collection.part(np.flatnonzero(is_held_out).tolist(), f"{collection.name}_validation"))
