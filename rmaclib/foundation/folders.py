"""Output folders: who owns what in them, and who may write now.

A folder that a run writes into is new, empty, or one of ours: a marker file, written first, says what kind of run it
belongs to and lists every file the run writes, before it writes it. Files that the marker doesn't list are never
replaced and never removed. A lock beside the marker keeps a second process waiting.
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
          "descriptors": "descriptors (rmac describe)", "index": "an index (rmac index)"}
_SYSTEMS = re.compile(r"\.DS_Store|Thumbs\.db|desktop\.ini|lost\+found|\.nfs.*")  # that systems put into folders
_PATIENCE = 0.5  # seconds after which the wait for another process is told

# Whether a folder that another process writes to is waited for; the option --no-wait of the commands.
_waits: ContextVar[bool] = ContextVar("waits", default=True)

_opened: dict[str, "OutputFolder"] = {}  # by lock file: what this process may write to, or was


@contextmanager
def waiting(wait: bool) -> Iterator[None]:
    """Whether output_folder waits for other processes in this block; it does outside."""
    token = _waits.set(wait)
    try:
        yield
    finally:
        _waits.reset(token)


class OutputFolder:
    """A folder that this process may write to; see output_folder.

    path: of the folder; kind: a key of _KINDS
    """

    def __init__(self, path: Path, kind: str, files: Iterable[str]):
        self.path, self.kind, self._files = path, kind, set(files)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def will_write(self, names: Iterable[str]) -> None:
        """List files, by their paths from the folder with "/", before they are written.

        raises OutputError when one is there that isn't listed: it is the user's
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
        """Remove listed files, and the folders that this leaves empty; names that aren't listed are left alone."""
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
        """The files listed, or those of them in a sub-folder."""
        return {name for name in self._files if not folder or name.startswith(f"{folder}/")}

    def sweep(self) -> None:
        """Remove what killed processes left of files that were being written."""
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
            pass  # the user has put something there, or it is gone

    def _write_marker(self) -> None:
        write_json(self.path / MARKER, {"format": _FORMAT, "version": _VERSION, "kind": self.kind,
                                        "files": sorted(self._files)}, checksum=True)


def _folders_of(names: Iterable[str]) -> set[str]:
    """All folders, from the output folder, that files of these names lie in."""
    return {str(parent) for name in names for parent in PurePosixPath(name).parents if str(parent) != "."}


@contextmanager
def output_folder(folder: str | os.PathLike, kind: str, *,
                  recognise: Callable[[Path], Iterable[str] | None] | None = None) -> Iterator[OutputFolder]:
    """The folder of a run, made if it isn't there, locked for other processes until the block ends.

    kind: "clean", "training", "descriptors" or "index"
    recognise: of a folder without a marker, the files that a run of an older version wrote into it, by their paths
      from the folder; None when it is none. Such a folder is taken over.
    The same process may open a folder again inside the block.
    raises OutputError: a file, a folder with other things in it, one of another kind, one that can't be written, one
      that another process writes to when waiting(False) holds
    """
    path = Path(folder)
    if not str(folder) or not is_line(str(folder)):
        raise InputError(f"output folder: expected a path that is a line of UTF-8 text, got {str(folder)!r}")
    _check_owner(path, kind, recognise)  # before anything is written into it
    # Resolved: a folder that is opened again by another path, through a link, is not to wait for itself.
    lock = FileLock(os.path.join(os.path.realpath(path), LOCK), is_singleton=True)
    try:
        path.mkdir(parents=True, exist_ok=True)
        _acquire(lock, path)
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror or error})") from error
    try:
        files = _check_owner(path, kind, recognise)
        if lock.lock_counter > 1:
            yield _opened[lock.lock_file]  # whose list of files is the one that counts
            return
        opened = _opened[lock.lock_file] = OutputFolder(path, kind, files)
        if not os.path.lexists(path / MARKER):
            opened._write_marker()
        opened.sweep()
        yield opened
    finally:
        lock.release()


def _acquire(lock: FileLock, path: Path) -> None:
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


def _check_owner(path: Path, kind: str, recognise: Callable | None) -> set[str]:
    """The files that the folder's marker lists, none of a new one. raises OutputError unless it is ours or empty"""
    # Of os.path: what can't be looked at counts as not there, and making the folder then says why.
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
        return _listed(path, kind)
    names = [name for name in names if name != LOCK and not is_temporary(name) and not _SYSTEMS.fullmatch(name)]
    if not names:
        return set()
    older = recognise(path) if recognise else None
    if older is None:
        raise OutputError(f"{path}: expected a new or empty folder, or {_KINDS[kind]}, found other files "
                          f"({', '.join(sorted(names)[:3])}{' …' if len(names) > 3 else ''}); nothing was changed, "
                          "choose another folder")
    return set(older)


def _listed(path: Path, kind: str) -> set[str]:
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
        raise OutputError(f"{path}: holds {_KINDS.get(marker.get('kind'), 'something else')}, expected {_KINDS[kind]} "
                          "or a new folder; choose another folder")
    return set(files)


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts


def is_output(folder: Path) -> bool:
    """Whether a folder is one that this library writes to: its pictures are never taken for photographs."""
    return os.path.isfile(os.path.join(folder, MARKER))


def refuse_inside(out: str | os.PathLike, images: str | os.PathLike) -> None:
    """raises OutputError when `out` is the folder that images are read from, or lies in it."""
    inner, outer = (Path(os.path.realpath(path)) for path in (out, images))
    if os.path.isdir(outer) and (inner == outer or outer in inner.parents):
        raise OutputError(f"{out}: expected an output folder outside of the images ({images}), got one inside")
