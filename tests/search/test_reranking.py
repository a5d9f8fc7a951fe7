import numpy as np
import pytest
from PIL import Image

from rmaclib.cleaning import extract_keypoints
from rmaclib.images import ImageError
from rmaclib.search.reranking import inside, rerank, verified_inliers


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A picture, the same rotated and cropped, and distractors."""
    folder, rng = tmp_path_factory.mktemp("rerank"), np.random.default_rng(0)

    def noise():
        coarse = Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8))
        return coarse.resize((400, 300), Image.Resampling.BICUBIC)

    query = noise()
    pictures = {"query": query, "distractor": noise(), "turned": query.rotate(20), "other": noise(),
                "part": query.crop((150, 80, 390, 290))}
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    (folder / "broken.png").write_text("no picture")
    return {name: folder / f"{name}.png" for name in [*pictures, "broken", "missing"]}


def test_verified_images_come_first_the_rest_keeps_its_order(files):
    names = ["distractor", "broken", "part", "missing", "turned", "other"]
    order, inliers = rerank(files["query"], [files[name] for name in names])
    inliers_of = dict(zip(names, inliers, strict=True))
    assert inliers_of["turned"] > 50 and inliers_of["part"] > 50
    assert inliers_of["distractor"] == inliers_of["other"] == inliers_of["broken"] == inliers_of["missing"] == 0
    first = sorted(("turned", "part"), key=lambda name: -inliers_of[name])
    assert [names[number] for number in order] == [*first, "distractor", "broken", "missing", "other"]


def test_keypoints_that_are_known_are_not_extracted_again(files, tmp_path):
    names, known = ["part", "broken", "turned"], {}
    paths = [files[name] for name in names]
    expected = rerank(files["query"], paths, keypoints=known)
    assert set(known) == {str(path) for path in paths} and known[str(files["broken"])] is None
    known = {str(tmp_path / name): known[str(files[name])] for name in names}  # no such files
    order, inliers = rerank(files["query"], [tmp_path / name for name in names], keypoints=known)
    np.testing.assert_array_equal(order, expected[0])
    np.testing.assert_array_equal(inliers, expected[1])


def test_only_the_box_counts(files):
    features = extract_keypoints(files["query"])
    assert inside(features, None) is features
    x1, y1, x2, y2 = box = (0, 0, 100, 70)
    expected = [n for n, (x, y) in enumerate(features.points) if x1 <= x < x2 and y1 <= y < y2]
    cut = inside(features, box)
    np.testing.assert_array_equal(cut.points, features.points[expected])
    np.testing.assert_array_equal(cut.descriptors, features.descriptors[expected])
    _, whole = rerank(files["query"], [files["part"]])
    _, outside = rerank(files["query"], [files["part"]], box)  # what the part does not show
    assert whole[0] > 50 and outside[0] == 0


def test_nothing_to_compare(files):
    order, inliers = rerank(files["query"], [])
    assert order.shape == inliers.shape == (0,)
    flat = inside(extract_keypoints(files["query"]), (0, 0, 0, 0))
    assert verified_inliers(flat, [flat, extract_keypoints(files["turned"])]).tolist() == [0, 0]
    with pytest.raises(ImageError, match="broken"):
        rerank(files["broken"], [files["query"]])
