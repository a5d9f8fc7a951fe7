import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from rmaclib import plots
from rmaclib.foundation.errors import InputError, OutputError
from rmaclib.regions import rigid_grid


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255


def has(picture, colour):
    return (np.abs(picture - np.array(to_rgb(colour))).max(-1) < 0.02).any()


def test_ranking_sheet_frames_by_verdict(tmp_path):
    Image.new("RGB", (60, 40), "white").save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_text("no picture")
    rows = [{"query": ("query", tmp_path / "a.png", (5, 5, 30, 30)),
             "neighbours": [("first", tmp_path / "a.png", "relevant"), ("second", tmp_path / "bad.png", "junk")]}]
    picture = drawn(plots.ranking_sheet(rows))
    assert has(picture, plots.QUERY) and has(picture, plots.RELEVANT) and has(picture, plots.JUNK)
    assert not has(picture, plots.IRRELEVANT)
    assert plots.ranking_sheet([]) is not None
    with pytest.raises(KeyError):
        plots.ranking_sheet([{**rows[0], "neighbours": [("first", tmp_path / "a.png", "maybe")]}])


def test_a_sheet_without_pictures_shows_none(tmp_path):
    Image.new("RGB", (60, 40), "magenta").save(tmp_path / "a.png")
    rows = [{"query": ("query", tmp_path / "a.png", None), "neighbours": [("first", tmp_path / "a.png", "irrelevant")]}]
    assert has(drawn(plots.ranking_sheet(rows)), "magenta")
    hidden = drawn(plots.ranking_sheet(rows, show_pictures=False))
    assert not has(hidden, "magenta") and has(hidden, plots.IRRELEVANT)


def test_contact_sheet_leaves_places_without_a_file_empty(tmp_path):
    Image.new("RGB", (60, 40), "magenta").save(tmp_path / "a.png")
    figure = plots.contact_sheet([("first", tmp_path / "a.png"), ("second", None)], columns=3)
    assert [axes.get_title() for axes in figure.axes] == ["first", "second", ""]
    assert [len(axes.images) for axes in figure.axes] == [1, 0, 0] and has(drawn(figure), "magenta")


def test_boxes_are_drawn_on_pictures(tmp_path):
    Image.new("RGB", (60, 40), "black").save(tmp_path / "a.png")
    pictures = [("first", tmp_path / "a.png", np.array([[5, 5, 30, 30], [0, 0, 60, 40]]), [1.0, 0.0]),
                ("second", Image.new("RGB", (40, 60), "magenta"), np.zeros((0, 4)), [])]
    figure = plots.boxes_sheet(pictures, columns=3, ground_truth=[(1, 2, 11, 22), None])
    first, second, empty = figure.axes
    assert [axes.get_title() for axes in (first, second, empty)] == ["first", "second", ""]
    corners = sorted(patch.get_bbox().bounds for patch in first.patches)
    assert corners == [(0, 0, 60, 40), (1, 2, 10, 20), (5, 5, 25, 25)]
    opacity = {patch.get_bbox().bounds: patch.get_alpha() for patch in first.patches}
    assert opacity[5, 5, 25, 25] > opacity[0, 0, 60, 40]
    assert not second.patches and has(drawn(figure), "magenta")


def test_regions_and_heat_are_drawn():
    figure = plots.Figure()
    left, right = figure.subplots(1, 2)
    picture = Image.new("RGB", (90, 60), "white")
    plots.regions_on(left, picture, (6, 9), rigid_grid(6, 9, 2))
    assert len(left.patches) == len(rigid_grid(6, 9, 2))
    plots.heat_on(right, picture, np.arange(54.0).reshape(6, 9))
    assert len(right.images) == 2


def test_bars_and_curve_write_their_values():
    texts = [text.get_text().strip() for text in plots.bars(["a", "b"], [1.234, 2], "x").axes[0].texts]
    assert texts == ["1.2", "2.0"]
    figure = plots.bars(["a", "b"], {"before": [1, 2], "after": [3, 4]}, "x")
    assert [text.get_text().strip() for text in figure.axes[0].texts] == ["1.0", "2.0", "3.0", "4.0"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["before", "after"]
    heights = [patch.get_y() for patch in figure.axes[0].patches]  # a before, b before, a after, b after
    assert heights[1] < heights[2] < heights[0] and heights[3] < heights[1]
    axes = plots.curve([1, 2], [3, 4.56], "x", "y", level=(3.5, "level")).axes[0]
    assert [text.get_text() for text in axes.texts] == ["3.0", "4.6", "level"]


RANKED = [{"update": 0, "loss": None, "validation": 0.3},
          {"update": 1, "loss": 0.2, "active": 0.9, "stale_active": 1.0, "positive_distance": 1.2,
           "negative_distance": 1.0, "cosine": 0.25, "validation": None},
          {"update": 2, "loss": 0.1, "active": 0.5, "stale_active": 0.8, "positive_distance": 0.8,
           "negative_distance": 1.1, "cosine": 0.5, "validation": 0.4}]


def lines_of(figure):
    return {axes.get_ylabel(): {line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
                                for line in axes.lines} for axes in figure.axes}


def test_training_curves_of_ranking():
    figure = plots.training_curves(RANKED, "R-Clean")
    lines = lines_of(figure)
    assert lines["of triplets, %"] == {"active when drawn": ([1, 2], [100, 80]),
                                       "active at the update": ([1, 2], [90, 50])}
    assert lines["mean squared distance"] == {
        "to positives": ([1, 2], [1.2, 0.8]), "to negatives": ([1, 2], [1.0, 1.1]),
        "any two of the pool": ([1, 2], [1.5, 1.0])}
    assert [line for line in lines["validation, %"].values()] == [([0, 2], [30, 40])]
    assert has(drawn(figure), plots.IRRELEVANT)


def test_training_curves_of_classification_and_of_a_run_that_has_just_begun():
    classification = [{"update": 1, "loss": 2.0, "accuracy": 0.5, "validation": None}]
    figure = plots.training_curves(classification)
    assert lines_of(figure)["of images, %"] == {"classified correctly": ([1], [50])}
    assert [axes.axison for axes in figure.axes] == [True, True, True, False]  # classification has no distances
    for begun in (RANKED[:1], []):
        drawn(plots.training_curves(begun))


def test_figures_are_written_whole(tmp_path, monkeypatch):
    figure = plots.bars(["a"], [1], "x")
    for name in ("a.png", "b.svg", "new/c.PDF"):
        plots.save_figure(figure, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(InputError, match="a.txt.*png"):
        plots.save_figure(figure, tmp_path / "a.txt")
    before = (tmp_path / "a.png").read_bytes()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", full)
    with pytest.raises(OutputError, match="a.png"):
        plots.save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.svg", "new"]
