import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from rmaclib.images import ImageError
from rmaclib.rmac import RMAC
from rmaclib.search import index as index_module
from rmaclib.search.descriptors import DescribeSettings, describe, describe_image
from rmaclib.search.index import Index
from rmaclib.search.ranking import rank
from rmaclib.search.vector_index import SearchIndexError, VectorIndex

FAST = DescribeSettings((128,), precision="float32", device="cpu")


@pytest.fixture
def pictures(little, tmp_path):
    return sorted(shutil.copytree(little / "jpg", tmp_path / "my photos").iterdir())


@pytest.fixture
def built(pictures, lite0):
    return Index.build(pictures[0].parent, lite0, FAST)


def test_search_is_describe_and_rank(built, pictures, lite0):
    assert len(built) == len(pictures) and set(built.vectors.names) == set(map(str, pictures))
    vectors = describe(lite0, pictures, FAST).vectors
    for box in (None, (10, 20, 200, 150)):
        query = describe(lite0, pictures[3:4], FAST, boxes=[box]).vectors
        order = rank(query, vectors, 5)[0]
        found = built.search(pictures[3], box, k=5)
        assert [name for name, *_ in found] == [str(pictures[n]) for n in order]
        np.testing.assert_allclose([one.similarity for one in found], (vectors @ query[0])[order], atol=1e-5)
        assert all(one.inliers is None for one in found)
    picture = Image.open(pictures[3])
    assert built.search(picture, (10, 20, 200, 150), k=5) == found
    assert len(built.search(picture.convert("L"), k=1000)) == len(pictures)
    np.testing.assert_allclose(describe_image(lite0, picture.convert("RGB"), FAST), vectors[3], atol=1e-5)


def test_saved_loaded_added_to(built, pictures, tmp_path, lite0, monkeypatch):
    extra = tmp_path / "new one.jpg"
    Image.effect_noise((90, 60), 80).convert("RGB").save(extra)
    built.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    assert loaded.settings == replace(FAST, device="auto") and str(loaded) == str(built)
    before = built.search(pictures[0], k=4)
    assert [name for name, *_ in loaded.search(pictures[0], k=4)] == [name for name, *_ in before]
    (tmp_path / "empty.jpg").write_bytes(b"")
    described = []

    def noted(network, paths, *rest, **more):
        described.extend(paths)
        return describe(network, paths, *rest, **more)

    monkeypatch.setattr(index_module, "describe", noted)
    assert loaded.add([*pictures, extra, extra, tmp_path / "empty.jpg"]) == 1
    assert described == [extra, tmp_path / "empty.jpg"]
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
    """As in the README: a relative folder, the default network; names are absolute."""
    monkeypatch.chdir(pictures[0].parent.parent)
    monkeypatch.setattr(index_module, "DESCRIBE", FAST)
    index = Index.build("my photos")
    found = index.search(f"my photos/{pictures[2].name}", k=3)
    assert found[0].name == str(pictures[2]) and found[0].similarity == pytest.approx(1, abs=1e-4)
    assert index.network.settings.backbone == "efficientnet_lite0" and len(Index.build([])) == 0
    assert Index.build([]).search(pictures[0], rerank=5) == []


def test_an_empty_index_is_an_index(pictures, tmp_path, lite0):
    Index.build([], lite0, FAST, out=tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    assert loaded.search(pictures[0]) == [] and loaded.add(pictures[0]) == 1
    loaded.save(tmp_path / "index")
    assert len(Index.load(tmp_path / "index")) == 1


def test_another_network_is_refused(built, pictures, tmp_path, lite0):
    built.save(tmp_path / "index")
    torch.manual_seed(5)
    other = RMAC(replace(lite0.settings, dim=16), lite0.backbone).eval()
    with pytest.raises(SearchIndexError, match="made otherwise.*network.dim .None, now 16."):
        Index.load(tmp_path / "index", other)
    with pytest.raises(SearchIndexError, match="holds an index already"):
        Index.build(pictures[:2], lite0, FAST, out=tmp_path / "index")
    with pytest.raises(SearchIndexError, match="holds another index"):
        Index(other, FAST).save(tmp_path / "index")
    assert len(Index.load(tmp_path / "index")) == len(pictures)  # its network was not overwritten
    (tmp_path / "index" / "network.safetensors").write_bytes(b"x")
    with pytest.raises(SearchIndexError, match="network.safetensors"):
        Index.load(tmp_path / "index")
    bare = VectorIndex(4)
    bare.save(tmp_path / "bare")
    with pytest.raises(SearchIndexError, match="expected an index of images"):
        Index.load(tmp_path / "bare")


def test_a_killed_build_goes_on(pictures, tmp_path, lite0, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(VectorIndex, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        Index.build(pictures, lite0, FAST, out=tmp_path / "index")
    with pytest.raises(SearchIndexError, match="expected an index"):
        Index.load(tmp_path / "index")
    monkeypatch.undo()
    monkeypatch.setattr("rmaclib.search.descriptors.Extractor", None)  # everything is described already
    assert len(Index.build(pictures, lite0, FAST, out=tmp_path / "index")) == len(pictures)
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
    found = built.search(pictures[2], k=9, rerank=6)
    assert {one.name for one in found[:6]} == {one.name for one in plain[:6]} and found[6:] == plain[6:]
    inliers = [one.inliers for one in found[:6]]
    assert inliers == sorted(inliers, reverse=True) and found[0].name == str(pictures[2]) and inliers[0] > 100
    assert [one.name for one in built.search(pictures[2], k=2, rerank=6)] == [one.name for one in found[:2]]
