import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import faiss
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rmaclib.backbones import Backbone
from rmaclib.checkpoints import CheckpointError, save_network
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract, extract_image
from rmaclib.foundation.errors import OutputError
from rmaclib.images import ImageError
from rmaclib.network import RMAC, NetworkSettings
from rmaclib.ranking import rank
from rmaclib.search.index import Index
from rmaclib.search.index_folder import SearchIndexError, index_folder, remove_descriptions
from rmaclib.search.vector_index import VectorIndex

FAST = ExtractionSettings((128,), precision="float32", device="cpu")
SMALL = replace(FAST, sizes=(64,))


@pytest.fixture
def pictures(little, tmp_path):
    return sorted(shutil.copytree(little / "jpg", tmp_path / "my photos").iterdir())


@pytest.fixture
def built(pictures, lite0):
    return Index.build(pictures[0].parent, lite0, FAST)


def test_search_is_extract_and_rank(built, pictures, lite0):
    assert len(built) == len(pictures) and set(built.vectors.names) == set(map(str, pictures))
    vectors = extract(lite0, pictures, FAST).vectors
    for box in (None, (10, 20, 200, 150)):
        query = extract(lite0, pictures[3:4], FAST, boxes=[box]).vectors
        order = rank(query, vectors, 5)[0]
        neighbours = built.search(pictures[3], box, k=5)
        assert [neighbour.name for neighbour in neighbours] == [str(pictures[n]) for n in order]
        np.testing.assert_allclose([neighbour.similarity for neighbour in neighbours], (vectors @ query[0])[order],
                                   atol=1e-5)
        assert all(neighbour.inliers is None for neighbour in neighbours)
    picture = Image.open(pictures[3])
    assert built.search(picture, (10, 20, 200, 150), k=5) == neighbours
    assert len(built.search(picture.convert("L"), k=1000)) == len(pictures)
    np.testing.assert_allclose(extract_image(lite0, picture.convert("RGB"), FAST), vectors[3], atol=1e-5)


def test_saved_loaded_added_to(built, pictures, tmp_path, lite0):
    extra = tmp_path / "new one.jpg"
    Image.effect_noise((90, 60), 80).convert("RGB").save(extra)
    built.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    assert loaded.settings == replace(FAST, device="auto") and str(loaded) == str(built)
    before = built.search(pictures[0], k=4)
    assert [name for name, *_ in loaded.search(pictures[0], k=4)] == [name for name, *_ in before]
    (tmp_path / "empty.jpg").write_bytes(b"")
    pictures[1].unlink()  # not opened again: it is in the index
    assert loaded.add([*pictures, extra, extra, tmp_path / "empty.jpg"]) == 1
    assert [os.path.basename(name) for name, _ in loaded.bad] == ["empty.jpg"] and "empty" in loaded.bad[0][1]
    loaded.save(tmp_path / "index")
    assert not list((tmp_path / "index").glob("describing-*"))
    assert loaded.add(extra) == 0 and loaded.bad == ()
    again = Index.load(tmp_path / "index", lite0)
    assert len(again) == len(pictures) + 1 and again.search(extra, k=1)[0].name == str(extra)
    extra.unlink()
    again.remove(str(extra))
    with pytest.raises(ValueError, match="new one.jpg"):
        again.remove([extra])
    assert len(again) == len(pictures)


def test_three_lines_from_a_folder(pictures, monkeypatch):
    """As in the README: a relative folder, the default network and settings; names are absolute."""
    for path in pictures[4:]:
        path.unlink()
    monkeypatch.chdir(pictures[0].parent.parent)
    index = Index.build("my photos")
    neighbours = index.search(f"my photos/{pictures[2].name}", k=3)
    assert neighbours[0].name == str(pictures[2]) and neighbours[0].similarity == pytest.approx(1, abs=1e-4)
    assert index.network.settings.backbone == "efficientnet_lite0" and index.settings.sizes == (512,)


