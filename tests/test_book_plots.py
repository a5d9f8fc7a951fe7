"""Figures that pages draw from records."""

import base64
import csv
import io
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("myst_parser")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from plot_directive import KINDS  # noqa: E402
from test_book import build  # noqa: E402

from rmaclib.results import load_results, record  # noqa: E402


def put(folder, key, value, unit="mAP", **settings):
    record(folder / "_results" / "photos", key, value, unit=unit, protocol="oxford", settings=settings, seed=0,
           seconds=1.0, dataset={"name": "towers", "counts": {"images": 9}}, notebook=key.split("/")[0],
           profile="photos")


def put_chain(folder, form, values):
    """Links a → b → c, and d beside c; each value with the interval of its change, a point to both sides."""
    before = {"a": "", "b": "a", "c": "b", "d": "c"}
    for key, value in values.items():
        put(folder, f"07_whole_chain/towers/{form}/{key}", value, link={
            "key": key, "label": f"link {key}", "before": before[key], "beside": key == "d", "code_size": 0})
        if before[key]:
            change = value - values[before[key]]
            put(folder, f"07_whole_chain/towers/{form}/{key}_gain", change, "points", low=change - 0.01,
                high=change + 0.01)


def put_maps(folder, of, values):
    for (size, level, maps), (value, time) in values.items():
        put(folder, f"01_rmac/{of}/efficientnet_lite0_{size}_l{level}_{maps}", value)
        if time:
            put(folder, f"01_rmac/{of}/efficientnet_lite0_{size}_l{level}_{maps}_time", time, "times")


def data_of(html):
    """The rows that the link below the figure saves."""
    packed = re.search(r'href="data:text/csv;base64,([^"]+)"', html)[1]
    return list(csv.reader(io.StringIO(base64.b64decode(packed).decode())))


def records(folder, start):
    found = load_results(folder / "_results" / "photos")
    return {key.removeprefix(f"{start}/"): result for key, result in found.items()
            if key.startswith(f"{start}/")}


def test_a_waterfall_reaches_the_page_with_its_data_and_without_identifiers(tmp_path):
    put_chain(tmp_path, "ours", {"a": 0.5, "b": 0.6, "c": 0.55, "d": 0.58})
    page = ("```{plot} waterfall photos/07_whole_chain/towers photos/07_whole_chain/towers\n:titles: Towers | Again\n"
            ':alt: b gains, "c" loses\n\nWhat a **link** adds.\n```\n')
    status, html, messages = build(tmp_path, page + page, more=["plot_directive"])
    assert (status, messages) == (0, "")
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(svgs) == 2 and all('role="img" aria-label="b gains, &quot;c&quot; loses"' in svg for svg in svgs)
    assert all(text in svgs[0] for text in ("Towers, ours", "link d", "+10.0", "currentColor", "var(--plot-relevant)"))
    assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'(href="#|url\(#)\w+', "", svgs[0]))  # no colour of its own
    identifiers = re.findall(r'id="([^"]+)"', "".join(svgs))
    assert len(set(identifiers)) == len(identifiers)
    assert "<style" not in "".join(svgs) and "http" not in "".join(svgs)
    assert "<strong>link</strong>" in html and "Measured by 07_whole_chain, profile photos" in html
    rows = data_of(html)
    assert rows[1:5] == [["Towers", "ours", "link a", "50.00", "", "0.00", "0.00"],
                         ["Towers", "ours", "link b", "60.00", "10.00", "9.00", "11.00"],
                         ["Towers", "ours", "link c", "55.00", "-5.00", "-6.00", "-4.00"],
                         ["Towers", "ours", "link d", "58.00", "3.00", "2.00", "4.00"]]


def test_forms_of_a_chain_stand_side_by_side(tmp_path):
    put_chain(tmp_path, "ours", {"a": 0.5, "b": 0.6})
    put_chain(tmp_path, "paper", {"a": 0.4, "b": 0.7})
    figure, rows = KINDS["waterfall"]({"Towers": records(tmp_path, "07_whole_chain/towers")})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Towers, paper", "Towers, ours"]
    assert [row[3] for row in rows[1:]] == ["40.00", "70.00", "50.00", "60.00"]


def test_maps_are_shown_with_the_levels_that_the_first_folder_chooses(tmp_path):
    settings = (512, 1, "last"), (512, 3, "last"), (320, 3, "5-0-last")
    put_maps(tmp_path, "held_out", dict(zip(settings, ((0.8, None), (0.7, None), (0.6, None)), strict=True)))
    put_maps(tmp_path, "test", dict(zip(settings, ((0.3, 1.0), (0.4, 1.2), (0.5, 0.5)), strict=True)))
    figure, rows = KINDS["maps"]({part: records(tmp_path, f"01_rmac/{part}") for part in ("held_out", "test")})
    assert [row[2:4] + row[5:] for row in rows[1:]] == [
        ("320", "3", "0.500", "60.00"), ("512", "1", "1.000", "80.00"),
        ("320", "3", "0.500", "50.00"), ("512", "1", "1.000", "30.00")]
    assert len(figure.axes) == 2


