"""rmac extract."""

from pathlib import Path
from typing import Annotated

import typer

from rmaclib.commands import options
from rmaclib.commands.common import command_group, say, tell_bad
from rmaclib.commands.network import NetworkOptions, extraction_settings, open_unwhitened, prepare
from rmaclib.commands.reading import read_photographs
from rmaclib.extraction.folder import BAD, descriptors_folder
from rmaclib.foundation.folders import waiting

app = command_group()


@app.command("extract")
def extract_command(
    context: typer.Context,
    images: options.Images,
    out: Annotated[Path, typer.Option(
        parser=options.output_folder, metavar="FOLDER",
        help="For descriptors.npy, names.txt, bad.txt, the network.")],
    preset: options.Preset = "laptop",
    network: options.Network = None, size: options.Size = None, levels: options.Levels = None, dim: options.Dim = None,
    whiten_on: options.WhitenOn = None, whiten_images: options.WhitenImages = 400, shrinkage: options.Shrinkage = 0.0,
    grid: options.Grid = None, pooling: options.Pooling = None, regions: options.Regions = None,
    proposals: options.Proposals = None, enlarge: options.Enlarge = False, device: options.Device = "auto",
    precision: options.Precision = "auto", seed: options.Seed = 0, skip_bad: options.SkipBad = False,
    no_wait: options.NoWait = False,
) -> None:
    """Extract a descriptor of each image, memory-mapped on disk. A killed run goes on when started again.

    Examples:

    - `rmac extract holiday_photos --out descriptors`

    - `rmac extract holiday_photos --out descriptors --size 550 --size 800 --size 1050 --dim 512`

    - `rmac extract holiday_photos --out descriptors --preset paper`: ResNet-101, two levels, 2,048 dimensions, three
      resolutions
    """
    collection = read_photographs(images, out, skip_bad)
    with waiting(not no_wait), descriptors_folder(out) as folder:
        settings, chosen = extraction_settings(context), NetworkOptions.of(context)
        model = open_unwhitened(chosen)
        prepare(model, collection.paths, settings, chosen, out)

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
