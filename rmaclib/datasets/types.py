"""What the readers return: a retrieval data set with its queries, or a collection of labelled images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rmaclib.boxes import Box
from rmaclib.errors import RmacError

# Every other grade is junk: neither right nor wrong.
POSITIVE_GRADES = ("good", "ok", "easy", "hard", "relevant")


class DatasetError(RmacError, ValueError):
    """A data set that can't be read as it stands; the message names the file, and the line if any."""


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
    raises ValueError when the four differ in length
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

    def __post_init__(self):
        lengths = [len(self.names), len(self.paths), len(self.labels), len(self.boxes)]
        if len(set(lengths)) > 1:
            raise ValueError(f"{self.name}: expected as many names, paths, labels and boxes, got {lengths}")

    def part(self, indices: Sequence[int], name: str = "") -> "LabelledImages":
        """Some of the images, in the order given, under another name if one is given."""
        columns = [tuple(column[index] for index in indices)
                   for column in (self.names, self.paths, self.labels, self.boxes)]
        return LabelledImages(name or self.name, self.root, *columns, self.label_names, (), self.publishable)

    @property
    def counts(self) -> dict[str, int]:
        """Number of images and of different labels among them."""
        return {"images": len(self.names), "landmarks": len(set(self.labels))}
