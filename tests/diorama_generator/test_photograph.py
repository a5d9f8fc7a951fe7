import numpy as np
import pytest

pytest.importorskip("mitsuba")

from generator import drawings  # noqa: E402
from generator.geometry import FRONT, PAINT, Model  # noqa: E402
from generator.photograph import (  # noqa: E402
    Camera,
    Film,
    Light,
    Stage,
    add_passers_by,
    add_scaffold,
    add_screen,
    add_stalls,
    develop,
    sky_of,
)

# A wall 4 m wide and 2 m high, 20 m before the camera, in a view 20 m wide there.
CAMERA = Camera((0, -20, 1), (0, 0, 1), float(2 * np.degrees(np.arctan(0.5))), 0.0, 200, 150)
SUN = Light("sun", 30.0, 40.0, 1)


def block(u=(-2, 2), v=(0, 2), w=(-0.5, 0), colour=(0.5, 0.3, 0.2)):
    model = Model()
    model.block(FRONT, PAINT, u, v, w, colour)
    return model


@pytest.fixture(scope="module")
def stage():
    return Stage([(block(), {}), (block((-30, 30), (-0.2, -0.1), (-30, 30)), {})], 0)


def test_a_clear_view_is_all_visible_and_its_box_is_where_geometry_says(stage):
    seen = stage.look(CAMERA)
    assert seen.visible == pytest.approx(1, abs=0.05)
    assert seen.box == pytest.approx((80, 65, 120, 85), abs=1)  # 10 pixels a metre, about (100, 75)
    assert seen.fills == pytest.approx(40 * 20 / (200 * 150), rel=0.05)


def test_what_is_hidden_or_outside_the_frame_is_not_visible(stage):
    half = block((-4, 0), (-1, 4), (3, 3.2))
    assert stage.look(CAMERA, half).visible == pytest.approx(0.5, abs=0.06)
    assert stage.look(CAMERA, half).box == pytest.approx((80, 65, 120, 85), abs=1)  # things in front don't move it
    aside = CAMERA._replace(eye=(10, -20, 1), target=(10, 0, 1))  # its left edge runs through the wall's middle
    assert stage.look(aside).visible == pytest.approx(0.5, abs=0.06)
    away = CAMERA._replace(target=(0, -40, 1))
    assert stage.look(away) == (None, 0.0, 0.0)


def test_photographs_repeat_and_change_with_light_and_film(stage):
    def shoot(light=SUN, film=Film(), seed=3):  # noqa: B008
        return stage.photograph(CAMERA, light, film, None, 4, seed)[0]

    first = shoot()
    assert first.shape == (150, 200, 3) and first.dtype == np.uint8
    assert np.array_equal(first, shoot())
    assert not np.array_equal(first, shoot(seed=4))
    bright, dark = shoot(film=Film(exposure=1)), shoot(film=Film(exposure=-1))
    assert bright.mean() > first.mean() + 10 > dark.mean() + 20
    warm = shoot(film=Film(warmth=1.0)).mean((0, 1)) - first.mean((0, 1))
    assert warm[0] > 2 and warm[2] < -2
    hazy = shoot(film=Film(haze=10.0))
    assert hazy[65:85, 80:120].std() < first[65:85, 80:120].std() + 5
    assert abs(hazy[70:80, 90:110].mean() - hazy[:20].mean()) < abs(first[70:80, 90:110].mean() - first[:20].mean())


def test_weather_changes_what_it_should(stage):
    """Snow whitens what looks upward, the flash what is near, fog what is far."""
    def shoot(kind, **film):
        light = SUN._replace(kind=kind)
        return stage.photograph(CAMERA, light, Film(**film), None, 4, 3)[0].astype(float).mean(-1)

    def brighter(picture):
        """The ground close to the camera over the wall."""
        return picture[130:145, 20:60].mean() / picture[68:82, 85:115].mean()

    plain, snow, flash = shoot("overcast"), shoot("snow"), shoot("flash")
    assert brighter(snow) > 1.5 * brighter(plain)
    assert brighter(flash) > 1.3 * brighter(shoot("dusk"))
    clear, fog = (picture[68:82, 85:115].mean() - picture[10:40].mean() for picture in (plain, shoot("fog", haze=12.0)))
    assert abs(fog) < 0.6 * abs(clear)


