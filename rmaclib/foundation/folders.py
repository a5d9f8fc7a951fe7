"""Output folders: which files in them belong to this library, and which process may write now.

A run writes only into a folder that is new, empty, or marked as ours. The marker file is written first. It contains the
kind of the run and a list of its files, each listed before it is written. A file that isn't listed is never replaced
and never removed. A lock beside the marker makes a second process wait.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from rmaclib.foundation.errors import InputError, OutputError
from rmaclib.foundation.files import is_line, is_temporary, read_json, sweep, write_json

MARKER, LOCK = ".rmac.json", ".rmac.lock"
_FORMAT, _VERSION = "rmaclib-folder", 1
_KINDS = {"clean": "a cleaned collection (rmac clean)", "training": "a training run (rmac train)",
          "descriptors": "descriptors (rmac extract)", "index": "an index (rmac index)"}
_SYSTEMS = re.compile(r"\.DS_Store|Thumbs\.db|desktop\.ini|lost\+found|\.nfs.*")  # files that operating systems add
_PATIENCE = 0.5  # seconds of waiting for another process before a message says so

# Whether to wait for another process that writes to the folder; False with the commands' option --no-wait.
_waits: ContextVar[bool] = ContextVar("waits", default=True)

_opened: dict[str, "OutputFolder"] = {}  # by lock file: the folders that this process has opened


@contextmanager
def waiting(wait: bool) -> Iterator[None]:
    """Choose whether ``output_folder`` waits for other processes in this block. Outside of such a block it does.

    Args:
        wait: False makes it fail at once.
    """
    token = _waits.set(wait)
    try:
        yield
    finally:
        _waits.reset(token)


class OutputFolder:
    """A folder that this process may write to, as ``output_folder`` gives it.

    ``folder / name`` is the path of a file in it.

    Attributes:
        path: The folder.
        kind: "clean", "training", "descriptors" or "index".
    """

    def __init__(self, path: Path, kind: str, files: Iterable[str]):
        self.path, self.kind, self._files = path, kind, set(files)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def will_write(self, names: Iterable[str]) -> None:
        """List files in the marker, before they are written.

        Args:
            names: Paths from the folder, with "/".

        Raises:
            OutputError: A file exists that isn't listed: it belongs to the user.
        """
        new = set(names) - self._files
        for name in sorted(new):
            if os.path.lexists(self.path / name):
                raise OutputError(f"{self.path / name}: would be replaced, and was not written by this library; move "
                                  "it away, or choose another folder")
        if new:
            self._files |= new
            self._write_marker()

    def remove(self, names: Iterable[str]) -> None:
        """Remove listed files and the folders that become empty; files that aren't listed are left alone.

        Args:
            names: Paths from the folder, with "/".
        """
        names = set(names) & self._files
        if not names:
            return
        for name in names:
            (self.path / name).unlink(missing_ok=True)
        for folder in sorted(_folders_of(names), reverse=True):
            self._remove_if_empty(self.path / folder)
        self._files -= names
        self._write_marker()

    def listed(self, folder: str = "") -> set[str]:
        """Give the listed files.

        Args:
            folder: A sub-folder; "" for all files.

        Returns:
            Paths from the output folder, with "/".
        """
        return {name for name in self._files if not folder or name.startswith(f"{folder}/")}

    def sweep(self) -> None:
        """Remove temporary files that killed processes left in the folder and its sub-folders."""
        for folder in {"", *_folders_of(self._files)}:
            place = self.path / folder
            if os.path.isdir(place) and not os.path.islink(place):
                sweep(place, again=True)
                if folder and not any(name.startswith(f"{folder}/") and os.path.lexists(self.path / name)
                                      for name in self._files):
                    self._remove_if_empty(place)

    def _remove_if_empty(self, folder: Path) -> None:
        try:
            folder.rmdir()
        except OSError:
            pass  # it contains a file of the user, or another process removed it

    def _write_marker(self) -> None:
        write_json(self.path / MARKER, {"format": _FORMAT, "version": _VERSION, "kind": self.kind,
                                        "files": sorted(self._files)}, checksum=True)


def _folders_of(names: Iterable[str]) -> set[str]:
    """The sub-folders that contain files of these names, as paths from the output folder."""
    return {str(parent) for name in names for parent in PurePosixPath(name).parents if str(parent) != "."}


@contextmanager
def output_folder(folder: str | os.PathLike, kind: str, *,
                  recognise: Callable[[Path], Iterable[str] | None] | None = None) -> Iterator[OutputFolder]:
    """Open the folder of a run for writing, locked against other processes until the block ends.

    The same process may open the folder again inside the block.

    Args:
        folder: The folder; it is created where there is none.
        kind: "clean", "training", "descriptors" or "index".
        recognise: Takes a folder without a marker and returns the files that an older version wrote into it, as paths
            from the folder, or None when it is no such folder. The files are then listed as ours.

    Yields:
        The folder.

    Raises:
        InputError: The path isn't a line of UTF-8 text.
        OutputError: It is a file, a folder with other files in it, a folder of another kind, or can't be written;
            or another process writes to it inside ``waiting(False)``.
    """
    path = Path(folder)
    if not str(folder) or not is_line(str(folder)):
        raise InputError(f"output folder: expected a path that is a line of UTF-8 text, got {str(folder)!r}")
    _check_owner(path, kind, recognise)  # before anything is written into it
    # The resolved path: a folder that is opened again through a link must not wait for itself.
    lock = FileLock(os.path.join(os.path.realpath(path), LOCK), is_singleton=True)
    try:
        path.mkdir(parents=True, exist_ok=True)
        _acquire(lock, path)
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror or error})") from error
    try:
        files = _check_owner(path, kind, recognise)
        if lock.lock_counter > 1:
            yield _opened[lock.lock_file]  # one list of files for both
            return
        opened = _opened[lock.lock_file] = OutputFolder(path, kind, files)
        if not os.path.lexists(path / MARKER):
            opened._write_marker()
        opened.sweep()
        yield opened
    finally:
        lock.release()


def _acquire(lock: FileLock, path: Path) -> None:
    """Wait for the lock, with a message after a moment, or fail at once inside ``waiting(False)``."""
    try:
        lock.acquire(timeout=_PATIENCE if _waits.get() else 0)
        return
    except Timeout:
        if not _waits.get():
            raise OutputError(f"{path}: another process is writing to it; wait for it, or leave out --no-wait to do "
                              "so") from None
    print(f"{path}: another process is writing to it, waiting for it to end (--no-wait fails at once)",
          file=sys.stderr, flush=True)
    lock.acquire()


def _check_owner(path: Path, kind: str, recognise: Callable[[Path], Iterable[str] | None] | None) -> set[str]:
    """The files that the folder's marker lists, none of a new one. Raises OutputError unless it is ours or empty."""
    # os.path takes a path that can't be examined for a missing one; creating the folder then gives the reason.
    if not os.path.exists(path):
        if os.path.islink(path):
            raise OutputError(f"{path}: expected a folder to write to, found a link to nothing")
        return set()
    if not os.path.isdir(path):
        raise OutputError(f"{path}: expected a folder to write to, found a file")
    try:
        names = os.listdir(path)
    except OSError as error:
        raise OutputError(f"{path}: can't be read ({error.strerror})") from error
    if MARKER in names:
        return _files_in_marker(path, kind)
    names = [name for name in names if name != LOCK and not is_temporary(name) and not _SYSTEMS.fullmatch(name)]
    if not names:
        return set()
    older = recognise(path) if recognise else None
    if older is None:
        raise OutputError(f"{path}: expected a new or empty folder, or {_KINDS[kind]}, found other files "
                          f"({', '.join(sorted(names)[:3])}{' …' if len(names) > 3 else ''}); nothing was changed, "
                          "choose another folder")
    return set(older)


