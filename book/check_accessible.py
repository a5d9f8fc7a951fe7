"""Checks the built book with axe-core in Chromium: no page may have a serious finding, or be wider than the screen.

    python book/check_accessible.py _build/html [--chromium /usr/bin/chromium]

Every page is opened from the disk on a narrow and on a wide screen, light and dark.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

SERIOUS = ("serious", "critical")
SCREENS = ((390, "light"), (1300, "dark"))  # width in pixels, theme


def findings(page: Page, axe: Axe) -> Iterator[str]:
    """What is wrong with the page that is open: a line for each rule that it breaks, with the first place."""
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if width > 0:
        yield f"{width} pixels wider than the screen"
    for violation in axe.run(page).response["violations"]:
        if violation["impact"] in SERIOUS:
            places = violation["nodes"]
            first = places[0]["html"].replace("\n", " ")[:160]
            yield f"{violation['id']} ({violation['impact']}, {len(places)} places): {violation['help']}: {first}"


def check_screen(folder: Path, chromium: str, width: int, theme: str) -> list[str]:
    """All findings of the pages below a folder on one screen, each line beginning with the page."""
    lines, axe = [], Axe()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        for path in sorted(folder.rglob("*.html")):
            place = path.relative_to(folder)
            if place.parts[0] == "_static":  # templates of the theme
                continue
            page.goto(path.resolve().as_uri())
            page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
            lines += [f"{place} ({width} pixels, {theme}): {line}" for line in findings(page, axe)]
        browser.close()
    return lines


def check(folder: Path, chromium: str) -> list[str]:
    """The findings on all screens, which are looked at side by side: a browser for each."""
    with ThreadPoolExecutor(len(SCREENS)) as executor:
        by_screen = executor.map(lambda screen: check_screen(folder, chromium, *screen), SCREENS)
        return [line for lines in by_screen for line in lines]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    options = parser.parse_args()
    if not options.chromium:
        print("error: no Chromium found; install it, or name it by --chromium", file=sys.stderr)
        return 2
    lines = check(options.folder, options.chromium)
    print("\n".join(lines) or f"{options.folder}: no serious finding")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