def test_a_forest_has_a_line_for_each_folder(tmp_path):
    for part, value, interval in (("near", 0.02, "[+1.0, +3.0]"), ("far", -0.01, "[-2.5, +0.5]")):
        put(tmp_path, f"train/{part}/gain", value, "points")
        put(tmp_path, f"train/{part}/gain_interval", interval, "")
    figure, rows = KINDS["forest"]({part: records(tmp_path, f"train/{part}") for part in ("near", "far")})
    assert rows[1:] == [("near", "2.00", "1.0", "3.0"), ("far", "-1.00", "-2.5", "0.5")]
    assert [text.get_text() for text in figure.axes[0].texts] == ["+2.0", "−1.0"]


@pytest.mark.parametrize(("line", "message"), [
    ("waterfall photos/07_whole_chain/nowhere\n:titles: A\n:alt: b", "expected the links of a chain"),
    ("forest photos/train/nowhere\n:titles: A\n:alt: b", "expected the record of a gain"),
    ("maps photos/01_rmac/nowhere\n:titles: A\n:alt: b", "expected feature maps"),
    ("waterfall photos/a photos/b\n:titles: A\n:alt: b", "as many as folders, 2"),
    ("waterfall photos/a\n:titles: A", ":alt:"),
    ("pie photos/a\n:titles: A\n:alt: b", "waterfall, maps, forest")])
def test_what_cannot_be_drawn_fails_the_build(tmp_path, line, message):
    status, _, messages = build(tmp_path, f"```{{plot}} {line}\n```\n", more=["plot_directive"])
    assert status != 0 and message in messages and "index.md" in messages


def test_codes_are_lines_of_accuracy_over_bytes(tmp_path):
    for name, value in {"pq_8": 0.3, "pq_64": 0.5, "pq_16": 0.4, "pq_pca128_8": 0.35, "binary_8": 0.2,
                        "uncompressed": 0.6}.items():
        put(tmp_path, f"06_compression/towers/{name}", value)
    put(tmp_path, "06_compression/towers/loss_64", -0.1, "points")
    figure, rows = KINDS["bytes"]({"Towers": records(tmp_path, "06_compression/towers")})
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines["PQ"] == [pytest.approx(point) for point in ([8, 30], [16, 40], [64, 50])]
    assert lines["PQ after PCA to 128"] == [pytest.approx([8, 35])]
    assert ("Towers", "not compressed", "", "60.00") in rows and len(rows) == 7
    with pytest.raises(ValueError, match="Towers: expected records of codes"):
        KINDS["bytes"]({"Towers": {}})


def test_settings_are_chosen_ordered_and_named_by_the_page(tmp_path):
    for name, value in {"mac": 0.53, "baseline": 0.62, "levels_1": 0.54}.items():
        put(tmp_path, f"01_rmac/towers/{name}", value)
    page = ("```{plot} dots photos/01_rmac/towers\n:titles: Towers\n"
            ":settings: baseline: L = 3 | mac: MAC | gone: none\n:alt: L = 3 is better\n\nA caption.\n```\n")
    status, html, messages = build(tmp_path, page, ["plot_directive"])
    assert (status, messages) == (0, "")
    assert data_of(html) == [["setting", "data", "mAP, %"], ["L = 3", "Towers", "62.00"], ["MAC", "Towers", "53.00"]]
    with pytest.raises(ValueError, match="expected settings"):
        KINDS["dots"]({"Towers": {}})


def test_a_forest_takes_single_gains(tmp_path):
    for name, value, ends in (("dba_gain", 0.072, "[+4.5, +10.3]"), ("qe_gain", 0.005, "[-1.3, +2.3]")):
        put(tmp_path, f"07_whole_chain/towers/paper/{name}", value, "points")
        put(tmp_path, f"07_whole_chain/towers/paper/{name}_interval", ends, "points")
    start = "photos/07_whole_chain/towers/paper"
    page = f"```{{plot}} forest {start}/dba_gain {start}/qe_gain\n:titles: DBA | QE\n:alt: DBA gains\n```\n"
    status, html, messages = build(tmp_path, page, ["plot_directive"])
    assert (status, messages) == (0, "")
    assert data_of(html)[1:] == [["DBA", "7.20", "4.5", "10.3"], ["QE", "0.50", "-1.3", "2.3"]]
