"""rmac evaluate."""

import json
import os
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from rmaclib import presets
from rmaclib.commands import options
from rmaclib.commands.common import command_group, note, results, say, tell_bad, telling
from rmaclib.commands.network import (
    NetworkOptions,
    expected,
    extraction_settings,
    open_unwhitened,
    prepare,
    seconds_per_image,
    whitening_collection,
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

if TYPE_CHECKING:
    import faiss

    from rmaclib.extraction.batches import ExtractionSettings
    from rmaclib.network import RMAC
    from rmaclib.search.retrieval import SearchSettings

app = command_group()
Protocol = Literal["oxford", "oxford-removed", "revisited", "holidays", "folder"]
_TRAINING = "training"  # sub-folder of --out with the descriptors that codes are learned on
_WORDS = 256  # of a codebook, and training images that it needs at least

_ProtocolOption = Annotated[Protocol | None, typer.Option(
    help="How rankings are scored.  [default: that of the data set]")]
_Distractors = Annotated[str | None, typer.Option(
    callback=options.text, help="Images that are relevant to no query, added to the database: a folder, list or "
                                "registered name.  [default: none]")]
_Multires = Annotated[bool, typer.Option(
    "--multires", help="Also at 11/16 and 21/16 of the size, descriptors summed: 550, 800 and 1050 for 800. The preset "
                       "paper has these three.")]
_Qe = Annotated[int | None, typer.Option(
    callback=options.whole(0), help="Query expansion: neighbours that a query is averaged with."
                                    + options.defaults("search", "qe"))]
_Dba = Annotated[int | None, typer.Option(
    callback=options.whole(0), help="Database-side augmentation: neighbours that an image of the database is averaged "
                                    "with." + options.defaults("search", "dba"))]
_Pq = Annotated[int | None, typer.Option(
    callback=options.whole(1), help="Product quantization to so many bytes.  [default: none]")]
_Out = Annotated[Path | None, typer.Option(
    parser=options.output_folder, metavar="FOLDER",
    help="Folder to keep the descriptors in; a killed run goes on.  [default: none]")]


@app.command("evaluate")
def evaluate_command(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(
        callback=options.text, help="A registered name, or a folder in the protocol's layout.")],
    protocol: _ProtocolOption = None, distractors: _Distractors = None,
    preset: options.Preset = "laptop",
    network: options.Network = None, size: options.Size = None, levels: options.Levels = None, dim: options.Dim = None,
    whiten_on: options.WhitenOn = None, whiten_images: options.WhitenImages = 400, shrinkage: options.Shrinkage = 0.0,
    grid: options.Grid = None, pooling: options.Pooling = None, regions: options.Regions = None,
    proposals: options.Proposals = None, enlarge: options.Enlarge = False,
    crop_order: options.CropOrder = "resize-then-crop", multires: _Multires = False, qe: _Qe = None, dba: _Dba = None,
    pq: _Pq = None, out: _Out = None,
    per_query: Annotated[bool, typer.Option("--per-query", help="Also list every query.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    device: options.Device = "auto", precision: options.Precision = "auto", seed: options.Seed = 0,
    no_wait: options.NoWait = False,
) -> None:
    """Measure a network on a benchmark: mean average precision under its protocol.

    Examples:

    - `rmac evaluate oxford5k --size 512 --levels 3`

    - `rmac evaluate my_folder --protocol folder --dim 512 --json`

    - `rmac evaluate roxford5k --network trained.safetensors --preset paper`: the checkpoint's own grid and dimensions,
      the paper's three resolutions, query expansion and database-side augmentation

    - `rmac evaluate oxford5k --dim 512 --pq 64`: codebooks are learned on all of the images of `--whiten-on`

    - `rmac evaluate oxford5k --distractors flickr100k/`: Oxford 105k, where the folder has its 100,000 pictures

    DATASET is looked for under the folders in RMACLIB_DATA and in the repository's data/.
    """
    started = time.monotonic()
    _check_sizes(multires, size)
    data, scoring, differences = _open(dataset, protocol, distractors, out)
    with waiting(not no_wait), nullcontext() if out is None else descriptors_folder(out):
        settings, chosen = _settings(context), NetworkOptions.of(context)
        model = open_unwhitened(chosen)
        training = None if pq is None else _code_images(pq, whiten_on, chosen.dim or model.dim)
        prepare(model, [*(query.path for query in data.queries), *data.paths], settings, chosen, out,
                training=training, saved=False)

        from rmaclib.evaluation.benchmark import evaluate

        search, codes = _search_settings(preset, qe, dba), None
        if pq is not None and training is not None:
            codes = _codes(model, settings, pq, training, out and out / _TRAINING)
        evaluation = evaluate(model, data, scoring, settings, search=search, codes=codes, out=out)
    tell_bad(evaluation.bad, out and out / BAD)
    if not as_json:
        _print_tables(evaluation, per_query)
        return
    record = {
        "dataset": data.name, "counts": data.counts, "missing": list(data.missing), "differences": differences,
        "protocol": scoring, "scores": _finite(evaluation.scores), "skipped": evaluation.skipped, "bad": evaluation.bad,
        "network": asdict(model.settings), "settings": asdict(settings), "search": asdict(search), "pq": pq,
        "seed": seed, "seconds": round(time.monotonic() - started, 1),
        **({"per_query": evaluation.per_query} if per_query else {})}
    print(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False))


def _check_sizes(multires: bool, size: list[int] | None) -> None:
    if multires and size and len(size) > 1:
        raise typer.BadParameter(f"expected one --size, got {', '.join(map(str, size))}", param_hint="--multires")


def _settings(context: typer.Context) -> "ExtractionSettings":
    """Of the extraction; with --multires a single size becomes three."""
    settings = extraction_settings(context)
    if not context.params["multires"] or len(settings.sizes) > 1:
        return settings
    from rmaclib.extraction.resolutions import resolutions

    return extraction_settings(context, resolutions(settings.sizes[0]))


def _open(dataset: str, protocol: str | None, distractors: str | None,
          out: Path | None) -> tuple[RetrievalDataset, str, list[str]]:
    """The data set with its distractors, the protocol, and how it differs from what was published.

    Checked as far as names, boxes and the headers of query images go. Raises DatasetError, ImageError, InputError, and
    OutputError when ``out`` lies in the data set's folder.
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
    """The protocol decides how a folder is read that could be read in several ways; a registered name has a layout."""
    return protocol.removesuffix("-removed") if protocol and os.path.isdir(dataset) else None


def _check_boxes(data: RetrievalDataset) -> None:
    """Raises InputError naming a query whose box lies outside of its image; ImageError when that can't be read."""
    for query in data.queries:
        if query.box is not None:
            try:
                crop_pixels(query.box, *read_size(query.path))
            except ImageError:
                raise
            except ValueError as error:
                raise InputError(f"{data.name}: query {query.name!r}, {query.path}: {error}") from error


def _search_settings(preset: str, qe: int | None, dba: int | None) -> "SearchSettings":
    """Those of the preset, with the options over them."""
    given = {name: value for name, value in (("qe", qe), ("dba", dba)) if value is not None}
    return presets.preset(preset).settings("search", given, "options")


def _code_images(size: int, whiten_on: str | None, dim: int) -> LabelledImages:
    """Images that codes of ``size`` bytes are learned on.

    Raises InputError unless descriptors fall into ``size`` equal parts and there are enough of these images.
    """
    training = whitening_collection(whiten_on)
    if dim % size:
        raise InputError(f"--pq: expected a divisor of {dim}, the dimensions of a descriptor, got {size}")
    if len(training.paths) < _WORDS:
        raise InputError(f"--pq: expected at least {_WORDS} training images, {training.name} has {len(training.paths)} "
                         "(--whiten-on)")
    return training


def _codes(model: "RMAC", settings: "ExtractionSettings", size: int, training: LabelledImages,
           out: Path | None) -> "faiss.Index":
    """Product quantization to ``size`` bytes, learned on all training images."""
    from rmaclib.extraction.descriptors import extract
    from rmaclib.search.compression import CodeSettings, train_codes

    is_finished = out is not None and (out / META).exists()
    pace = None if is_finished else seconds_per_image(model, training.paths, settings)
    say(f"codes learned on {len(training.paths)} images of {training.name}" + expected(len(training.paths), pace))
    descriptors = extract(model, training.paths, settings, names=list(training.names), out=out)
    return train_codes(descriptors.vectors, CodeSettings("pq", size))


def _print_tables(evaluation: Evaluation, per_query: bool) -> None:
    print(evaluation.table())
    if per_query:
        results.print(_query_table(evaluation))


def _finite(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: value if value == value else None for name, value in scores.items()}


def _query_table(evaluation: Evaluation) -> Table:
    table = Table(*evaluation.per_query[0])
    for entry in evaluation.per_query:
        table.add_row(*(f"{100 * value:.1f}" if isinstance(value, float) else "" if value is None else str(value)
                        for value in entry.values()))
    return table
