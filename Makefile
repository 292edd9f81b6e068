# PYTHON is any Python from 3.11 on; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALL ?= $(BIN)/python -m pip install --quiet
# Bytecode is kept: else each of the many processes that tests start would compile all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart everything test test-nightly test-rest slurm ray lint docs smoke storm wheel-smoke clean
.DEFAULT_GOAL := quickstart

quickstart: .venv/installed
	$(BIN)/ssl-sweep quickstart

test: .venv/installed-dev
	$(BIN)/python -m pytest -q

# Also what `make test` proves by examples, such as the whole product of methods, datasets and subsets.
test-nightly: .venv/installed-dev
	$(BIN)/python -m pytest -q -n 2 -m ""

# The nightly tests that `make test` leaves out, or a part of them: SHARE=3/8. Many are several processes already.
SHARE ?= 1/1
test-rest: .venv/installed-dev
	$(BIN)/python -m pytest -q -n 2 -m nightly --share=$(SHARE)

# On a SLURM of two nodes that the tests start on this machine, from Debian's packages slurm-wlm and munge.
slurm: .venv/installed-dev .venv/installed-slurm
	$(BIN)/python -m pytest -q -n 0 -m slurm

# On a Ray cluster that the tests start on this machine.
ray: .venv/installed-dev .venv/installed-ray
	$(BIN)/python -m pytest -q -n 0 -m ray

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Into site/. A link that leads nowhere, or a name that there is not, ends it.
docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

smoke: .venv/installed-dev
	$(BIN)/ssl-sweep smoke

# Kills processes of a sweep for so many minutes, and compares what it leaves with that of an undisturbed one.
MINUTES ?= 1
storm: .venv/installed-dev
	$(BIN)/python -m tests.storm --minutes $(MINUTES)

# The quickstart, shortened, and the tests of a package of one's own, from a wheel and in another folder, with the
# packages of .venv.
wheel-smoke: .venv/installed-dev
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && python="$(CURDIR)/$(BIN)/python" && \
	  cp -R examples/own_package "$$folder" && \
	  $$python -m pip wheel --quiet --no-deps --wheel-dir "$$folder" . && \
	  $$python -m pip install --quiet --no-deps --target "$$folder/site" "$$folder"/*.whl && \
	  cd "$$folder" && export PYTHONPATH="$$folder/site" && \
	  $$python -c "import ssl_lightning; assert ssl_lightning.__file__.startswith('$$folder')" && \
	  (cd own_package && $$python -m pytest -q) && \
	  $$python -m ssl_lightning.commands.sweep quickstart seed=1 trainer.max_epochs=2 && \
	  $$python -m ssl_lightning.commands.sweep quickstart seed=1 trainer.max_epochs=2 sweep=pool method=simclr \
	    hydra/launcher=pool hydra.launcher.slots=2

clean:
	rm -rf .venv runs cache site

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(INSTALL) --editable .
	touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml
	$(INSTALL) --editable '.[dev]'
	touch .venv/installed $@

.venv/installed-slurm: .venv/bin/python pyproject.toml
	$(INSTALL) --editable '.[slurm]'
	touch .venv/installed $@

# All of these by one command, which is faster.
everything: .venv/bin/python pyproject.toml
	$(INSTALL) --editable '.[dev,docs,slurm,ray]'
	touch .venv/installed .venv/installed-dev .venv/installed-docs .venv/installed-slurm .venv/installed-ray

.venv/installed-ray: .venv/bin/python pyproject.toml
	$(INSTALL) --editable '.[ray]'
	touch .venv/installed $@

.venv/installed-docs: .venv/bin/python pyproject.toml
	$(INSTALL) --editable '.[docs]'
	touch .venv/installed $@
