"""Pictures per minute in which Diorama is rendered, building the monuments included, for its datasheet.

    PYTHONPATH=data/diorama python -m tests.benchmarks.diorama_render [--images 60] [--record data/results/embedded]

Draws whole subjects at random until there are enough pictures, so that building and rendering have the same shares
as in the full set.
"""

import argparse
import os
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from generator import contents, render
from rmaclib.results import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="chooses the subjects")
    parser.add_argument("--record", type=Path, help="folder of result records")
    options = parser.parse_args()
    subjects = defaultdict(list)
    for shot in contents():
        subjects[shot.subject].append(shot.path)
    order = sorted(subjects)
    random.Random(options.seed).shuffle(order)
    paths: list[str] = []
    while len(paths) < options.images:
        paths += subjects[order.pop()]
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        render(Path(folder), only=paths, workers=cores)
        seconds = time.monotonic() - started
    rate = 60 * len(paths) / seconds
    whole = len(contents())
    print(f"{len(paths)} pictures in {seconds:.0f} s on {cores} cores: {rate:.1f} a minute; "
          f"all {whole}: {whole / rate:.0f} min")
    if options.record:
        for name, value, unit in (("images_per_minute", rate, "images per minute"), ("cores", cores, "")):
            record(options.record, f"benchmarks/diorama/{name}", value, unit=unit, protocol="building included",
                   dataset={"name": "diorama", "counts": {"images": len(paths)}}, settings={"workers": cores},
                   seed=options.seed, seconds=seconds, notebook="benchmarks",
                   profile="embedded")


if __name__ == "__main__":
    main()
