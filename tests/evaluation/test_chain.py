from dataclasses import replace

import numpy as np
import pytest

from rmaclib.datasets import LabelledImages, open_dataset
from rmaclib.evaluation import average_precision
from rmaclib.evaluation.benchmark import extract_queries, score_descriptors
from rmaclib.evaluation.chain import (
    chain_links,
    extract_once,
    joined,
    leave_one_out_precisions,
    query_precisions,
    score_link,
)
from rmaclib.evaluation.protocols import Evaluation
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.folder import Descriptors
from rmaclib.foundation.errors import InputError
from rmaclib.learning import Relations, leave_one_out
from rmaclib.network import RMAC, NetworkSettings, SharedFeatures
from rmaclib.ranking import normalise_rows
from rmaclib.search.compression import CodeSettings, train_codes
from rmaclib.search.expansion import augment
from rmaclib.search.reranking import rerank
from rmaclib.search.retrieval import SearchSettings

FAST = ExtractionSettings(sizes=(96,), precision="float32")


@pytest.fixture(scope="module")
def data(little):
    return open_dataset(little)


@pytest.fixture(scope="module")
def descriptors(data, lite0):
    return extract_queries(lite0, data, FAST), extract(lite0, data.paths, FAST, names=data.names)


def links_of(**options):
    return {link.key: link for link in chain_links(["off the shelf", "whitened"], [66, 96, 126], 96, 10, **options)}


def test_every_link_stands_on_one_before_it():
    links = links_of(rerank=5, code_sizes=[128, 64])
    assert {key: link.before for key, link in links.items()} == {
        "off_the_shelf": "", "whitened": "off_the_shelf", "resolutions": "whitened", "dba": "resolutions", "qe": "dba",
        "paper_dba": "resolutions", "paper_qe": "paper_dba", "rerank": "qe", "pq_128": "qe", "pq_64": "qe"}
    assert [key for key, link in links.items() if not link.beside] == [
        "off_the_shelf", "whitened", "resolutions", "dba", "qe"]
    assert [link.sizes for link in links.values()] == [(96,)] * 2 + [(66, 96, 126)] * 8
    assert {link.network for link in list(links.values())[1:]} == {"whitened"}
    assert links["dba"].search == SearchSettings(dba=10) and links["dba"].label == "DBA 10"
    assert chain_links(["whitened"], [96], 96, 0)[2].label == "no DBA"
    assert links["paper_qe"].search == SearchSettings(qe=1, dba=20)
    assert {links[key].search for key in ("qe", "rerank", "pq_128", "pq_64")} == {SearchSettings(qe=1, dba=10)}
    assert (links["rerank"].rerank, links["pq_64"].code_size, links["qe"].rerank) == (5, 64, 0)
    assert list(links_of()) == ["off_the_shelf", "whitened", "resolutions", "dba", "qe", "paper_dba", "paper_qe"]
    with pytest.raises(InputError, match="networks: expected at least one"):
        chain_links([], [1], 1, 0)


def test_a_link_searches_as_it_says(data, descriptors):
    links = links_of()
    for key in ("whitened", "dba", "qe"):
        expected = score_descriptors(data, *descriptors, "oxford", links[key].search).scores
        assert score_link(links[key], data, *descriptors, "oxford").scores == expected


def test_codes_take_the_place_of_the_database(data, descriptors):
    link = links_of(code_sizes=[8])["pq_8"]
    codes = train_codes(normalise_rows(np.random.default_rng(0).normal(size=(300, descriptors[1].vectors.shape[1]))),
                        CodeSettings("pq", 8))
    expected = score_descriptors(data, *descriptors, "oxford", link.search, codes).scores
    assert score_link(link, data, *descriptors, "oxford", codes=codes).scores == expected
    with pytest.raises(InputError, match="codes: expected those of the link 'pq_8', got none"):
        score_link(link, data, *descriptors, "oxford")
    with pytest.raises(InputError, match="codes: expected none for the link 'qe', got some"):
        score_link(links_of()["qe"], data, *descriptors, "oxford", codes=codes)


