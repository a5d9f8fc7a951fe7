"""Collect the book's sources under _build/PROFILE/book, build the HTML, and check it.

It has to open without a network, and numbers in its prose come from records.

    python book/build.py PROFILE

Run it in the repository's root, after the notebooks of the profile. The pages are in _build/html.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from check_offline import external_references
from check_prose import problems as unrecorded_numbers

HTML = Path("_build/html")


def stage(profile: str) -> Path:
    """Copy all sources of the book into one folder.

    Results of this build replace the recorded ones of the same profile.

    Args:
        profile: Name of the profile.

    Returns:
        The folder.
    """
    built = Path("_build") / profile
    book = built / "book"
    shutil.rmtree(book, ignore_errors=True)
    shutil.copytree("book", book, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(name, book / name)
    skip_failed = shutil.ignore_patterns("*.failed.ipynb")
    _copy_tree(built / "notebooks", book / "notebooks", ignore=skip_failed)
    _copy_tree(built / "explorer", book / "_explorer")
    _copy_tree(Path("data/results"), book / "_results")
    _copy_tree(built / "results", book / "_results" / profile)
    return book


def _copy_tree(source, target, **options):
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, **options)


def main() -> int:
    book = stage(sys.argv[1])
    # Built from scratch each time, which takes seconds: otherwise Sphinx keeps removed pages, writes a new table of
    # contents on changed pages only, and does not repeat the warnings of a failed build, so that the next one passes.
    for leftover in (HTML, Path("_build/.doctrees")):
        shutil.rmtree(leftover, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(book), "--path-output", "."]
    command += ["-n", "-W", "--keep-going", "-q"]
    status = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    problems = [f"a number in prose: {line}" for line in unrecorded_numbers()]
    problems += [f"needs the network: {line}" for line in ([] if status else external_references(HTML))]
    print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
    return 1 if status or problems else 0


if __name__ == "__main__":
    sys.exit(main())
