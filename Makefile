# Everything starts here: `make setup`, then `make demo` or `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-stamp

DEMO_DIR ?= demo
EFFORT ?= fast
MEDIA ?=
BENCH_DIR ?= runs/bench
PRESET ?= pocket
MINUTES ?= 60
INPUTS ?= 1000000
WORKERS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export HF_HUB_OFFLINE := 1

.PHONY: help setup demo test test-slow test-gpu lint fuzz bench bench-rd bench-speed bench-gpu tune release-check clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-13s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## make $(VENV) and install this project with its tested dependencies

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,demo]'
	@touch $@

demo: setup  ## encode and decode a clip; sheet, videos and figures in $(DEMO_DIR)/
	$(BIN)/python -m vovcodec.demo -o $(DEMO_DIR) --effort $(EFFORT)

test: setup  ## the fast suite: offline, CPU only, in WORKERS processes
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-slow: setup  ## the tests that need minutes
	$(BIN)/python -m pytest -m 'slow and not gpu'

test-gpu: setup  ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

lint: setup  ## ruff
	$(BIN)/python -m ruff check .

fuzz: setup  ## INPUTS changed inputs for every reader; COVERAGE=1 steers by covered lines (atheris, Linux)
	$(if $(COVERAGE),$(BIN)/python -m pip install -q -c constraints.txt -e '.[fuzz]')
	$(BIN)/python tests/fuzz.py --inputs $(INPUTS) $(if $(COVERAGE),--coverage)

bench: setup  ## bytes, quality, time and memory of MEDIA="a.mp4 b.png …" as a table and TSV in $(BENCH_DIR)/
	$(BIN)/python -m vovcodec.demo.bench -o $(BENCH_DIR) --effort $(EFFORT) $(MEDIA)

bench-rd: setup  ## rate and distortion against classic codecs on the folder MEDIA; TSV in $(BENCH_DIR)/, summary printed
	$(BIN)/python -m vovcodec.bench.rate_distortion --media $(MEDIA) --out $(BENCH_DIR)/rate_distortion.tsv --effort $(EFFORT) --published

bench-speed: setup  ## seconds and memory of a fit step against the published loop, embedded model
	$(BIN)/python -m vovcodec.bench.fitting_speed --out $(BENCH_DIR)/fitting_speed.tsv

bench-gpu: setup  ## the same for Wan2.1 1.3B and 14B at 81x480x832 on a CUDA device, random weights; TSV in $(BENCH_DIR)/
	$(BIN)/python -m vovcodec.bench.fitting_speed --architecture wan2.1-1.3b wan2.1-14b --device cuda --compile --out $(BENCH_DIR)/fitting_speed_gpu.tsv

tune: setup  ## search the best steering of PRESET on the folder MEDIA in MINUTES; table in $(BENCH_DIR)/, preset rewritten
	$(BIN)/python -m vovcodec.bench.tune --media $(MEDIA) --out $(BENCH_DIR)/tune_$(PRESET).tsv --preset $(PRESET) --minutes $(MINUTES) --write

release-check: lint test  ## everything before a release; leaves wheel and sdist in dist/
	$(BIN)/python -m pytest -m 'slow or not slow' tests/test_release.py tests/test_wheel.py
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation
	$(BIN)/python -m vovcodec --version

clean:  ## remove what building and testing left behind (not $(VENV))
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis *.egg-info $(DEMO_DIR)
	find vovcodec tests -name __pycache__ -type d -prune -exec rm -rf {} +
