"""The retrieval explorer of the book, in a real browser: it ranks as the library does, by mouse and by keyboard."""

import importlib.util
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rmaclib.datasets import open_collection, open_dataset
from rmaclib.evaluation.average_precision import average_precision
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.resolutions import combine
from rmaclib.images import fit, read_image
from rmaclib.network import NetworkSettings, SharedFeatures, create_network
from rmaclib.regions import rigid_grid
from rmaclib.search.expansion import augment, expand_queries
from rmaclib.search.retrieval import SearchSettings, search_order

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the browser Chromium")
sync_api = pytest.importorskip("playwright.sync_api")
spec = importlib.util.spec_from_file_location("explorer_make", ROOT / "book/explorer/make.py")
make = importlib.util.module_from_spec(spec)
sys.modules["explorer_make"] = make
spec.loader.exec_module(make)
SIZES, QUERIES = (96, 128, 160), 3
PLAIN = {"network": "trained", "levels": 2, "several": False, "dba": 0, "qe": 0, "bytes": make.DIMS}
TOLERANCE = 0.01  # of a similarity: maps, whitening and database have 8 bits a value


@pytest.fixture(scope="module")
def small():
    """Some landmarks of Diorama with their queries, and the networks as they are written for the page."""
    data = open_dataset("diorama")
    queries = data.queries[:: len(data.queries) // QUERIES][:QUERIES]
    wanted = {name for query in queries for grade in query.relevance.values() for name in grade} | set(data.names[::9])
    kept = [(name, path) for name, path in zip(data.names, data.paths, strict=True) if name in wanted]
    names, paths = zip(*kept, strict=True)
    return replace(data, queries=tuple(queries), names=names, paths=paths)


@pytest.fixture(scope="module")
def page(small, tmp_path_factory):
    """The explorer on a page of its own in a browser, and the network behind it."""
    folder = tmp_path_factory.mktemp("explorer")
    with pytest.MonkeyPatch.context() as patch:
        network = create_network(NetworkSettings("efficientnet_lite0"))
        training = list(open_collection("diorama_train").paths[:260])
        networks = make.rewhitened(network, training, SIZES[1])
        patch.setattr(make, "rewhitened", lambda *_: networks)
        make.write(small, training, {"trained": network}, folder, QUERIES, SIZES)
    for name in ("explorer.js", "page.js"):
        shutil.copy(ROOT / "book/explorer" / name, folder)
    shutil.copy(ROOT / "book/_static/custom.css", folder)
    (folder / "index.html").write_text(
        '<!DOCTYPE html><link rel="stylesheet" href="custom.css"><div class="explorer" data-folder="."></div>'
        '<script defer src="explorer.js"></script><script defer src="page.js"></script>')
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 900, "height": 900})
        opened.problems = []
        opened.on("console", lambda message: message.type == "error" and opened.problems.append(message.text))
        opened.on("pageerror", lambda error: opened.problems.append(str(error)))
        opened.on("request", lambda request: request.url.startswith("http") and opened.problems.append(request.url))
        opened.goto(f"file://{folder}/index.html")
        opened.wait_for_selector(".ranking li")
        yield opened, networks
        assert opened.problems == []
        browser.close()


def of_box(network, query, box, sizes):
    """The library's descriptor of the cells that a box touches."""
    vectors = []
    for size in sizes:
        pixels = torch.from_numpy(np.array(fit(read_image(query.path), size))).permute(2, 0, 1)[None]
        with torch.inference_mode():
            features = network.backbone.maps(pixels)[0]
            rows, columns = features.shape[-2:]
            left, top = min(int(box[0] * columns), columns - 1), min(int(box[1] * rows), rows - 1)
            right, bottom = max(math.ceil(box[2] * columns), left + 1), max(math.ceil(box[3] * rows), top + 1)
            cells = features[..., top:bottom, left:right]
            vectors.append(network.aggregate([cells], pixels.shape[-2:]).numpy())
    return combine(vectors)


