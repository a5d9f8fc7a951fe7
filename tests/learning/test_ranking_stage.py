import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from learning_pictures import FILES, SIZE, pictures, stopped_equals_whole, tiny
from safetensors.torch import load_file
from scipy.sparse import csr_array

from rmaclib.checkpoints import load_network
from rmaclib.datasets import open_collection
from rmaclib.learning import LOSSES, LearningError, Positives, RankingSettings, hold_out, train_ranking
from rmaclib.learning.ranking import RankingStep
from rmaclib.learning.state import read_state

SETTINGS = RankingSettings(lr=1e-3, triplets=6, pool=20, hardest=5, refresh=3, updates=8, size=SIZE, flip=True,
                           crop=0.6, evaluate_every=2, save_every=2, device="cpu")


def run(images, out, settings=SETTINGS, network=None, **more):
    kept, held_out = hold_out(images, share=0.4)
    return train_ranking(network or tiny(images), kept, settings, out=out, validation=held_out, progress=False, **more)


def rows(history):
    """The log without the times."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    return out, run(images, out)


def test_log_and_best(trained):
    out, result = trained
    assert [row["update"] for row in result.history] == list(range(9))
    scores = {row["update"]: row["validation"] for row in result.history if row["validation"] is not None}
    assert list(scores) == [0, 2, 4, 6, 8]
    assert result.score == pytest.approx(max(scores.values())) == scores[result.best_update]
    row = result.history[5]
    assert 0 < row["loss"] and 0 < row["active"] <= 1 and 7 <= row["images"] <= 18 and row["computed"] <= row["images"]
    assert [row["lr"] for row in result.history[1:]] == [1e-3] * 4 + [1e-4] * 4
    assert result.bad == {} and result.network.dim == 8
    assert sorted(path.name for path in out.iterdir()) == FILES


def test_a_run_is_watched_as_it_goes_also_when_it_goes_on(images, tmp_path):
    histories = []

    def watch(history):
        histories.append(list(history))
        if len(histories) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path, watch=watch)
    assert [history[-1]["update"] for history in histories] == list(range(6))
    trained = run(images, tmp_path, watch=watch)  # from update 4, the last state
    assert [[row["update"] for row in history] for history in histories[6:]] == [
        list(range(last + 1)) for last in (5, 6, 7, 8)]
    assert histories[-1] == trained.history


def test_the_first_update_of_a_period_is_not_stale(tmp_path):
    # Of whole strides: others are whole in the pool, and cut or padded in the update.
    images = pictures(tmp_path / "pictures", shapes=[(64, 64), (64, 96), (96, 64), (96, 96)])
    history = run(images, tmp_path / "out", replace(SETTINGS, flip=False, crop=1.0, updates=4)).history
    assert history[1]["active"] == history[1]["stale_active"] and history[1]["cosine"] == history[2]["cosine"]
    assert history[1]["cosine"] != history[4]["cosine"]  # of the next pool


def test_learns_what_it_is_shown(images, tmp_path):
    settings = replace(SETTINGS, optimizer="adamw", lr=3e-4, schedule="constant", updates=30,
                       flip=False, crop=1.0, evaluate_every=30)
    trained = train_ranking(tiny(images), images, settings, out=tmp_path, validation=images, progress=False)
    losses = [row["loss"] for row in trained.history[1:]]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert trained.score > trained.history[0]["validation"] + 0.2


def test_a_finished_run_is_only_loaded(images, trained):
    out, result = trained
    written = [(out / name).stat().st_mtime_ns for name in ("best.safetensors", "state.safetensors")]
    again = run(images, out, watch=lambda history: pytest.fail("an update was computed"))
    assert again.history == result.history and again.score == result.score
    assert written == [(out / name).stat().st_mtime_ns for name in ("best.safetensors", "state.safetensors")]
    for loaded, kept in zip(again.network.parameters(), result.network.parameters(), strict=True):
        assert torch.equal(loaded, kept)


@pytest.mark.parametrize("options", [
    {"loss": "contrastive"}, {"loss": "average_precision", "schedule": "cosine", "warmup": 2},
    {"optimizer": "adamw", "clip": 0.1}, {"precision": "bfloat16", "pixels": 1, "triplets": 3}])
def test_other_settings_train_too(images, tmp_path, options):
    settings = replace(SETTINGS, margin=None, lr=None, updates=4, refresh=2)
    history = run(images, tmp_path, RankingSettings(**{**asdict(settings), "margin": None, "lr": None,
                                                       **options})).history
    assert len(history) == 5 and all(row["gradient_norm"] > 0 for row in history[1:])


def test_without_validation_the_last_network_is_kept(images, tmp_path):
    network = tiny(images)
    trained = train_ranking(network, images, replace(SETTINGS, updates=2), out=tmp_path, progress=False)
    assert (trained.best_update, trained.score, len(trained.history)) == (2, None, 2)
    for last, kept in zip(network.parameters(), trained.network.parameters(), strict=True):
        assert torch.equal(last, kept)


def triplets(out):
    """(U, T, 3), those of the last pool."""
    return load_file(out / "state.safetensors")["step.triplets"]


def test_positives_are_verified_pairs_where_given(images, tmp_path):
    pairs = csr_array((np.ones(4, bool), ([0, 1, 5, 6], [1, 0, 6, 5])), shape=(25, 25))
    train_ranking(tiny(images), images, replace(SETTINGS, updates=3, pool=25), out=tmp_path,
                  positives=Positives(pairs, pairs), validation=images, progress=False)
    assert {tuple(sorted(pair)) for pair in triplets(tmp_path)[..., :2].reshape(-1, 2).tolist()} == {(0, 1), (5, 6)}
    with pytest.raises(LearningError, match=r"other validation\.positives;"):
        train_ranking(tiny(images), images, replace(SETTINGS, updates=3, pool=25), out=tmp_path, positives=pairs,
                      validation=images)
    with pytest.raises(LearningError, match=r"other images\.positives, validation\.positives;"):
        train_ranking(tiny(images), images, replace(SETTINGS, updates=3, pool=25), out=tmp_path, validation=images)


def test_sides_follow_from_the_run_the_update_and_the_image(images):
    def sides(update, indices, **options):
        settings = replace(SETTINGS, **options)
        return RankingStep(tiny(), images, None, settings, {})._sides(update, np.array(indices))

    every = list(range(25))
    drawn = sides(1, every, size=448, smallest=224)
    assert set(drawn) <= set(range(224, 449, 32)) and len(set(drawn)) > 4
    assert sides(1, every[5:9], size=448, smallest=224) == drawn[5:9]  # whatever the other images are
    assert drawn not in (sides(2, every, size=448, smallest=224), sides(1, every, size=448, smallest=224, seed=1))
    assert sides(1, every, size=448) == [448] * 25


def test_training_on_mixed_sizes_goes_on_to_the_same_result(images, tmp_path):
    mixed = replace(SETTINGS, smallest=64, updates=4, flip=False, crop=1.0)

    def trained(out, **options):
        return run(images, out, mixed, **options)

    whole = stopped_equals_whole(trained, 3, tmp_path)
    single = run(images, tmp_path / "single", replace(mixed, smallest=None))
    # Pool and validation have the same size: the start is the same, the first update is not.
    assert whole.history[0]["validation"] == single.history[0]["validation"]
    assert whole.history[1]["cosine"] == single.history[1]["cosine"]
    assert whole.history[1]["stale_active"] == single.history[1]["stale_active"]
    assert whole.history[1]["loss"] != single.history[1]["loss"]


def test_bad_images_are_left_out_and_listed(tmp_path):
    """Two that can't be read when the pool is mined, and one that is lost before the second update."""
    images = pictures(tmp_path / "pictures", landmarks=4, each=4)
    network = tiny(images)
    images.paths[0].write_bytes(b"")
    images.paths[5].write_bytes(images.paths[5].read_bytes()[:200])
    lost = []

    def loses_an_image(history):
        if history[-1]["update"] == 1:
            mined = triplets(tmp_path / "out")
            assert not {0, 5} & set(mined.flatten().tolist())
            lost.append(int(mined[1, 0, 1]))
            images.paths[lost[0]].unlink()

    trained = train_ranking(network, images, replace(SETTINGS, updates=3, pool=16, save_every=1), out=tmp_path / "out",
                            progress=False, watch=loses_an_image)
    assert list(trained.bad) == [images.names[index] for index in (0, 5, *lost)]
    lines = (tmp_path / "out/bad.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == sorted(trained.bad)
    assert sum("no such file" in line for line in lines) == 1


def test_all_triplets_of_an_update_lost(tmp_path):
    images = pictures(tmp_path / "pictures", landmarks=2, each=2)
    with pytest.raises(LearningError, match="update 2: each of its triplets has an image that can't be read"):
        train_ranking(tiny(images), images, replace(SETTINGS, pool=4), out=tmp_path / "out", progress=False,
                      watch=lambda history: [path.unlink() for path in images.paths])


def test_collapse_stops_with_advice(images, tmp_path):
    network = tiny(images)
    with torch.no_grad():
        network.fc.bias.fill_(1e4)
    with pytest.raises(LearningError, match=r"update 1: .*collapsed.* mean cosine .* 1.00000.* smaller learning rate"):
        run(images, tmp_path / "pool", network=network)
    network = tiny(images)
    with pytest.raises(LearningError, match="update [23]: .*collapsed.* squared distances"):
        run(images, tmp_path / "step", replace(SETTINGS, lr=30.0, refresh=8), network=network)


def test_a_loss_that_is_not_finite_stops_with_advice(images, tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, "triplet", lambda descriptors, tuples, margin: descriptors.sum() / 0)
    with pytest.raises(LearningError, match="update 1: training has diverged, the loss is .*inf; try a smaller learn"):
        run(images, tmp_path)


@pytest.mark.parametrize("lr, what", [(1e30, "update 1: .*the norm of all weights went from"),
                                      (1e38, "update 1: .*the norm of all weights")])
def test_divergence_is_told_at_the_update_where_it_happens(images, tmp_path, lr, what):
    with pytest.raises(LearningError, match=f"{what}.*try a smaller learning rate .lr, now {re.escape(f'{lr:g}')}"):
        run(images, tmp_path, replace(SETTINGS, lr=lr, evaluate_every=1, save_every=1))
    assert not (tmp_path / "state.safetensors").exists()
    kept = load_network(tmp_path / "best.safetensors")  # the untrained one
    assert all(torch.isfinite(tensor).all() for tensor in kept.state_dict().values())


def test_the_last_good_state_is_kept_when_training_diverges(images, tmp_path, monkeypatch):
    """A gradient that is not finite in update 5: what was saved after update 4 stays."""
    clip, norms = torch.nn.utils.clip_grad_norm_, []

    def diverges(parameters, most):
        if len(norms) == 4:
            parameters[-1].grad.flatten()[0] = float("nan")
        norms.append(clip(parameters, most))
        return norms[-1]

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", diverges)
    with pytest.raises(LearningError, match="update 5: training has diverged, the norm of the gradient is nan"):
        run(images, tmp_path, replace(SETTINGS, evaluate_every=1, save_every=1))
    assert read_state(tmp_path).update == 4
    assert all(torch.isfinite(tensor).all() for tensor in load_file(tmp_path / "state.safetensors").values())


def test_descriptors_that_are_not_finite_are_told_by_the_validation(images, tmp_path, monkeypatch):
    def overflows(self, *closure):
        step(self, *closure)
        network.backbone.body.model.bn1.running_var.fill_(float("nan"))  # no parameter: the step looks well

    network, step = tiny(images), torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", overflows)
    with pytest.raises(LearningError, match="update 1: training has diverged, descriptors of the validation images"):
        run(images, tmp_path, replace(SETTINGS, evaluate_every=1, save_every=1), network=network)
    assert not (tmp_path / "state.safetensors").exists()


def test_another_run_in_the_folder_is_rejected(images, trained, tmp_path):
    out, _ = trained
    with pytest.raises(LearningError, match=r"settings.margin \(0.1, now 0.2\), settings.triplets \(6, now 7\)"):
        run(images, out, replace(SETTINGS, margin=0.2, triplets=7))
    network = tiny(images)
    with torch.no_grad():
        network.fc.bias.add_(1)
    with pytest.raises(LearningError, match="other weights"):
        run(images, out, network=network)
    with pytest.raises(LearningError, match="other images.files, images.labels, .*validation.files"):
        run(pictures(tmp_path, landmarks=3), out, network=tiny(images))
    run(images, out, replace(SETTINGS, save_every=1))  # says nothing about the result


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
from rmaclib.datasets import open_collection
from test_ranking_stage import OFTEN, run
torch.set_num_threads(1)
step, steps = torch.optim.SGD.step, []
def killed(self, *closure):
    steps.append(None)
    if len(steps) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, *closure)
