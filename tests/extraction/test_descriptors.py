import os

import numpy as np
import pytest
import torch
from extraction_pictures import FAST, photographs, tiny
from PIL import Image
from torch import nn

from rmaclib.datasets import DatasetError
from rmaclib.extraction.batches import ExtractionSettings, Extractor, multiplies_bfloat16, pick_device
from rmaclib.extraction.descriptors import extract, extract_image
from rmaclib.extraction.folder import load_descriptors
from rmaclib.extraction.whitening import learn_whitening
from rmaclib.foundation.errors import InputError, OutputError
from rmaclib.images import fit, read_image


def by_hand(network, path, sizes, box=None):
    """The descriptor of one image in float32, spelled out."""
    total = 0
    for size in sizes:
        pixels = np.array(fit(read_image(path), size, box))
        with torch.inference_mode():
            total = total + network(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()
    return total / np.linalg.norm(total)


@pytest.mark.parametrize("sizes", [(64,), (40, 64, 90)])
def test_equals_one_image_at_a_time(tmp_path, sizes):
    network, paths = tiny(), photographs(tmp_path)
    boxes = [None if number % 3 else (5, 5, 30, 25) for number in range(len(paths))]
    descriptors = extract(network, paths, ExtractionSettings(sizes, device="cpu", precision="float32"), boxes=boxes)
    expected = [by_hand(network, path, sizes, box) for path, box in zip(paths, boxes, strict=True)]
    assert descriptors.vectors.dtype == np.float32 and descriptors.bad == ()
    assert descriptors.names == tuple(map(str, paths))
    assert ((descriptors.vectors * expected).sum(1) > 1 - 1e-6).all()


def test_40_bad_among_400(tmp_path):
    paths = photographs(tmp_path / "jpg", 400)
    whole = paths[0].read_bytes()
    damages = [lambda p: p.write_bytes(b""), lambda p: p.write_bytes(whole[:len(whole) // 2]),
               lambda p: p.write_text("words"), lambda p: Image.new("L", (1, 99)).save(p), lambda p: p.unlink()]
    bad = paths[3::10]
    for number, path in enumerate(bad):
        damages[number % len(damages)](path)
    good = [path for path in paths if path not in bad]
    descriptors = extract(tiny(), paths, FAST, out=tmp_path / "out")
    assert [name for name, _ in descriptors.bad] == list(map(str, bad)) and len(bad) == 40
    assert descriptors.names == tuple(map(str, good)) and descriptors.vectors.shape == (360, 8)
    assert all(str(path) in reason for path, (_, reason) in zip(bad, descriptors.bad, strict=True))
    lines = (tmp_path / "out" / "bad.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == list(map(str, bad))
    only_good = extract(tiny(), good, FAST)
    assert ((only_good.vectors * descriptors.vectors).sum(1) > 1 - 1e-6).all()


def test_nothing_and_nothing_good(tmp_path):
    assert extract(tiny(), [], FAST).vectors.shape == (0, 8)
    assert extract(tiny(), [], FAST, out=tmp_path / "none").vectors.shape == (0, 8)
    descriptors = extract(tiny(), [tmp_path / "missing.jpg"], out=tmp_path / "bad")
    assert descriptors.vectors.shape == (0, 8) and len(descriptors.bad) == 1


def test_bad_arguments(tmp_path):
    paths = photographs(tmp_path, 2)
    with pytest.raises(InputError, match="as many names and boxes as images, got 2 images, 1 names, 2 boxes"):
        extract(tiny(), paths, FAST, names=["only"])
    outside = extract(tiny(), paths, FAST, boxes=[(500, 500, 600, 600), None])
    assert len(outside.names) == 1 and "box" in outside.bad[0][1]
    for options in ({"sizes": ()}, {"sizes": (0,)}, {"crop_order": "x"}, {"precision": "float16"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ExtractionSettings(**options)
    with pytest.raises(ValueError, match="device"):
        pick_device("abacus")


class Rough(nn.Sequential):
    """Layers whose result changes with the last digits of their input."""

    def forward(self, images):
        return torch.sin(1000 * super().forward(images))


def test_bfloat16_only_where_the_first_images_keep_it(tmp_path):
    items = [(path, None) for path in photographs(tmp_path, 4)] + [(tmp_path / "missing.jpg", None)]
    auto = ExtractionSettings((8,), device="cpu")  # one cell: what is pooled is what the layers give
    for body, close in ((nn.Sequential, True), (Rough, False)):
        with Extractor(tiny(body=body), auto, lambda network, images: network(images[0])) as extractor:
            assert extractor.half_is_close(items) is close and extractor.half is False
            extractor.choose_precision(items)
            assert extractor.half is (close and multiplies_bfloat16(torch.device("cpu")))


def test_learn_whitening(tmp_path):
    network, paths = tiny(), photographs(tmp_path, 40)
    (whitening,) = learn_whitening(network, [*paths, tmp_path / "missing.jpg"], FAST, dim=3)
    assert whitening.weight.shape == (3, 8) and whitening.count > 40
    network.set_whitening(whitening)
    assert extract(network, paths, FAST).vectors.shape == (40, 3)


# --- the network stays as it is -----------------------------------------------------------------------------------


def state_of(network):
    return ([module.training for module in network.modules()],
            {name: (tensor.device, tensor.dtype, tensor.clone()) for name, tensor in network.state_dict().items()})


@pytest.mark.parametrize("use", [
    lambda network, paths: extract(network, paths, FAST),
    lambda network, paths: extract_image(network, read_image(paths[0]), FAST),
    lambda network, paths: learn_whitening(network, paths, FAST),
    lambda network, paths: extract_image(network, read_image(paths[0]), FAST, (900, 900, 950, 950)),
    lambda network, paths: learn_whitening(network, paths[:1], FAST, dim=99),
])
def test_the_network_is_left_as_it_was(tmp_path, use):
    """Training mode, and of some modules another than of the rest; also when it fails."""
    network, paths = tiny().train(), photographs(tmp_path, 4)
    network.backbone.body[0].eval()
    modes, tensors = state_of(network)
    try:
        use(network, paths)
    except ValueError:
        pass
    assert state_of(network)[0] == modes
    for name, (device, dtype, values) in state_of(network)[1].items():
        assert (device, dtype) == tensors[name][:2] and torch.equal(values, tensors[name][2])


# --- which images, and their names --------------------------------------------------------------------------------


def test_a_folder_a_list_and_one_image(tmp_path):
    paths = photographs(tmp_path / "jpg", 4)
    (tmp_path / "jpg" / "0009.jpg").symlink_to(tmp_path / "missing.jpg")
    (tmp_path / "list.txt").write_text("jpg/0001.jpg 0\njpg/0003.jpg 0\n")
    by_path = extract(tiny(), paths, FAST)
    of_folder = extract(tiny(), tmp_path / "jpg", FAST, left_out=[("0010.jpg", "was left out before")])
    assert of_folder.names == by_path.names and np.array_equal(of_folder.vectors, by_path.vectors)
    assert of_folder.bad == (("0010.jpg", "was left out before"), ("0009.jpg", "a link to a file that isn't there"))
    of_list = extract(tiny(), str(tmp_path / "list.txt"), FAST, names=["b", "d"], out=tmp_path / "out")
    assert of_list.names == ("b", "d") and np.allclose(of_list.vectors, by_path.vectors[[1, 3]], atol=1e-6)
    of_image = extract(tiny(), paths[2], FAST)
    assert of_image.names == (str(paths[2]),) and np.allclose(of_image.vectors, by_path.vectors[2:3], atol=1e-6)
    with pytest.raises(DatasetError, match="nowhere: expected a path or a name"):
        extract(tiny(), "nowhere", FAST)
    with pytest.raises(OutputError, match="outside of the images"):
        extract(tiny(), tmp_path / "jpg", FAST, out=tmp_path / "jpg" / "out")


def test_names_that_are_no_text_are_left_out(tmp_path):
    paths = photographs(tmp_path / "jpg", 4)
    names = ["two\nlines.jpg", os.fsdecode(b"caf\xe9.jpg")]
    for number, name in enumerate(names):
        paths[number] = paths[number].rename(paths[number].with_name(name))
    memory = extract(tiny(), paths, FAST)
    folder = extract(tiny(), paths, FAST, out=tmp_path / "out")
    assert folder.names == memory.names == tuple(map(str, paths[2:])) and len(folder.vectors) == 2
    assert folder.bad == memory.bad
    assert [reason for _, reason in folder.bad] == ["its name is no line of UTF-8 text"] * 2
    lines = (tmp_path / "out" / "bad.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 and "two\\nlines" in lines[0] and "caf\\udce9" in lines[1]
    # A name of its own makes such a file usable; what is said about it is text.
    paths[0].write_bytes(b"")
    named = extract(tiny(), paths, FAST, names=list("abcd"), out=tmp_path / "named")
    assert named.names == ("b", "c", "d") and named.bad[0][0] == "a"


def test_an_image_that_is_listed_twice_is_taken_once(tmp_path, noted):
    paths = photographs(tmp_path / "jpg", 3)
    for out in (None, tmp_path / "out"):
        with noted("1 images are listed more than once"):
            descriptors = extract(tiny(), [*paths, paths[1], paths[1]], FAST, out=out)
        assert descriptors.names == tuple(map(str, paths)) and len(descriptors.vectors) == 3
        assert descriptors.repeated == (str(paths[1]),)
    assert load_descriptors(tmp_path / "out").repeated == (str(paths[1]),)
    both = extract(tiny(), [paths[0]] * 3, FAST, names=["a", "b", "a"], boxes=[None, None, (0, 0, 30, 30)])
    assert both.names == ("a", "b", "a") and both.repeated == ()  # other names or boxes: not the same


@pytest.mark.parametrize("options, message", [
    ({"sizes": "512"}, "sizes: expected a list, got '512'"), ({"sizes": (512.0,)}, "sizes.0"),
    ({"sizes": True}, "sizes"), ({"sizes": [64, -1]}, "sizes.1: expected at least 1, got -1"),
    ({"enlarge": 1}, "enlarge"), ({"device": 3}, "device"), ({"size": 3}, "unknown setting 'size'")])
def test_settings_are_strict(options, message):
    with pytest.raises(InputError, match=message):
        ExtractionSettings(**options)
    assert ExtractionSettings(64).sizes == ExtractionSettings([64]).sizes == (64,)
    with pytest.raises(InputError, match="device: 'meta' can't be used"):
        pick_device("meta")
