import pytest

from rmaclib.foundation.settings import from_mapping
from rmaclib.learning import LoopSettings, RankingSettings, learning_rate


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
    ({"lr": [1]}, r"lr: expected a number, got \[1\]"), ({"seed": 2**32}, "seed: expected less than"),
    ({"triplets": 10.0}, "triplets: expected a whole number"), ({"flip": 1}, "flip: expected true or false"),
    ({"size": "512"}, "size: expected a whole number"), ({"margin": float("nan")}, "margin"),
    ({"magrin": 0.2}, "unknown key 'magrin'; did you mean 'margin'"),
])
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        from_mapping(RankingSettings, options)