def _files_in_marker(path: Path, kind: str) -> set[str]:
    """The files that a marker lists. Raises OutputError for a damaged marker and one of another kind or version."""
    try:
        marker = read_json(path / MARKER, OutputError, "the list of what was written to this folder", checksum=True)
    except OutputError as error:
        raise OutputError(f"{error}; choose another folder") from error
    files = marker.get("files")
    if (marker.get("format") != _FORMAT or not isinstance(files, list)
            or any(not isinstance(name, str) or not _is_inside(name) for name in files)):
        raise OutputError(f"{path / MARKER}: expected the list of what was written to this folder, it is damaged; "
                          "choose another folder")
    if not isinstance(marker.get("version"), int) or marker["version"] > _VERSION:
        raise OutputError(f"{path / MARKER}: version {marker.get('version')}, this rmaclib reads up to {_VERSION}")
    if marker.get("kind") != kind:
        other = _KINDS.get(str(marker.get("kind")), "files of another kind")
        raise OutputError(f"{path}: contains {other}, expected {_KINDS[kind]} or a new folder; choose another folder")
    return set(files)


def _is_inside(name: str) -> bool:
    """Whether a path from the folder stays in it."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts


def is_output(folder: Path) -> bool:
    """Tell whether this library writes to a folder: its pictures are never read as photographs."""
    return os.path.isfile(os.path.join(folder, MARKER))


def refuse_inside(out: str | os.PathLike, images: str | os.PathLike) -> None:
    """Check that an output folder lies outside of the images.

    Args:
        out: The output folder; it need not exist yet.
        images: The folder, or list, that the images are read from.

    Raises:
        OutputError: ``out`` is that folder or lies in it.
    """
    inner, outer = (Path(os.path.realpath(path)) for path in (out, images))
    if os.path.isdir(outer) and (inner == outer or outer in inner.parents):
        raise OutputError(f"{out}: expected an output folder outside of the images ({images}), got one inside")
