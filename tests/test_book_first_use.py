"""First uses of the words of the glossary."""

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("myst_parser")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from first_use import entries, pattern_of  # noqa: E402
from test_book import build  # noqa: E402

GLOSSARY = "# Words\n\n```{glossary}\nquery expansion\n  One.\n\nR-MAC\n  Two.\n\nanchor\n  Three.\n```\n"


def test_entries_are_the_lines_that_are_not_indented():
    assert entries(GLOSSARY) == ["query expansion", "R-MAC", "anchor"]
    words = entries((ROOT / "book" / "glossary.md").read_text())
    assert len(words) > 25 and len(words) == len(set(words))
    assert words == sorted(words, key=str.lower)


@pytest.mark.parametrize("word, text, expected", [
    ("anchor", "two anchors", "anchors"), ("anchor", "Anchors of", "Anchors"), ("anchor", "anchored", None),
    ("anchor", "re-anchor", None), ("R-MAC", "an R-MAC.", "R-MAC"), ("R-MAC", "r-mac", None), ("mAP", "map", None),
    ("mAP", "62 % mAP", "mAP"), ("IoU", "(IoU)", "IoU")])
def test_a_word_is_found_by_itself_with_a_capital_and_in_the_plural(word, text, expected):
    match = pattern_of(word).search(text)
    assert (match and match[0]) == expected


def test_the_first_use_in_running_text_leads_to_the_glossary(tmp_path):
    (tmp_path / "glossary.md").write_text(GLOSSARY)
    page = ("```{toctree}\nglossary\n```\n\n## On R-MAC\n\nThe `R-MAC` of an image. An R-MAC is whitened; no other "
            "R-MAC is.\n\n"
            "*Query expansion* has anchors and [an anchor](https://a.org).\n")
    status, html, messages = build(tmp_path, page, ["first_use"])
    assert (status, messages) == (0, "")
    links = re.findall(r'<a class="reference internal" href="glossary.html#term-([\w-]+)"[^>]*>(.*?)</a>', html)
    assert [(name, re.sub("<.*?>", "", text)) for name, text in links] == [
        ("R-MAC", "R-MAC"), ("query-expansion", "Query expansion"), ("anchor", "anchors")]
    assert "An <a" in html and "no other R-MAC is" in html


def test_without_a_glossary_nothing_changes(tmp_path):
    status, html, messages = build(tmp_path, "An R-MAC.", ["first_use"])
    assert (status, messages) == (0, "") and "An R-MAC." in html
