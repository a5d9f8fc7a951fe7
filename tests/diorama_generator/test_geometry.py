import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.geometry import FRONT, Model, opening, spread

LENGTHS = st.floats(0.1, 50)


def corners(model, material="wall"):
    surface = model.surfaces()[material]
    return surface.positions[surface.faces]  # (M, 3, 3)


def volume(triangles):
    """Of a closed surface that looks outward, by the divergence theorem."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


@given(LENGTHS, LENGTHS, LENGTHS, st.floats(-7, 7), st.floats(-4, 4))
def test_a_block_is_closed_and_looks_outward_in_any_frame(u, v, w, place, turn):
    model = Model()
    model.block(FRONT.at(place, 2, -place, turn), "wall", (0, u), (0, v), (-w, 0))
    triangles = corners(model)
    assert len(triangles) == 12
    assert volume(triangles) == pytest.approx(u * v * w, rel=1e-6)
    areas = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    assert np.abs(areas.sum(0)).max() < 1e-9 * (1 + u * v + v * w + u * w)


def test_a_tapered_block_is_a_frustum():
    model = Model()
    model.block(FRONT, "wall", (0, 2), (0, 3), (0, 2), taper=0.5)
    assert volume(corners(model)) == pytest.approx(3 / 3 * (4 + 1 + 2))


def test_a_turned_solid_has_the_volume_of_its_polygon():
    model = Model()
    model.turned(FRONT, "wall", [(0, 0), (2, 0), (2, 5), (0, 5)], sides=40)
    assert volume(corners(model)) == pytest.approx(5 * 40 / 2 * 4 * np.sin(2 * np.pi / 40), rel=1e-6)
    surface = model.surfaces()["wall"]
    assert np.linalg.norm(surface.normals, axis=1) == pytest.approx(np.ones(len(surface.normals)))


def test_solids_pyramids_and_roofs_look_outward():
    model = Model()
    model.solid(FRONT, "wall", [(0, 0), (2, 0), (2, 1), (0, 1)], 0, 3)
    assert volume(corners(model)) == pytest.approx(6)
    model = Model()
    model.pyramid(FRONT, "wall", 2, 3)
    tip_up = corners(model)
    assert (np.cross(tip_up[:, 1] - tip_up[:, 0], tip_up[:, 2] - tip_up[:, 0])[:, 2] > 0).all()


def test_frames_stay_right_handed_and_turn_the_right_way():
    right = FRONT.at(3, 1, 2, np.pi / 2)
    assert np.allclose(np.cross(right.u, right.v), right.w)
    assert np.allclose(right.w, FRONT.u)  # turned to look where u pointed
    assert np.allclose(right.origin, [3, -2, 1])  # w goes toward the viewer, at negative y
    assert np.allclose(FRONT.world([(1, 2, 3)]), [[1, -3, 2]])


def test_own_materials_are_kept_apart_by_side_and_others_not():
    model = Model()
    for side in ("front", "rear"):
        model.side = side
        model.block(FRONT, "wall", (0, 1), (0, 1), (0, 1))
        model.block(FRONT, "roof", (0, 1), (0, 1), (0, 1))
    assert sorted(model.surfaces()) == ["roof", "wall/front", "wall/rear"]
    assert len(model.surfaces()["roof"].faces) == 24
    model.rename("roof", "dome")
    assert "roof" not in model.surfaces() and len(model.surfaces()["dome"].faces) == 24


def test_texture_coordinates_are_metres():
    model = Model()
    model.block(FRONT, "wall", (0, 4), (0, 3), (-2, 0))
    surface = model.surfaces()["wall"]
    flat = surface.positions[surface.faces]
    on_texture = surface.uv[surface.faces]
    for a, b in ((0, 1), (1, 2), (2, 0)):
        assert np.linalg.norm(on_texture[:, a] - on_texture[:, b], axis=1) == pytest.approx(
            np.linalg.norm(flat[:, a] - flat[:, b], axis=1))


def test_degenerate_faces_are_left_out():
    model = Model()
    model.flat(FRONT, "wall", [(0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 0)], [(0, 1, 2), (0, 1, 3)])
    assert len(model.surfaces()["wall"].faces) == 1
    assert np.isfinite(model.surfaces()["wall"].normals).all()


@given(st.sampled_from(["flat", "round", "pointed", "horseshoe"]), st.floats(0.5, 10), st.floats(1.3, 4))
def test_openings_reach_their_height_and_go_from_left_to_right(shape, width, ratio):
    height = width * ratio
    spring, top = opening(width, height, shape)
    u, v = np.array(top).T
    assert v.max() == pytest.approx(height, rel=1e-6)
    assert v.min() == pytest.approx(spring, rel=1e-6, abs=1e-9)
    assert u[0] == pytest.approx(-u[-1]) and u[0] < 0
    assert np.allclose(u, -u[::-1]) and np.allclose(v, v[::-1])


def test_spread_by_hand():
    assert spread(4, 8) == [-3, -1, 1, 3]


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(-4, 4))
def test_a_placed_model_is_what_would_have_been_built_there(u, w, turn):
    built, moved = Model(), Model()
    there = FRONT.at(u, 0, w, turn)
    for model, frame in ((built, there), (moved, FRONT)):
        model.block(frame.at(1, 2, 3), "wall", (0, 2), (0, 3), (-1, 0))
        model.block(frame, "paint", (0, 1), (0, 1), (0, 1))
    placed = moved.placed(there, "beside")
    assert set(placed.surfaces()) == {"beside:wall", "paint"}
    assert corners(placed, "beside:wall") == pytest.approx(corners(built), abs=1e-9)
    assert corners(placed, "paint") == pytest.approx(corners(built, "paint"), abs=1e-9)
    surfaces = placed.surfaces()["beside:wall"], built.surfaces()["wall"]
    assert surfaces[0].normals == pytest.approx(surfaces[1].normals, abs=1e-9)
