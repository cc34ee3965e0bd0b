# `make help` lists what there is; README.md begins with `make run`.

CONFIG ?= config.toml
# A name from the command line as it was typed, with $ or # in it; recipes read it from their environment.
override CONFIG := $(value CONFIG)
export CONFIG
BIN = .venv/bin
OURS = shm_ring shmcam capture analyzer exporter recorder streamer
PACKAGES = $(OURS) bench
# Files side by side, six for two cores: more than half of a test's time is waiting. What loads the machine is marked
# `alone`.
WORKERS ?= $(shell echo $$(($$(nproc) + 4)))

.DEFAULT_GOAL := setup
.PHONY: help hooks setup test-setup bench-setup lock run test test-oldest soak faults faults-report mutants check bench bench-peers test-picamera2 test-aarch64 test-install install uninstall clean

help: ## this list
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 18
	@echo
	@echo 'CONFIG=other/config.toml  another instance (run)      ARGS="tests/recorder -k csv"  some tests (test, soak), areas (bench)'

setup: ## everything the service needs, into .venv; made anew where it cannot be used any more
	@sh packaging/setup.sh run

test-setup bench-setup:
	@sh packaging/setup.sh $(@:-setup=)

COMPILE = $(BIN)/python -m uv pip compile --quiet --custom-compile-command 'make lock' --python-version 3.11 $(ARGS) pyproject.toml
lock: ## renew packaging/lock.txt and oldest.txt after a change in pyproject.toml; ARGS=--upgrade takes the newest of everything
	test -x $(BIN)/python || sh packaging/setup.sh test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14'
	$(COMPILE) --universal --extra test --output-file packaging/lock.txt
	$(COMPILE) --resolution lowest-direct --only-binary :all: --output-file packaging/oldest.txt

run: setup ## set up, start every process, print the URL to open; Ctrl-C stops it
	@exec $(BIN)/python -m shmcam.cli.main run --config "$$CONFIG"

test: test-setup ## set up and run the tests; ARGS="tests/recorder -k csv" for some
	@none=5; \
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -rs -m "not alone and not slow and not picamera2" $(ARGS); side_by_side=$$?; [ $$side_by_side != 2 ] || exit 2; \
	$(BIN)/python -m pytest -rs -m "alone and not slow and not picamera2" $(ARGS); alone=$$?; \
	case $$side_by_side-$$alone in 0-0|0-$$none|$$none-0) ;; *) exit 1;; esac

test-oldest: test-setup ## the tests with the oldest packages that pyproject.toml allows (Python 3.11); ARGS as for test
	test -e build/oldest/bin/python || $(BIN)/python -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet --disable-pip-version-check -c packaging/oldest.txt -e '.[test]'
	$(MAKE) test BIN=build/oldest/bin

soak: test-setup ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not picamera2" --timeout 3000 -rs $(ARGS)

# The storm and the failing calls, 20,000 examples for each parser, other environments. SHMCAM_SEED=… repeats a run.
faults: test-setup ## every fault of docs/faults.md at length: the storm, each failing call, fuzzing, environments
	SHMCAM_FUZZ=$${SHMCAM_FUZZ:-20000} $(BIN)/python -m pytest -rs -m "not picamera2" --timeout 7200 tests/faults $(ARGS)

faults-report: test-setup ## the figures that docs/faults.md aims at, and this machine's; ARGS="restart" for some
	$(BIN)/python -m tests.faults.report $(ARGS)

mutants: test-setup ## small changes in pure modules, and whether their tests notice them; ARGS="parser triggers" for some
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mutmut>=3.8,<4'
	$(BIN)/python -m tests.mutants $(ARGS)

check: test-setup ## ruff, mypy strict, who may import whom
	$(BIN)/python -m ruff check $(PACKAGES) tests
	$(BIN)/python -m ruff format --check $(PACKAGES) tests
	$(BIN)/python -m mypy $(PACKAGES)
	$(BIN)/python -m pytest tests/test_structure.py

hooks: test-setup ## run ruff and mypy before each commit (pre-commit)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pre-commit
	$(BIN)/python -m pre_commit install

bench: bench-setup ## every figure the documentation claims, as ratios of one run; ARGS="ring recorder" for some areas
	$(BIN)/python -m bench $(ARGS)

bench-peers: bench-setup ## the whole service beside motion, ffmpeg, GStreamer and a script: CPU, memory, frames, a plot in bench/results
	@for tool in motion ffmpeg gst-launch-1.0; do command -v $$tool >/dev/null || echo "no $$tool: apt-get install motion ffmpeg gstreamer1.0-tools gstreamer1.0-plugins-ugly gstreamer1.0-libav"; done
	$(BIN)/python -m bench camera_services

test-picamera2: test-setup ## the real Picamera2 on simulated cameras, in a Debian root
	bash tests/picamera2/run.sh

test-aarch64: test-setup ## the ring as aarch64 under qemu
	bash tests/shm_ring/aarch64.sh

test-install: ## a new user's first hour in fresh roots; ARGS="bookworm trixie noble" for some
	bash tests/packaging/install.sh $(ARGS)

install: ## as a system service (sudo)
	bash packaging/install.sh

uninstall: ## remove the service; configuration and recordings stay (sudo)
	bash packaging/install.sh --uninstall

clean: ## remove .venv and caches
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
