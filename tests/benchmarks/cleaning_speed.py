"""How much faster cleaning matches pairs than OpenCV's matcher and robust affine, called for each pair.

    RMACLIB_DATA=FOLDER python tests/benchmarks/cleaning_speed.py --record _build/photos/results

The peer is what one writes first: BFMatcher.knnMatch, the ratio test, estimateAffine2D, count the inliers. Both
sides get the same keypoints and tolerance, run on one thread, in turns within one run. Times are processor times,
which count less of what else the machine does. Edges are compared with our refusals (marks, degenerate models)
switched off, as the peer has none; and once more with the peer counting, as we do, one match for each keypoint of
the second image. With --growth also the cost per pair for several numbers of keypoints.
"""

import argparse
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # read when numpy is loaded

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from rmaclib.cleaning import (  # noqa: E402
    CleanSettings,
    Matcher,
    VerificationSettings,
    extract_keypoints,
    main_directions,
    root_sift,
    verify_pair,
)
from rmaclib.datasets import open_collection  # noqa: E402
from rmaclib.results import record  # noqa: E402

# Landmarks-full: what is left of the paper's collection, classes taken as equally large.
FULL_IMAGES, FULL_CLASSES = 190_000, 586
FULL_PAIRS = FULL_CLASSES * (FULL_IMAGES / FULL_CLASSES)**2 / 2
NO_REFUSALS = {"marks": False, "max_scale": 1e9, "max_stretch": 1e9, "min_width": 0.0}


def plain(left, right, settings: CleanSettings, one_each: bool = False) -> int:
    """Inliers of a pair by OpenCV alone; left, right: (points, RootSIFT descriptors, size).

    one_each: of several matches of one keypoint of the second image keep the nearest
    """
    found = cv2.BFMatcher(cv2.NORM_L2).knnMatch(left[1], right[1], k=2)
    good = [pair[0] for pair in found
            if len(pair) == 2 and pair[0].distance < settings.matching.ratio * pair[1].distance]
    if one_each:
        nearest = {match.trainIdx: match for match in sorted(good, key=lambda match: -match.distance)}
        good = [nearest[column] for column in sorted(nearest)]
    if len(good) < settings.verification.min_inliers:
        return 0
    rows, columns = np.array([(match.queryIdx, match.trainIdx) for match in good]).T
    _, inside = cv2.estimateAffine2D(left[0][rows], right[0][columns],
                                     ransacReprojThreshold=settings.verification.tolerance * max(right[2]))
    return 0 if inside is None else int(inside.sum())


