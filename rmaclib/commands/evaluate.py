"""rmac evaluate."""

import json
import os
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from rmaclib.commands.common import command_group, note, results, say, tell_bad, telling
from rmaclib.commands.network import (
    NetworkOptions,
    describing,
    expected,
    open_unwhitened,
    prepare,
    seconds_per_image,
    whitening_collection,
)
from rmaclib.commands.options import (
    CropOrder,
    Device,
    Dim,
    Enlarge,
    Grid,
    Levels,
    Network,
    NoWait,
    Pooling,
    Precision,
    Proposals,
    Regions,
    Seed,
    Shrinkage,
    Size,
    WhitenImages,
    WhitenOn,
    output_folder,
    text,
    whole,
)
from rmaclib.commands.reading import refuse_outputs
from rmaclib.datasets import (
    LabelledImages,
    RetrievalDataset,
    known_datasets,
    open_collection,
    open_dataset,
    self_check,
)
from rmaclib.evaluation import Evaluation, check_protocol, default_protocol
from rmaclib.extraction.folder import BAD, META, descriptors_folder
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.folders import waiting
from rmaclib.images import ImageError, crop_pixels, read_size

app = command_group()
Protocol = Literal["oxford", "oxford-removed", "revisited", "holidays", "folder"]
_TRAINING = "training"  # sub-folder of --out with the descriptors that codes are learned on
_WORDS = 256  # of a codebook, and training images that it needs at least


@app.command("evaluate")
def evaluate_command(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(
        callback=text, help="A registered name, or a folder in the protocol's layout.")],
    protocol: Annotated[Protocol | None, typer.Option(
        help="How rankings are scored.  [default: that of the data set]")] = None,
    distractors: Annotated[str | None, typer.Option(
        callback=text, help="Images that answer no query, added to the database: a folder, list or registered name.  "
                            "[default: none]")] = None,
    network: Network = "efficientnet_lite0", size: Size = [512], levels: Levels = None, dim: Dim = None,  # noqa: B006
    whiten_on: WhitenOn = None, whiten_images: WhitenImages = 400, shrinkage: Shrinkage = 0.0,
    grid: Grid = None, pooling: Pooling = None, regions: Regions = None, proposals: Proposals = None,
    enlarge: Enlarge = False, crop_order: CropOrder = "resize-then-crop",
    multires: Annotated[bool, typer.Option("--multires", help="Also at 11/16 and 21/16 of the size, descriptors "
                                                              "summed: 550, 800 and 1050 for 800.")] = False,
    qe: Annotated[int, typer.Option(
        callback=whole(0), help="Query expansion: neighbours that a query is averaged with.")] = 0,
    dba: Annotated[int, typer.Option(
        callback=whole(0), help="Database-side augmentation: neighbours averaged with.")] = 0,
    pq: Annotated[int | None, typer.Option(
        callback=whole(1), help="Product quantization to so many bytes.  [default: none]")] = None,
    out: Annotated[Path | None, typer.Option(
        parser=output_folder, metavar="FOLDER",
        help="Folder to keep the descriptors in; a killed run resumes.")] = None,
    per_query: Annotated[bool, typer.Option("--per-query", help="Also list every query.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    device: Device = "auto", precision: Precision = "auto", seed: Seed = 0, no_wait: NoWait = False,
) -> None:
    """Measure a network on a benchmark: mean average precision under its protocol.

    Examples:

    - `rmac evaluate oxford5k --size 512 --levels 3`

    - `rmac evaluate my_folder --protocol folder --dim 512 --json`

    - `rmac evaluate roxford5k --network trained.safetensors --size 800 --multires --qe 1 --dba 20`

    - `rmac evaluate oxford5k --dim 512 --pq 64`: codebooks are learned on all of the images of `--whiten-on`

    - `rmac evaluate oxford5k --distractors flickr100k/`: Oxford 105k, where the folder has its 100,000 pictures

    DATASET is looked for under the folders in RMACLIB_DATA and in the repository's data/.
    """
    started = time.monotonic()
    if multires and len(size) > 1:
        raise typer.BadParameter(f"expected one --size, got {', '.join(map(str, size))}", param_hint="--multires")
    data, protocol, differences = _open(dataset, protocol, distractors, out)
    with waiting(not no_wait), nullcontext() if out is None else descriptors_folder(out):
        settings = describing(context, _resolutions(size[0]) if multires else size)
        options = NetworkOptions.of(context)
        model = open_unwhitened(network, dim, **options.settings)
        training = None if pq is None else whitening_collection(whiten_on)
        if pq is not None:
            _check_codes(pq, dim or model.dim, training)
        prepare(model, [*(query.path for query in data.queries), *data.paths], settings, options, out,
                training=training, saved=False)

        from rmaclib.evaluation.benchmark import evaluate
        from rmaclib.search.retrieval import SearchSettings

        search = SearchSettings(qe, dba)
        codes = None if pq is None else _codes(model, settings, pq, training, out and out / _TRAINING)
        evaluation = evaluate(model, data, protocol, settings, search=search, codes=codes, out=out)
    tell_bad(evaluation.bad, out and out / BAD)
    if as_json:
        result = {"dataset": data.name, "counts": data.counts, "missing": list(data.missing),
                  "differences": differences, "protocol": protocol, "scores": _finite(evaluation.scores),
                  "skipped": evaluation.skipped, "bad": evaluation.bad, "network": asdict(model.settings),
                  "settings": asdict(settings), "search": asdict(search), "pq": pq, "seed": seed,
                  "seconds": round(time.monotonic() - started, 1)}
        if per_query:
            result["per_query"] = evaluation.per_query
        print(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False))
        return
    print(evaluation.table())
    if per_query:
        results.print(_query_table(evaluation))


