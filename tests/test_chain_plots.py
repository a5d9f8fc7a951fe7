import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from rmaclib import plots
from rmaclib.chain_plots import Step, query_arrows, waterfall
from rmaclib.foundation.errors import InputError

STEPS = [Step("first", 40.0), Step("up", 55.0, 0, 10.0, 20.0), Step("unsure", 56.0, 1, -2.0, 4.0),
         Step("down", 50.0, 2, -8.0, -4.0), Step("beside", 58.5, 1, 1.0, 6.0, beside=True)]


def test_bars_reach_from_the_step_before_to_the_step():
    figure = waterfall({"Oxford": {"paper": STEPS, "ours": STEPS[:2]}, "Paris": {"ours": STEPS}})
    FigureCanvasAgg(figure).draw()
    first, second, empty, third = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Oxford, paper", "Oxford, ours", "", "Paris, ours"]
    assert not empty.axison
    bars = [(round(bar.get_x(), 3), round(bar.get_x() + bar.get_width(), 3)) for bar in first.patches]
    assert bars == [(40, 55), (55, 56), (56, 50), (55, 58.5)]
    assert [to_hex(bar.get_facecolor()) for bar in first.patches] == [plots.RELEVANT, plots.JUNK, plots.IRRELEVANT,
                                                                     plots.RELEVANT]
    whiskers = [sorted(line.get_xdata()) for line in first.lines if line.get_color() == "black"]
    assert whiskers == [[50, 60], [53, 59], [48, 52], [56, 61]]
    assert [label.get_text() for label in first.get_yticklabels()] == ["first", "up", "unsure", "down", "beside"]
    assert [text.get_text() for text in first.texts] == ["40.0", "+15.0", "+1.0", "−6.0", "50.0", "+3.5  (58.5)"]
    result = max(first.texts, key=lambda text: text.get_fontsize())
    assert result.get_text() == "50.0"  # of the chain, not beside it
    assert max(second.texts, key=lambda text: text.get_fontsize()).get_text() == "55.0"
    low, high = first.get_xlim()
    assert low < 40 and high > 61 and second.get_xlim() == (low, high)
    assert all(0 <= tick <= 100 for axes in (first, third) for tick in axes.get_xticks())


def test_steps_out_of_order_and_nothing_are_rejected():
    with pytest.raises(InputError, match="an earlier one"):
        waterfall({"Oxford": {"": [Step("first", 40.0), Step("second", 50.0, 1)]}})
    for panels in ({}, {"Oxford": {}}):
        with pytest.raises(InputError, match="panels: expected at least one"):
            waterfall(panels)


def test_arrows_are_grouped_and_sorted():
    landmarks = ["all_souls", "keble", "all_souls", "keble"]
    before, after = np.array([0.5, 0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.1, 0.5])
    figure = query_arrows({"Oxford": (landmarks, before, after)})
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "Oxford: 2 up, 1 down, 1 the same"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["keble +35", "all souls −5"]
    shafts = [(*line.get_xdata(), *np.round(line.get_ydata(), 3), to_hex(line.get_color())) for line in axes.lines
              if len(line.get_xdata()) == 2 and line.get_color() in (plots.RELEVANT, plots.IRRELEVANT, plots.JUNK)]
    assert shafts == [(0, 0, 10, 60, plots.RELEVANT), (1, 1, 30, 50, plots.RELEVANT),
                      (3, 3, 20, 10, plots.IRRELEVANT), (4, 4, 50, 50, plots.JUNK)]
    heads = [line.get_marker() for line in axes.lines if line.get_marker() != "None"]
    assert heads == ["^", "^", "v", "o"]


def test_arrows_need_a_landmark_of_each_query():
    with pytest.raises(InputError, match="panels: expected at least one"):
        query_arrows({})
    with pytest.raises(InputError, match="Oxford: .* got 1, 2 and 2"):
        query_arrows({"Oxford": (["keble"], np.zeros(2), np.zeros(2))})
