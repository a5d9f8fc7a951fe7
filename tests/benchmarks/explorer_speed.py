"""How long does the explorer of the front page take for a box? In Chromium, on one page, without its drawing.

    python tests/benchmarks/explorer_speed.py _build/embedded/explorer --record data/results
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from rmaclib.results import record

ROOT = Path(__file__).parents[2]
LIMIT = 150  # milliseconds
MEASURE = """([query, box, settings]) => {
    const began = performance.now();
    explorer.rank(query, box, settings);
    return performance.now() - began;
}"""


def main() -> None:
    """Rank for random boxes, print and record the median, fail above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that book/explorer/make.py has written")
    parser.add_argument("--boxes", type=int, default=50)
    parser.add_argument("--record", type=Path, help="folder for the records")
    options = parser.parse_args()
    chromium, started = shutil.which("chromium"), time.monotonic()
    if chromium is None:
        raise SystemExit("error: expected the browser Chromium, found none")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        for file in (*options.data.iterdir(), ROOT / "book/explorer/explorer.js", ROOT / "book/explorer/page.js"):
            shutil.copy(file, folder)
        (Path(folder) / "index.html").write_text(
            '<!DOCTYPE html><div class="explorer" data-folder="."></div>'
            '<script defer src="explorer.js"></script><script defer src="page.js"></script>')
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"file://{folder}/index.html")
        page.wait_for_selector(".ranking li")
        about = page.evaluate("({images: explorer.about().images.length, queries: explorer.about().queries.length})")
        rng = np.random.default_rng(0)
        for name, settings in (("one resolution, two levels", {"levels": 2, "several": False}),
                               ("three resolutions, three levels", {"levels": 3, "several": True})):
            settings |= {"network": "trained", "dba": 0, "qe": 1, "bytes": 128}
            page.evaluate(MEASURE, [0, [0, 0, 1, 1], settings])  # makes the database
            spent = []
            for _ in range(options.boxes):
                x, y = rng.uniform(0, 0.7, 2)
                box = [x, y, rng.uniform(x + 0.05, 1), rng.uniform(y + 0.05, 1)]
                spent.append(page.evaluate(MEASURE, [int(rng.integers(about["queries"])), box, settings]))
            median, largest = statistics.median(spent), max(spent)
            print(f"{name}: median {median:.1f} ms, largest {largest:.1f} ms, {about['images']} images")
            if options.record:
                key = f"benchmarks/explorer/{name.replace(', ', '_').replace(' ', '_')}"
                for what, value in (("median", median), ("largest", largest)):
                    record(options.record / "embedded", f"{key}_{what}", value, unit="ms",
                           protocol="time of a ranking in Chromium",
                           dataset={"name": "diorama", "counts": {"images": about["images"], "boxes": options.boxes}},
                           settings=settings, seed=0, seconds=time.monotonic() - started, notebook="benchmarks",
                           profile="embedded")
            if median > LIMIT:
                raise SystemExit(f"error: {name}: expected at most {LIMIT} ms, got {median:.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
