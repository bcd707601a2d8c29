# make demo   every step, on real images           make test    every test
# make check  what a change must pass, in short    make docs    the reference of commands and heads
# make bench  speed against other engines, written to docs/performance.md (twenty minutes or so)
#
# make bench BENCH_DATA=folder BENCH_IMAGES=256 BENCH_ROUNDS=5    other images, more of them, more rounds
# make bench TORCH=torch==2.13.0    another PyTorch, such as a build for CPUs alone
#
# Each makes its own virtual environment in .venv first. Needed: Python 3.11 or newer, make, a package index.
# Another Python: make demo PYTHON=/path/to/python

VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

BENCH_DATA :=
BENCH_IMAGES := 64
BENCH_ROUNDS := 3
TORCH := torch>=2.6

# A test process that crashes ends the run: one in its place would begin again with what crashed it.
PARALLEL := --dist loadscope --no-loadscope-reorder --max-worker-restart 0

# Tests start many processes, which begin sooner with compiled modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check cover docs bench hooks clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(VENV)/demo.stamp
	$(BIN)/headstart demo

# Three processes on two cores: tests that start processes or a cluster wait for these.
test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n 3 $(PARALLEL)

check: $(VENV)/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 $(PARALLEL) -m "not weights and not faults and not cluster and not slow" tests/unit tests/cli

cover: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m "not weights and not faults and not cluster" --cov

docs: $(VENV)/dev.stamp
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_heads.py

bench: $(VENV)/bench.stamp
	$(BIN)/python benchmarks/bench.py $(if $(BENCH_DATA),--data "$(BENCH_DATA)") --images $(BENCH_IMAGES) --rounds $(BENCH_ROUNDS)
	$(BIN)/python benchmarks/performance_page.py

hooks: $(VENV)/dev.stamp
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) .demo

# Installed once; again only when pyproject.toml has changed.
$(VENV)/demo.stamp: EXTRAS := demo,weights,ncnn,openvino
$(VENV)/dev.stamp: EXTRAS := demo,dev,efficientnet,weights
$(VENV)/bench.stamp: EXTRAS := bench,demo,efficientnet,weights
$(VENV)/bench.stamp: ALSO := "$(TORCH)"
$(VENV)/%.stamp: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with ensurepip is needed, and none was found. Install it (Debian, Ubuntu: python3-venv is a package of its own), or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Installing into $(VENV) (once; some minutes on a slow line) …"
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(EXTRAS)]" $(ALSO)
	@touch $@
