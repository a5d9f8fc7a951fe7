import numpy as np
import pytest

from generator import monuments, textures
from generator.geometry import FRONT, Model
from generator.parts import banner, panel, statue


@pytest.fixture(autouse=True)
def small_textures(monkeypatch):
    """Textures take most of the time, and what is tested here does not depend on their size."""
    monkeypatch.setattr(textures, "SIDE", 128)


def outline(monument):
    points = np.concatenate([surface.positions for surface in monument.model.surfaces().values()])
    return points.min(0), points.max(0)


@pytest.mark.parametrize("family", monuments.FAMILIES)
def test_a_monument_is_solid_sized_and_stands_on_the_ground(family):
    monument = monuments.build(7, family, 0)
    low, high = outline(monument)
    width, _, height = monument.size
    assert -1.5 < low[2] < 0.5 and high[2] == pytest.approx(height, rel=0.45)
    assert high[0] - low[0] == pytest.approx(width, rel=0.45)
    assert abs(high[0] + low[0]) < 0.45 * width  # its middle is at x = 0
    assert set(monument.textures) == set(monument.model.surfaces()) - {"paint"}
    for surface in monument.model.surfaces().values():
        assert np.isfinite(surface.positions).all() and np.isfinite(surface.uv).all()
        assert np.linalg.norm(surface.normals, axis=1) == pytest.approx(np.ones(len(surface.normals)), abs=1e-6)
    # The niche is looked at from outside: from behind, at eye level.
    assert monument.niche.origin[1] > 0 and monument.niche.w[1] > 0.9


def test_look_alikes_share_a_family_and_nothing_else():
    one, again, other = (monuments.build(seed, "temple", 2) for seed in (1, 1, 2))
    assert np.array_equal(outline(one), outline(again)) and not np.allclose(outline(one), outline(other))
    assert all(np.array_equal(one.textures[name].albedo, again.textures[name].albedo) for name in one.textures)
    wall, other_wall = (next(v.albedo for k, v in m.textures.items() if k.startswith("wall")) for m in (one, other))
    assert np.corrcoef(wall.ravel(), other_wall.ravel())[0, 1] < 0.5


def test_a_panel_has_its_opening():
    model = Model()
    panel(model, FRONT, 4, 5, "round", 2, 3, 1)
    surface = model.surfaces()["wall"]
    triangles = surface.positions[surface.faces]
    double = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.linalg.norm(double, axis=1).sum() / 2
    polygon = 32 / 2 * np.sin(2 * np.pi / 32) / 2  # half of a regular 32-gon about the round top
    assert area == pytest.approx(20 - (2 * 2 + polygon), rel=1e-6)


def test_statues_and_banners_keep_to_their_height():
    model = Model()
    statue(model, FRONT, 3.0, np.random.default_rng(0))
    points = np.concatenate([surface.positions for surface in model.surfaces().values()])
    assert points[:, 2].min() == pytest.approx(0) and points[:, 2].max() < 3.9
    model = Model()
    banner(model, FRONT, 2, 6, np.random.default_rng(0))
    points = np.concatenate([surface.positions for surface in model.surfaces().values()])
    assert np.ptp(points[:, 2]) == pytest.approx(6) and np.ptp(points[:, 0]) == pytest.approx(2)