def test_a_box_for_a_query_is_about_a_part_that_is_seen(stage):
    half = block((-4, 0), (-1, 4), (3, 3.2))  # hides the left half of the wall, columns 80 to 100
    closer = CAMERA._replace(fov=CAMERA.fov / 4, width=400, height=300)
    whole = stage.look(closer).box
    for seed in range(5):
        x1, y1, x2, y2 = stage.part(np.random.default_rng(seed), closer, half)
        assert whole[0] - 2 <= x1 < x2 <= whole[2] + 2 and whole[1] - 2 <= y1 < y2 <= whole[3] + 2
        assert (x1 + x2) / 2 > 200  # in the half that is seen
        assert (x2 - x1) * (y2 - y1) < 0.7 * (whole[2] - whole[0]) * (whole[3] - whole[1])


def test_markets_and_scaffolds_stand_on_the_ground_in_front():
    market, front = Model(), Model()
    add_stalls(market, np.random.default_rng(2), CAMERA, 5)
    points = np.concatenate([surface.positions for surface in market.surfaces().values()])
    assert -0.1 < points[:, 2].min() and points[:, 2].max() < 3.5 and points[:, 1].min() > -20
    add_scaffold(front, np.random.default_rng(2), (20.0, 10.0, 16.0))
    points = np.concatenate([surface.positions for surface in front.surfaces().values()])
    assert points[:, 1].max() < 0 and np.ptp(points[:, 0]) < 14 and 5 < points[:, 2].max() < 16
    assert abs(points[:, 0]).max() < 10.5


def test_the_sun_of_the_sky_is_where_shadows_say():
    """The brightest place of the sky lies in the light's direction: azimuth from the front toward +x."""
    for azimuth, elevation in ((0, 30), (90, 45), (-60, 20)):
        sky, irradiance = sky_of(Light("sun", azimuth, elevation, 5), 180)
        row, column = np.unravel_index(sky.sum(-1).argmax(), sky.shape[:2])
        assert 90 - (row + 0.5) == pytest.approx(elevation, abs=4)
        # Columns run from +y toward +x; the front looks to -y.
        longitude = (column + 0.5) / sky.shape[1] * 360
        assert (180 - longitude - azimuth + 180) % 360 - 180 == pytest.approx(0, abs=4)
        assert min(irradiance) > 1
    assert max(sky_of(Light("overcast", 0, 30, 5), 90)[1]) == 0


def test_develop_keeps_to_8_bits_on_extreme_radiance():
    rng = np.random.default_rng(0)
    radiance = rng.uniform(0, 1e4, (40, 60, 3))
    radiance[0, 0] = 0
    out = develop(rng, radiance, np.ones((40, 60)), SUN, Film(noise=0))
    assert out.dtype == np.uint8 and out.shape == (40, 60, 3)
    black = develop(rng, np.zeros((40, 60, 3)), np.zeros((40, 60)), SUN, Film(noise=0))
    assert black.max() <= 2


def test_extras_stand_before_the_camera_and_hide_what_they_should(stage):
    rng, crowd = np.random.default_rng(1), Model()
    add_passers_by(crowd, rng, CAMERA, 6, 1)
    points = np.concatenate([surface.positions for surface in crowd.surfaces().values()])
    assert points[:, 2].min() > -0.2 and points[:, 1].min() > -20 and points[:, 2].max() < 4
    shown = []
    for seed in range(6):
        screen = Model()
        add_screen(screen, np.random.default_rng(seed), CAMERA, 0.9)
        shown.append(stage.look(CAMERA, screen).visible)
    assert np.mean(shown) < 0.75


def test_drawings_show_the_subject_in_ink_on_paper(stage):
    page = drawings.line_drawing(np.random.default_rng(0), stage, CAMERA)
    assert page.shape == (150, 200, 3) and page.dtype == np.uint8
    grey = page.mean(-1)
    assert grey[62:88, 77:123].min() < 150 and np.median(grey) > 190
    assert grey[:40].min() > 150  # nothing is drawn where there is nothing


def test_a_floor_plan_is_the_cut_of_the_walls():
    page = drawings.floor_plan(np.random.default_rng(0), block((0, 8), (0, 3), (-4, 0)), 300, 240).mean(-1)
    rows, columns = np.nonzero(page[30:210] < 130)  # between title and scale
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(2, rel=0.05)
    assert page[30 + int(rows.mean()), int(columns.mean())] > 180  # walls are cut, not filled


def test_maps_differ_by_seed():
    one, two = (drawings.town_map(np.random.default_rng(seed), 200, 150) for seed in (1, 2))
    assert one.shape == (150, 200, 3) and not np.array_equal(one, two)
