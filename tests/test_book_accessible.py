"""The check of the built book with axe-core: it finds what is wrong, and nothing else."""

import importlib.util
import shutil
from pathlib import Path

import pytest

pytest.importorskip("axe_playwright_python")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium, a Debian package")
ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("check_accessible", ROOT / "book" / "check_accessible.py")
check_accessible = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_accessible)

GOOD = "<h1>Towers</h1><p>Text.</p>"
PAGE = ("<!doctype html><html lang=en><head><title>Towers</title><meta charset=utf-8></head>"
        "<body><main>{}</main></body></html>")


def findings(folder, **pages):
    for name, body in pages.items():
        (folder / f"{name}.html").write_text(PAGE.format(body))
    return check_accessible.check(folder, CHROMIUM)


def test_bad_pages_are_named_with_what_is_wrong(tmp_path):
    lines = findings(tmp_path, good=GOOD, picture=GOOD + '<img src="a.png">', pale='<p style="color: #ccc">Text.</p>',
                     wide=GOOD + '<div style="width: 900px; height: 9px"></div>')
    assert all(line.startswith(("picture.html (", "pale.html (", "wide.html (390 pixels")) for line in lines)
    text = "\n".join(lines)
    assert "image-alt (critical" in text and "color-contrast (serious" in text
    assert " pixels wider than the screen" in text
    assert len([line for line in lines if line.startswith("wide")]) == 1


def test_templates_of_the_theme_are_no_pages(tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "macros.html").write_text("<html><body>{% macro %}</body></html>")
    assert findings(tmp_path, good=GOOD) == []
