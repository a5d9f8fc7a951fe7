"""Does Diorama tell what photographs tell? Prints the two tables of the page miniature.md, from the records.

    python -m tests.benchmarks.agreement [--results data/results]

`make record` after a build brings the records, and with them the page, up to date.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from agreement import table  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "data" / "results", help="folder of all records")
    options = parser.parse_args()
    for rows in table(ROOT / "book" / "miniature.yml", options.results):
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print()


if __name__ == "__main__":
    main()
