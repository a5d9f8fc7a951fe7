"""What the readers return: a retrieval data set with its queries, or a collection of labelled images."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rmaclib.boxes import Box
from rmaclib.foundation.errors import InputError, RmacError
from rmaclib.foundation.files import as_line, is_line

# Images of every other grade are junk: neither relevant nor irrelevant.
POSITIVE_GRADES = ("good", "ok", "easy", "hard", "relevant")


class DatasetError(RmacError, ValueError):
    """A data set that can't be read; the text names the file, and the line where there is one."""


NOT_A_LINE = "its name is no line of UTF-8 text"
TWICE = "listed twice, counted once"
_SHOWN = 3  # examples in a note


class Skipped(NamedTuple):
    """An image that a reader left out.

    Attributes:
        name: As in the list, or the path from the folder.
        reason: Why it was left out.
        place: File and line that name it, such as "list.txt:3"; "" where there is no list.
    """

    name: str
    reason: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.place or as_line(self.name)}: {self.reason}"


@dataclass(frozen=True)
class Query:
    """One query of a retrieval data set (Section 5.1).

    Attributes:
        name: Unique in its data set.
        image: Name of the query image, which may be in the database.
        path: Its file.
        box: The part of the image that is the query, in pixels; None for the whole image.
        relevance: Grade → names of database images. Grades: good, ok, junk (Oxford, Paris); easy, hard, junk
            (revisited); relevant (Holidays, folders).
    """

    name: str
    image: str
    path: Path
    box: Box | None
    relevance: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class RetrievalDataset:
    """A database of images with queries and their ground truth (Section 5.1).

    Attributes:
        name: Of the data set.
        layout: "oxford", "revisited", "holidays" or "folder".
        root: Its folder.
        names: Of the N database images; rankings are indices 0..N-1 into them.
        paths: Files of the database images.
        queries: The queries.
        missing: Images of the ground truth that have no file or are known to be corrupt. They are neither in the
            database nor in the relevance of a query.
        publishable: Whether its images may be shown in public.
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
        positives = [set[str]().union(*(query.relevance.get(grade, ()) for grade in POSITIVE_GRADES))
                     for query in self.queries]
        return {"images": len(self.names), "queries": len(self.queries),
                "positives": sum(map(len, positives)),
                "junk": sum(len(query.relevance.get("junk", ())) for query in self.queries)}

    def with_distractors(self, others: "RetrievalDataset | LabelledImages") -> "RetrievalDataset":
        """Add distractors to the database, as Oxford 105k adds 100,000 images to Oxford 5k (Section 5).

        Queries and ground truth stay the same.

        Args:
            others: Images that are relevant to no query; this isn't checked. They are named
                "<name of others>/<their name>".

        Returns:
            The larger data set.

        Raises:
            DatasetError: The database contains one of their files, or an image of such a name.
        """
        added = tuple(f"{others.name}/{name}" for name in others.names)
        if equal := set(self.names).intersection(added):
            raise DatasetError(f"{self.name}: expected distractors of other names, got {min(equal)} of {others.name}")
        if shared := set(self.paths).intersection(others.paths):
            raise DatasetError(f"{self.name}: expected distractors that are not in it, got {min(shared)} "
                               f"of {others.name}")
        return replace(self, name=f"{self.name}_among_{others.name}", names=self.names + added,
                       paths=self.paths + others.paths, missing=self.missing + others.missing,
                       publishable=self.publishable and others.publishable)


@dataclass(frozen=True)
class LabelledImages:
    """A collection of images for training, cleaning or indexing (Section 3).

    Attributes:
        name: Of the collection.
        root: Its folder.
        names: One per image.
        paths: One file per image.
        labels: One landmark number per image, from 0.
        boxes: One box per image in its pixels, None where unknown.
        label_names: Names of the labels 0, 1, …, where the collection has names.
        missing: Names in the list that have no file.
        publishable: Whether its images may be shown in public.
        skipped: What else was left out: files that can't be named in a list, links to missing files, images that are
            listed again, and with ``skip_bad`` the rows that are errors otherwise.

    Raises:
        InputError: Names, paths, labels and boxes differ in length.
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

    def __post_init__(self) -> None:
        lengths = [len(self.names), len(self.paths), len(self.labels), len(self.boxes)]
        if len(set(lengths)) > 1:
            raise InputError(f"{self.name}: expected as many names, paths, labels and boxes, got {lengths}")

    def part(self, indices: Sequence[int], name: str = "") -> "LabelledImages":
        """Select images.

        Args:
            indices: Of the images, in the order wanted.
            name: Name of the selection; by default that of the collection.

        Returns:
            The selection, without the lists of what was left out.
        """
        return replace(self._select(indices), name=name or self.name, missing=(), skipped=())

    def of_landmarks(self, names: Collection[str], name: str = "", others: bool = False) -> "LabelledImages":
        """Select the images of some landmarks, such as those that no training may see.

        Args:
            names: Of the landmarks.
            name: Name of the selection; by default that of the collection.
            others: Select the images of all other landmarks instead.

        Returns:
            The selection, without the lists of what was left out.

        Raises:
            InputError: A landmark of which the collection has no image.
        """
        label_names = self.label_names or ()
        chosen = {label for label in set(self.labels) if label < len(label_names) and label_names[label] in names}
        if unknown := sorted(set(names) - {label_names[label] for label in chosen}):
            raise InputError(f"{self.name}: expected images of the landmarks {', '.join(unknown)}, found none")
        return self.part([index for index, label in enumerate(self.labels) if (label in chosen) != others], name)

    def usable(self, can_name: Callable[[int], bool] | None = None, places: Sequence[str] = (),
               by_label: bool = True) -> "LabelledImages":
        """Leave out images whose names can't be written to a list, and files that are listed more than once.

        A file under two labels stays under both: a photograph may show two landmarks.

        Args:
            can_name: Tells whether the image of an index can be named in a list; by default whether its name is a line.
            places: File and line that name each image, see ``Skipped``.
            by_label: False to keep each file only once, whatever its labels.

        Returns:
            The collection, with the others in ``skipped``.
        """
        can_name = can_name or (lambda index: is_line(self.names[index]))
        kept: list[int] = []
        skipped: list[Skipped] = []
        kept_files: set[tuple[str, int | None]] = set()
        real = _RealPaths()
        for index, (name, path, label) in enumerate(zip(self.names, self.paths, self.labels, strict=True)):
            place = places[index] if places else ""
            if not can_name(index):
                skipped.append(Skipped(name, NOT_A_LINE, place))
            elif (file := (real(path), label if by_label else None)) in kept_files:
                skipped.append(Skipped(name, TWICE, place))
            else:
                kept_files.add(file)
                kept.append(index)
        return replace(self._select(kept), skipped=(*self.skipped, *skipped)) if skipped else self

    def _select(self, indices: Sequence[int]) -> "LabelledImages":
        return replace(self, names=tuple(self.names[index] for index in indices),
                       paths=tuple(self.paths[index] for index in indices),
                       labels=tuple(self.labels[index] for index in indices),
                       boxes=tuple(self.boxes[index] for index in indices))

    @property
    def under_several_labels(self) -> tuple[str, ...]:
        """Names of the images whose file has more than one label, each once."""
        files = list(map(_RealPaths(), self.paths))
        labels = Counter(file for file, _ in set(zip(files, self.labels, strict=True)))
        return tuple({file: name for name, file in zip(self.names, files, strict=True) if labels[file] > 1}.values())

    @property
    def notes(self) -> list[str]:
        """Sentences for a user about what was left out and what may be a mistake; empty when there is nothing."""
        notes = []
        if self.missing:
            notes.append(_note(len(self.missing), "listed images are not there, left out", map(as_line, self.missing)))
        doubles = [f"{entry.place} {as_line(entry.name)}".strip() for entry in self.skipped if entry.reason == TWICE]
        if doubles:
            notes.append(_note(len(doubles), "images are listed twice, counted once", doubles))
        others = [str(entry) for entry in self.skipped if entry.reason != TWICE]
        if others:
            notes.append(_note(len(others), "files or rows are left out", others))
        if several := self.under_several_labels:
            notes.append(_note(len(several), "images are listed under several labels, used under each", several))
        return notes

    @property
    def left_out(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of the skipped images that are no doubles, for the lists of images that can't be used.

        Names are lines of text. A reason begins with the place where there is one.
        """
        return tuple((as_line(entry.name), f"{entry.place}: {entry.reason}" if entry.place else entry.reason)
                     for entry in self.skipped if entry.reason != TWICE)

    @property
    def counts(self) -> dict[str, int]:
        """Number of images and of landmarks: different labels among them."""
        return {"images": len(self.names), "landmarks": len(set(self.labels))}


class _RealPaths:
    """Resolves links, so that each file has one path; each folder is resolved once."""

    def __init__(self) -> None:
        self.folders: dict[str, str] = {}

    def __call__(self, path: Path) -> str:
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(os.path.abspath(path))
        if folder not in self.folders:
            self.folders[folder] = os.path.realpath(folder)
        return os.path.join(self.folders[folder], name)


def _note(count: int, what: str, examples: Iterable[str]) -> str:
    examples = list(examples)
    return f"{count} {what}: {'; '.join(examples[:_SHOWN])}{' …' if count > _SHOWN else ''}"
