"""The page that says what the miniature can and can't tell."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("myst_parser")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import agreement  # noqa: E402
from plot_directive import draw_agreement  # noqa: E402
from test_book import build  # noqa: E402

from rmaclib.results import load_results, record  # noqa: E402

MINIATURE = {"a": 0.2, "b": 0.3, "c": 0.5, "d": 0.4, "only_here": 0.9}
PHOTOGRAPHS = {"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.8, "only_there": 0.1}


def put(folder, notebook, miniature=MINIATURE, photographs=PHOTOGRAPHS, profile="embedded"):
    for values, data, place in ((miniature, "diorama", profile), (photographs, "oxford5k_subset", "photos")):
        for name, value in values.items():
            unit = "points" if name.endswith("gain") else "mAP"
            record(folder / place, f"{notebook}/{data}/{name}", value, unit=unit, protocol="oxford", settings={},
                   seed=0, seconds=1.0, dataset={"name": data, "counts": {"images": 9}}, notebook=notebook,
                   profile=place)


def test_settings_of_both_are_compared_and_nothing_else(tmp_path):
    put(tmp_path, "01_rmac", MINIATURE | {"x_gain": 0.1}, PHOTOGRAPHS | {"x_gain": 0.1})
    settings = agreement.shared_settings(*agreement.both_records(tmp_path, "01_rmac"))
    assert {name: pytest.approx(pair) for name, pair in settings.items()} == {
        "a": (20, 50), "b": (30, 60), "c": (50, 70), "d": (40, 80)}
    assert agreement.agreement(settings).mean == pytest.approx(0.8)  # 1 - 6 · 2 / (4 · 15)


def test_a_setting_that_full_has_is_taken_from_there(tmp_path):
    put(tmp_path, "01_rmac")
    put(tmp_path, "01_rmac", {"a": 0.9}, {}, "full")
    miniature, _ = agreement.both_records(tmp_path, "01_rmac")
    assert (miniature["a"].value, miniature["b"].value) == (0.9, 0.3)
    with pytest.raises(FileNotFoundError, match="03_learning: expected records of diorama"):
        agreement.both_records(tmp_path, "03_learning")


def test_claims_are_differences_with_their_signs(tmp_path):
    put(tmp_path, "01_rmac", MINIATURE | {"x_gain": 0.02}, PHOTOGRAPHS | {"x_gain": -0.01})
    claims = tmp_path / "claims.yml"
    claims.write_text("- {claim: d over c, notebook: 01_rmac, after: d, before: c, why: because}\n"
                      "- {claim: b over a, notebook: 01_rmac, after: b, before: a, why: unused}\n"
                      "- {claim: a gain, notebook: 01_rmac, after: x_gain}\n")
    effects = agreement.read_claims(claims, tmp_path)
    assert [claim.agrees for claim in effects] == [False, True, False]
    assert effects[0].miniature == pytest.approx(-10) and effects[0].photographs == pytest.approx(10)
    assert (effects[2].miniature, effects[2].photographs) == pytest.approx((2, -1))


@pytest.mark.parametrize("row, message", [
    ("{claim: x, notebook: 01_rmac, after: nowhere}", "x: no record 'nowhere' of 01_rmac"),
    ("{claim: x, notebook: 01_rmac, after: a, than: b}", "x: expected claim, notebook, after"),
])
def test_a_wrong_claim_is_named(tmp_path, row, message):
    put(tmp_path, "01_rmac")
    (tmp_path / "claims.yml").write_text(f"- {row}\n")
    with pytest.raises(ValueError, match=message):
        agreement.read_claims(tmp_path / "claims.yml", tmp_path)


def test_the_page_shows_the_order_of_every_notebook_and_the_sign_of_every_claim(tmp_path):
    for notebook in agreement.NOTEBOOKS:
        put(tmp_path / "_results", notebook)
    (tmp_path / "claims.yml").write_text("- {claim: d over c, notebook: 01_rmac, after: d, before: c, why: because}\n")
    status, html, messages = build(tmp_path, "```{agreement} claims.yml\n```\n", ["agreement"])
    assert (status, messages) == (0, "")
    assert html.count("+0.80") == len(agreement.NOTEBOOKS) and "<strong>differs</strong>" in html and "because" in html


def test_the_figure_has_a_panel_for_each_pair_and_names_what_differs(tmp_path):
    put(tmp_path, "01_rmac")
    records = [agreement.below(load_results(tmp_path / profile), f"01_rmac/{data}")
               for profile, data in (("embedded", "diorama"), ("photos", "oxford5k_subset"))]
    figure, rows = draw_agreement({"one": records[0], "one, photographs": records[1]})
    assert [axes.get_title(loc="left")[:9] for axes in figure.axes] == ["one: 0.80"]
    assert {text.get_text() for text in figure.axes[0].texts} == set("abcd")
    assert rows[1:] == [("one", "a", "20.00", "50.00"), ("one", "b", "30.00", "60.00"), ("one", "c", "50.00", "70.00"),
                        ("one", "d", "40.00", "80.00")]
    with pytest.raises(ValueError, match="one: expected settings that both data sets have, found 0"):
        draw_agreement({"one": records[0], "two": {}})


def test_the_claims_of_the_book_have_their_records():
    orders, signs = agreement.table(ROOT / "book" / "miniature.yml", ROOT / "data" / "results")
    assert len(orders) == 1 + len(agreement.NOTEBOOKS) and len(signs) > 10
    assert all(row[4] for row in signs if row[3] != "same"), "say why a sign differs"