def test_only_the_first_images_are_reranked(data):
    # Random descriptors, which keypoints improve.
    random = np.random.default_rng(0)
    queries, database = (Descriptors(normalise_rows(random.normal(size=(len(names), 8))), tuple(names), ())
                         for names in ([query.name for query in data.queries], data.names))
    link = replace(links_of(rerank=12)["rerank"], search=SearchSettings())
    keypoints, rankings = {}, {}
    order = np.argsort(-(queries.vectors @ database.vectors.T), kind="stable")
    for query, ranking in zip(data.queries, order, strict=True):
        first, _ = rerank(query.path, [data.paths[index] for index in ranking[:12]], query.box)
        rankings[query.name] = [*ranking[:12][first], *ranking[12:]]
    result = query_precisions(score_link(link, data, queries, database, "oxford", keypoints=keypoints))
    assert set(keypoints) == {str(data.paths[index]) for index in np.unique(order[:, :12])}
    without = query_precisions(score_link(replace(link, rerank=0), data, queries, database, "oxford"))
    assert np.mean(list(result.values())) > np.mean(list(without.values())) + 0.05
    for query in data.queries:
        names = [data.names[index] for index in rankings[query.name]]
        expected = average_precision(names, query.relevance["good"] | query.relevance["ok"], query.relevance["junk"])
        assert result[query.name] == pytest.approx(expected)


def test_skipped_queries_and_several_levels():
    entries = [{"query": "a", "level": "", "ap": 0.5, "skipped": None},
               {"query": "b", "level": "", "ap": None, "skipped": "no positives"},
               {"query": "c", "level": "", "ap": 0.25, "skipped": None}]
    assert query_precisions(Evaluation("x", "oxford", {}, entries, ["b"])) == {"a": 0.5, "c": 0.25}
    entries.append({"query": "a", "level": "hard", "ap": 0.5, "skipped": None})
    with pytest.raises(InputError, match="expected one of a single level, got 'revisited'"):
        query_precisions(Evaluation("x", "revisited", {}, entries, []))


def test_leave_one_out_equals_that_of_learning_without_augmentation():
    vectors = normalise_rows(np.random.default_rng(0).normal(size=(30, 8)))
    labels = np.repeat(range(10), 3)
    labels[-1] = 99  # the only image of its landmark
    precisions = leave_one_out_precisions(vectors, labels)
    assert np.isnan(precisions).nonzero()[0].tolist() == [29]
    every, relations = np.arange(30), Relations(labels)
    expected = leave_one_out(vectors, relations.relevant(every), relations.irrelevant(every))
    assert np.nanmean(precisions) == pytest.approx(expected)


def test_the_query_augments_no_image():
    vectors = normalise_rows(np.random.default_rng(1).normal(size=(12, 6)))
    labels = np.repeat(range(3), 4)
    precisions = leave_one_out_precisions(vectors, labels, SearchSettings(dba=2))
    for query in range(12):
        others = [other for other in range(12) if other != query]
        scores = augment(vectors[others], 2) @ vectors[query]
        ranking = [others[place] for place in np.argsort(-scores, kind="stable")]
        positives = [other for other in others if labels[other] == labels[query]]
        assert precisions[query] == pytest.approx(average_precision(ranking, positives))


def test_descriptors_are_extracted_once(data, lite0, tmp_path):
    both = SharedFeatures({"rmac": lite0, "mac": RMAC(NetworkSettings("efficientnet_lite0", grid="whole"),
                                                      lite0.backbone)})
    few = LabelledImages("few", data.root, data.names[:3], data.paths[:3], (0, 0, 1), (None,) * 3)
    first = extract_once(both, few, 96, tmp_path, progress=False)
    assert first.names == few.names
    expected = extract(lite0, few.paths, FAST).vectors
    np.testing.assert_allclose(both.split(first.vectors)["rmac"], expected, atol=1e-5)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    extract_once(both, few, 96, tmp_path, progress=False)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == files
    extract_once(lite0, few, 96, tmp_path, progress=False)  # another network and another size have folders of their own
    extract_once(lite0, few, 64, tmp_path, progress=False)
    assert len(list(tmp_path.rglob("*.npy"))) == 3


def test_distractors_are_joined_as_their_images(data):
    vectors = np.eye(len(data.names) + 2, dtype=np.float32)
    others = replace(data, name="others", names=("x", "y"), paths=tuple(data.root / name for name in "xy"))
    both = joined(Descriptors(vectors[:-2], data.names, ()), Descriptors(vectors[-2:], ("x", "y"), (("z", "bad"),)),
                  "others")
    assert both.names == data.with_distractors(others).names
    np.testing.assert_array_equal(both.vectors, vectors)
    assert both.bad == (("others/z", "bad"),)
