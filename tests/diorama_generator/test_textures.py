import numpy as np
import pytest

from generator import textures

GREY = (0.5, 0.5, 0.5)
MAKERS = {
    "stone": lambda rng: textures.stone(rng, GREY), "brick": lambda rng: textures.brick(rng, GREY),
    "plaster": lambda rng: textures.plaster(rng, GREY), "marble": lambda rng: textures.marble(rng, GREY),
    "tiles": lambda rng: textures.tiles(rng, GREY), "metal": lambda rng: textures.metal(rng, GREY),
    "paving": lambda rng: textures.paving(rng, GREY), "asphalt": textures.asphalt, "grass": textures.grass,
    "mosaic": lambda rng: textures.mosaic(rng, np.eye(3)), "inscription": lambda rng: textures.inscription(rng, GREY),
    "house_front": textures.house_front, "glass": textures.glass,
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_textures_are_albedos_that_follow_from_their_seed(name):
    first, again, other = (MAKERS[name](np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.albedo.shape == (textures.SIDE, textures.SIDE, 3) and first.metres > 0
    assert np.isfinite(first.albedo).all() and first.albedo.min() > -0.1 and first.albedo.mean() < 0.9
    assert np.array_equal(first.albedo, again.albedo)
    # No two match: the same place looks different under another seed.
    assert np.corrcoef(first.albedo.ravel(), other.albedo.ravel())[0, 1] < 0.9
    assert first.albedo.std() > 0.01


def test_masonry_has_courses_of_the_height_asked_for():
    albedo = textures._masonry(np.random.default_rng(0), GREY, 0.5, 0.1, 24.0, 0.2, 1.9)
    joints = (np.abs(albedo - 0.1).max(-1) < 1e-6).mean(1) > 0.9  # rows that are mortar
    starts = np.flatnonzero(np.diff(joints.astype(int)) == 1)
    heights = np.diff(starts) * 24.0 / textures.SIDE
    assert 0.35 < heights.min() and heights.max() < 0.70 and heights.mean() == pytest.approx(0.5, abs=0.06)


def test_clouds_have_about_unit_spread():
    field = textures.clouds(np.random.default_rng(0), 512, 512, 16)
    assert abs(field.mean()) < 0.2 and 0.5 < field.std() < 1.2


@pytest.mark.parametrize("pattern", textures.PATTERNS)
def test_a_pattern_tints_a_part_of_a_wall_and_differs_between_buildings(pattern):
    plain = textures.Texture(np.full((256, 256, 3), 0.4, np.float32), 12.0)
    one, again, other = (textures.dressed(plain, textures.Dress(pattern, (0.5, 1.0, 1.5), 3.0, motif))
                         for motif in (1, 1, 2))
    assert np.array_equal(one.albedo, again.albedo) and one.metres == 12.0
    assert not np.array_equal(one.albedo, other.albedo) or pattern == "chequer"
    tinted = one.albedo[..., 0] < 0.3
    assert 0.05 < tinted.mean() < 0.95
    assert one.albedo[tinted].mean(0) == pytest.approx([0.2, 0.4, 0.6], abs=0.05)
    repeated = one.albedo[:, :192], one.albedo[:, 64:]  # 3 of 12 m are 64 of 256 pixels
    if pattern != "timber":  # whose braces are chosen one by one
        assert np.abs(repeated[0][8:-8, 8:-8] - repeated[1][8:-8, 8:-8]).mean() < 0.06
