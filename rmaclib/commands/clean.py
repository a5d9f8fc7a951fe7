"""``rmac clean``. Nothing here loads torch: the process that cleans needs the memory for keypoints."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from rmaclib import presets
from rmaclib.cleaning import CleanSettings, GraphSettings, KeypointSettings, clean
from rmaclib.cleaning.folder import IMAGE_TABLE, LIST, cleaning_folder
from rmaclib.cleaning.keypoints import Detector
from rmaclib.cleaning.report import write_report
from rmaclib.cleaning.shortlists import DescriptorShortlists
from rmaclib.commands.common import command_group, note, say, telling
from rmaclib.commands.options import NoWait, SkipBad, number, output_folder, settings_file, text, whole
from rmaclib.commands.reading import read_photographs
from rmaclib.datasets import LabelledImages, open_collection
from rmaclib.foundation.errors import InputError, MissingPackageError
from rmaclib.foundation.folders import waiting
from rmaclib.foundation.settings import read_yaml

app = command_group()
Part = TypeVar("Part", GraphSettings, KeypointSettings)
_PATIENCE = 10  # seconds that a scheduler has to answer


@app.command("clean")
def clean_command(
    images: Annotated[str, typer.Argument(
        metavar="LIST", callback=text,
        help="Landmarks list, CSV, folder per landmark, or name of a registered collection.")],
    out: Annotated[Path, typer.Option(
        parser=output_folder, metavar="FOLDER",
        help="Folder for the clean list, tables, report.html, and the graphs.")],
    threshold: Annotated[int | None, typer.Option(
        callback=whole(3), help="Inliers that an edge needs.  [default: 10]")] = None,
    conductance: Annotated[float | None, typer.Option(
        callback=number(0, 1),
        help="Parts that share less than this part of their inliers are separated, 0 for none.  [default: 0.02; "
             "paper: 0]",
    )] = None,
    largest: Annotated[int | None, typer.Option(
        callback=whole(1), help="Parts kept of each landmark.  [default: 1]")] = None,
    min_matches: Annotated[int | None, typer.Option(
        callback=whole(1),
        help="Verified matches that a kept image needs: 2 for fewer mistakes and images.  [default: 1]")] = None,
    detector: Annotated[Detector | None, typer.Option(help="Keypoints.  [default: sift]")] = None,
    keypoints: Annotated[int | None, typer.Option(
        callback=whole(3), help="Keypoints per image.  [default: 1000]")] = None,
    size: Annotated[int | None, typer.Option(
        callback=whole(16), help="Longer side in pixels.  [default: 512]")] = None,
    preset: Annotated[Literal["laptop", "paper"], typer.Option(
        help="Settings to start from: for minutes on this machine, or the paper's.")] = "laptop",
    settings: Annotated[Path | None, typer.Option(
        parser=settings_file, metavar="FILE",
        help="YAML file with any setting, before those of the preset; options go before it.")] = None,
    scheduler: Annotated[str | None, typer.Option(
        metavar="ADDRESS", callback=text,
        help="dask scheduler to run on, such as tcp://host:8786.  [default: this machine's cores]",
    )] = None,
    ahead: Annotated[int, typer.Option(
        callback=whole(1), help="Tasks handed over at a time: at least twice the workers.")] = 64,
    thumbnails: Annotated[int, typer.Option(
        callback=whole(0), help="Kept, and dropped, images shown of each landmark.")] = 12,
    network: Annotated[str, typer.Option(
        callback=text, help="Network of the shortlists for large classes, on the CPU.")] = "efficientnet_lite0",
    skip_bad: SkipBad = False, no_wait: NoWait = False,
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
    chosen = _clean_settings(
        preset, settings,
        {"--threshold": ("threshold", threshold), "--conductance": ("conductance", conductance),
         "--largest": ("largest", largest), "--min-matches": ("min_matches", min_matches)},
        {"--detector": ("detector", detector), "--keypoints": ("count", keypoints), "--size": ("size", size)})
    with waiting(not no_wait):
        collection = read_photographs(images, out, skip_bad, open_collection)
        with (dask_executor(scheduler) as executor, cleaning_folder(out),
              _shortlists(collection, chosen, network) as shortlists):
            cleaned = clean(collection, chosen, out=out, report=False, executor=executor, shortlists=shortlists,
                            ahead=ahead)
            with telling(f"writing the list and the report to {out}"):
                page = write_report(cleaned, chosen, out, thumbnails)
    kept, every = len(cleaned.clean.names), len(cleaned.source.names)
    say(f"{kept} of {every} images of {len(cleaned.landmarks)} landmarks kept ({kept / max(every, 1):.1%}), "
        f"{time.monotonic() - started:.0f} s")
    say(f"list: {out / LIST}\nevery image, and why it was dropped: {out / IMAGE_TABLE}\nreport: {page}")


def _clean_settings(preset: str, file: Path | None, graph: Mapping, keypoints: Mapping) -> CleanSettings:
    """Settings of a YAML file over those of a preset; graph, keypoints: option -> (field, value), which go before."""
    given: CleanSettings = presets.preset(preset).settings("cleaning", read_yaml(file), str(file or "options"))
    parts = _with_options(given.graph, graph)
    # Weaker edges than the threshold need not be kept; those at the threshold must be.
    least = min(given.verification.min_inliers, parts.threshold)
    return replace(given, graph=parts, verification=replace(given.verification, min_inliers=least),
                   keypoints=_with_options(given.keypoints, keypoints))


def _with_options(part: Part, options: Mapping[str, tuple[str, Any]]) -> Part:
    """Settings with the options that are given. Raises InputError naming the option."""
    for option, (field, value) in options.items():
        if value is not None:
            try:
                part = replace(part, **{field: value})
            except InputError as error:
                raise InputError(f"{option}: {str(error).removeprefix(f'{field}: ')}") from None
    return part


@contextmanager
def dask_executor(scheduler: str | None, patience: float = _PATIENCE) -> Iterator[Executor | None]:
    """An executor on a dask cluster, None without a scheduler.

    Args:
        scheduler: Its address, such as ``tcp://host:8786``.
        patience: Seconds that it has to answer.

    Raises:
        InputError: No scheduler answers there.
        MissingPackageError: dask isn't installed.
    """
    if scheduler is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingPackageError("--scheduler needs dask: install rmaclib[cluster]") from error
    say(f"connecting to {scheduler}")
    try:
        client = Client(scheduler, set_as_default=False, timeout=patience)
    except Exception as error:  # of the connection, of the address, of dask's settings
        raise InputError(f"--scheduler: expected the address of a dask scheduler, such as tcp://host:8786; none "
                         f"answers at {scheduler!r} within {patience} s ({error})") from error
    with client:
        if not client.scheduler_info()["workers"]:
            note(f"{scheduler} has no worker yet, waiting for one")
        yield client.get_executor(pure=False)


@contextmanager
def _shortlists(collection: LabelledImages, chosen: CleanSettings,
                network: str) -> Iterator[DescriptorShortlists | None]:
    """Shortlists by global descriptors, where a class is large enough to need them: the network takes seconds."""
    if max(Counter(collection.labels).values()) <= chosen.exhaustive:
        yield None
        return
    say(f"classes of more than {chosen.exhaustive} images: shortlists by {network}, which is loaded")
    with closing(DescriptorShortlists(network)) as shortlists:
        yield shortlists
