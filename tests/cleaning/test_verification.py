import numpy as np
import pytest
from cleaning_pictures import turned
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rmaclib.cleaning import VerificationSettings, verify
from rmaclib.cleaning.verification import along_border, degenerate, fit_affine, same_place

SIZE = (400, 300)


def points(count, seed=0, size=SIZE):
    return np.random.default_rng(seed).uniform(20, np.array(size) - 20, (count, 2))


def mapped(affine, left):
    return left @ affine[:, :2].T + affine[:, 2]


def view(degrees=10, scale=0.9, shift=(5, -8)):
    return turned(degrees, scale, shift, (200, 150))


def check(left, right, **values):
    return verify(left, right, SIZE, SIZE, VerificationSettings(**values))


def test_a_known_affine_and_its_outliers():
    left = points(60)
    right = mapped(view(), left)
    right[40:] = points(20, seed=5)
    verified = check(left, right)
    assert verified.reason == ""
    assert verified.affine == pytest.approx(view(), abs=1e-3)
    assert verified.inliers[:40].all() and verified.inliers[40:].sum() <= 1


@settings(max_examples=40)
@given(st.floats(-60, 60), st.floats(0.4, 2.2), st.floats(0.6, 1.6), st.floats(-50, 50), st.integers(0, 1000))
def test_affines_are_recovered_from_half_outliers(degrees, scale, stretch, shift, seed):
    affine = view(degrees, scale, (shift, -shift))
    affine[:, :2] = affine[:, :2] @ np.diag([stretch**0.5, stretch**-0.5])
    left = points(60, seed)
    right = mapped(affine, left)
    right[30:] = points(30, seed + 1)
    assume(np.abs(right[:30] - left[:30]).max(1).min() > 5)  # no overlay by chance
    verified = check(left, right)
    assert verified.reason == "" and verified.inliers[:30].all()
    assert mapped(verified.affine, left[:30]) == pytest.approx(right[:30], abs=2.5)


def test_pure_chance_is_no_edge():
    reasons = [check(points(40, seed), points(40, seed + 500)).reason for seed in range(20)]
    assert all(reasons)


def test_too_few_matches_and_none_at_all():
    left = points(7)
    assert check(left, mapped(view(), left)).reason == "few inliers"
    assert check(left, mapped(view(), left), min_inliers=7).reason == ""
    empty = check(points(0), points(0))
    assert empty.reason == "few inliers" and empty.affine is None and empty.inliers.shape == (0,)


@pytest.mark.parametrize("matrix, reason", [
    ([[-1, 0.1], [0.1, 1]], "mirrored"), ([[1.9, 0], [0, 0.5]], "stretch"), ([[1, 0], [2.4, 1]], "stretch"),
    ([[0.2, 0], [0, 0.2]], "scale"), ([[0.3, 0], [0, 0.3]], ""), ([[0, -1], [1, 0]], ""),
])
def test_degenerate_models(matrix, reason):
    affine = np.column_stack([matrix, [30, 12]])
    left = points(50)
    verified = check(left, mapped(affine, left))
    assert verified.reason == reason
    assert (verified.affine is None) == bool(reason) and verified.inliers.sum() == (0 if reason else 50)


def test_scale_is_relative_to_the_size_of_the_image():
    """A large file of the same view is the same view."""
    left = points(50)
    large = verify(left, left * 10 + [7, -3], SIZE, (4000, 3000))
    assert large.reason == "" and large.affine[0, 0] == pytest.approx(10)
    assert verify(left * 10 + [7, -3], left, (4000, 3000), SIZE).reason == ""


def test_inliers_on_a_line_fit_any_affine():
    left = points(40)
    left[:, 1] = 150 + 0.004 * left[:, 1]  # a caption: one line of text
    assert check(left, mapped(view(), left)).reason == "thin strip"
    assert check(left, mapped(view(), left), min_width=0).reason == ""


