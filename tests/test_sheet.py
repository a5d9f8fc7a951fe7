import numpy as np
import pytest
from PIL import Image, ImageColor

from rmaclib import sheet
from rmaclib.foundation.errors import InputError, OutputError


def has(picture, colour):
    wanted = np.array(ImageColor.getrgb(colour))
    return (np.abs(np.asarray(picture).astype(int) - wanted).max(-1) < 3).any()


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", (600, 400), "magenta").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_line_for_each_five(photo, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    neighbours = [(f"0.{number}  a\n☺.png", photo) for number in range(6)]
    picture = sheet.neighbours_sheet(photo, (60, 40, 300, 200), neighbours)
    five = sheet.neighbours_sheet(photo, None, neighbours[:5])
    assert picture.width == five.width and picture.height > 1.8 * five.height
    assert has(picture, "magenta") and has(picture, sheet.QUERY) and has(picture, sheet.NEIGHBOUR)
    assert has(picture, sheet.BOX) and not has(five, sheet.BOX)
    short = sheet.neighbours_sheet(tmp_path / "bad.png", None, [("", tmp_path / "bad.png")])
    assert has(short, sheet.EMPTY) and not has(short, "magenta") and short.width < five.width / 2
    assert sheet.neighbours_sheet(photo, None, []).height == five.height


def test_the_box_is_where_it_was(photo):
    whole = np.asarray(sheet.neighbours_sheet(photo, (150, 100, 450, 300), []))
    rows, columns = np.nonzero(np.abs(whole.astype(int) - np.array(ImageColor.getrgb("yellow"))).max(-1) < 3)
    # 600 pixels are drawn on 200: the box is 100 × 67 pixels.
    assert abs(np.ptp(columns) - 100) <= 1 and abs(np.ptp(rows) - 67) <= 1


def test_captions_stay_over_their_pictures():
    font = sheet._font()
    assert sheet._shortened("short", font) == "short"
    long = sheet._shortened("0.123  " + "w" * 100, font)
    assert long.startswith("0.123  w") and long.endswith("w…") and font.getlength(long) <= 200


@pytest.mark.parametrize("suffix, kind", sheet.FORMATS.items())
def test_every_format(photo, tmp_path, suffix, kind):
    sheet.save_sheet(sheet.neighbours_sheet(photo, None, []), tmp_path / "new" / f"n{suffix}")
    assert (tmp_path / "new" / f"n{suffix}").stat().st_size > 200
    if kind != "PDF":
        assert Image.open(tmp_path / "new" / f"n{suffix}").format == kind


def test_another_format_is_an_error(photo, tmp_path):
    with pytest.raises(InputError, match="n.gif"):
        sheet.save_sheet(sheet.neighbours_sheet(photo, None, []), tmp_path / "n.gif")
    with pytest.raises(OutputError, match="n.png"):
        sheet.save_sheet(sheet.neighbours_sheet(photo, None, []), photo / "n.png")
