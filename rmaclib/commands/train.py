"""rmac train, propose, describe, index, search, evaluate: what needs a network."""

import csv
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rmaclib.backbones import NAMES
from rmaclib.checkpoints import is_checkpoint, load_checkpoint, open_network, save_checkpoint
from rmaclib.commands.common import choice, command_group, messages, tell_bad, tell_missing
from rmaclib.datasets import LabelledImages, known_datasets, open_collection, open_dataset, self_check
from rmaclib.datasets.types import DatasetError
from rmaclib.evaluation import PROTOCOLS, Evaluation
from rmaclib.files import whole_file
from rmaclib.images import CROP_ORDERS, RESIZE_THEN_CROP
from rmaclib.learning import (
    LOSSES,
    ClassifySettings,
    ProposeSettings,
    Trained,
    TrainSettings,
    hold_out,
    train,
    train_classifier,
    train_proposals,
    verified_pairs,
)
from rmaclib.learning.distributed import is_main, processes
from rmaclib.learning.loop import BEST, OPTIMIZERS
from rmaclib.plots import boxes_sheet, ranking_sheet, training_curves
from rmaclib.rmac import GRIDS, POOLINGS, REGIONS, RMAC, NetworkSettings
from rmaclib.search.compression import CodeSettings, train_codes
from rmaclib.search.descriptors import DescribeSettings, describe, learn_whitening
from rmaclib.search.index import CHECKPOINT, Index
from rmaclib.search.proposing import propose
from rmaclib.search.resolutions import resolutions
from rmaclib.search.retrieval import SearchSettings, measure, training_sample
from rmaclib.search.vector_index import META, SearchIndexError
from rmaclib.settings import from_mapping

app = command_group()

_WHITENING_SETS = ("landmarks48", "diorama_train")  # photographs first
_TRAINED_DIM = 512
_CURVES = "curves.png"
_DRAWN = 12  # pictures on which proposals are drawn

Protocol, CropOrder = choice("Protocol", PROTOCOLS), choice("CropOrder", CROP_ORDERS)
_PAPER_ORDER = CropOrder(RESIZE_THEN_CROP)
Grid, Pooling, Regions = choice("Grid", GRIDS), choice("Pooling", POOLINGS), choice("Regions", REGIONS)
Precision = choice("Precision", ("auto", "float32", "bfloat16"))
_STAGES = {"ranking": TrainSettings, "classification": ClassifySettings, "proposals": ProposeSettings}
Stage, Loss, Optimizer = choice("Stage", _STAGES), choice("Loss", LOSSES), choice("Optimizer", OPTIMIZERS)
_RANKING, _PROPOSALS = Stage("ranking"), Stage("proposals")

Network = Annotated[str, typer.Option(help=f"A backbone ({', '.join(NAMES)}) or a checkpoint (.safetensors).")]
Size = Annotated[list[int], typer.Option(help="Longer side in pixels; give it several times for several resolutions.")]
Levels = Annotated[int | None, typer.Option(help="Levels L of the grid.  [default: 3, or the checkpoint's]")]
Dim = Annotated[int | None, typer.Option(help="Whiten regions and keep so many dimensions.  [default: no whitening]")]
WhitenOn = Annotated[str | None, typer.Option(
    help="Training images for whitening and codes: a name, list or folder; never the test set.  "
         f"[default: {_WHITENING_SETS[0]} if found, else {_WHITENING_SETS[1]}]")]
WhitenImages = Annotated[int, typer.Option(help="Images of it to use.")]
Shrinkage = Annotated[float, typer.Option(help="0..1, moves the whitening's covariance towards the identity.")]
GridOption = Annotated[Grid | None, typer.Option("--grid", help="Kind of grid.  [default: exact, or the checkpoint's]")]
PoolingOption = Annotated[Pooling | None, typer.Option("--pooling", help="Pooling of a region.  [default: max]")]
RegionsOption = Annotated[Regions | None, typer.Option(
    "--regions", help="What is pooled; proposals need a network that was trained to make them.  [default: grid, or the "
                      "checkpoint's]")]
ProposalsOption = Annotated[int | None, typer.Option(
    "--proposals", help="Proposed regions of an image, at most.  [default: 32, or the checkpoint's]")]
Enlarge = Annotated[bool, typer.Option("--enlarge", help="Also enlarge images that are smaller than the size.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps …")]
PrecisionOption = Annotated[Precision, typer.Option("--precision", help="auto takes bfloat16 where it is safe.")]
Seed = Annotated[int, typer.Option(help="Chooses the whitening's images.")]


