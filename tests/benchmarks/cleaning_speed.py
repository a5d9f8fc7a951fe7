"""How much faster cleaning matches pairs than OpenCV's matcher and robust affine, called for each pair.

    RMACLIB_DATA=FOLDER python tests/benchmarks/cleaning_speed.py --record _build/photos/results

The peer is what one writes first: BFMatcher.knnMatch, the ratio test, estimateAffine2D, count the inliers. Both
sides get the same keypoints and tolerance, run on one thread, in turns within one run. Times are processor times,
which count less of what else the machine does. Edges are compared without our rejection of overlays and degenerate
models, which the peer doesn't have; and once more with the peer counting, as we do, one match for each keypoint of
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
from rmaclib.datasets import LabelledImages, open_collection  # noqa: E402
from rmaclib.results import record  # noqa: E402

# Landmarks-full: what is left of the paper's collection, classes taken as equally large.
FULL_IMAGES, FULL_CLASSES = 190_000, 586
FULL_PAIRS = FULL_CLASSES * (FULL_IMAGES / FULL_CLASSES)**2 / 2
NO_REJECTIONS = {"marks": False, "max_scale": 1e9, "max_stretch": 1e9, "min_width": 0.0}


def plain(left, right, settings: CleanSettings, one_to_one: bool = False) -> int:
    """Inliers of a pair by OpenCV alone; left, right: (points, RootSIFT descriptors, size).

    one_to_one: of several matches of one keypoint of the second image keep the nearest
    """
    nearest_two = cv2.BFMatcher(cv2.NORM_L2).knnMatch(left[1], right[1], k=2)
    good = [pair[0] for pair in nearest_two
            if len(pair) == 2 and pair[0].distance < settings.matching.ratio * pair[1].distance]
    if one_to_one:
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


def choose_groups(collection: LabelledImages, classes: int, images: int) -> list[list[Path]]:
    """The first images of some classes, spread over all, so that there are some with many and with few edges."""
    labels = np.array(collection.labels)
    chosen = np.unique(labels)[np.linspace(0, len(np.unique(labels)) - 1, classes).astype(int)]
    return [[collection.paths[index] for index in np.flatnonzero(labels == label)[:images]] for label in chosen]


def all_pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(i + 1, count)]


def compare(groups: list[list[Path]], settings: CleanSettings) -> tuple[dict[str, float], dict[str, set], int]:
    """Seconds and edges of each side, and how many pairs there are."""
    seconds, pair_count = {"plain": 0.0, "ours": 0.0}, 0
    edges: dict[str, set] = {"plain": set(), "one to one": set(), "ours": set()}
    for group, paths in enumerate(groups):
        features = [extract_keypoints(path, settings.keypoints) for path in paths]
        pairs = all_pairs(len(features))
        begin = time.process_time()
        prepared = [(image.points, root_sift(image.descriptors), image.size) for image in features]
        inliers = {"plain": [plain(prepared[i], prepared[j], settings) for i, j in pairs]}
        middle = time.process_time()
        ours(features, pairs, settings, settings.verification)
        seconds["plain"] += middle - begin
        seconds["ours"] += time.process_time() - middle
        inliers["one to one"] = [plain(prepared[i], prepared[j], settings, one_to_one=True) for i, j in pairs]
        inliers["ours"] = ours(features, pairs, settings, replace(settings.verification, **NO_REJECTIONS))
        pair_count += len(pairs)
        for side, counts in inliers.items():
            edges[side] |= {(group, *pair) for pair, count in zip(pairs, counts, strict=True)
                            if count >= settings.graph.threshold}
    return seconds, edges, pair_count


def time_keypoints(paths: list[Path], settings: CleanSettings) -> float:
    """Milliseconds in which the keypoints of an image are extracted."""
    begin = time.process_time()
    for path in paths:
        extract_keypoints(path, settings.keypoints)
    return 1000 * (time.process_time() - begin) / len(paths)


def time_pairs(paths: list[Path], count: int, settings: CleanSettings) -> float:
    """Milliseconds of a pair of images with so many keypoints each."""
    features = [extract_keypoints(path, replace(settings.keypoints, count=count)) for path in paths]
    features = [image for image in features if len(image.points) == count]
    pairs = all_pairs(len(features))
    begin = time.process_time()
    ours(features, pairs, settings, settings.verification)
    cost = 1000 * (time.process_time() - begin) / len(pairs)
    print(f"{count} keypoints: {cost:.2f} ms a pair, {1e6 * cost / count**2:.2f} ns per pair of keypoints "
          f"({len(features)} images)")
    return cost


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", default="landmarks48")
    parser.add_argument("--images", type=int, default=60, help="images of each class")
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--growth", type=int, nargs="*", default=[], help="numbers of keypoints to time as well")
    parser.add_argument("--record", type=Path, help="folder of result records to write to")
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    cv2.setNumThreads(1)
    started, settings = time.monotonic(), CleanSettings()
    collection = open_collection(options.collection)
    groups = choose_groups(collection, options.classes, options.images)
    seconds, edges, pair_count = compare(groups, settings)
    jaccard = {side: len(edges[side] & edges["ours"]) / max(1, len(edges[side] | edges["ours"])) for side in edges}
    ratio = seconds["plain"] / seconds["ours"]
    per_pair = {side: 1000 * total / pair_count for side, total in seconds.items()}
    print(f"{pair_count} pairs: OpenCV {per_pair['plain']:.2f} ms, ours {per_pair['ours']:.2f} ms a pair: "
          f"{ratio:.1f} times the pairs per second")
    print(f"edges at {settings.graph.threshold} inliers: OpenCV {len(edges['plain'])}, ours {len(edges['ours'])}, "
          f"Jaccard {jaccard['plain']:.3f}; OpenCV with one match each {len(edges['one to one'])}, "
          f"Jaccard {jaccard['one to one']:.3f}")

    def keep(key: str, value: float, unit: str, **more) -> None:
        if options.record:
            record(options.record, f"benchmarks/{collection.name}/{key}", value, unit=unit, protocol="cleaning_speed",
                   dataset={"name": collection.name, "counts": {"images": sum(map(len, groups)), "pairs": pair_count}},
                   settings={**asdict(settings), **more}, seed=None, seconds=time.monotonic() - started,
                   notebook="benchmarks", profile="photos")

    keep("speed_ratio", ratio, "times")
    keep("edges_jaccard_plain", jaccard["plain"], "Jaccard index")
    keep("edges_jaccard", jaccard["one to one"], "Jaccard index")
    keep("pair_milliseconds", per_pair["ours"], "ms")
    per_image = time_keypoints(groups[0], settings)
    keep("image_milliseconds", per_image, "ms")
    print(f"keypoints: {per_image:.0f} ms an image")
    hours = (FULL_PAIRS * per_pair["ours"] + FULL_IMAGES * per_image) / 3.6e6
    for cores in (1, 32, 1000):
        value, unit = (hours, "hours") if cores == 1 else (60 * hours / cores, "minutes")
        keep(f"landmarks_full_{cores}", value, unit, images=FULL_IMAGES, classes=FULL_CLASSES, pairs=round(FULL_PAIRS))
        print(f"Landmarks-full on {cores} cores: {value:.1f} {unit}")
    for count in options.growth:
        keep(f"pair_milliseconds_{count}", time_pairs(groups[0][:24], count, settings), "ms", count=count)
    good = ratio >= 10 and jaccard["one to one"] >= 0.97
    print("within its bounds (10 times, Jaccard 0.97 with one match each)" if good else "OUT OF BOUNDS")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