@pytest.mark.parametrize("bottom", [True, False])
def test_a_caption_does_not_link_two_photographs(bottom):
    """A bar with some text along the border, in pictures of different shapes, and a letter elsewhere."""
    left = points(24)
    left[:20, 1] = points(20, seed=3)[:, 1] / 300 * 25 + (274 if bottom else 0)
    right = left * [1.1, 0.9] + [4, 50 if bottom else 3]
    size = (440, 320) if bottom else (440, 280)

    def reason(**values):
        return verify(left, right, SIZE, size, VerificationSettings(**values)).reason

    assert reason() == "caption"
    assert reason(caption=0) == reason(min_inliers=8) == ""  # four elsewhere are half of eight
    left[:, 1] = 0.8 * left[:, 1] + 20  # a low wall in the middle of the pictures
    right = left * [1.1, 0.9] + [4, 50]
    assert reason() == ""


def test_places_along_a_border_by_hand():
    left = np.array([[10, 95], [10, 95], [10, 5], [10, 5], [10, 9.4], [10, 9.6], [10, 50]])
    right = np.array([[90, 195], [90, 5], [90, 5], [90, 195], [90, 5], [90, 5], [90, 100]])
    assert along_border(left, right, 100, 200, 0.1).tolist() == [True, False, True, False, True, False, False]
    assert not along_border(left, right, 100, 200, 0).any()


@pytest.mark.parametrize("right_size, offset", [
    (SIZE, (0, 0)), ((400, 260), (0, 0)), ((400, 260), (0, -40)), ((360, 300), (-40, 0)), ((380, 320), (-20, 20)),
])
def test_overlays_are_recognised_from_any_corner(right_size, offset):
    left = points(30)
    right = left + offset
    assert same_place(left, right, SIZE, right_size, 0.001).all()
    assert not same_place(left, right + [1.5, 0], SIZE, right_size, 0.001).any()


def test_overlays_are_recognised_when_they_grow_with_the_image():
    left = points(30)
    assert same_place(left, (left + 0.5) * 2.5 - 0.5, SIZE, (1000, 750), 0.001).all()


def test_an_overlay_does_not_link_two_photographs():
    left = points(30)
    verified = verify(left, left + 0.1, SIZE, SIZE, keypoints=700)
    assert verified.reason == "mark" and verified.affine is None
    assert verify(left, left + 0.1, SIZE, SIZE, VerificationSettings(marks=False), 700).reason == ""


def test_what_matches_beside_an_overlay_still_links():
    mark, left = points(30), points(40, seed=2)
    right = np.concatenate([mark, mapped(view(), left)])
    verified = verify(np.concatenate([mark, left]), right, SIZE, SIZE, keypoints=700)
    assert verified.reason == "" and verified.affine == pytest.approx(view(), abs=1e-3)
    assert not verified.inliers[:30].any() and verified.inliers[30:].all()


def test_one_photograph_twice_is_no_overlay():
    left = points(300)
    verified = verify(left, left, SIZE, SIZE, keypoints=700)
    assert verified.reason == "" and verified.inliers.all() and verified.affine == pytest.approx(np.eye(2, 3), abs=1e-6)


def test_fits_of_nothing():
    assert fit_affine(points(2), points(2), 3)[0] is None
    same = np.zeros((10, 2))
    affine, inside = fit_affine(same, same, 3)  # no three points span a plane
    assert affine is None or inside.shape == (10,)
    assert check(same, same + [9, 4]).reason


def test_the_order_of_reasons_by_hand():
    square = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    assert degenerate(np.diag([1.0, 1.0]), square, square, VerificationSettings()) == ""
    assert degenerate(np.diag([1.0, 1.0]), square, square * [1, 1e-3], VerificationSettings()) == "thin strip"
    # 4 corners: standard deviation 0.577 (n - 1)
    assert degenerate(np.eye(2), square, square, VerificationSettings(min_width=0.578)) == "thin strip"
    assert degenerate(np.eye(2), square, square, VerificationSettings(min_width=0.577)) == ""


@pytest.mark.parametrize("values", [{"min_inliers": 2}, {"tolerance": 0}, {"max_scale": 0.5}, {"mark_share": 2},
                                    {"caption": 0.5}, {"caption": -0.1}])
def test_bad_settings(values):
    with pytest.raises(ValueError, match="expected"):
        VerificationSettings(**values)