@app.command("train")
def train_command(
    images: Annotated[str, typer.Argument(
        metavar="COLLECTION", help="Landmarks list, CSV, folder per landmark, or name of a registered collection.")],
    out: Annotated[Path, typer.Option(help=f"Folder for {BEST}, log.csv, and the state of the run.")],
    stage: Annotated[Stage, typer.Option(
        help="What is learned: to rank; before that, to name landmarks; after it, where they are.")] = _RANKING,
    settings: Annotated[Path | None, typer.Option(help="YAML file with any setting; options go before it.")] = None,
    validation: Annotated[str | None, typer.Option(
        metavar="LIST", help="Images that choose the best network.  [default: some of COLLECTION, held out]")] = None,
    graphs: Annotated[Path | None, typer.Option(
        metavar="FOLDER", help="Of rmac clean: its verified pairs are the positives.  [default: equal labels]")] = None,
    network: Network = "efficientnet_lite0",
    levels: Annotated[int | None, typer.Option(help="Levels L of the grid.  [default: 2, or the checkpoint's]")] = None,
    dim: Annotated[int | None, typer.Option(
        help="Dimensions; the layer starts from a whitening.  [default: 512, or the checkpoint's]")] = None,
    size: Annotated[int | None, typer.Option(
        help="Longer side in pixels; in the classification stage, of the validation.  [default: 800; 512]")] = None,
    updates: Annotated[int | None, typer.Option(help="Steps of the optimizer.  [default: 4096]")] = None,
    optimizer: Annotated[Optimizer | None, typer.Option(help="[default: sgd]")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.  [default: 1e-3; 1e-5 for adamw]")] = None,
    loss: Annotated[Loss | None, typer.Option(help="What is minimised.  [default: triplet]")] = None,
    regions: RegionsOption = None, proposals: ProposalsOption = None,
    seed: Annotated[int | None, typer.Option(help="Every random choice follows from it.  [default: 0]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps …  [default: auto]")] = None,
    whiten_images: WhitenImages = 400,
) -> None:
    """Train a network to rank, by hard triplets. A killed run goes on when started again, to the same result.

    Examples:

    - `rmac train my_landmarks --out trained --size 320 --updates 640` (a folder per landmark is enough)

    - `rmac train clean/annotation_clean.txt --graphs clean --validation my_validation --out trained`

    - `rmac train landmarks_full --validation landmarks_full_val --network resnet101 --stage classification --out named`

    - `rmac train landmarks_clean --validation landmarks_clean_val --network named/best.safetensors --dim 2048 --out
      ranked`

    - `rmac train clean/annotation_clean.txt --stage proposals --validation clean_val/annotation_clean.txt --network
      ranked/best.safetensors --out proposing`

    - `torchrun --nproc-per-node 8 -m rmaclib train landmarks_clean --validation landmarks_clean_val --out trained` (a
      process for each GPU; they share the images of an update)

    OUT/best.safetensors is the network with the best retrieval among the validation images (in the stage proposals,
    the best recall of their boxes); --network of the other commands takes it. OUT/log.csv has a line for each update,
    and OUT/curves.png shows them at the end.
    --settings FILE takes all settings of rmaclib.learning.TrainSettings, such as `triplets: 32`, or `propose: 8` to
    learn proposals jointly, of ClassifySettings, such as `batch: 32`, or of ProposeSettings, such as `anchors: 9`.
    """
    options = {"size": size, "updates": updates, "optimizer": optimizer and optimizer.value, "lr": lr,
               "loss": loss and loss.value, "seed": seed, "device": device}
    chosen = from_mapping(_STAGES[stage.value], read_yaml(settings) | {
        name: value for name, value in options.items() if value is not None}, str(settings or "options"))
    if stage != _RANKING and (graphs is not None or dim is not None):
        raise ValueError("--graphs and --dim belong to the ranking stage; in classification labels are learned, by "
                         "the backbone, and proposals come from boxes")
    with processes(chosen.timeout):
        messages.quiet = not is_main()
        training, held_out = _train_and_validation(images, validation, chosen.seed)
        if levels is None and not is_checkpoint(network):
            levels = NetworkSettings.levels  # the paper's, where it trains; off the shelf 3 is better
        model = _unwhitened(network, dim, _kinds(levels, None, None, regions, proposals))
        if stage == _PROPOSALS:
            trained = train_proposals(model, training, chosen, out=out, validation=held_out)
        elif stage == _RANKING:
            trained = _train_ranking(model, training, held_out, chosen, out, graphs, validation is None, dim,
                                     whiten_images)
        else:
            trained = train_classifier(model, training, chosen, out=out, validation=held_out)
        if is_main():
            with whole_file(out / _CURVES) as temporary:
                training_curves(trained.history, f"{out.name}: {stage.value}").savefig(temporary, format="png", dpi=130)
    tell_bad(trained.bad.items(), out / "bad.txt")
    start = trained.history[0]["validation"]
    measure = "average recall of boxes" if stage == _PROPOSALS else "mAP"
    messages.print(f"validation {measure} {start:.4f} before, {trained.score:.4f} after {trained.best_update} of "
                    f"{chosen.updates} updates\nnetwork: {out / BEST}\ncurves: {out / _CURVES}", soft_wrap=True)


def _train_ranking(model: RMAC, training: LabelledImages, held_out: LabelledImages, chosen: TrainSettings, out: Path,
                   graphs: Path | None, same_graphs: bool, dim: int | None, whiten_images: int) -> Trained:
    """same_graphs: the graphs judge the validation images too, which were cleaned with the others."""
    positives = None if graphs is None else verified_pairs(training, graphs)
    held_out_positives = verified_pairs(held_out, graphs) if graphs is not None and same_graphs else None
    if model.fc is None:
        describing = DescribeSettings((chosen.size,), precision=chosen.precision, device=chosen.device)
        _whiten(model, training, describing, dim or _TRAINED_DIM, whiten_images, 0.0, chosen.seed)
    return train(model, training, chosen, out=out, positives=positives, validation=held_out,
                 validation_positives=held_out_positives)


def _train_and_validation(images: str, validation: str | None, seed: int) -> tuple[LabelledImages, LabelledImages]:
    collection = open_collection(images)
    tell_missing(collection.missing)
    if validation is not None:
        held_out = open_collection(validation)
        tell_missing(held_out.missing)
        return collection, held_out
    training, held_out = hold_out(collection, seed=seed)
    messages.print(f"{len(held_out.names)} of {len(collection.names)} images held out for validation (--validation "
                    "LIST to choose them)")
    return training, held_out


@app.command("propose")
def propose_command(
    images: Annotated[str, typer.Argument(help="Folder of images, CSV, list, or name of a registered collection.")],
    network: Annotated[str, typer.Option(help="A checkpoint with a proposal network: rmac train --stage proposals.")],
    out: Annotated[Path, typer.Option(help="Table to write: a line for each proposal.")] = Path("proposals.csv"),
    k: Annotated[int, typer.Option(help="Proposals of an image, at most.")] = 32,
    size: Annotated[int, typer.Option(help="Longer side in pixels.")] = 512,
    picture: Annotated[Path | None, typer.Option(
        help="Also draw the five likeliest on the first images (.png, .pdf, .svg).")] = None,
    device: Device = "auto",
) -> None:
    """Propose regions that may hold a landmark (Section 4.3).

    Examples:

    - `rmac propose my_photos --network proposing/best.safetensors --out proposals.csv --picture proposals.png`

    The table has the columns image, x1, y1, x2, y2 (pixels of the image) and score (0..1), the likeliest first.
    """
    collection = open_collection(images)
    tell_missing(collection.missing)
    if k < 1:
        raise ValueError(f"--k: expected at least 1, got {k}")
    found = propose(load_checkpoint(network), collection.paths, DescribeSettings((size,), device=device), k)
    with whole_file(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("image", "x1", "y1", "x2", "y2", "score"))
        for path, one in zip(collection.paths, found, strict=True):
            table.writerows((path, *(f"{value:.1f}" for value in box), f"{score:.4f}")
                            for box, score in zip(one.boxes, one.scores, strict=True))
    tell_bad([(name, one.reason) for name, one in zip(collection.names, found, strict=True) if one.reason], None)
    messages.print(f"{sum(len(one.boxes) for one in found)} proposals: {out}", soft_wrap=True)
    if picture is not None:
        good = [(path, one) for path, one in zip(collection.paths, found, strict=True) if not one.reason][:_DRAWN]
        picture.parent.mkdir(parents=True, exist_ok=True)
        boxes_sheet([(path.name, path, one.boxes[:5], one.scores[:5]) for path, one in good]).savefig(picture, dpi=130)
        messages.print(f"picture: {picture}", soft_wrap=True)


@app.command("describe")
def describe_command(
    images: Annotated[str, typer.Argument(help="Folder of images, CSV, list, or name of a registered collection.")],
    out: Annotated[Path, typer.Option(help="Folder for descriptors.npy, names.txt, bad.txt, the network.")],
    network: Network = "efficientnet_lite0", size: Size = [512], levels: Levels = None, dim: Dim = None,  # noqa: B006
    whiten_on: WhitenOn = None, whiten_images: WhitenImages = 400, shrinkage: Shrinkage = 0.0,
    grid: GridOption = None, pooling: PoolingOption = None, regions: RegionsOption = None,
    proposals: ProposalsOption = None, enlarge: Enlarge = False,
    device: Device = "auto", precision: PrecisionOption = Precision.auto, seed: Seed = 0,
) -> None:
    """Describe images: one vector each, memory-mapped on disk. A killed run goes on when started again.

    Examples:

    - `rmac describe holiday_photos --out descriptors`

    - `rmac describe holiday_photos --out descriptors --size 550 --size 800 --size 1050 --dim 512`
    """
    collection = open_collection(images)
    tell_missing(collection.missing)
    settings = DescribeSettings(tuple(size), enlarge, precision=precision.value, device=device)
    model = _network(network, settings, _kinds(levels, grid, pooling, regions, proposals), dim, whiten_on,
                     whiten_images, shrinkage, seed)
    found = describe(model, collection.paths, settings, names=[str(path) for path in collection.paths], out=out)
    # The folder is complete in itself: the network that made it is beside it.
    save_checkpoint(out / CHECKPOINT, model)
    tell_bad(found.bad, out / "bad.txt")
    messages.print(f"{len(found.names)} images, {found.vectors.shape[1]} numbers each, in {out}")


@app.command("index")
def index_command(
    context: typer.Context,
    images: Annotated[str, typer.Argument(help="Folder of images, CSV, list, or name of a registered collection.")],
    out: Annotated[Path, typer.Option(help="Folder of the index; one that is there already is added to.")],
    network: Network = "efficientnet_lite0", size: Size = [512], levels: Levels = None, dim: Dim = None,  # noqa: B006
    whiten_on: WhitenOn = None, whiten_images: WhitenImages = 400, shrinkage: Shrinkage = 0.0,
    grid: GridOption = None, pooling: PoolingOption = None, regions: RegionsOption = None,
    proposals: ProposalsOption = None, enlarge: Enlarge = False,
    device: Device = "auto", precision: PrecisionOption = Precision.auto, seed: Seed = 0,
) -> None:
    """Make an index of images, to be asked by `rmac search`. A killed run goes on when started again.

    Examples:

    - `rmac index my_photos --out photos.index`

    - `rmac index more_photos --out photos.index`: only what is not in it yet is described and added
    """
    collection = open_collection(images)
    tell_missing(collection.missing)
    if (out / META).exists():
        given = [name for name in context.params if name not in ("images", "out", "device")
                 and context.get_parameter_source(name).name == "COMMANDLINE"]
        if given:
            raise ValueError(f"--{given[0].replace('_', '-')}: {out} has its own network and settings; leave it out to "
                             "add to that index, or choose another folder")
        index = Index.load(out)
        index.settings = replace(index.settings, device=device)
        added = index.add(collection.paths)
        index.save(out)
    else:
        settings = DescribeSettings(tuple(size), enlarge, precision=precision.value, device=device)
        model = _network(network, settings, _kinds(levels, grid, pooling, regions, proposals), dim, whiten_on,
                         whiten_images, shrinkage, seed)
        index = Index.build(collection.paths, model, settings, out=out)
        added = len(index)
    tell_bad(index.bad, None)
    messages.print(f"{added} images added; {out} holds {index}", markup=False, soft_wrap=True)


@app.command("search")
def search_command(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="A folder written by rmac index.")],
    query: Annotated[Path, typer.Argument(help="An image.")],
    box: Annotated[str | None, typer.Option(help="Part of the query to look for: x1,y1,x2,y2 in its pixels.")] = None,
    k: Annotated[int, typer.Option(help="Neighbours to show.")] = 10,
    rerank: Annotated[int, typer.Option(help="Compare so many of the nearest in detail and put them in order.")] = 0,
    out: Annotated[Path, typer.Option(help="Picture to write (.png, .pdf, .svg).")] = Path("neighbours.png"),
    crop_order: Annotated[CropOrder, typer.Option(help="How a box is cut.")] = _PAPER_ORDER,
    device: Device = "auto",
) -> None:
    """Find the nearest neighbours of an image in an index: a table and a picture.

    Examples:

    - `rmac search photos.index my_photo.jpg`

    - `rmac search photos.index my_photo.jpg --box 100,50,400,380 --k 20 --rerank 20 --out found.png`
    """
    index = Index.load(folder)
    index.settings = replace(index.settings, crop_order=crop_order.value, device=device)
    corners = _box(box)
    found = index.search(query, corners, k, rerank)
    if not found:
        raise SearchIndexError(f"{folder}: holds no images")
    columns = ("rank", "cosine", *(("inliers",) if rerank else ()), "image")
    table = Table(*columns)
    neighbours = []
    for number, (name, cosine, inliers) in enumerate(found, 1):
        matched = () if not rerank else ("" if inliers is None else str(inliers),)
        table.add_row(str(number), f"{cosine:.3f}", *matched, name)
        neighbours.append((f"{cosine:.3f}  {Path(name).name}", name, ""))
    Console().print(table)
    # Long lists wrap: a sheet is read, not scrolled sideways.
    rows = [{"query": (query.name, query, corners), "neighbours": neighbours[start:start + 5]}
            for start in range(0, len(neighbours), 5)]
    figure = ranking_sheet(rows, columns=5)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)
    messages.print(f"picture: {out}")


