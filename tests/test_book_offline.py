import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("check_offline", ROOT / "book" / "check_offline.py")
check_offline = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_offline)
external_references = check_offline.external_references


def page(folder, body):
    (folder / "page.html").write_text(f"<!doctype html><html><body>{body}</body></html>")
    return external_references(folder)


@pytest.mark.parametrize(
    "body",
    [
        '<script src="https://cdn.example.org/a.js"></script>',
        '<SCRIPT SRC="//cdn.example.org/a.js"></SCRIPT>',
        '<link rel="stylesheet" href="http://example.org/a.css">',
        '<link rel="preconnect" href="https://fonts.example.org">',
        '<img src="https://example.org/a.png">',
        '<img src="a.png" srcset="a.png 1x, https://example.org/b.png 2x">',
        '<iframe src="https://example.org/"></iframe>',
        '<svg><image xlink:href="https://example.org/a.png"/></svg>',
        "<style>@font-face { src: url('https://example.org/a.woff2') }</style>",
        '<style>@import "//example.org/a.css";</style>',
        '<p style="background: url(https://example.org/a.png)">x</p>',
        '<script>const LATER = "https://example.org/lib/index.js"</script>',
        '<script>load("https://example.org/a.js?v=2")</script>',
    ],
)
def test_references_to_other_servers_are_listed(tmp_path, body):
    lines = page(tmp_path, body)
    assert len(lines) == 1
    assert lines[0].startswith("page.html: ")
    assert "example.org" in lines[0]


@pytest.mark.parametrize(
    "body",
    [
        '<a href="https://example.org/a.js">a link</a>',
        '<link rel="canonical" href="https://example.org/"><link rel="author" href="//example.org">',
        '<script src="_static/a.js?v=1"></script><script src="../a.js"></script>',
        '<img src="data:image/png;base64,AAAA//BB"><img src="a//b.png">',
        "<p>url(https://example.org/a.png) in a text</p>",
        '<svg xmlns="http://www.w3.org/2000/svg"><use href="#part"/></svg>',
        '<script>const LINK = "https://example.org/page.html" // https://example.org/a.js</script>',
    ],
)
def test_references_that_load_nothing_pass(tmp_path, body):
    assert page(tmp_path, body) == []


def test_style_sheets_are_searched(tmp_path):
    (tmp_path / "_static").mkdir()
    style = "@font-face { src: url(https://example.org/a.woff2) } p { background: url(b.png) }"
    (tmp_path / "_static" / "a.css").write_text(style)
    assert page(tmp_path, "") == ["_static/a.css: https://example.org/a.woff2"]


def test_a_folder_without_pages_does_not_pass(tmp_path):
    with pytest.raises(ValueError, match="no HTML page"):
        external_references(tmp_path)


def test_the_built_book_needs_no_network():
    built = ROOT / "_build" / "html"
    if not (built / "index.html").is_file():
        pytest.skip("the book is not built; `make book` runs the same check")
    assert external_references(built) == []
