import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from rmaclib.checkpoints import CheckpointError, fingerprint, open_network, save_network
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract, extract_image
from rmaclib.images import ImageError
from rmaclib.network import RMAC
from rmaclib.networks import DEFAULT
from rmaclib.ranking import rank
from rmaclib.search.index import Index
from rmaclib.search.index_folder import SearchIndexError
from rmaclib.search.vector_index import VectorIndex

FAST = ExtractionSettings((128,), precision="float32", device="cpu")
SMALL = replace(FAST, sizes=(64,))


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
    assert fingerprint(index.network) == fingerprint(open_network(DEFAULT)) and index.settings.sizes == (512,)


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


def test_the_network_stays_as_it_is(built, pictures, lite0):
    modes = [module.training for module in lite0.modules()]
    lite0.train()
    try:
        built.search(pictures[0])
        assert all(module.training for module in lite0.modules())
    finally:
        for module, mode in zip(lite0.modules(), modes, strict=True):
            module.training = mode
