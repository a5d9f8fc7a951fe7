"""rmac describe."""

from pathlib import Path
from typing import Annotated

import typer

from rmaclib.commands.common import command_group, say, tell_bad
from rmaclib.commands.network import NetworkOptions, describing, open_unwhitened, prepare
from rmaclib.commands.options import (
    Device,
    Dim,
    Enlarge,
    Grid,
    Images,
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
    SkipBad,
    WhitenImages,
    WhitenOn,
    output_folder,
)
from rmaclib.commands.reading import read_photographs
from rmaclib.extraction.folder import BAD, descriptors_folder
from rmaclib.foundation.folders import waiting

app = command_group()


@app.command("extract")
def extract_command(
    context: typer.Context,
    images: Images,
    out: Annotated[Path, typer.Option(parser=output_folder, metavar="FOLDER",
                                      help="For descriptors.npy, names.txt, bad.txt, the network.")],
    network: Network = "efficientnet_lite0", size: Size = [512], levels: Levels = None, dim: Dim = None,  # noqa: B006
    whiten_on: WhitenOn = None, whiten_images: WhitenImages = 400, shrinkage: Shrinkage = 0.0,
    grid: Grid = None, pooling: Pooling = None, regions: Regions = None, proposals: Proposals = None,
    enlarge: Enlarge = False, device: Device = "auto", precision: Precision = "auto", seed: Seed = 0,
    skip_bad: SkipBad = False, no_wait: NoWait = False,
) -> None:
    """Describe images: one vector each, memory-mapped on disk. A killed run goes on when started again.

    Examples:

    - `rmac describe holiday_photos --out descriptors`

    - `rmac describe holiday_photos --out descriptors --size 550 --size 800 --size 1050 --dim 512`
    """
    collection = read_photographs(images, out, skip_bad)
    with waiting(not no_wait), descriptors_folder(out) as folder:
        settings, options = describing(context), NetworkOptions.of(context)
        model = open_unwhitened(network, dim, **options.settings)
        prepare(model, collection.paths, settings, options, out)

        from rmaclib.checkpoints import save_network
        from rmaclib.extraction.descriptors import extract
        from rmaclib.search.index_folder import CHECKPOINT

        descriptors = extract(model, collection.paths, settings, names=[str(path) for path in collection.paths],
                               out=out, left_out=collection.left_out)
        # The folder is complete in itself: the network that made it is beside it.
        folder.will_write([CHECKPOINT])
        save_network(folder / CHECKPOINT, model)
    tell_bad(descriptors.bad, out / BAD)
    count, width = descriptors.vectors.shape
    say(f"{count:,} images, {width} dimensions each, in {out}")
