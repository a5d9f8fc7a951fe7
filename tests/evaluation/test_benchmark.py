import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rmaclib.datasets import open_collection, open_dataset
from rmaclib.evaluation import average_precision
from rmaclib.evaluation.benchmark import evaluate, extract_queries, score_descriptors
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.folder import Descriptors
from rmaclib.extraction.whitening import training_sample
from rmaclib.foundation.errors import InputError
from rmaclib.images import ImageError, fit, read_image
from rmaclib.network import RMAC, NetworkSettings, SharedFeatures
from rmaclib.ranking import normalise_rows, rank
from rmaclib.search.compression import CodeSettings, decode, fill, rank_codes, train_codes
from rmaclib.search.expansion import augment, expand_queries
from rmaclib.search.retrieval import SearchSettings, search_order

FAST = ExtractionSettings(sizes=(160,), precision="float32", device="cpu")
RECORDED = Path(__file__).parents[2] / "data/results/photos/01_rmac/oxford5k_subset/baseline.json"


@pytest.fixture(scope="module")
def data(little):
    return open_dataset(little)


def test_scores_equal_a_plain_loop(data, lite0):
    def alone(path, box=None):
        pixels = torch.from_numpy(np.array(fit(read_image(path), 160, box))).permute(2, 0, 1)
        with torch.inference_mode():
            return lite0(pixels[None])[0].numpy()

    database = np.stack([alone(path) for path in data.paths])
    aps = []
    for query in data.queries:
        order = np.argsort(-(database @ alone(query.path, query.box)), kind="stable")
        names = [data.names[index] for index in order]
        aps.append(average_precision(names, query.relevance["good"] | query.relevance["ok"], query.relevance["junk"]))
    evaluation = evaluate(lite0, data, settings=FAST)
    assert evaluation.scores["mAP"] == pytest.approx(np.mean(aps), abs=1e-6)


def test_shared_features_equal_networks_apart(data, lite0):
    apart = {"rmac": lite0, "mac": RMAC(NetworkSettings("efficientnet_lite0", grid="whole"), lite0.backbone)}
    together = SharedFeatures(apart)
    split = together.split(extract(together, data.paths[:4], FAST).vectors)
    for name, network in apart.items():
        assert np.allclose(split[name], extract(network, data.paths[:4], FAST).vectors, atol=1e-5)
    with pytest.raises(ValueError, match="same backbone"):
        other = RMAC(lite0.settings, copy.deepcopy(lite0.backbone))
        SharedFeatures({"one": lite0, "two": other})


def test_bad_database_images_are_never_retrieved_and_a_bad_query_is_an_error(data, lite0, tmp_path):
    victim = next(name for name in data.names if name in data.queries[0].relevance["ok"])
    (tmp_path / "broken.jpg").write_bytes(b"")
    paths = tuple(tmp_path / "broken.jpg" if name == victim else path
                  for name, path in zip(data.names, data.paths, strict=True))
    evaluation = evaluate(lite0, replace(data, paths=paths), "oxford", FAST)
    assert [name for name, _ in evaluation.bad] == [victim]
    assert evaluation.scores["mAP"] < evaluate(lite0, data, "oxford", FAST).scores["mAP"]
    query = replace(data.queries[0], path=tmp_path / "broken.jpg")
    with pytest.raises(ImageError, match=f"broken.jpg.*{query.name}"):
        extract_queries(lite0, replace(data, queries=(query,)), FAST)


def test_a_data_set_may_be_a_folder(little, data, lite0, tmp_path):
    evaluation = evaluate(lite0, little, settings=FAST, out=tmp_path)
    assert evaluation == evaluate(lite0, data, "oxford", FAST)
    assert evaluation.protocol == "oxford" and (tmp_path / "descriptors.npy").is_file()
    with pytest.raises(InputError, match="'revisited' needs the grades"):
        evaluate(lite0, little, "revisited", FAST)


def test_evaluation_does_not_load_torch():
    code = "import sys, rmaclib.evaluation, rmaclib.evaluation.cleaning; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_score_by_hand(data):
    """Descriptors of database images are orthogonal: a query retrieves itself first, the others in list order."""
    database = Descriptors(np.eye(len(data.names), dtype=np.float32), data.names, ())
    index = [data.names.index(query.image) for query in data.queries]
    queries = Descriptors(database.vectors[index], tuple(query.name for query in data.queries), ())
    per_query = score_descriptors(data, queries, database, "oxford").per_query
    assert all(entry["first_positive_rank"] == 1 for entry in per_query)


def test_search_order_does_one_step_after_the_other():
    rng = np.random.default_rng(0)
    queries, database = (normalise_rows(rng.normal(size=(count, 32)) + 0.3) for count in (5, 300))
    np.testing.assert_array_equal(search_order(queries, database), rank(queries, database))
    augmented = augment(database, 4)
    np.testing.assert_array_equal(search_order(queries, database, SearchSettings(dba=4)),
                                  rank(queries, augmented, similarity="dot"))
    np.testing.assert_array_equal(search_order(queries, database, SearchSettings(2, 4)),
                                  rank(expand_queries(queries, augmented, 2), augmented, similarity="dot"))
    np.testing.assert_array_equal(search_order(queries, database, SearchSettings(qe=2, qe_alpha=3.0)),
                                  rank(expand_queries(queries, database, 2, 3.0), database))
    codes = train_codes(database, CodeSettings("pq", 8))
    filled = fill(codes, augmented)
    expanded = expand_queries(queries, decode(filled), 2)
    np.testing.assert_array_equal(search_order(queries, database, SearchSettings(2, 4), codes),
                                  rank_codes(filled, expanded))
    with pytest.raises(ValueError, match="dba: expected at least 0, got -2"):
        SearchSettings(dba=-2)


def test_training_sample_repeats_and_stays_inside():
    collection = open_collection("diorama_train")
    sample = training_sample(collection, 10, seed=3)
    assert sample == training_sample(collection, 10, seed=3) != training_sample(collection, 10, seed=4)
    assert len(set(sample)) == 10 and set(sample) <= set(collection.paths)
    assert training_sample(collection, 10_000) == list(collection.paths)


@pytest.mark.photos
def test_oxford_subset_as_measured_independently(photos, lite0, monkeypatch):
    """Longer side 512, L = 3, no whitening, classic protocol: mAP 0.617, measured by other code."""
    monkeypatch.setenv("RMACLIB_DATA", str(photos))
    dataset = open_dataset("oxford5k_subset")
    evaluation = evaluate(lite0, dataset, "oxford", ExtractionSettings(sizes=(512,)))
    assert evaluation.bad == () and len(dataset.names) == 1053
    assert evaluation.scores["mAP"] == pytest.approx(0.617, abs=0.015)
    recorded = json.loads(RECORDED.read_text())["value"]
    assert evaluation.scores["mAP"] == pytest.approx(recorded, abs=0.002)  # processors round differently
    assert len(open_collection("landmarks48").paths) == 3735
