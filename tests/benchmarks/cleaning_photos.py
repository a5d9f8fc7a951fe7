"""What cleaning does to real photographs: the results of book/cleaning.md.

    RMACLIB_DATA=FOLDER python tests/benchmarks/cleaning_photos.py STEP … --work FOLDER --record FOLDER

Steps: `threshold` cleans landmarks48 and sweeps the threshold; `injected` adds ten images of oxford5k_subset to
each class and counts how many are kept; `marks` cleans a quarter of the classes without removing overlays;
`shortlist` measures how many edges and kept images remain when only neighbours by global descriptor are matched;
`memory` cleans one class of 1,000 images and reads the peak of each process. The graphs stay in --work: a step
that was interrupted goes on, and `marks` and `shortlist` reuse those of `threshold`.
"""

import argparse
import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import psutil

from rmaclib.cleaning import (
    CleanSettings,
    GraphSettings,
    MatchGraph,
    VerificationSettings,
    kept_components,
    load_graph,
    select,
)
from rmaclib.cleaning.folder import graph_name
from rmaclib.cleaning.pipeline import landmark_members, match_landmarks
from rmaclib.cleaning.shortlists import DescriptorShortlists
from rmaclib.datasets import LabelledImages, open_collection, open_dataset
from rmaclib.results import record

LEAST = 10  # inliers kept in the graphs, the lowest threshold of the sweep
INJECTED = 10  # images for each class
QUANTILES = (10, 25, 50, 75, 90)
SHORTLISTS = (10, 20, 50)