def test_fifty_boxes_give_the_librarys_first_ten(page, small):
    opened, networks = page
    rng = np.random.default_rng(0)
    shared = SharedFeatures({str(levels): network for levels, network in networks.items()})
    parts = [shared.split(extract(shared, small.paths, ExtractionSettings((size,), precision="float32"),
                                  progress=False).vectors) for size in SIZES]
    for _ in range(50):
        number, levels, several = int(rng.integers(QUERIES)), int(rng.integers(1, 4)), bool(rng.integers(2))
        qe, dba = int(rng.choice([0, 1, 3])), int(rng.choice([0, 5]))
        x, y = rng.uniform(0, 0.7, 2)
        box = [x, y, rng.uniform(x + 0.05, 1), rng.uniform(y + 0.05, 1)]
        sizes = SIZES if several else SIZES[1:2]
        query = of_box(networks[levels], small.queries[number], box, sizes)
        database = combine([part[str(levels)] for part in (parts if several else parts[1:2])])
        settings = {**PLAIN, "levels": levels, "several": several, "dba": dba, "qe": qe}
        seen = np.array(opened.evaluate("(of) => Array.from(explorer.descriptor(...of))", [number, box, settings]))
        assert float(seen @ query[0]) > 1 - TOLERANCE / 10
        found = opened.evaluate("(of) => explorer.rank(...of)", [number, box, settings])
        assert sorted(found) == list(range(len(small.names)))
        searched = augment(database, dba) if dba else database
        similarities = searched @ (expand_queries(query, searched, qe) if qe else query)[0]
        expected = search_order(query, database, SearchSettings(qe=qe, dba=dba))[0]
        assert (similarities[found[:10]] >= similarities[expected[9]] - TOLERANCE).all()
        assert similarities[found[0]] >= similarities[expected[0]] - TOLERANCE


def test_the_grid_is_the_librarys(page):
    opened, _ = page
    for rows in range(1, 13):
        for columns in range(1, 13):
            for levels in (1, 2, 3):
                squares = opened.evaluate("(of) => explorer.rigidGrid(...of)", [rows, columns, levels])
                assert squares == [list(region) for region in rigid_grid(rows, columns, levels)]


def test_average_precision_is_that_of_the_protocol(page, small):
    opened, _ = page
    about = opened.evaluate("explorer.about().queries")
    rng = np.random.default_rng(1)
    for number, query in enumerate(about):
        ranking = rng.permutation(len(small.names))
        expected = average_precision(ranking.tolist(), query["positives"], query["junk"])
        found = opened.evaluate("(of) => explorer.averagePrecision(...of)", [number, ranking.tolist()])
        assert found == pytest.approx(expected)


def test_codes_cost_little_and_change_the_ranking(page):
    opened, _ = page
    orders = [opened.evaluate("(of) => explorer.rank(...of)", [0, [0, 0, 1, 1], PLAIN | {"bytes": size}])
              for size in (make.DIMS, 32, 8)]
    near = [len(set(orders[0][:10]) & set(order[:10])) for order in orders]
    assert near[0] == 10 and 5 <= near[1] and near[2] <= near[1]
    assert orders[2] != orders[0]


def test_a_box_drawn_with_the_mouse_is_searched(page):
    opened, _ = page
    opened.locator(".queries button").nth(1).click()
    assert opened.locator(".queries button").nth(1).get_attribute("aria-pressed") == "true"
    opened.locator(".stage").press("Escape")
    whole = opened.locator(".status").inner_text()
    around = opened.locator(".stage").bounding_box()
    opened.mouse.move(around["x"] + 0.25 * around["width"], around["y"] + 0.25 * around["height"])
    opened.mouse.down()
    opened.mouse.move(around["x"] + 0.5 * around["width"], around["y"] + 0.75 * around["height"], steps=3)
    opened.mouse.up()
    box = opened.locator(".stage rect.box")
    drawn = [float(box.get_attribute(name)) for name in ("x", "y", "width", "height")]
    assert drawn == pytest.approx([0.25, 0.25, 0.25, 0.5], abs=0.02)
    assert opened.locator(".status").inner_text() != whole
    assert "pictures ranked in" in opened.locator(".status").inner_text()
    assert opened.locator(".ranking li").count() == 24


def test_the_keyboard_moves_the_box_and_the_switches_search(page):
    opened, _ = page
    stage, box = opened.locator(".stage"), opened.locator(".stage rect.box")
    stage.press("Escape")
    for _ in range(5):
        stage.press("Shift+ArrowLeft")
    stage.press("ArrowRight")
    assert float(box.get_attribute("width")) == pytest.approx(0.8)
    assert float(box.get_attribute("x")) == pytest.approx(0.04)
    squares = opened.locator(".stage rect.square").count()
    opened.select_option("select[name=levels]", "3")
    assert opened.locator(".stage rect.square").count() > squares
    opened.locator("button.more").click()
    assert opened.locator(".ranking li").count() == 48
    good = opened.locator(".ranking li.good").count()
    assert good >= 1 and opened.locator(".ranking li.other").count() >= 1


def test_the_scripts_are_small():
    assert sum((ROOT / "book/explorer" / name).stat().st_size for name in ("explorer.js", "page.js")) <= 15 * 1024
