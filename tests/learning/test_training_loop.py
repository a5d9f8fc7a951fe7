import json
from dataclasses import replace

import pytest
import torch
from learning_pictures import SCORES, scripted, stopped_equals_whole

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import from_mapping
from rmaclib.learning import LearningError, LoopSettings, RankingSettings, learning_rate, loop

PATIENT = LoopSettings(lr=1e-3, updates=12, evaluate_every=2, save_every=3, patience=2, device="cpu")


def test_paper_defaults():
    settings = RankingSettings()
    assert (settings.loss, settings.margin, settings.optimizer, settings.lr) == ("triplet", 0.1, "sgd", 1e-3)
    assert (settings.momentum, settings.weight_decay) == (0.9, 5e-5)
    assert (settings.triplets, settings.pool, settings.hardest, settings.refresh) == (64, 5000, 25, 64)
    assert settings.size == 800
    assert RankingSettings(optimizer="adamw").lr == 1e-5
    assert RankingSettings(loss="contrastive").margin == 0.7
    assert RankingSettings(loss="average_precision").margin is None


def test_learning_rates():
    step = LoopSettings(lr=1.0, updates=10, drop_at=0.6, warmup=4)
    assert [learning_rate(step, update) for update in (1, 2, 4, 6, 7, 10)] == pytest.approx(
        [0.25, 0.5, 1, 1, 0.1, 0.1])
    cosine = LoopSettings(lr=2.0, updates=4, schedule="cosine")
    assert [learning_rate(cosine, update) for update in (1, 2, 3, 4)] == pytest.approx(
        [2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5])
    assert learning_rate(LoopSettings(lr=2.0, schedule="constant"), 4096) == 2


@pytest.mark.parametrize("options, message", [
    ({"loss": "hinge"}, "loss: expected one of 'triplet'"),
    ({"loss": "average_precision", "margin": 0.1}, "margin: the loss 'average_precision' has none"),
    ({"margin": -1}, "margin: expected at least 0"),
    ({"optimizer": "adam"}, "optimizer"),
    ({"lr": "1e-3"}, "YAML reads 1e-3 as text"),
    ({"lr": float("inf")}, "lr: expected a finite number"),
    ({"lr": float("nan")}, "lr: expected a finite number"),
    ({"momentum": 1.5}, "momentum: expected at most 1"),
    ({"schedule": "linear"}, "schedule"), ({"drop_at": 2}, "drop_at"), ({"weight_decay": -1}, "weight_decay"),
    ({"updates": 0}, "updates: expected at least 1"), ({"updates": 2.5}, "updates"),
    ({"triplets": 0}, "triplets"), ({"pool": 2}, "pool"), ({"hardest": 0}, "hardest"), ({"refresh": True}, "refresh"),
    ({"size": 0}, "size"), ({"crop": 0}, "crop"), ({"crop": 1.1}, "crop"), ({"warmup": -1}, "warmup"),
    ({"clip": 0}, "clip"), ({"precision": "auto"}, "precision"), ({"pixels": 0}, "pixels"), ({"seed": -1}, "seed"),
    ({"evaluate_every": 0}, "evaluate_every"), ({"save_every": 0}, "save_every"),
    ({"patience": 0}, "patience: expected at least 1"), ({"smallest": 0}, "smallest: expected at least 1"),
    ({"frozen": 3}, "frozen: expected text"),
    ({"smallest": 801}, r"smallest: expected at most size \(800\), got 801"),
    ({"smallest": 400, "size": 320}, r"smallest: expected at most size \(320\), got 400"),
    ({"lr": [1]}, r"lr: expected a number, got \[1\]"), ({"seed": 2**32}, "seed: expected less than"),
    ({"triplets": 10.0}, "triplets: expected a whole number"), ({"flip": 1}, "flip: expected true or false"),
    ({"size": "512"}, "size: expected a whole number"), ({"margin": float("nan")}, "margin"),
    ({"magrin": 0.2}, "unknown key 'magrin'; did you mean 'margin'"),
])
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        from_mapping(RankingSettings, options)


# --- patience ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patience, last, best", [(1, 4, 2), (2, 6, 2), (3, 12, 8), (None, 12, 8)])
def test_training_ends_when_the_score_has_not_improved(tmp_path, caplog, patience, last, best):
    """The scores are 0.5 at the start, then 0.6, 0.6, 0.4, 0.7, 0.5, 0.7: an equal one is no better one."""
    with caplog.at_level("INFO", "rmaclib"):
        trained = loop.run(scripted(replace(PATIENT, patience=patience)), out=tmp_path, progress=False)
    assert [row["update"] for row in trained.history] == list(range(last + 1))
    assert (trained.best_update, trained.score) == (best, SCORES[best])
    stops = [line for line in caplog.messages if "stopped" in line]
    assert stops == ([] if last == 12 else [
        f"stopped after {last} updates: the validation score has not improved in {patience} "
        f"validation{'s' * (patience > 1)}"])


@pytest.mark.parametrize("update", [2, 5, 6])
def test_a_run_with_patience_that_was_stopped_and_started_again_ends_where_it_would_have(tmp_path, update):
    def run(out, **options):
        return loop.run(scripted(PATIENT), out=out, progress=False, **options)

    assert len(stopped_equals_whole(run, update, tmp_path).history) == 7


def test_a_run_that_has_run_out_of_patience_is_only_loaded(tmp_path):
    first = loop.run(scripted(PATIENT), out=tmp_path, progress=False)
    stage = scripted(PATIENT)
    written = (tmp_path / "state.safetensors").stat().st_mtime_ns
    again = loop.run(stage, out=tmp_path, progress=False, watch=lambda rows: pytest.fail("an update was computed"))
    assert (again.history, again.best_update, again.score) == (first.history, first.best_update, first.score)
    assert (tmp_path / "state.safetensors").stat().st_mtime_ns == written
    assert all(torch.equal(tensor, first.network.state_dict()[name])
               for name, tensor in again.network.state_dict().items())


def test_patience_needs_a_validation(tmp_path):
    with pytest.raises(InputError, match="patience: expected with validation images.*got 2 without them"):
        replace(scripted(PATIENT), evaluate=None)


def test_settings_that_earlier_versions_did_not_have_count_when_they_are_set(tmp_path):
    loop.run(scripted(replace(PATIENT, updates=2, patience=None)), out=tmp_path / "before", progress=False)
    assert "patience" not in json.loads((tmp_path / "before/run.json").read_text())["settings"]
    with pytest.raises(LearningError, match=r"with other settings.patience \(None, now 2\);"):
        loop.run(scripted(replace(PATIENT, updates=2)), out=tmp_path / "before")
    loop.run(scripted(replace(PATIENT, updates=2)), out=tmp_path / "now", progress=False)
    with pytest.raises(LearningError, match=r"with other settings.patience \(2, now None\);"):
        loop.run(scripted(replace(PATIENT, updates=2, patience=None)), out=tmp_path / "now")
