"""Pack a built book to keep or to hand on: pages, executed notebooks, records, and what each file is.

    python book/archive.py PROFILE [--out _build/book.tar.gz]

The archive has one folder: html/, notebooks/, results/, and MANIFEST with the SHA-256 and the size of every file and
the commit. Names are sorted, and times, owners and rights are the same everywhere, so the same files give the same
bytes.
"""

import argparse
import gzip
import hashlib
import io
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

from rmaclib.foundation.files import whole_file
from rmaclib.results import current_commit

FOLDER = "book"
TIME = 315532800  # 1980-01-01, the first that every archiver can store


def contents(profile: str, build: Path = Path("_build"), results: Path = Path("data/results")) -> dict[str, Path]:
    """The files of an archive.

    Args:
        profile: Name of the profile that was built.
        build: Folder of builds.
        results: Folder of recorded results; those of the build take the place of the profile's.

    Returns:
        Name in the archive -> file.

    Raises:
        FileNotFoundError: The book isn't built.
    """
    sources = {"html": build / "html", "notebooks": build / profile / "notebooks", "results": results,
               f"results/{profile}": build / profile / "results"}
    for name in ("html", "notebooks"):
        if not any(sources[name].rglob("*")):
            raise FileNotFoundError(f"{sources[name]}: expected a built book; run 'make book PROFILE={profile}' first")
    files = {}
    for name, folder in sources.items():
        wanted = "*.ipynb" if name == "notebooks" else "*.json" if name.startswith("results") else "*"
        files |= {f"{name}/{path.relative_to(folder).as_posix()}": path for path in folder.rglob(wanted)
                  if path.is_file() and not path.name.endswith(".failed.ipynb")}
    return files


def manifest(files: Mapping[str, bytes], commit: str) -> bytes:
    """A line for each file: SHA-256, bytes, name; the commit first."""
    lines = [f"commit {commit}"]
    lines += [f"{hashlib.sha256(data).hexdigest()} {len(data)} {name}" for name, data in sorted(files.items())]
    return ("\n".join(lines) + "\n").encode()


def pack(files: Mapping[str, Path], commit: str, out: Path) -> int:
    """Write the archive, complete or not at all.

    Args:
        files: Name in the archive -> file.
        commit: Of the working tree.
        out: The archive.

    Returns:
        Its size in bytes.
    """
    data = {name: path.read_bytes() for name, path in files.items()}
    data["MANIFEST"] = manifest(data, commit)
    with whole_file(out) as temporary, temporary.open("wb") as file, \
            gzip.GzipFile("", "wb", fileobj=file, mtime=TIME) as packed, \
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(data.items()):
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), TIME, 0o644
            archive.addfile(entry, io.BytesIO(content))
    return out.stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile")
    parser.add_argument("--out", type=Path, default=Path("_build/book.tar.gz"))
    options = parser.parse_args()
    commit = current_commit()
    try:
        files = contents(options.profile)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = pack(files, commit, options.out)
    print(f"{options.out}: {len(files)} files, {size / 1e6:.1f} MB, commit {commit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
