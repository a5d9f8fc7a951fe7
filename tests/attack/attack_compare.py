"""What a run left in its folder: its contents, to be compared with another run's, and what doesn't belong there."""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from pathlib import Path

MARKER, LOCK = ".rmac.json", ".rmac.lock"


def contents(folder: Path) -> dict[str, str]:
    """Path from the folder -> digest, of every file that two equal runs write alike."""
    return {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != LOCK}


def _digest(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        data = _sorted_header(data, path.name == "state.safetensors")
    if path.name == "log.csv":
        data = _without_seconds(data.decode())
    return hashlib.sha256(data).hexdigest()


def _sorted_header(data: bytes, of_a_run: bool) -> bytes:
    """A .safetensors file with the keys of its header in order: those of its metadata come in any.

    The metadata of a run are left out: they contain seconds, and the lines of log.csv, which is compared by itself.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    if of_a_run:
        del header["__metadata__"]
    return json.dumps(header, sort_keys=True).encode() + data[end:]


def _without_seconds(text: str) -> bytes:
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(io.StringIO(text))]
    return json.dumps(rows).encode()


def difference(actual: dict[str, str], expected: dict[str, str]) -> str:
    """How contents differ from those expected, "" when they don't."""
    missing, more = sorted(expected.keys() - actual.keys()), sorted(actual.keys() - expected.keys())
    other = sorted(name for name in expected.keys() & actual.keys() if actual[name] != expected[name])
    parts = [f"{what}: {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"
             for what, names in (("missing", missing), ("left over", more), ("other content", other)) if names]
    return "; ".join(parts)


def left_over(folder: Path) -> str:
    """Files that the marker of a folder doesn't list, and empty folders; "" without any."""
    if not (folder / MARKER).is_file():
        return f"everything: no {MARKER}"
    listed = set(json.loads((folder / MARKER).read_text())["files"])
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    others = sorted(names - listed - {MARKER, LOCK})
    empty = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                   if path.is_dir() and not any(path.iterdir()))
    return ", ".join((others + empty)[:5])


def index_contents(folder: str) -> dict[str, str]:
    """What an index contains, as a search returns it: the numbers of its files depend on how it was made.

    Runs in a child of attack_server.
    """
    import numpy as np

    from rmaclib.search.vector_index import VectorIndex

    index = VectorIndex.load(folder)
    queries = np.random.default_rng(0).standard_normal((3, index.dim)).astype(np.float32)
    neighbours = index.search(queries, max(1, len(index)))
    text = json.dumps([index.names, index.about, neighbours])
    files = Counter(re.sub("[0-9]{6}", "NUMBER", name) for name in contents(Path(folder)))
    return {"what a search returns": hashlib.sha256(text.encode()).hexdigest(), "vectors": f"{len(index)}",
            **{name: f"{count} files" for name, count in files.items()}}


def index_names(folder: str) -> list[str]:
    """Names in an index. Runs in a child of attack_server."""
    from rmaclib.search.vector_index import VectorIndex

    return list(VectorIndex.load(folder).names)