@app.command("evaluate")
def evaluate_command(
    dataset: Annotated[str, typer.Argument(help="A registered name, or a folder in the protocol's layout.")],
    protocol: Annotated[Protocol, typer.Option(help="How rankings are scored.")] = Protocol.oxford,
    distractors: Annotated[str | None, typer.Option(help="Images that answer no query, added to the database: a "
                                                         "folder, list or registered name.  [default: none]")] = None,
    network: Network = "efficientnet_lite0", size: Size = [512], levels: Levels = None, dim: Dim = None,  # noqa: B006
    whiten_on: WhitenOn = None, whiten_images: WhitenImages = 400, shrinkage: Shrinkage = 0.0,
    grid: GridOption = None, pooling: PoolingOption = None, regions: RegionsOption = None,
    proposals: ProposalsOption = None, enlarge: Enlarge = False,
    crop_order: Annotated[CropOrder, typer.Option(help="Of query boxes; the first is the paper's.")] = _PAPER_ORDER,
    multires: Annotated[bool, typer.Option("--multires", help="Also at 11/16 and 21/16 of the size, descriptors "
                                                              "summed: 550, 800 and 1050 for 800.")] = False,
    qe: Annotated[int, typer.Option(help="Query expansion: neighbours that a query is averaged with.")] = 0,
    dba: Annotated[int, typer.Option(help="Database-side augmentation: neighbours averaged with.")] = 0,
    pq: Annotated[int | None, typer.Option(help="Product quantization to so many bytes.  [default: none]")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to keep the descriptors in; a killed run resumes.")] = None,
    per_query: Annotated[bool, typer.Option("--per-query", help="Also list every query.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    device: Device = "auto", precision: PrecisionOption = Precision.auto, seed: Seed = 0,
) -> None:
    """Measure a network on a benchmark: mean average precision under its protocol.

    Examples:

    - `rmac evaluate oxford5k --size 512 --levels 3`

    - `rmac evaluate my_folder --protocol folder --dim 512 --json`

    - `rmac evaluate roxford5k --protocol revisited --network trained.safetensors --size 800 --multires --qe 1 --dba 20`

    - `rmac evaluate oxford5k --dim 512 --pq 64`: codebooks are learned on all of the images of `--whiten-on`

    - `rmac evaluate oxford5k --distractors flickr100k/`: Oxford 105k, where the folder has its 100,000 pictures

    DATASET is looked for under the folders in RMACLIB_DATA and in the repository's data/.
    """
    started = time.monotonic()
    data = open_dataset(dataset, _layout(dataset, protocol.value))
    differences = self_check(data)
    for difference in differences:
        messages.print(f"[yellow]note:[/] {data.name} is not the whole published set: {difference}")
    if distractors is not None:
        known = known_datasets().get(distractors)
        opened = open_dataset if known is not None and known.kind == "retrieval" else open_collection
        data = data.with_distractors(opened(distractors))
    tell_missing(data.missing)
    if multires and len(size) > 1:
        raise ValueError(f"--multires: expected one --size, got {size}")
    sizes = resolutions(size[0]) if multires else tuple(size)
    settings = DescribeSettings(sizes, enlarge, crop_order.value, precision.value, device)
    search = SearchSettings(qe, dba)
    model = _network(network, settings, _kinds(levels, grid, pooling, regions, proposals), dim, whiten_on,
                     whiten_images, shrinkage, seed)
    codes = None if pq is None else _codes(model, settings, pq, whiten_on, out and out / "training")
    evaluation, database = measure(model, data, protocol.value, settings, search=search, codes=codes, out=out)
    tell_bad(database.bad, out and out / "bad.txt")
    if as_json:
        result = {"dataset": data.name, "counts": data.counts, "missing": list(data.missing),
                  "differences": differences, "protocol": protocol.value, "scores": _finite(evaluation.scores),
                  "skipped": evaluation.skipped, "bad": database.bad, "network": asdict(model.settings),
                  "settings": asdict(settings), "search": asdict(search), "pq": pq, "seed": seed,
                  "seconds": round(time.monotonic() - started, 1)}
        if per_query:
            result["per_query"] = evaluation.per_query
        print(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False))
        return
    print(evaluation.table())
    if per_query:
        Console().print(_query_table(evaluation))


def _layout(dataset: str, protocol: str) -> str | None:
    """Of a folder that could be read in several ways, the protocol decides; a registered name has its layout."""
    return protocol.removesuffix("-removed") if Path(dataset).is_dir() else None


def _kinds(levels, grid, pooling, regions, proposals) -> dict:
    """Settings of the network that options give; None where they don't."""
    return {"levels": levels, "grid": grid and grid.value, "pooling": pooling and pooling.value,
            "regions": regions and regions.value, "proposals": proposals}


def _network(network: str, settings: DescribeSettings, given: dict, dim, whiten_on, whiten_images, shrinkage,
             seed) -> RMAC:
    """The network asked for, whitened when a dimension or a training set is asked for."""
    model = _unwhitened(network, dim, given)
    if model.fc is None and (dim is not None or whiten_on is not None):
        _whiten(model, _whitening_collection(whiten_on), settings, dim, whiten_images, shrinkage, seed)
    return model


def _unwhitened(network: str, dim: int | None, given: dict) -> RMAC:
    """A checkpoint, or a backbone without a whitening, with the settings given that are not None."""
    model = open_network(network, **{key: value for key, value in given.items() if value is not None})
    if dim is not None and model.settings.dim is not None and dim != model.settings.dim:
        raise ValueError(f"--dim {dim}: {network} was saved with {model.settings.dim} dimensions")
    return model


def _whiten(model: RMAC, training: LabelledImages, settings: DescribeSettings, dim: int | None, images: int,
            shrinkage: float, seed: int) -> None:
    """Gives the network a whitening learned on some of the training images."""
    sample = training_sample(training, images, seed)
    messages.print(f"whitening learned on {len(sample)} images of {training.name}")
    model.set_whitening(learn_whitening(model, sample, settings, dim=dim, shrinkage=shrinkage))


def _codes(model: RMAC, settings: DescribeSettings, size: int, training: str | None, out: Path | None):
    """Product quantization to `size` bytes, learned on all training images."""
    collection = _whitening_collection(training)
    messages.print(f"codes learned on {len(collection.paths)} images of {collection.name}")
    found = describe(model, collection.paths, settings, names=list(collection.names), out=out)
    return train_codes(found.vectors, CodeSettings("pq", size))


def _whitening_collection(whiten_on: str | None) -> LabelledImages:
    if whiten_on is not None:
        return open_collection(whiten_on)
    photographs, rendered = _WHITENING_SETS
    try:
        return open_collection(photographs)
    except DatasetError:
        messages.print(f"[yellow]note:[/] no {photographs} under RMACLIB_DATA: the whitening is learned on "
                        f"the rendered {rendered}. Photographs are better: --whiten-on FOLDER")
        return open_collection(rendered)


def _box(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        x1, y1, x2, y2 = map(float, text.split(","))
    except ValueError:
        raise ValueError(f"--box: expected x1,y1,x2,y2, got {text!r}") from None
    return x1, y1, x2, y2


def _finite(scores: dict[str, float]) -> dict[str, float | None]:
    return {name: value if value == value else None for name, value in scores.items()}


def _query_table(evaluation: Evaluation) -> Table:
    columns = list(evaluation.per_query[0])
    table = Table(*columns)
    for entry in evaluation.per_query:
        table.add_row(*(f"{100 * value:.1f}" if isinstance(value, float) else "" if value is None else str(value)
                        for value in entry.values()))
    return table
