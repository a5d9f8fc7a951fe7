"""Near-duplicates and postcards: what they show, and where."""

import numpy as np
import pytest

from generator.copies import box_in_copy, copied

# A dark square on a light ground.
PICTURE = np.full((120, 160, 3), 220, np.uint8)
PICTURE[40:80, 60:110] = 20
BOX = (60, 40, 110, 80)


@pytest.mark.parametrize("kind", ["postcard", "near_duplicate"])
@pytest.mark.parametrize("seed", range(6))
def test_a_copy_shows_the_picture_where_it_says(kind, seed):
    copy, place = copied(np.random.default_rng(seed), kind, PICTURE, "berg")
    assert copy.shape == PICTURE.shape and copy.dtype == np.uint8
    assert np.array_equal(copy, copied(np.random.default_rng(seed), kind, PICTURE, "berg")[0])
    x1, y1, x2, y2 = box_in_copy(BOX, place, 160, 120)
    grey = copy.mean(-1)
    assert grey[y1 + 2:y2 - 2, x1 + 2:x2 - 2].mean() < 70 < 150 < grey[y1 - 6:y1 - 2, x1:x2].mean()
    larger = (x2 - x1) / 50
    assert larger > 1 if kind == "near_duplicate" else larger < 1


def test_a_postcard_has_a_border_and_a_caption():
    copy, (scale, right, down) = copied(np.random.default_rng(1), "postcard", PICTURE * 0, "berg")
    below = copy[int(down + 120 * scale) + 2:].mean(-1)
    assert np.median(below) > 180 > 130 > below.min()  # letters on paper
    assert copy[:int(down) - 1].mean() > 180 and copy[60, 80].mean() < 60


def test_a_box_is_cut_at_the_borders_of_the_copy():
    place = np.array([2.0, -100.0, -10.0])
    assert box_in_copy((40, 20, 100, 60), place, 160, 120) == (0, 30, 100, 110)
    assert box_in_copy((0, 20, 40, 60), place, 160, 120) is None
