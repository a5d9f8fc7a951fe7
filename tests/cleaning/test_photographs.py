"""Cleaning real photographs, where they are available."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rmaclib.cleaning import clean
from rmaclib.datasets import LabelledImages, open_collection, open_dataset

LABEL = 10  # 36 photographs
OTHERS = 10


@pytest.mark.photos
@pytest.mark.slow
def test_photographs_of_other_landmarks_are_dropped_and_a_front_is_kept(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("RMACLIB_DATA", str(photos))
    if not (photos / "landmarks48").is_dir():
        pytest.skip("needs landmarks48")
    known = open_collection("landmarks48")
    own = [path for path, label in zip(known.paths, known.labels, strict=True) if label == LABEL]
    paths = (*own, *open_dataset("oxford5k_subset").paths[::100][:OTHERS])
    images = LabelledImages("mixed", photos, tuple(map(str, paths)), paths, (0,) * len(paths), (None,) * len(paths))
    with ThreadPoolExecutor(2) as pool:
        landmark = clean(images, out=tmp_path, report=False, executor=pool, progress=False).landmarks[0]
    kept = landmark.selection.component == 0
    assert (landmark.selection.component[-OTHERS:] == -1).all()
    assert 3 <= kept.sum() <= len(own)
    boxes, sizes = landmark.selection.boxes[kept], landmark.graph.sizes[kept]
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= sizes).all() and np.ptp(boxes, axis=1).min() > 1