def ours(features, pairs, settings: CleanSettings, verification: VerificationSettings) -> list[int]:
    """Inliers of each pair; descriptors are prepared here, as part of the time."""
    directions = main_directions(root_sift(np.concatenate([image.descriptors for image in features])))
    matcher = Matcher(features, directions, settings.matching, verification.min_inliers)
    inliers = []
    for i, j in pairs:
        matches = matcher(i, j)
        if not len(matches):
            inliers.append(0)
            continue
        inliers.append(int(verify_pair(features[i], features[j], matches, verification).inliers.sum()))
    return inliers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", default="landmarks48")
    parser.add_argument("--images", type=int, default=60, help="images of each class")
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--growth", type=int, nargs="*", default=[], help="numbers of keypoints to time as well")
    parser.add_argument("--record", type=Path, help="folder of result records to write to")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    started = time.monotonic()

    collection = open_collection(options.collection)
    labels = np.array(collection.labels)
    # Spread over the classes, so that both with many and with few edges are in.
    chosen = np.unique(labels)[np.linspace(0, len(np.unique(labels)) - 1, options.classes).astype(int)]
    groups = [[collection.paths[index] for index in np.flatnonzero(labels == label)[:options.images]]
              for label in chosen]
    settings = CleanSettings()
    seconds, pairs_timed = {"plain": 0.0, "ours": 0.0}, 0
    edges = {"plain": set(), "one each": set(), "ours": set()}
    for group, paths in enumerate(groups):
        features = [extract_keypoints(path, settings.keypoints) for path in paths]
        pairs = [(i, j) for i in range(len(features)) for j in range(i + 1, len(features))]
        begin = time.process_time()
        prepared = [(image.points, root_sift(image.descriptors), image.size) for image in features]
        expected = [plain(prepared[i], prepared[j], settings) for i, j in pairs]
        middle = time.process_time()
        ours(features, pairs, settings, settings.verification)
        seconds["plain"] += middle - begin
        seconds["ours"] += time.process_time() - middle
        found = ours(features, pairs, settings, replace(settings.verification, **NO_REFUSALS))
        pairs_timed += len(pairs)
        one_each = [plain(prepared[i], prepared[j], settings, one_each=True) for i, j in pairs]
        for side, inliers in (("plain", expected), ("one each", one_each), ("ours", found)):
            edges[side] |= {(group, *pair) for pair, count in zip(pairs, inliers, strict=True)
                            if count >= settings.graph.threshold}
    jaccard = {side: len(edges[side] & edges["ours"]) / max(1, len(edges[side] | edges["ours"])) for side in edges}
    ratio = seconds["plain"] / seconds["ours"]
    per_pair = {side: 1000 * total / pairs_timed for side, total in seconds.items()}
    print(f"{pairs_timed} pairs: OpenCV {per_pair['plain']:.2f} ms, ours {per_pair['ours']:.2f} ms a pair: "
          f"{ratio:.1f} times the pairs per second")
    print(f"edges at {settings.graph.threshold} inliers: OpenCV {len(edges['plain'])}, ours {len(edges['ours'])}, "
          f"Jaccard {jaccard['plain']:.3f}; OpenCV with one match each {len(edges['one each'])}, "
          f"Jaccard {jaccard['one each']:.3f}")

    def keep(key, value, unit, **more):
        if options.record:
            record(options.record, f"benchmarks/{collection.name}/{key}", value, unit=unit, protocol="cleaning_speed",
                   dataset={"name": collection.name, "counts": {"images": sum(map(len, groups)), "pairs": pairs_timed}},
                   settings={**asdict(settings), **more}, seed=None, seconds=time.monotonic() - started,
                   notebook="benchmarks", profile="photos")

    keep("speed_ratio", ratio, "times")
    keep("edges_jaccard_plain", jaccard["plain"], "Jaccard index")
    keep("edges_jaccard", jaccard["one each"], "Jaccard index")
    keep("pair_milliseconds", per_pair["ours"], "ms")
    begin = time.process_time()
    for path in groups[0]:
        extract_keypoints(path, settings.keypoints)
    per_image = 1000 * (time.process_time() - begin) / len(groups[0])
    keep("image_milliseconds", per_image, "ms")
    print(f"keypoints: {per_image:.0f} ms an image")
    hours = (FULL_PAIRS * per_pair["ours"] + FULL_IMAGES * per_image) / 3.6e6
    for cores in (1, 32, 1000):
        value, unit = (hours, "hours") if cores == 1 else (60 * hours / cores, "minutes")
        keep(f"landmarks_full_{cores}", value, unit, images=FULL_IMAGES, classes=FULL_CLASSES, pairs=round(FULL_PAIRS))
        print(f"Landmarks-full on {cores} cores: {value:.1f} {unit}")
    for count in options.growth:
        features = [extract_keypoints(path, replace(settings.keypoints, count=count)) for path in groups[0][:24]]
        features = [image for image in features if len(image.points) == count]
        pairs = [(i, j) for i in range(len(features)) for j in range(i + 1, len(features))]
        begin = time.process_time()
        ours(features, pairs, settings, settings.verification)
        cost = 1000 * (time.process_time() - begin) / len(pairs)
        print(f"{count} keypoints: {cost:.2f} ms a pair, {1e6 * cost / count**2:.2f} ns per pair of keypoints "
              f"({len(features)} images)")
        keep(f"pair_milliseconds_{count}", cost, "ms", count=count)
    good = ratio >= 10 and jaccard["one each"] >= 0.97
    print("within its bounds (10 times, Jaccard 0.97 with one match each)" if good else "OUT OF BOUNDS")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
