"""rmac clean. Nothing here loads torch: the process that cleans needs the memory for keypoints."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rmaclib.cleaning import CleanSettings, clean, clean_settings
from rmaclib.cleaning.keypoints import DETECTORS
from rmaclib.cleaning.report import LIST, write_report
from rmaclib.commands.common import choice, command_group, messages, tell_missing
from rmaclib.datasets import LabelledImages, open_collection
from rmaclib.search.neighbours import DescriptorNeighbours
from rmaclib.settings import read_yaml

app = command_group()
Detector = choice("Detector", DETECTORS)
_PARTS = "`part: {name: value}`"  # how settings are written


@app.command("clean")
def clean_command(
    images: Annotated[str, typer.Argument(
        metavar="LIST", help="Landmarks list, CSV, folder per landmark, or name of a registered collection.")],
    out: Annotated[Path, typer.Option(help="Folder for the clean list, tables, report.html, and the graphs.")],
    threshold: Annotated[int | None, typer.Option(help="Inliers that an edge needs.  [default: 10]")] = None,
    conductance: Annotated[float | None, typer.Option(
        help="Parts that share less than this part of their inliers are separated, 0 for none.  [default: 0.02]",
    )] = None,
    largest: Annotated[int | None, typer.Option(help="Parts kept of each landmark.  [default: 1]")] = None,
    min_matches: Annotated[int | None, typer.Option(
        help="Verified matches that a kept image needs: 2 for fewer mistakes and images.  [default: 1]")] = None,
    detector: Annotated[Detector | None, typer.Option(help="Keypoints.  [default: sift]")] = None,
    keypoints: Annotated[int | None, typer.Option(help="Keypoints per image.  [default: 1000]")] = None,
    size: Annotated[int | None, typer.Option(help="Longer side in pixels.  [default: 512]")] = None,
    settings: Annotated[Path | None, typer.Option(help="YAML file with any setting; options go before it.")] = None,
    scheduler: Annotated[str | None, typer.Option(
        metavar="ADDRESS", help="dask scheduler to run on, such as tcp://host:8786.  [default: this machine's cores]",
    )] = None,
    ahead: Annotated[int, typer.Option(help="Tasks handed over at a time: at least twice the workers.")] = 64,
    thumbnails: Annotated[int, typer.Option(help="Kept, and dropped, images shown of each landmark.")] = 12,
    network: Annotated[str, typer.Option(
        help="Network of the shortlists for large classes, on the CPU.")] = "efficientnet_lite0",
) -> None:
    """Clean a noisy collection: keep what shows the same thing, with boxes. A killed run goes on when started again.

    Examples:

    - `rmac clean annotation_full_train.txt --out clean`

    - `rmac clean my_landmarks --out clean --threshold 15 --largest 2`

    - `rmac clean landmarks_full --out clean --scheduler tcp://10.0.0.1:8786 --ahead 512`

    OUT/annotation_clean.txt is the clean list (`path label x1 x2 y1 y2`), OUT/report.html shows what was dropped
    and why. Another --conductance, --largest or --min-matches, or a higher --threshold, on the same OUT needs no
    matching.
    """
    started = time.monotonic()
    collection = open_collection(images)
    tell_missing(collection.missing)
    chosen = _clean_settings(settings, {"threshold": threshold, "conductance": conductance, "largest": largest,
                                        "min_matches": min_matches},
                             {"detector": detector and detector.value, "count": keypoints, "size": size})
    with _dask(scheduler) as executor, _shortlists(collection, chosen, network) as neighbours:
        cleaned = clean(collection, chosen, out=out, executor=executor, ahead=ahead, neighbours=neighbours)
    page = write_report(cleaned, chosen, out, thumbnails)
    kept, whole = len(cleaned.clean.names), len(collection.names)
    messages.print(f"{kept} of {whole} images of {len(cleaned.landmarks)} landmarks kept ({kept / whole:.1%}), "
                    f"{time.monotonic() - started:.0f} s")
    messages.print(f"list: {out / LIST}\nreport: {page}", soft_wrap=True)


def _clean_settings(file: Path | None, graph: dict, keypoints: dict) -> CleanSettings:
    """Settings of a YAML file, or the defaults; graph, keypoints: options put over theirs where they are not None."""
    found = CleanSettings()
    if file is not None:
        try:
            found = clean_settings(read_yaml(file), str(file))
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{file}: expected settings in YAML, {_PARTS}, found {error}") from error

    def over(part, values: dict):
        return replace(part, **{name: value for name, value in values.items() if value is not None})

    chosen = over(found.graph, graph)
    # Weaker edges than asked for need not be kept; as weak ones as asked for must be.
    least = min(found.verification.min_inliers, chosen.threshold)
    return replace(found, graph=chosen, verification=replace(found.verification, min_inliers=least),
                   keypoints=over(found.keypoints, keypoints))


@contextmanager
def _dask(scheduler: str | None) -> Iterator[Executor | None]:
    """An executor on a dask cluster, None without a scheduler."""
    if scheduler is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("--scheduler needs dask: install rmaclib[cluster]") from error
    with Client(scheduler, set_as_default=False) as client:
        yield client.get_executor(pure=False)


@contextmanager
def _shortlists(collection: LabelledImages, chosen: CleanSettings,
                network: str) -> Iterator[DescriptorNeighbours | None]:
    """Shortlists by global descriptors, where a class is large enough to need them: the network takes seconds."""
    if max(Counter(collection.labels).values()) <= chosen.exhaustive:
        yield None
        return
    with closing(DescriptorNeighbours(network)) as neighbours:
        yield neighbours
