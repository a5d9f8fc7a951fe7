"""log.csv, one line for each update: written as training goes on, and read back."""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from rmaclib.foundation.errors import OutputError
from rmaclib.foundation.files import write_text
from rmaclib.learning.distributed import is_main
from rmaclib.learning.errors import LearningError
from rmaclib.learning.folder import note_once

Row = dict[str, float | None]


def read_log(path: str | os.PathLike) -> list[Row]:
    """Read the rows of a log.csv.

    Args:
        path: The file.

    Returns:
        One dictionary for each update, by the names of the columns; empty fields are None.

    Raises:
        LearningError: The file is missing or damaged; the text names it, and the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise LearningError(f"{path}: expected the log of a training run, can't be read ({error})") from error
    try:
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        head = next(lines, [])
        if head[:1] != ["update"]:
            raise LearningError(f"{path}: expected the log of a training run, its first line is damaged")
        return [_parsed(path, number, head, fields) for number, fields in enumerate(lines, 2)]
    except csv.Error as error:
        raise LearningError(f"{path}: expected the log of a training run, it is damaged ({error})") from error


def _parsed(path: Path, number: int, head: Sequence[str], fields: Sequence[str]) -> Row:
    try:
        row = {name: float(value) if value else None for name, value in zip(head, fields, strict=True)}
    except ValueError as error:
        raise LearningError(f"{path}: line {number}: expected {len(head)} numbers or nothing between commas, the line "
                            f"is damaged ({error})") from error
    if row["update"] is None:
        raise LearningError(f"{path}: line {number}: expected the number of an update, found none")
    return row


def lines_until(path: Path, update: int) -> list[str]:
    """Read the lines of a log up to an update, without its head.

    Args:
        path: The file.
        update: The last update that counts.

    Returns:
        The lines as they are written.

    Raises:
        LearningError: The file is missing or damaged.
    """
    read_log(path)  # or an error that names it
    lines = path.read_text(encoding="utf-8").split("\n")[1:-1]
    return [line for line in lines if float(line.split(",", 1)[0]) <= update]


class Log:
    """log.csv as it is written. Only the main process writes it, and has its rows.

    Attributes:
        columns: Names of the columns.
        rows: What ``read_log`` would give.
        lines: The same as text.
    """

    def __init__(self, path: Path, columns: Sequence[str], lines: Iterable[str] = ()):
        """Begin a log, or go on with one.

        Args:
            path: The file.
            columns: Names of the columns, "update" first.
            lines: Those that the state of the run knows; what a killed run wrote after it is cut.
        """
        self.columns, self.lines = columns, list(lines)
        self.rows: list[Row] = []
        self.file: FileIO | None = None
        self.path = path
        if not is_main():
            return
        text = "".join(f"{line}\n" for line in [",".join(columns), *self.lines])
        if self.lines and not _begins(path, text):
            note_once(f"{path}: was damaged, made again from the state")
        write_text(path, text)
        self.rows = read_log(path)
        with _writing(path):
            # Without a buffer: what a full disk didn't take is not tried again when the file is closed.
            self.file = path.open("ab", buffering=0)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: object) -> None:
        if self.file:
            with _writing(self.path):
                self.file.close()

    def write(self, row: Mapping[str, float | None]) -> None:
        """Append a row; columns that it lacks are empty.

        Args:
            row: By the names of the columns.

        Raises:
            OutputError: The disk doesn't take it.
        """
        if not self.file:
            return
        values = [row.get(name) for name in self.columns]
        fields = ["" if value is None else f"{value:.7g}" for value in values]
        self.lines.append(",".join(fields))
        rest = f"{self.lines[-1]}\n".encode()
        with _writing(self.path):
            while rest:  # a disk that is nearly full takes a part
                rest = rest[self.file.write(rest):]
        self.rows.append({name: float(value) if value else None
                          for name, value in zip(self.columns, fields, strict=True)})


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raises OutputError, naming the file, for what the system says against it."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror or error})") from error


def _begins(path: Path, text: str) -> bool:
    try:
        return path.read_bytes().startswith(text.encode())
    except OSError:
        return False
