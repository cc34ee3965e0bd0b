# make run      set up if needed, start everything, print the URL to open; Ctrl-C stops it (CONFIG=other.toml: another instance)
# make test     set up if needed, run all tests (ARGS="tests/recorder -k csv" for some)
# make check    ruff, mypy strict, layering
# make bench    every figure the documentation claims, as ratios measured in one run
# make soak     the tests that take minutes

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

.PHONY: setup run test soak check bench test-picamera2 test-aarch64 test-install install uninstall clean

setup: .venv/run.stamp

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

run: setup
	@exec $(BIN)/shmcam run --config "$(CONFIG)"

test: .venv/test.stamp
	$(BIN)/python -m pytest -m "not slow and not picamera2" -rs $(ARGS)

soak: .venv/test.stamp
	$(BIN)/python -m pytest -m "slow and not picamera2" --timeout 3000 -rs $(ARGS)

check: .venv/test.stamp
	$(BIN)/ruff check $(PACKAGES) tests
	$(BIN)/ruff format --check $(PACKAGES) tests
	$(BIN)/mypy $(OURS)
	$(BIN)/python -m pytest tests/test_structure.py

bench: .venv/bench.stamp
	$(BIN)/python -m bench $(ARGS)

test-picamera2: .venv/test.stamp
	bash tests/picamera2/run.sh

test-aarch64: .venv/test.stamp
	bash tests/shm_ring/aarch64.sh

test-install:
	bash tests/packaging/install.sh

install:
	bash packaging/install.sh

uninstall:
	bash packaging/install.sh --uninstall

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
