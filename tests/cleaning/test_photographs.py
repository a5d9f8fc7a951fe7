"""Cleaning on real photographs, where they are found."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rmaclib.cleaning import CleanSettings, clean
from rmaclib.datasets import LabelledImages, open_collection, open_dataset

LABEL = 10  # 36 photographs
STRANGERS = 10


@pytest.mark.photos
@pytest.mark.slow
def test_strangers_do_not_survive_and_a_front_does(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("RMACLIB_DATA", str(photos))
    if not (photos / "landmarks48").is_dir():
        pytest.skip("needs landmarks48")
    known = open_collection("landmarks48")
    own = [path for path, label in zip(known.paths, known.labels, strict=True) if label == LABEL]
    paths = (*own, *open_dataset("oxford5k_subset").paths[::100][:STRANGERS])
    images = LabelledImages("mixed", photos, tuple(map(str, paths)), paths, (0,) * len(paths), (None,) * len(paths))
    with ThreadPoolExecutor(2) as pool:
        found = clean(images, CleanSettings(), out=tmp_path, executor=pool, progress=False).landmarks[0]
    assert (found.selection.component[-STRANGERS:] == -1).all()
    assert 3 <= (found.selection.component == 0).sum() <= len(own)
    boxes = found.selection.boxes[found.selection.component == 0]
    sizes = found.graph.sizes[found.selection.component == 0]
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= sizes).all() and np.ptp(boxes, axis=1).min() > 1
