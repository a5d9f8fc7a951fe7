"""Retrieval among the images of a validation list: what training is stopped and chosen by."""

from dataclasses import replace

import numpy as np
import torch

from rmaclib.datasets.types import LabelledImages
from rmaclib.evaluation.average_precision import trapezoid
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.foundation.errors import NotFiniteError
from rmaclib.learning.distributed import share, total
from rmaclib.learning.errors import LearningError
from rmaclib.learning.pairs import Relations
from rmaclib.learning.streams import Stream, generator
from rmaclib.learning.views import why_unreadable
from rmaclib.network import RMAC
from rmaclib.ranking import rank


def leave_one_out(descriptors: np.ndarray, relevant: np.ndarray, irrelevant: np.ndarray) -> float:
    """Mean average precision (trapezoid rule) when every image with a relevant other one queries the others.

    descriptors: (n, D); relevant, irrelevant: (n, n) bool; pairs that are neither, and the query itself, are
    skipped as junk. Returns nan when no image has a relevant other one.
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
    """Descriptors of some images of a collection; with several processes each describes its share.

    Returns (n,) int64, those of the indices that can be read, and (n, D) float32, the same in every process
    bad: filled with name -> reason for the others
    """
    mine = share(range(len(indices)))
    found = extract(network, [images.paths[indices[place]] for place in mine], settings,
                     names=[str(place) for place in mine], progress=False)
    vectors, good = torch.zeros(len(indices), network.dim), torch.zeros(len(indices), dtype=torch.int64)
    places = [int(place) for place in found.names]
    vectors[places], good[places] = torch.from_numpy(np.array(found.vectors)), 1
    vectors, good = total(vectors).numpy(), total(good).numpy() == 1
    bad |= {images.names[index]: why_unreadable(images.paths[index]) for index in indices[~good]}
    return indices[good], vectors[good]


class Validation:
    """A validation list; calling it with a network measures that.

    bad: filled with name -> reason for images that can't be read; they are left out
    raises LearningError when no image has a relevant and an irrelevant other one
    """

    def __init__(self, images: LabelledImages, relations: Relations, settings: ExtractionSettings,
                 bad: dict[str, str]):
        every = np.arange(len(images.names))
        if not (relations.relevant(every).any(1) & relations.irrelevant(every).any(1)).any():
            raise LearningError(f"{images.name}: expected validation images of several landmarks, two or more of "
                                "a landmark, found no image that has both a relevant and an irrelevant other one")
        self.images, self.relations, self.settings, self.bad = images, relations, settings, bad

    def __call__(self, network: RMAC) -> float:
        """Mean average precision of leave_one_out, 0..1. raises NotFiniteError: descriptors that are not"""
        kept, vectors = extract_together(network, self.images, np.arange(len(self.images.names)), self.settings,
                                          self.bad)
        if not np.isfinite(vectors).all():
            raise NotFiniteError("descriptors of the validation images are not finite")
        score = leave_one_out(vectors, self.relations.relevant(kept), self.relations.irrelevant(kept))
        if score != score:
            raise LearningError(f"{self.images.name}: none of the {len(kept)} validation images that can be read has a "
                                "relevant other one")
        return score


def hold_out(collection: LabelledImages, share: float = 0.1, seed: int = 0) -> tuple[LabelledImages, LabelledImages]:
    """(training, validation): a share of each landmark's images, at least two, is held out.

    Landmarks that would keep fewer than two images for training are left whole. raises LearningError when all are.
    """
    random = generator(seed, Stream.HELD_OUT)
    labels, held = np.array(collection.labels), np.zeros(len(collection.labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(2, round(share * len(members)))
        if len(members) - count >= 2:
            held[random.choice(members, count, replace=False)] = True
    if not held.any():
        raise LearningError(f"{collection.name}: expected a landmark with four images or more to hold out some for "
                            "validation, found none; give a validation list")
    training = collection.part(np.flatnonzero(~held), f"{collection.name}_train")
    return (replace(training, skipped=collection.skipped),
            collection.part(np.flatnonzero(held), f"{collection.name}_validation"))
