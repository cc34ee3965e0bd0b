# `make help` lists what there is; README.md begins with `make run`.

CONFIG ?= config.toml
# the newest with all that a venv needs, else the newest: packaging/needs.sh then says what to install
PYTHON ?= $(shell for needs in "sys, venv, ensurepip" sys; do for p in python3.13 python3.12 python3.11 python3; do \
            command -v $$p >/dev/null && $$p -c "import $$needs; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && \
            echo $$p && exit; done; done)
# Raspberry Pi OS brings libcamera and picamera2 as apt packages of the system's Python; let the venv see them.
SYSTEM_SITE = $(shell /usr/bin/python3 -c 'import libcamera' 2>/dev/null && echo --system-site-packages)
# ... and then the venv must be made by that very Python.
BASE_PYTHON = $(if $(SYSTEM_SITE),/usr/bin/python3,$(PYTHON))
BIN = .venv/bin
OURS = shm_ring shmcam capture analyzer exporter recorder streamer
PACKAGES = $(OURS) bench
# Tests side by side: most of their time is waiting. Those that load or measure the machine are marked `alone`.
WORKERS ?= $(shell echo $$((2 * $$(nproc))))

.DEFAULT_GOAL := setup
.PHONY: help hooks setup run test soak check bench test-picamera2 test-aarch64 test-install install uninstall clean

help: ## this list
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 18
	@echo
	@echo 'CONFIG=other/config.toml  another instance (run)      ARGS="tests/recorder -k csv"  some tests (test, soak), areas (bench)'

setup: .venv/run.stamp ## everything the service needs, into .venv

.venv/bin/pip:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; please type: sudo apt-get install python3 python3-venv"; exit 1; }
	@PYTHON=$(BASE_PYTHON) sh packaging/needs.sh run
	$(BASE_PYTHON) -m venv $(SYSTEM_SITE) .venv

.venv/run.stamp: pyproject.toml | .venv/bin/pip
	@PYTHON=$(BASE_PYTHON) sh packaging/needs.sh run
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/test.stamp: pyproject.toml | .venv/bin/pip
	@PYTHON=$(BASE_PYTHON) sh packaging/needs.sh test
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ .venv/run.stamp

.venv/bench.stamp: pyproject.toml .venv/test.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]' || echo "some peers are missing and will be skipped"
	@touch $@

run: setup ## set up, start every process, print the URL to open; Ctrl-C stops it
	@exec $(BIN)/shmcam run --config "$(CONFIG)"

test: .venv/test.stamp ## set up and run the tests; ARGS="tests/recorder -k csv" for some
	@none=5; \
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -rs -m "not alone and not slow and not picamera2" $(ARGS); side_by_side=$$?; [ $$side_by_side != 2 ] || exit 2; \
	$(BIN)/python -m pytest -rs -m "alone and not slow and not picamera2" $(ARGS); alone=$$?; \
	case $$side_by_side-$$alone in 0-0|0-$$none|$$none-0) ;; *) exit 1;; esac

soak: .venv/test.stamp ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow and not picamera2" --timeout 3000 -rs $(ARGS)

check: .venv/test.stamp ## ruff, mypy strict, who may import whom
	$(BIN)/ruff check $(PACKAGES) tests
	$(BIN)/ruff format --check $(PACKAGES) tests
	$(BIN)/mypy $(OURS)
	$(BIN)/python -m pytest tests/test_structure.py

hooks: .venv/test.stamp ## run ruff and mypy before each commit (pre-commit)
	$(BIN)/pip install --quiet --disable-pip-version-check pre-commit
	$(BIN)/pre-commit install

bench: .venv/bench.stamp ## every figure the documentation claims, as ratios of one run; ARGS="ring recorder" for some areas
	$(BIN)/python -m bench $(ARGS)

test-picamera2: .venv/test.stamp ## the real Picamera2 on simulated cameras, in a Debian root
	bash tests/picamera2/run.sh

test-aarch64: .venv/test.stamp ## the ring as aarch64 under qemu
	bash tests/shm_ring/aarch64.sh

test-install: ## a new user's first hour in a fresh Debian
	bash tests/packaging/install.sh

install: ## as a system service (sudo)
	bash packaging/install.sh

uninstall: ## remove the service; configuration and recordings stay (sudo)
	bash packaging/install.sh --uninstall

clean: ## remove .venv and caches
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
