# Each target does its own set-up: an environment in .venv with the versions of constraints.txt, and the C++ kernels.
# Needed beforehand: Python >= 3.10, and a C++ compiler (without one, dasp runs on its slower fallback).
#
# On Linux the usual torch wheel brings several GB for CUDA.  Where PIP_EXTRA_INDEX_URL names PyTorch's index of wheels for
# the CPU, or PIP_FIND_LINKS a folder with one, that is taken.

PYTHON ?= python3
WORKERS ?= 2
# More arguments for pytest or for the benchmarks: make test ARGS="-k compressor"
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# setuptools prints a general remark at each editable installation.
INSTALL := PYTHONWARNINGS=ignore:Editable $(PIP) install --no-build-isolation --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)

# An empty file for each part of the set-up that is done.
CREATED := $(VENV)/.created
KERNELS := $(VENV)/.kernels
BASE := $(VENV)/.base
TEST := $(VENV)/.test
LINT := $(VENV)/.lint
DOCS := $(VENV)/.docs
SITE := $(VENV)/.site
PEERS := $(VENV)/.peers

KERNEL_SOURCES := $(wildcard dasp/kernels/cpu/*.cpp dasp/kernels/cpu/*.h dasp/kernels/cpu/*.inc)
LIBRARY := $(wildcard $(addprefix dasp/kernels/cpu/_dasp_cpu.,so dylib dll))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test slow peer test-fallback bench bench-docs guard routes routes-docs lint docs check-docs clean distclean

help:
	@echo "make demo           fit a console to a synthetic mix, into demo-out/"
	@echo "make test           the test suite"
	@echo "make slow           the tests marked slow"
	@echo "make peer           the tests against other libraries"
	@echo "make test-fallback  kernel and processor tests without the compiled kernels"
	@echo "make bench          the benchmarks, beside other libraries"
	@echo "make bench-docs     the same, into the results that the documentation shows"
	@echo "make guard          fails if a hot loop has lost speed (ARGS=--update records it)"
	@echo "make routes         the ways to a gradient, compared (ARGS=--quick: whether all of them work)"
	@echo "make routes-docs    the same, into the results that the documentation shows"
	@echo "make lint           ruff and mypy"
	@echo "make docs           the documentation, into docs/_build/html/"
	@echo "make check-docs     the same, and every page looked at in a headless Chromium (some minutes)"
	@echo "make clean          remove what was built (distclean: and the environment)"

demo: $(BASE)
	$(BIN)/dasp fit --demo --output demo-out --force $(ARGS)

test: $(TEST)
	$(PYTEST) $(ARGS)

slow: $(TEST)
	$(PYTEST) -m slow $(ARGS)

peer: $(TEST) $(PEERS)
	$(PYTEST) -m peer $(ARGS)

test-fallback: $(TEST)
	DASP_DISABLE_CPU_KERNELS=1 $(PYTEST) tests/kernels tests/functional $(ARGS)

bench: $(PEERS)
	$(BIN)/python -m benchmarks $(ARGS)

bench-docs: $(PEERS)
	$(BIN)/python -m benchmarks --json docs/benchmarks.json $(ARGS)

guard: $(BASE)
	$(BIN)/python -m benchmarks --guard $(ARGS)

routes: $(BASE)
	$(BIN)/python -m benchmarks.gradient_routes $(ARGS)

routes-docs: $(PEERS)
	$(BIN)/python -m benchmarks.gradient_routes --json docs/gradient_routes.json $(ARGS)

lint: $(LINT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# On a busy machine short calls wait for each other's threads: with one thread examples take seconds there, not minutes.
docs: $(DOCS)
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Not part of what must pass before a merge: it needs a browser.
check-docs: docs $(SITE)
	$(BIN)/python docs/check_site.py docs/_build/html $(ARGS)

clean:
	rm -rf build dist *.egg-info docs/_build docs/gallery demo-out .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f dasp/kernels/cpu/_dasp_cpu.* $(KERNELS)
	find dasp tests benchmarks docs examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV)

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "dasp needs Python >= 3.10 (name one: make PYTHON=python3.12 ...)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "$(PYTHON) cannot create environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "set-up: environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# setuptools first: everything after it is built with this one, not with one downloaded for each build.
$(VENV)/.tools: constraints.txt | $(CREATED)
	@$(PIP) install --constraint constraints.txt --upgrade pip setuptools
	@touch $@

# Where there is no library, each call tries again: a compiler may have been installed meanwhile.
ifeq ($(LIBRARY),)
.PHONY: $(KERNELS)
endif
$(KERNELS): setup.py $(KERNEL_SOURCES) | $(VENV)/.tools
	@echo "set-up: C++ kernels"
	@$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

$(BASE): setup.cfg setup.py pyproject.toml constraints.txt | $(KERNELS)
	@echo "set-up: dasp and what it needs"
	@$(INSTALL) --editable .
	@touch $@

$(TEST): $(BASE)
	@echo "set-up: test tools"
	@$(INSTALL) --editable '.[test]'
	@touch $@

$(LINT): $(BASE)
	@echo "set-up: linters"
	@$(INSTALL) --editable '.[lint]'
	@touch $@

$(DOCS): $(BASE)
	@echo "set-up: documentation tools"
	@$(INSTALL) --editable '.[docs]'
	@touch $@

$(SITE): $(DOCS)
	@echo "set-up: tools that look at the documentation in a browser"
	@$(INSTALL) --editable '.[site]'
	@touch $@

# torchlpc, which torchcomp needs, is distributed as source only.
$(PEERS): $(BASE) benchmarks/requirements.txt
	@echo "set-up: peers (torchlpc is compiled, a minute or more)"
	@$(INSTALL) --requirement benchmarks/requirements.txt || { \
	    echo "set-up: without torchlpc, which could not be built, and those that need it" >&2; \
	    grep -vi '^\(torch\|grafx\)' benchmarks/requirements.txt > $@.txt && $(INSTALL) --requirement $@.txt; }
	@touch $@
