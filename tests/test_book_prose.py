"""Numbers in the book's prose come from records, or are listed with a reason."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("check_prose", ROOT / "book" / "check_prose.py")
check_prose = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_prose)


def numbers_in(text):
    return [number.number for number in check_prose.numbers(text, "page.md")]


def test_decimals_percentages_and_points_are_found():
    assert numbers_in("It gains 3.4 points, 62.1 before; 30 % of 1,053 images, at 512 pixels.\n\nAgain 2 points.") == [
        "3.4 points", "62.1", "30 %", "2 points"]
    assert [number.line for number in check_prose.numbers("a\n\nb 1.5\n", "page.md")] == [3]


@pytest.mark.parametrize("text", [
    "It is {result}`photos/01_rmac/a/b | .2f` and `0.5`.", "$m = 0.1$", "[v](https://a.org/1.5)",
    "```\n0.5 %\n```", "````{plot} dots a\n:alt: 0.5\n````", "| --- | :-: |", "version 1.2.3", "L = 3, 512 pixels"])
def test_records_code_formulas_links_and_settings_are_left_out(text):
    assert numbers_in(text) == []


def test_an_entry_of_the_list_has_to_contain_the_number_and_what_is_around_it(tmp_path):
    number = next(check_prose.numbers("a margin of 0.1 is used", "network.md"))
    assert check_prose.allows({"text": "margin of 0\\.1", "why": "x"}, number)
    assert check_prose.allows({"text": "margin of 0\\.1", "page": "net.*", "why": "x"}, number)
    assert not check_prose.allows({"text": "margin of 0\\.1", "page": "rmac.md", "why": "x"}, number)
    assert not check_prose.allows({"text": "a margin", "why": "x"}, number)
    (tmp_path / "list.yml").write_text("- {text: margin}\n")
    with pytest.raises(ValueError, match="list.yml: expected text, why"):
        check_prose.read_allowed(tmp_path / "list.yml")


def test_the_book_has_no_number_without_a_record_and_the_list_no_entry_without_a_number():
    assert check_prose.problems() == []
