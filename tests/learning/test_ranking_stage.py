import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import learning_pictures
import numpy as np
import pytest
import torch
from learning_pictures import FILES, SIZE, pictures, tiny
from safetensors.torch import load_file
from scipy.sparse import csr_array

from rmaclib.checkpoints import load_network
from rmaclib.datasets import open_collection
from rmaclib.learning import LOSSES, LearningError, RankingSettings, hold_out, loop, ranking, train_ranking
from rmaclib.learning.folder import read_state

SETTINGS = RankingSettings(lr=1e-3, triplets=6, pool=20, hardest=5, refresh=3, updates=8, size=SIZE, flip=True,
                           crop=0.6,
                         evaluate_every=2, save_every=2, device="cpu")


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
    out, found = trained
    assert [row["update"] for row in found.history] == list(range(9))
    scores = {row["update"]: row["validation"] for row in found.history if row["validation"] is not None}
    assert list(scores) == [0, 2, 4, 6, 8]
    assert found.score == pytest.approx(max(scores.values())) == scores[found.best_update]
    row = found.history[5]
    assert 0 < row["loss"] and 0 < row["active"] <= 1 and 7 <= row["images"] <= 18 and row["computed"] <= row["images"]
    assert [row["lr"] for row in found.history[1:]] == [1e-3] * 4 + [1e-4] * 4
    assert found.bad == {} and found.network.dim == 8
    assert sorted(path.name for path in out.iterdir()) == FILES


def test_a_run_is_watched_as_it_goes_also_when_it_goes_on(images, tmp_path):
    seen = []

    def watch(history):
        seen.append(list(history))
        if len(seen) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path, watch=watch)
    assert [history[-1]["update"] for history in seen] == list(range(6))
    found = run(images, tmp_path, watch=watch)  # from update 4, the last state
    assert [[row["update"] for row in history] for history in seen[6:]] == [list(range(n + 1)) for n in (5, 6, 7, 8)]
    assert seen[-1] == found.history


def test_the_first_update_of_a_period_is_not_stale(tmp_path, monkeypatch):
    # Of whole strides: others are described as they are, and cut or padded to learn from.
    monkeypatch.setattr(learning_pictures, "SHAPES", [(64, 64), (64, 96), (96, 64), (96, 96)])
    found = run(pictures(tmp_path / "pictures"), tmp_path / "out", replace(SETTINGS, flip=False, crop=1.0, updates=4))
    row = found.history[1]
    assert row["active"] == row["stale_active"] and row["cosine"] == found.history[2]["cosine"]
    assert row["cosine"] != found.history[4]["cosine"]  # described anew


def test_learns_what_it_is_shown(images, tmp_path):
    settings = replace(SETTINGS, optimizer="adamw", lr=3e-4, schedule="constant", updates=30,
                       flip=False, crop=1.0, evaluate_every=30)
    found = train_ranking(tiny(images), images, settings, out=tmp_path, validation=images, progress=False)
    losses = [row["loss"] for row in found.history[1:]]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert found.score > found.history[0]["validation"] + 0.2


def test_a_finished_run_is_only_loaded(images, trained, monkeypatch):
    out, found = trained
    monkeypatch.setattr(ranking, "accumulate", None)
    again = run(images, out)
    assert again.history == found.history and again.score == found.score
    for one, other in zip(again.network.parameters(), found.network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", [
    {"loss": "contrastive"}, {"loss": "average_precision", "schedule": "cosine", "warmup": 2},
    {"optimizer": "adamw", "clip": 0.1}, {"precision": "bfloat16", "pixels": 1, "triplets": 3}])
def test_other_settings_train_too(images, tmp_path, options):
    settings = replace(SETTINGS, margin=None, lr=None, updates=4, refresh=2)
    found = run(images, tmp_path, RankingSettings(**{**asdict(settings), "margin": None, "lr": None, **options}))
    assert len(found.history) == 5 and all(row["gradient_norm"] > 0 for row in found.history[1:])


