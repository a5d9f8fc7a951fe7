"""What the readers return: a retrieval data set with its queries, or a collection of labelled images."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rmaclib.boxes import Box
from rmaclib.foundation.errors import InputError, RmacError
from rmaclib.foundation.files import as_line, is_line

# Every other grade is junk: neither right nor wrong.
POSITIVE_GRADES = ("good", "ok", "easy", "hard", "relevant")


class DatasetError(RmacError, ValueError):
    """A data set that can't be read as it stands; the message names the file, and the line if any."""


NOT_A_LINE = "its name is no line of UTF-8 text"
TWICE = "listed twice, counted once"
_SHOWN = 3  # examples in a note


class Skipped(NamedTuple):
    """What a reader left out.

    name: as written, or the path from the folder; reason: why; place: where it is written, such as "list.txt:3", ""
      where nothing is written down
    """

    name: str
    reason: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.place or as_line(self.name)}: {self.reason}"


@dataclass(frozen=True)
class Query:
    """One query of a retrieval data set.

    name: unique in its data set; image: name of the query image, in the database or not; path: its file
    box: the part of the image that is the query, None for all of it
    relevance: grade → names of database images. Grades: good, ok, junk (Oxford, Paris); easy, hard, junk
      (revisited); relevant (Holidays, folders)
    """

    name: str
    image: str
    path: Path
    box: Box | None
    relevance: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class RetrievalDataset:
    """A database of images and the queries to ask it.

    names, paths: the N database images; rankings are indices 0..N-1 into them
    missing: images that the ground truth names and that have no file, or that are known to be corrupt; they
      are neither in the database nor in any query's relevance
    publishable: whether its pictures may be shown in public
    """

    name: str
    layout: str
    root: Path
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    queries: tuple[Query, ...]
    missing: tuple[str, ...] = ()
    publishable: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Number of images and queries, and of positives and junk summed over the queries."""
        positives = [frozenset().union(*(query.relevance.get(grade, ()) for grade in POSITIVE_GRADES))
                     for query in self.queries]
        return {"images": len(self.names), "queries": len(self.queries),
                "positives": sum(map(len, positives)),
                "junk": sum(len(query.relevance.get("junk", ())) for query in self.queries)}

    def with_distractors(self, others: "RetrievalDataset | LabelledImages") -> "RetrievalDataset":
        """The same queries and answers in a larger database, as Oxford 105k is Oxford 5k and 100,000 pictures of other
        things (Section 5).

        others: images that answer no query, whose content isn't looked into; named "<name of others>/<their name>"
        raises DatasetError when the database has one of their files, or an image of such a name
        """
        added = tuple(f"{others.name}/{name}" for name in others.names)
        if taken := set(self.names).intersection(added):
            raise DatasetError(f"{self.name}: expected distractors of other names, got {min(taken)} of {others.name}")
        if same := set(self.paths).intersection(others.paths):
            raise DatasetError(f"{self.name}: expected distractors that are not in it, got {min(same)} "
                               f"of {others.name}")
        return replace(self, name=f"{self.name}_among_{others.name}", names=self.names + added,
                       paths=self.paths + others.paths, missing=self.missing + others.missing,
                       publishable=self.publishable and others.publishable)


@dataclass(frozen=True)
class LabelledImages:
    """A collection of images for training, cleaning or indexing (Section 3).

    names, paths, labels, boxes: one of each per image; labels count from 0; a box is None where unknown
    label_names: name of label 0, 1, …, where the collection has names
    missing: names that the list mentions and that have no file
    publishable: whether its pictures may be shown in public
    skipped: what else was left out: files that can't be named in a list, links to nothing, an image's second mention,
      and with skip_bad the rows that are refused otherwise
    raises InputError when the four differ in length
    """

    name: str
    root: Path
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    boxes: tuple[Box | None, ...]
    label_names: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ()
    publishable: bool = False
    skipped: tuple[Skipped, ...] = ()

    def __post_init__(self):
        lengths = [len(self.names), len(self.paths), len(self.labels), len(self.boxes)]
        if len(set(lengths)) > 1:
            raise InputError(f"{self.name}: expected as many names, paths, labels and boxes, got {lengths}")

    def part(self, indices: Sequence[int], name: str = "") -> "LabelledImages":
        """Some of the images, in the order given, under another name if one is given."""
        columns = [tuple(column[index] for index in indices)
                   for column in (self.names, self.paths, self.labels, self.boxes)]
        return LabelledImages(name or self.name, self.root, *columns, self.label_names, (), self.publishable)

    def usable(self, can_name: Callable[[int], bool] | None = None, places: Sequence[str] = (),
               by_label: bool = True) -> "LabelledImages":
        """Without the images whose names can't be written down, and with each file once under a label; the others are
        in `skipped`. A file under two labels stays under both: a photograph may show two landmarks.

        can_name: whether the image of an index can be named, as a list needs it; default: is_line of its name
        places: where each image is written down, see Skipped; by_label: False to have each file once at all
        """
        can_name = can_name or (lambda index: is_line(self.names[index]))
        kept, skipped, taken, real = [], [], set(), _RealPaths()
        for index, (name, path, label) in enumerate(zip(self.names, self.paths, self.labels, strict=True)):
            place = places[index] if places else ""
            if not can_name(index):
                skipped.append(Skipped(name, NOT_A_LINE, place))
            elif (file := (real(path), by_label and label)) in taken:
                skipped.append(Skipped(name, TWICE, place))
            else:
                taken.add(file)
                kept.append(index)
        if not skipped:
            return self
        columns = [tuple(column[index] for index in kept)
                   for column in (self.names, self.paths, self.labels, self.boxes)]
        names, paths, labels, boxes = columns
        return replace(self, names=names, paths=paths, labels=labels, boxes=boxes, skipped=(*self.skipped, *skipped))

    @property
    def under_several_labels(self) -> tuple[str, ...]:
        """Names of the images whose file is in it under more than one label, each once."""
        files = list(map(_RealPaths(), self.paths))
        labels = Counter(file for file, _ in set(zip(files, self.labels, strict=True)))
        return tuple({file: name for name, file in zip(self.names, files, strict=True) if labels[file] > 1}.values())

    @property
    def notes(self) -> list[str]:
        """Sentences that tell a user what was left out, and what may be a mistake; empty when there is nothing."""
        told = []
        if self.missing:
            told.append(_note(len(self.missing), "listed images are not there, left out", map(as_line, self.missing)))
        doubles = [f"{entry.place} {as_line(entry.name)}".strip() for entry in self.skipped if entry.reason == TWICE]
        if doubles:
            told.append(_note(len(doubles), "images are listed twice, counted once", doubles))
        others = [str(entry) for entry in self.skipped if entry.reason != TWICE]
        if others:
            told.append(_note(len(others), "files or rows are left out", others))
        if several := self.under_several_labels:
            told.append(_note(len(several), "images are listed under several labels, used under each", several))
        return told

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of what was skipped, names as lines of text: for the lists of images that can't be used. The
        reason begins with the place where there is one."""
        return tuple((as_line(entry.name), f"{entry.place}: {entry.reason}" if entry.place else entry.reason)
                     for entry in self.skipped if entry.reason != TWICE)

    @property
    def counts(self) -> dict[str, int]:
        """Number of images and of different labels among them."""
        return {"images": len(self.names), "landmarks": len(set(self.labels))}


class _RealPaths:
    """Paths without links, so that one file has one; each folder is looked up once."""

    def __init__(self):
        self.folders: dict[str, str] = {}

    def __call__(self, path: Path) -> str:
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(os.path.abspath(path))
        if folder not in self.folders:
            self.folders[folder] = os.path.realpath(folder)
        return os.path.join(self.folders[folder], name)


def _note(count: int, what: str, examples) -> str:
    examples = list(examples)
    return f"{count} {what}: {'; '.join(examples[:_SHOWN])}{' …' if count > _SHOWN else ''}"