torch.optim.SGD.step = killed
run(open_collection(sys.argv[2]), sys.argv[3], OFTEN)
"""
OFTEN = replace(SETTINGS, refresh=4, evaluate_every=1, save_every=3)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_killed_and_started_again_gives_the_same_result(images, tmp_path, one_thread):
    # In the middle of a period, when more was logged and a better network kept than the last state (3) knows.
    arguments = [os.path.dirname(__file__), images.root, tmp_path / "killed"]
    assert subprocess.run([sys.executable, "-c", KILLED, *arguments]).returncode == -signal.SIGKILL
    lines = (tmp_path / "killed/log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["update", *map(str, range(6))]
    collection = open_collection(images.root)
    killed, whole = (run(collection, tmp_path / name, OFTEN) for name in ("killed", "whole"))
    assert rows(killed.history) == rows(whole.history)
    assert (killed.best_update, killed.score) == (whole.best_update, whole.score)
    for name in ("best.safetensors", "state.safetensors"):
        again, straight = (load_file(tmp_path / run / name) for run in ("killed", "whole"))
        assert again.keys() == straight.keys() and all(torch.equal(again[key], straight[key]) for key in again), name
    for name in ("run.json", "bad.txt"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    # Rounded in the state, a number may be logged with another last digit after going on.
    assert load_file(tmp_path / "killed/state.safetensors")["step.cosine"].dtype == torch.float64
