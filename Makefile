# Needs Python 3.11 to 3.13 and make; everything else goes into .venv.

SHELL := /bin/bash
.DELETE_ON_ERROR:

# The newest suitable Python of this machine; `make PYTHON=/path/to/python` overrides it.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
    $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)

# Photographs: RMACLIB_DATA, else the folder where they usually lie.
ifeq ($(origin RMACLIB_DATA),undefined)
ifneq ($(wildcard ../shared/data),)
RMACLIB_DATA := $(abspath ../shared/data)
endif
endif
export RMACLIB_DATA

PROFILE ?= embedded
SEED ?= 0
FORM ?= ours
PORT ?= 8000

BIN := .venv/bin
READY := .venv/.installed

.PHONY: book test lint types attack lab serve record archive diorama train-release clean help
.DEFAULT_GOAL := book

book: $(READY)  ## build the book; PROFILE=embedded (the data set in the repository), full (all seeds), smoke (quick), photos or paper (GPU, complete data sets)
	$(BIN)/snakemake --cores all --quiet rules --config profile=$(PROFILE)
	@echo "Book ($(PROFILE)): _build/html/index.html"

test: lint types  ## check style and types, run the tests
	@# A process for each of two cores, each of which computes on one.
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal

lint: $(READY)  ## check the style of the code
	$(BIN)/ruff check --quiet .

types: $(READY)  ## check the types of the library
	$(BIN)/mypy --no-error-summary

attack: $(READY)  ## kill, damage and crowd everything that writes or reads files, for at most 20 minutes
	RMAC_ATTACK=whole OMP_NUM_THREADS=1 timeout --signal=INT 1200 $(BIN)/pytest -q -n 2 tests/attack

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=.

serve:  ## show the built book at http://localhost:8000 (PORT=...)
	@[ -f _build/html/index.html ] || { echo "error: no book yet; run 'make book' first" >&2; exit 1; }
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

record:  ## keep the results of the last build of PROFILE in data/results, to be committed
	@[ -d _build/$(PROFILE)/results ] || { echo "error: no results; run 'make book PROFILE=$(PROFILE)' first" >&2; exit 1; }
	@changed=$$(cd _build/$(PROFILE)/results && grep -rlE '"commit": "(.*[+]dirty|unknown)"' . | cut -d/ -f2 | sort -u); \
	[ -z "$$changed" ] || { echo "error: measured with changes that are not committed:" $$changed >&2; \
	    echo "commit, then 'rm -rf _build/$(PROFILE)' and 'make book PROFILE=$(PROFILE)'" >&2; exit 1; }
	@# A notebook's folder is replaced as a whole, so that no result outlives the code that made it.
	@set -e; cd _build/$(PROFILE)/results; for notebook in *; do \
	    [ -n "$$(find "$$notebook" -name '*.json' -print -quit)" ] || continue; \
	    rm -rf "../../../data/results/$(PROFILE)/$$notebook"; \
	    mkdir -p ../../../data/results/$(PROFILE); \
	    cp -R "$$notebook" ../../../data/results/$(PROFILE)/; \
	    rm -f "../../../data/results/$(PROFILE)/$$notebook/.snakemake_timestamp"; \
	    echo "recorded data/results/$(PROFILE)/$$notebook"; done

archive: $(READY)  ## pack the built book of PROFILE, its notebooks and records into _build/book.tar.gz, with checksums
	$(BIN)/python book/archive.py $(PROFILE)

diorama: $(READY)  ## render the embedded data set again, into _build/diorama_SEED; SEED=0 is the one in the repository
	PYTHONPATH=data/diorama $(BIN)/python -m generator _build/diorama_$(SEED) --seed $(SEED)

train-release: $(READY)  ## train the network of the package on landmarks48 in RMACLIB_DATA: an hour on two cores; SEED=0, FORM=paper for the last feature map only
	$(BIN)/python release/train.py --form $(FORM) --seed $(SEED)

clean:  ## remove everything that was built, but not .venv
	rm -rf _build .snakemake

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/make \1\t\2/p' Makefile | expand -t 20

# Done again only when the dependencies change; the stamp is written last, so that a broken install is not kept.
$(READY): pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "error: no Python from 3.11 to 3.13 found; install one, or give PYTHON=/path" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,dev,cluster,compare,diorama,hessian]"
	@touch $@
