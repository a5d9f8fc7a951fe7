"""Writing files whole: under a temporary name beside the target, renamed when complete. Telling when files change."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` when the block ends well and is removed when not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text whole, line ends as they are."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike, value) -> None:
    """Write strict JSON (no NaN) whole, readable by people."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def file_state(path: Path) -> tuple[int, int] | None:
    """(bytes, time of change in nanoseconds) of a file, to tell when it changes; None for a missing one, which counts
    as changed when it appears."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def files_fingerprint(names: Sequence[str], paths: Sequence[Path]) -> str:
    """Changes when a name or a file (size, time of change) does."""
    digest = hashlib.sha256()
    for name, path in zip(names, paths, strict=True):
        digest.update(repr((name, file_state(path))).encode())
    return digest.hexdigest()