class Steps:
    def __init__(self, work: Path, folder: Path | None):
        self.work, self.folder = work, folder
        self.settings = CleanSettings(verification=VerificationSettings(min_inliers=LEAST))
        self.photos = open_collection("landmarks48")
        self.started = time.monotonic()

    def keep(self, key: str, value, unit: str, protocol: str, settings: CleanSettings, seed=None, **more) -> None:
        print(f"{key}: {value} {unit}", flush=True)
        if self.folder:
            record(self.folder, f"benchmarks/{self.photos.name}/{key}", value, unit=unit, protocol=protocol,
                   dataset={"name": self.photos.name, "counts": self.photos.counts},
                   settings={**asdict(settings), **more}, seed=seed, seconds=time.monotonic() - self.started,
                   notebook="benchmarks", profile="photos")

    def graphs(self, images: LabelledImages, settings: CleanSettings, name: str) -> dict[int, MatchGraph]:
        """Label -> graph, made where it is not there yet."""
        match_landmarks(images, settings, self.work / name)
        return {label: load_graph(self.work / name / graph_name(label)) for label in landmark_members(images)}

    def threshold(self) -> None:
        graphs = self.graphs(self.photos, self.settings, "threshold").values()
        for threshold in range(LEAST, 31):
            settings = replace(self.settings, graph=GraphSettings(threshold=threshold))
            kept = [kept_components(graph, settings.graph) >= 0 for graph in graphs]
            share = sum(map(np.sum, kept)) / len(self.photos.names)
            self.keep(f"kept_{threshold}", share, "share", "all pairs", settings)
            if threshold == self.settings.graph.threshold:
                for quantile in QUANTILES:
                    share = float(np.quantile([part.mean() for part in kept], quantile / 100))
                    self.keep(f"class_share_{quantile}", share, "share", "all pairs", settings)
        self.keep("pairs", sum(graph.compared for graph in graphs), "pairs", "all pairs", self.settings)
        edges = sum(int((graph.inliers >= self.settings.graph.threshold).sum()) for graph in graphs)
        self.keep("edges", edges, "edges", "all pairs", self.settings)
        for reason in ("mark", "caption", "thin strip", "stretch", "scale", "mirrored"):
            self.keep(f"refused_{reason.replace(' ', '_')}", sum(graph.rejected.get(reason, 0) for graph in graphs),
                      "pairs", "all pairs", self.settings)
        boxes = [select(graph, self.settings) for graph in graphs]
        rounds = int(np.median([part.rounds for part in boxes]))
        self.keep("diffusion_rounds", rounds, "updates", "all pairs", self.settings)
        self.keep("diffusion_converged", sum(part.converged for part in boxes) / len(boxes), "share", "all pairs",
                  self.settings)

    def injected(self, seed: int = 0) -> None:
        """Ten images of another data set in each class: are any kept, and do they change which others are kept?"""
        before = self.graphs(self.photos, self.settings, "threshold")
        others = open_dataset("oxford5k_subset")
        members = landmark_members(self.photos)
        drawn = random.Random(seed).sample(range(len(others.names)), INJECTED * len(members))
        labels = [label for label in members for _ in range(INJECTED)]
        both = LabelledImages(
            "landmarks48", self.photos.root,
            self.photos.names + tuple(f"injected/{others.names[index]}" for index in drawn),
            self.photos.paths + tuple(others.paths[index] for index in drawn),
            self.photos.labels + tuple(labels), self.photos.boxes + (None,) * len(drawn), self.photos.label_names)
        after = self.graphs(both, self.settings, "injected")
        for threshold in sorted({LEAST, self.settings.graph.threshold, 12, 15}):
            settings = replace(self.settings, graph=GraphSettings(threshold=threshold))
            names = [self._kept(graphs, settings) for graphs in (before, after)]
            distractors = {name for name in names[1] if name.startswith("injected/")}
            change = (len(names[1] - distractors) - len(names[0])) / len(self.photos.names)
            share = len(distractors) / len(drawn)
            self.keep(f"injected_survive_{threshold}", share, "share", "injected", settings, seed)
            self.keep(f"injected_change_{threshold}", change, "points", "injected", settings, seed)

    @staticmethod
    def _kept(graphs: Mapping[int, MatchGraph], settings: CleanSettings) -> set[str]:
        return {name for graph in graphs.values()
                for name, component in zip(graph.names, kept_components(graph, settings.graph), strict=True)
                if component >= 0}

    def marks(self) -> None:
        """The same classes with and without removing overlays (watermarks, captions, borders)."""
        chosen = [index for index, label in enumerate(self.photos.labels) if label % 4 == 0]
        part = self.photos.part(chosen)
        off = replace(self.settings, verification=VerificationSettings(min_inliers=LEAST, marks=False, min_width=0.0,
                                                                       caption=0.0))
        without = self.graphs(part, off, "marks")
        whole = self.graphs(self.photos, self.settings, "threshold")
        with_marks = {label: graph for label, graph in whole.items() if label in without}
        threshold = self.settings.graph.threshold
        for name, graphs, settings in (("on", with_marks, self.settings), ("off", without, off)):
            kept = len(self._kept(graphs, settings))
            edges = sum(int((graph.inliers >= threshold).sum()) for graph in graphs.values())
            self.keep(f"marks_{name}_kept", kept / len(chosen), "share", "every fourth class", settings)
            self.keep(f"marks_{name}_edges", edges, "edges", "every fourth class", settings)

    def shortlist(self) -> None:
        """Edges and kept images that remain on shortlists, computed from the graphs of all pairs."""
        graphs = self.graphs(self.photos, self.settings, "threshold")
        lists, members = DescriptorShortlists("efficientnet_lite0"), landmark_members(self.photos)
        large = [label for label, indices in members.items() if len(indices) >= 90]
        nearest = [lists([self.photos.paths[index] for index in members[label]], max(SHORTLISTS)) for label in large]
        for count in SHORTLISTS:
            edges = listed_edges = compared = pairs = kept = kept_listed = 0
            for label, order in zip(large, nearest, strict=True):
                graph, images = graphs[label], len(members[label])
                near = np.zeros((images, images), bool)
                near[np.arange(images)[:, None], order[:, :count]] = True
                near |= near.T
                on_list = near[graph.pairs[:, 0], graph.pairs[:, 1]]
                strong = graph.inliers >= self.settings.graph.threshold
                short = replace(graph, **{name: getattr(graph, name)[on_list]
                                          for name in ("pairs", "inliers", "affines", "rectangles")})
                full = kept_components(graph, self.settings.graph) >= 0
                part = kept_components(short, self.settings.graph) >= 0
                edges += int(strong.sum())
                listed_edges += int((strong & on_list).sum())
                kept += int(full.sum())
                kept_listed += int((full & part).sum())
                compared += int(np.triu(near, 1).sum())
                pairs += images * (images - 1) // 2
            shares = {"edges": listed_edges / edges, "kept": kept_listed / kept, "pairs": compared / pairs}
            for key, value in shares.items():
                self.keep(f"shortlist_{count}_{key}", value, "share", "classes of 90 images and more", self.settings,
                          network=lists.name, classes=len(large))

    def memory(self, count: int = 1000) -> None:
        """Peak memory of each process of `rmac clean`, for one class.

        With so many images the default settings match on shortlists. Every task still gets all images of its two
        blocks. Linux only.
        """
        folder = self.work / "memory"
        (folder / "list").mkdir(parents=True, exist_ok=True)
        (folder / "list/images.txt").write_text("".join(f"{path.resolve()} 0\n" for path in self.photos.paths[:count]))
        process = subprocess.Popen([sys.executable, "-m", "rmaclib", "clean", folder / "list/images.txt", "--out",
                                    folder / "out"])
        peaks: dict[str, float] = {}
        while process.poll() is None:
            time.sleep(0.2)
            children = psutil.Process(process.pid).children(recursive=True)
            for number in [process.pid, *(child.pid for child in children)]:
                try:
                    status, maps = (Path(f"/proc/{number}/{name}").read_text() for name in ("status", "maps"))
                except OSError:
                    continue
                peak = re.search(r"VmHWM:\s+(\d+) kB", status)
                who = "main" if number == process.pid else "shortlist" if "libtorch" in maps else "worker"
                if peak:
                    peaks[who] = max(peaks.get(who, 0), int(peak[1]) / 1024)
        if process.returncode:
            raise SystemExit(f"rmac clean: exit status {process.returncode}")
        for who, value in peaks.items():
            self.keep(f"memory_{who}", value, "MiB", f"rmac clean, one class of {count} images", self.settings)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=("threshold", "injected", "marks", "shortlist", "memory"))
    parser.add_argument("--work", type=Path, required=True, help="folder for graphs")
    parser.add_argument("--record", type=Path, help="folder of result records to write to")
    options = parser.parse_args()
    for name in options.steps:
        getattr(Steps(options.work, options.record), name)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