def test_without_validation_the_last_network_is_kept(images, tmp_path):
    network = tiny(images)
    found = train_ranking(network, images, replace(SETTINGS, updates=2), out=tmp_path, progress=False)
    assert (found.best_update, found.score, len(found.history)) == (2, None, 2)
    for one, other in zip(network.parameters(), found.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_positives_are_verified_pairs_where_given(images, tmp_path, monkeypatch):
    pairs = csr_array((np.ones(4, bool), ([0, 1, 5, 6], [1, 0, 6, 5])), shape=(25, 25))
    seen, mined = [], ranking.mine
    monkeypatch.setattr(ranking, "mine", lambda *arguments: seen.append(mined(*arguments)) or seen[-1])
    train_ranking(tiny(images), images, replace(SETTINGS, updates=3, pool=25), out=tmp_path, positives=pairs,
          validation=images, validation_positives=pairs, progress=False)
    assert {tuple(sorted(pair)) for pair in seen[0].triplets[..., :2].reshape(-1, 2).tolist()} == {(0, 1), (5, 6)}
    with pytest.raises(LearningError, match=r"other images\.positives, validation\.positives;"):
        train_ranking(tiny(images), images, replace(SETTINGS, updates=3, pool=25), out=tmp_path, validation=images)


def test_bad_images_are_left_out_and_listed(tmp_path, monkeypatch):
    images = pictures(tmp_path / "pictures", landmarks=4, each=4)
    network = tiny(images)
    images.paths[0].write_bytes(b"")
    images.paths[5].write_bytes(images.paths[5].read_bytes()[:200])
    mined, lost = ranking.mine, []

    def loses_one_more(*arguments):
        found = mined(*arguments)
        assert not {0, 5} & set(found.triplets.ravel())
        lost.append(int(found.triplets[1, 0, 1]))
        images.paths[lost[0]].unlink()
        return found

    monkeypatch.setattr(ranking, "mine", loses_one_more)
    found = train_ranking(network, images, replace(SETTINGS, updates=3, pool=16), out=tmp_path / "out", progress=False)
    assert list(found.bad) == [images.names[index] for index in (0, 5, *lost)]
    lines = (tmp_path / "out/bad.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == sorted(found.bad)
    assert sum("no such file" in line for line in lines) == 1


def test_all_triplets_of_an_update_lost(tmp_path, monkeypatch):
    images = pictures(tmp_path / "pictures", landmarks=2, each=2)
    network, mined = tiny(images), ranking.mine
    monkeypatch.setattr(ranking, "mine", lambda *a: (mined(*a), [path.unlink() for path in images.paths])[0])
    with pytest.raises(LearningError, match="update 1: each of its triplets has an image that can't be read"):
        train_ranking(network, images, replace(SETTINGS, pool=4), out=tmp_path / "out", progress=False)


def test_collapse_stops_with_advice(images, tmp_path):
    network = tiny(images)
    with torch.no_grad():
        network.fc.bias.fill_(1e4)
    with pytest.raises(LearningError, match=r"update 1: .*collapsed.* mean cosine .* 1.00000.* smaller lr"):
        run(images, tmp_path / "pool", network=network)
    network = tiny(images)
    with pytest.raises(LearningError, match="update [23]: .*collapsed.* squared distances"):
        run(images, tmp_path / "step", replace(SETTINGS, lr=30.0, refresh=8), network=network)


def test_a_loss_that_is_not_finite_stops_with_advice(images, tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, "triplet", lambda descriptors, tuples, margin: descriptors.sum() / 0)
    with pytest.raises(LearningError, match="update 1: training has diverged, the loss is .*inf; try a smaller lr"):
        run(images, tmp_path)


@pytest.mark.parametrize("lr, what", [(1e30, "update 1: .*the norm of all weights went from"),
                                      (1e38, "update 1: .*the norm of all weights")])
def test_divergence_is_told_at_the_update_where_it_happens(images, tmp_path, lr, what):
    with pytest.raises(LearningError, match=f"{what}.*try a smaller lr .now {re.escape(f'{lr:g}')}"):
        run(images, tmp_path, replace(SETTINGS, lr=lr, evaluate_every=1, save_every=1))
    assert not (tmp_path / "state.safetensors").exists()
    kept = load_network(tmp_path / "best.safetensors")  # the untrained one
    assert all(torch.isfinite(tensor).all() for tensor in kept.state_dict().values())


def test_the_last_good_state_is_kept_when_training_diverges(images, tmp_path, monkeypatch):
    """A gradient that is not finite in update 5: what was saved after update 4 stays."""
    plain = ranking._Ranking.__call__

    def diverges(self, update):
        row = plain(self, update)
        if update == 5:
            self.network.fc.weight.grad[0, 0] = float("nan")
        return row

    monkeypatch.setattr(ranking._Ranking, "__call__", diverges)
    with pytest.raises(LearningError, match="update 5: training has diverged, the norm of the gradient is nan"):
        run(images, tmp_path, replace(SETTINGS, evaluate_every=1, save_every=1))
    assert read_state(tmp_path).update == 4
    assert all(torch.isfinite(tensor).all() for tensor in load_file(tmp_path / "state.safetensors").values())


def test_descriptors_that_are_not_finite_are_told_by_the_validation(images, tmp_path, monkeypatch):
    def overflows(parameters, *rest):
        value = stepped(parameters, *rest)
        with torch.no_grad():
            network.backbone.body.model.conv_stem.weight.fill_(float("inf"))
        return value

    network, stepped = tiny(images), loop._stepped
    monkeypatch.setattr(loop, "_stepped", overflows)
    with pytest.raises(LearningError, match="update 1: training has diverged, descriptors of the validation images"):
        run(images, tmp_path, replace(SETTINGS, evaluate_every=1, save_every=1), network=network)
    assert not (tmp_path / "state.safetensors").exists()


def test_another_run_in_the_folder_is_refused(images, trained, tmp_path):
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
from rmaclib.learning import ranking
from test_ranking_stage import OFTEN, run
torch.set_num_threads(1)
step = ranking._Ranking.__call__
def killed(self, update):
    row = step(self, update)
    if update == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return row
ranking._Ranking.__call__ = killed
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
        one, other = (load_file(tmp_path / run / name) for run in ("killed", "whole"))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name
    for name in ("run.json", "bad.txt"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    # Rounded in the state, a number may be logged with another last digit after going on.
    assert load_file(tmp_path / "killed/state.safetensors")["step.cosine"].dtype == torch.float64
