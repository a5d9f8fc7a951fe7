"""Notebooks -> executed notebooks and results -> the book. Called by the Makefile:

    snakemake --cores all --config profile=embedded
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, "book")
from run_notebook import read_profile

PROFILE = config.get("profile", "embedded")
OUT = f"_build/{PROFILE}"
PROFILE_FILE = f"notebooks/profiles/{PROFILE}.yml"
if not Path(PROFILE_FILE).is_file():
    known = sorted(path.stem for path in Path("notebooks/profiles").glob("*.yml"))
    raise WorkflowError(f"unknown profile {PROFILE!r}; there are {', '.join(known)}")

PRESET, PARAMETERS = read_profile(PROFILE_FILE)
NOTEBOOKS = sorted(path.stem for path in Path("notebooks").glob("*.ipynb"))
# Starts from networks that the others have trained.
AFTER = {"04_proposals": ["03_learning"], "07_whole_chain": ["03_learning", "04_proposals"]}
# The networks of the explorer are those of the whole chain, by default those of notebook 07.
CHAIN = PARAMETERS.get("07_whole_chain", {}).get("chains", {}).get(
    "paper", {"backbone": "efficientnet_lite0", "trained": "{output}/learning/diorama_train/R-Clean_{seed}/best.safetensors"})
unknown = sorted(set(PARAMETERS) - set(NOTEBOOKS))
if unknown:
    raise WorkflowError(f"{PROFILE_FILE}: no such notebook: {', '.join(unknown)}")


def files(folder, pattern="*"):
    return sorted(
        str(path) for path in Path(folder).rglob(pattern) if path.is_file() and "__pycache__" not in path.parts
    )


def photographs():
    """Number of files and bytes of each data set under RMACLIB_DATA, so that a changed data set is noticed."""
    if PROFILE in ("smoke", "embedded", "full"):  # their images are in the repository
        return []
    sums = []
    for root in filter(None, os.environ.get("RMACLIB_DATA", "").split(os.pathsep)):
        for folder in sorted(path for path in Path(root).glob("*") if path.is_dir()):
            sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
            sums.append([folder.name, len(sizes), sum(sizes)])
    return sums


rule book:
    input:
        "_build/html/index.html",


rule notebook:
    # A profile counts by its preset and its block for this notebook (params), not as a file: a change of one
    # notebook's parameters must not train another notebook's network again.
    input:
        notebook="notebooks/{name}.ipynb",
        library=files("rmaclib", "*.py") + files("rmaclib", "*.safetensors"),
        runner="book/run_notebook.py",
        before=lambda wildcards: [f"{OUT}/notebooks/{name}.ipynb" for name in AFTER.get(wildcards.name, [])],
        data=["data/registry.yml", "data/diorama/diorama.json"],  # the latter stands for the whole of Diorama
    output:
        notebook=f"{OUT}/notebooks/{{name}}.ipynb",
        results=directory(f"{OUT}/results/{{name}}"),
    params:
        parameters=lambda wildcards: PARAMETERS.get(wildcards.name, {}),
        preset=PRESET,
        photographs=photographs(),
    threads: workflow.cores  # a notebook uses all cores; two at the same time would disturb their timings
    shell:
        "{sys.executable:q} book/run_notebook.py {input.notebook:q} --profile {PROFILE_FILE:q} --output {OUT:q}"


rule explorer:
    # Its data on the front page. The pictures are Diorama's in every profile, for they may be published.
    input:
        maker="book/explorer/make.py",
        library=files("rmaclib", "*.py"),
        learned=f"{OUT}/notebooks/03_learning.ipynb",  # writes the trained network
        data="data/diorama/diorama.json",
    output:
        directory(f"{OUT}/explorer"),
    params:
        untrained=CHAIN["backbone"],
        trained=CHAIN["trained"].format(output=OUT, seed=0),
        sizes="64 96 128" if PROFILE == "smoke" else "160 224 320",
    threads: workflow.cores
    shell:
        "{sys.executable:q} {input.maker:q} {output:q} --untrained {params.untrained:q} --trained {params.trained:q}"
        " --sizes {params.sizes}"


rule html:
    input:
        notebooks=expand(f"{OUT}/notebooks/{{name}}.ipynb", name=NOTEBOOKS),
        explorer=f"{OUT}/explorer",
        pages=files("book"),
        settings=["_config.yml", "_toc.yml"],
        recorded=files("data/results"),
        library=files("rmaclib", "*.py"),  # the API pages
    output:
        "_build/html/index.html",
    params:
        profile=PROFILE,  # all profiles share the output: another profile must build it again
    shell:
        "{sys.executable:q} book/build.py {PROFILE:q}"
