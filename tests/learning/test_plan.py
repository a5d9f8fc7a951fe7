"""What a run chooses: the settings of its preset, its start or its user, and how many updates there is time for."""

from dataclasses import replace

import pytest

from rmaclib.foundation.files import write_json
from rmaclib.learning import LearningError, RankingSettings
from rmaclib.learning.budget import SECONDS, Timing, laptop, within
from rmaclib.learning.plan import Plan
from rmaclib.learning.training import pick_device


def plan(folder, given=(), preset=None, stage="ranking"):
    return Plan(stage, preset, {"device": "cpu", **dict(given)}, folder)


def updates(plan, seconds):
    """Chosen for a collection of 15 images when an update takes so many seconds."""
    timing = Timing(image=0.0, update=seconds, before=0, refresh=15, validation=10)
    return plan.in_time(plan.settings(15), timing, SECONDS).updates


def test_as_many_updates_as_there_is_time_for(tmp_path):
    new = plan(tmp_path)
    assert [updates(new, seconds) for seconds in (0.01, 30.0, 100.0)] == [32, 20, 8]
    settings = new.in_time(new.settings(15), Timing(0.0, 30.0, 0, 15, 10), SECONDS)
    assert replace(settings, **within("ranking", 20)) == settings  # what follows from their number


def test_updates_that_are_given_or_the_papers_stay(tmp_path):
    assert updates(plan(tmp_path, {"updates": 21}), 100.0) == 21
    assert updates(plan(tmp_path, preset="paper"), 80.0) == 4096


def test_the_papers_settings_are_a_preset(tmp_path):
    assert plan(tmp_path, preset="paper").settings(15) == RankingSettings(device="cpu")


def test_given_settings_go_before_the_presets(tmp_path):
    device = pick_device("cpu")
    settings = plan(tmp_path, {"triplets": 3, "lr": 0.5}).settings(15)
    assert (settings.triplets, settings.lr) == (3, 0.5)
    assert settings.size == laptop("ranking", device, 15)["size"]
    # A learning rate belongs to the preset's optimizer.
    assert plan(tmp_path, {"optimizer": "sgd"}).settings(15).lr == 1e-3


def test_a_run_that_goes_on_keeps_the_settings_of_its_start(tmp_path):
    before = plan(tmp_path).settings(15)
    write_json(tmp_path / "run.json", {"settings": {"updates": 12, "lr": 0.25, "size": 99, "triplets": 5}})
    going_on = plan(tmp_path)
    settings = going_on.settings(15)
    assert going_on.goes_on and (settings.updates, settings.lr, settings.size, settings.triplets) == (12, 0.25, 99, 5)
    assert settings.pool == before.pool
    # A preset that is requested goes before them; how many updates there was time for is kept.
    settings = plan(tmp_path, preset="laptop").settings(15)
    assert (settings.updates, settings.lr, settings.size) == (12, before.lr, before.size)


def test_a_run_that_stopped_says_so(tmp_path):
    settings = replace(plan(tmp_path).settings(15), updates=40, evaluate_every=4, patience=3)
    stopped = plan(tmp_path)
    stopped.done, stopped.best = 20, 8
    assert stopped.rest(settings).endswith(
        ": stopped after 20 updates: the validation score has not improved in 3 validations")
    stopped.best = 12
    assert stopped.rest(settings).endswith("goes on with the settings of its start, 20 of 40 updates left")


def test_a_damaged_start_of_a_run_that_learned_nothing_begins_again(tmp_path):
    (tmp_path / "run.json").write_text("{")
    new = plan(tmp_path)
    assert new.goes_on and new.settings(15) == plan(tmp_path / "other").settings(15) and not new.goes_on
    begun = plan(tmp_path)
    begun.done = 3  # a state of an older version, which has no copy of the settings
    with pytest.raises(LearningError, match="run.json"):
        begun.settings(15)