def _open(dataset: str, protocol: str | None, distractors: str | None,
          out: Path | None) -> tuple[RetrievalDataset, str, list[str]]:
    """The data set with its distractors, the protocol, and how it differs from what was published; checked as far as
    names, boxes and the headers of query images go.

    raises DatasetError, ImageError, InputError; OutputError: `out` lies in the data set's folder
    """
    with telling(f"opening {dataset}"):
        data = open_dataset(dataset, _layout(dataset, protocol))
        protocol = protocol or default_protocol(data)
        check_protocol(data, protocol)
        differences = self_check(data)
        if distractors is not None:
            known = known_datasets().get(distractors)
            opened = open_dataset if known is not None and known.kind == "retrieval" else open_collection
            others = opened(distractors)
    for difference in differences:
        note(f"{data.name} is not the whole published set: {difference}")
    if out is not None:
        refuse_outputs(out, data)
        if distractors is not None and not os.path.isfile(distractors):
            refuse_outputs(out, others)
    if data.missing:
        note(f"{len(data.missing):,} images are not there or known to be corrupt, left out: "
             + ", ".join(data.missing[:3]) + (" …" if len(data.missing) > 3 else ""))
    _check_boxes(data)
    return data if distractors is None else data.with_distractors(others), protocol, differences


def _layout(dataset: str, protocol: str | None) -> str | None:
    """Of a folder that could be read in several ways, the protocol decides; a registered name has its layout."""
    return protocol.removesuffix("-removed") if protocol and os.path.isdir(dataset) else None


def _check_boxes(data: RetrievalDataset) -> None:
    """raises InputError naming a query whose box lies outside of its image; ImageError when that can't be read"""
    for query in data.queries:
        if query.box is not None:
            try:
                crop_pixels(query.box, *read_size(query.path))
            except ImageError:
                raise
            except ValueError as error:
                raise InputError(f"{data.name}: query {query.name!r}, {query.path}: {error}") from error


def _check_codes(size: int, dim: int, training: LabelledImages) -> None:
    """raises InputError unless descriptors fall into `size` equal parts, and there are images to learn them on"""
    if dim % size:
        raise InputError(f"--pq: expected a divisor of {dim}, the dimensions of a descriptor, got {size}")
    if len(training.paths) < _WORDS:
        raise InputError(f"--pq: expected at least {_WORDS} training images, {training.name} has {len(training.paths)} "
                         "(--whiten-on)")


def _resolutions(size: int) -> tuple[int, ...]:
    from rmaclib.extraction.resolutions import resolutions

    return resolutions(size)


def _codes(model, settings, size: int, training: LabelledImages, out: Path | None):
    """Product quantization to `size` bytes, learned on all training images."""
    from rmaclib.extraction.descriptors import extract
    from rmaclib.search.compression import CodeSettings, train_codes

    is_finished = out is not None and (out / META).exists()
    pace = None if is_finished else seconds_per_image(model, training.paths, settings)
    say(f"codes learned on {len(training.paths)} images of {training.name}" + expected(len(training.paths), pace))
    descriptors = extract(model, training.paths, settings, names=list(training.names), out=out)
    return train_codes(descriptors.vectors, CodeSettings("pq", size))


def _finite(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: value if value == value else None for name, value in scores.items()}


def _query_table(evaluation: Evaluation) -> Table:
    table = Table(*evaluation.per_query[0])
    for entry in evaluation.per_query:
        table.add_row(*(f"{100 * value:.1f}" if isinstance(value, float) else "" if value is None else str(value)
                        for value in entry.values()))
    return table