def test_a_network_by_name_or_file(pictures, lite0, tmp_path):
    save_network(tmp_path / "two levels.safetensors", RMAC(replace(lite0.settings, levels=2), lite0.backbone))
    for network, levels in (("efficientnet_lite0", 3), (tmp_path / "two levels.safetensors", 2)):
        index = Index.build(pictures[:2], network, SMALL)
        assert index.network.settings.levels == levels and len(index) == 2
    with pytest.raises(CheckpointError, match="nowhere.safetensors"):
        Index.build(pictures[:2], tmp_path / "nowhere.safetensors", SMALL, out=tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_an_empty_index_is_an_index(pictures, tmp_path, lite0):
    assert Index.build([], lite0).search(pictures[0], rerank=5) == []
    Index.build([], lite0, FAST, out=tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    assert loaded.search(pictures[0]) == [] and loaded.add(pictures[0]) == 1
    loaded.save(tmp_path / "index")
    assert len(Index.load(tmp_path / "index")) == 1


def test_another_network_is_rejected(built, pictures, tmp_path, lite0):
    built.save(tmp_path / "index")
    torch.manual_seed(5)
    other = RMAC(replace(lite0.settings, dim=16), lite0.backbone).eval()
    with pytest.raises(SearchIndexError, match="another network or other settings.*network.dim .None, now 16."):
        Index.load(tmp_path / "index", other)
    with pytest.raises(SearchIndexError, match="contains an index already"):
        Index.build(pictures[:2], lite0, FAST, out=tmp_path / "index")
    with pytest.raises(SearchIndexError, match="contains another index"):
        Index(other, FAST).save(tmp_path / "index")
    assert len(Index.load(tmp_path / "index")) == len(pictures)  # its network was not overwritten
    (tmp_path / "index" / "network.safetensors").write_bytes(b"x")
    with pytest.raises(SearchIndexError, match="network.safetensors"):
        Index.load(tmp_path / "index")
    bare = VectorIndex(4)
    bare.save(tmp_path / "bare")
    with pytest.raises(SearchIndexError, match="expected an index of images"):
        Index.load(tmp_path / "bare")


def killed(*arguments):
    raise KeyboardInterrupt


@contextmanager
def counted(network):
    """How often a network is computed in the block: a list with an entry for each batch."""
    batches = []
    hook = network.register_forward_pre_hook(lambda *_: batches.append(1))
    try:
        yield batches
    finally:
        hook.remove()


def test_a_killed_build_goes_on(pictures, tmp_path, lite0, monkeypatch):
    with monkeypatch.context() as patch, counted(lite0) as batches:
        patch.setattr(faiss, "IndexFlatIP", killed)  # all descriptors are extracted then, and none is in the index
        with pytest.raises(KeyboardInterrupt):
            Index.build(pictures, lite0, FAST, out=tmp_path / "index")
    assert batches
    with pytest.raises(SearchIndexError, match="expected an index"):
        Index.load(tmp_path / "index")
    with counted(lite0) as batches:
        assert len(Index.build(pictures, lite0, FAST, out=tmp_path / "index")) == len(pictures)
    assert not batches
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [
        ".rmac.json", ".rmac.lock", "000001.faiss", "000001.txt", "meta.json", "network.safetensors"]


def test_names_that_cannot_be_stored_are_left_out(pictures, lite0):
    strange = pictures[0].with_name("two\nlines.jpg")
    pictures[0].rename(strange)
    index = Index.build(pictures[0].parent, lite0, FAST)
    assert len(index) == len(pictures) - 1 and "two\\nlines" in index.bad[0][0]


def test_bad_calls_say_what_was_expected(built, pictures, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    for image in (tmp_path / "text.jpg", tmp_path / "nothing.jpg", tmp_path):
        with pytest.raises(ImageError, match=image.name):
            built.search(image)
    for options in ({"k": 0}, {"k": None}, {"k": 2.5}, {"rerank": -1}, {"rerank": "3"},
                    {"box": (9000, 0, 9001, 5)}, {"box": (50, 50, 50, 90)}, {"box": (float("nan"), 0, 5, 5)}):
        with pytest.raises(ValueError, match=next(iter(options))):
            built.search(pictures[0], **options)
    with pytest.raises(ValueError, match="expected the query as a file"):
        built.search(Image.open(pictures[0]), rerank=3)
    assert len(built.search(pictures[0], k=10**9)) == len(pictures)


def test_reranked_search(built, pictures):
    pictures[-1].unlink()  # a file that is gone stays where it was
    plain = built.search(pictures[2], k=9)
    reranked = built.search(pictures[2], k=9, rerank=6)
    names = [neighbour.name for neighbour in reranked]
    assert set(names[:6]) == {neighbour.name for neighbour in plain[:6]} and reranked[6:] == plain[6:]
    inliers = [neighbour.inliers for neighbour in reranked[:6]]
    assert inliers == sorted(inliers, reverse=True) and names[0] == str(pictures[2]) and inliers[0] > 100
    assert [neighbour.name for neighbour in built.search(pictures[2], k=2, rerank=6)] == names[:2]


# --- several processes, folders, older versions -------------------------------------------------------------------


def test_other_settings_or_network_settings_are_rejected(pictures, lite0, tmp_path):
    """All that changes a descriptor is compared; the device is not."""
    index = Index.build(pictures[:2], lite0, SMALL, out=tmp_path / "index")
    for settings, message in ((replace(SMALL, sizes=(96,)), r"describe.sizes \(\[64\], now \[96\]\)"),
                              (replace(SMALL, enlarge=True), "describe.enlarge")):
        with pytest.raises(SearchIndexError, match=message):
            Index(lite0, settings, index.vectors)
    for options in ({"levels": 2}, {"grid": "pixel"}, {"pooling": "average"}):
        other = RMAC(replace(lite0.settings, **options), lite0.backbone).eval()
        with pytest.raises(SearchIndexError, match=f"network.{next(iter(options))}"):
            Index.load(tmp_path / "index", other)
    assert len(Index(lite0, replace(SMALL, device="auto"), index.vectors)) == 2
    with pytest.raises(SearchIndexError, match="weights"):
        Index(lite0, SMALL, VectorIndex(lite0.dim))


def test_an_image_given_twice_is_noted_and_indexed_once(pictures, lite0, noted):
    with noted("listed more than once"):
        index = Index.build([*pictures[:2], pictures[0]], lite0, SMALL)
    assert len(index) == 2 and index.repeated == (str(pictures[0]),) and index.bad == ()


def test_pictures_beside_folders_and_names_that_are_no_text(pictures, lite0):
    folder = pictures[0].parent
    (folder / "more").mkdir()
    pictures[1].rename(folder / "more" / "inside.jpg")
    pictures[2].rename(folder / os.fsdecode(b"caf\xe9.jpg"))
    index = Index.build(folder, lite0, SMALL)
    assert len(index) == len(pictures) - 1 and str(folder / "more" / "inside.jpg") in index.vectors
    assert "caf\\udce9" in index.bad[0][0] and "UTF-8" in index.bad[0][1]


def test_output_among_files_of_the_user_is_rejected(pictures, lite0, tmp_path):
    folder = pictures[0].parent
    (folder / "000001.txt").write_text("a label")
    before = sorted(os.listdir(folder))
    for out in (folder, folder / "index"):
        with pytest.raises(OutputError):
            Index.build(folder, lite0, SMALL, out=out)
    with pytest.raises(OutputError, match="000001.txt"):
        Index.build(pictures[:1], lite0, SMALL, out=folder)
    assert sorted(os.listdir(folder)) == before
    out = tmp_path / "out"
    index = Index.build(pictures[:1], lite0, SMALL, out=out)
    for name in ("describing-mine", "describing-0123456789abcdef"):
        (out / name).mkdir()
        (out / name / "mine.txt").write_text("mine")
    index.add(pictures[1])
    index.save(out)
    assert all((out / name / "mine.txt").exists() for name in ("describing-mine", "describing-0123456789abcdef"))


def test_left_overs_of_a_killed_addition_go_with_the_next_save(pictures, lite0, tmp_path, monkeypatch):
    out = tmp_path / "index"
    index = Index.build(pictures[:1], lite0, SMALL, out=out)
    with monkeypatch.context() as patch:
        patch.setattr(faiss, "IndexFlatIP", killed)
        with pytest.raises(KeyboardInterrupt):
            index.add(pictures[1:3])
    assert len(list(out.glob("describing-*"))) == 1
    index.add(pictures[3])
    index.save(out)
    assert not list(out.glob("describing-*")) and len(Index.load(out, lite0)) == 2
    marker = json.loads((out / ".rmac.json").read_text())
    assert set(marker["files"]) | {".rmac.json", ".rmac.lock"} == set(os.listdir(out))


def test_a_kill_while_descriptors_are_kept_leaves_nothing_of_them(pictures, tmp_path, monkeypatch):
    """Before each rename and removal of a file: what is left over goes with the next save."""
    class Killed(BaseException):
        pass

    def breakable(call):
        def breaking(path, *arguments, **options):
            nonlocal count
            count += "describing-" in str(path)
            if count == last:
                raise Killed  # also at every later call: a killed process makes none
            return call(path, *arguments, **options)
        return breaking

    body = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.ReLU())
    network = RMAC(NetworkSettings("tiny", levels=2), Backbone("tiny", body, 8, 8, (0.5,) * 3, (0.5,) * 3)).eval()
    start, last, count, finished = tmp_path / "start", 0, 0, False
    Index.build(pictures[:1], network, SMALL, out=start)
    for owner, name in ((os, "replace"), (os, "unlink"), (os, "rmdir")):
        monkeypatch.setattr(owner, name, breakable(getattr(owner, name)))
    while not finished:
        last, count = last + 1, 0
        out = tmp_path / f"index {last}"
        shutil.copytree(start, out)
        try:
            index = Index.load(out, network)
            index.add(pictures[1:2], progress=False)
            index.save(out)
            finished = True
        except Killed:
            count = -10**6
        with index_folder(out) as opened:
            remove_descriptions(opened)
        assert not list(out.glob("describing-*")), last
    assert last > 5


def test_what_others_added_is_taken_over(pictures, lite0, tmp_path):
    out = tmp_path / "index"
    Index.build(pictures[:1], lite0, SMALL, out=out)
    first, second = (Index.load(out, lite0) for _ in range(2))
    assert first.add(pictures[:3]) == 2
    first.save(out)
    assert second.add(pictures[:4]) == 1  # the two are not extracted again
    second.save(out)
    assert set(Index.load(out, lite0).vectors.names) == set(map(str, pictures[:4])) == set(second.vectors.names)


BUILD = """
import sys
from pathlib import Path
from rmaclib.checkpoints import load_network
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.search.index import Index

index = Index.build([Path(name) for name in sys.argv[3:]], load_network(sys.argv[1]),
                    ExtractionSettings((64,), precision="float32", device="cpu"), out=sys.argv[2])
print(len(index))
"""


def test_two_builds_of_one_folder_both_end_well(pictures, lite0, tmp_path):
    """The second waits, and adds what the first's images lack."""
    save_network(tmp_path / "lite0.safetensors", lite0)
    lists = pictures[:8], pictures[4:10]
    command = [sys.executable, "-c", BUILD, tmp_path / "lite0.safetensors", tmp_path / "index"]
    builds = [subprocess.Popen([*command, *images], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
              for images in lists]
    ends = [build.communicate(timeout=200) for build in builds]
    assert [build.returncode for build in builds] == [0, 0], ends
    assert set(Index.load(tmp_path / "index", lite0).vectors.names) == set(map(str, pictures[:10]))
    assert sorted(path.name for path in (tmp_path / "index").iterdir() if path.name.startswith("desc")) == []


def test_an_index_of_an_older_version_is_loaded_and_added_to(pictures, lite0, tmp_path):
    out = tmp_path / "index"
    Index.build(pictures[:2], lite0, SMALL, out=out)
    meta = json.loads((out / "meta.json").read_text())
    del meta["checksum"]
    for entry in meta["segments"]:
        del entry["checksums"]
    (out / "meta.json").write_text(json.dumps({**meta, "version": 1}))
    for name in (".rmac.json", ".rmac.lock"):
        (out / name).unlink()
    (out / "describing-0123456789abcdef" / "partial").mkdir(parents=True)  # of a killed addition
    (out / "describing-0123456789abcdef" / "partial" / "meta.json").write_text(
        json.dumps(dict.fromkeys(("network", "weights", "settings", "images"))))
    index = Index.load(out)
    assert index.search(pictures[1], k=1)[0].name == str(pictures[1])
    assert index.add(pictures[2]) == 1
    index.save(out)
    assert len(Index.load(out)) == 3 and not list(out.glob("describing-*"))


def test_a_network_that_does_not_fit_on_the_disk_is_noticed_before_the_work(pictures, lite0, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.serialize_file", full)
    with counted(lite0) as batches, pytest.raises(OutputError, match="network.safetensors.*No space left"):
        Index.build(pictures[:2], lite0, SMALL, out=tmp_path / "index")
    assert not batches


def test_the_network_stays_as_it_is(built, pictures, lite0):
    modes = [module.training for module in lite0.modules()]
    lite0.train()
    try:
        built.search(pictures[0])
        assert all(module.training for module in lite0.modules())
    finally:
        for module, mode in zip(lite0.modules(), modes, strict=True):
            module.training = mode
