# Everything runs in a .venv of the checkout. A step is repeated only if its inputs have changed.
# `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
BUILD_REQUIREMENTS := $(BIN)/python -c 'import tomllib; \
  print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])'
SOURCES := $(shell find pixelfast -name '*.pyx' -o -name '*.pxd')
MODULES := $(sort $(subst /,.,$(patsubst %.pyx,%,$(filter %.pyx,$(SOURCES)))))

# Servers and tests start many processes, each of which would compile every Python module again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test products torture build dist sdist bench locust lint reference docs linkcheck coverage sanitize clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

run: build ## set up, compile and start the server on 127.0.0.1:8080; ARGS="-c FILE" for settings
	@$(BIN)/pixelfast serve $(ARGS)

test: $(VENV)/.test ## set up, compile and run the tests
	@$(BIN)/python -m pytest --numprocesses=5 --dist=loadfile --no-loadscope-reorder

products: $(VENV)/.products ## set up ClickHouse, DuckDB, object stores and Kafka (550 MB) for tests

torture: $(VENV)/.test ## kills, power cuts and failing disks for MINUTES=30; writes docs/reliability.md
	@HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -q tests/event tests/collect/test_scan.py
	@MINUTES=$(MINUTES) $(BIN)/python -m tests.reliability

build: $(VENV)/.built ## set up and compile; the program is .venv/bin/pixelfast

dist: $(VENV)/.tools ## build the sdist and the wheel in dist/
	@$(PIP) build
	@$(BIN)/python -m build --no-isolation --outdir dist

sdist: ## build the sdist in dist/, install it without a network and send it a pixel
	@PYTHON=$(PYTHON) tests/sdist.sh

bench: $(VENV)/.bench $(VENV)/.rivals ## run the benchmarks; writes benchmarks/RESULTS.md
	@$(BIN)/python -m benchmarks

locust: $(VENV)/.bench ## send a mixed load and check that every accepted event arrived
	@$(BIN)/python -m benchmarks.run_locust

lint: $(VENV)/.test ## ruff, the phrase check, mypy, and the .pyi against the compiled modules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m tests.house.phrases
	@$(BIN)/mypy
	@timeout 300 $(BIN)/python -m mypy.stubtest --concise --ignore-disjoint-bases \
	  --allowlist tests/house/stubtest-allowlist.txt $(MODULES)

reference: build ## write docs/commands.md and the tables of docs/settings.md
	@$(BIN)/python -m tests.house.reference

docs: $(VENV)/.docs ## build the site in build/docs; a broken link is an error
	@$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet \
	  --doctree-dir build/doctrees docs build/docs

linkcheck: $(VENV)/.docs ## check the links of the documentation to other sites
	@$(BIN)/python -m sphinx --builder linkcheck --quiet --doctree-dir build/doctrees docs build/linkcheck

coverage: $(VENV)/.test ## measure the coverage of Python and Cython; TESTS=tests/collect for a part
	@tests/coverage.sh $(TESTS)

sanitize: $(VENV)/.test ## run the tests of the compiled modules under ASan and UBSan
	@tests/sanitize.sh

clean: ## remove everything that was built, but not pixelfast-data
	rm -rf $(VENV) build dist pixelfast.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pixelfast tests benchmarks -name '*.so' -delete
	find pixelfast tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pixelfast needs Python 3.11 or newer; this is `$(PYTHON) --version`. Try: make PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Cython is used once, so only the modules that it imports are worth compiling to bytecode.
$(VENV)/.tools: $(VENV)/.venv pyproject.toml
	@$(PIP) --no-compile `$(BUILD_REQUIREMENTS)`
	@touch $@

# Dependency groups need a newer pip than some versions of Python bring along.
$(VENV)/.pip: $(VENV)/.venv
	@$(PIP) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed: $(VENV)/.tools pyproject.toml setup.py
	@PIXELFAST_COMPILE=0 $(PIP) --no-build-isolation --editable . >$(VENV)/install.log 2>&1 || { cat $(VENV)/install.log >&2; exit 1; }
	@touch $@

$(VENV)/.compiled: $(VENV)/.tools setup.py $(SOURCES)
	@echo "compiling pixelfast"
	@$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

# The dependencies come from the network, so they are fetched while the compiler works.
$(VENV)/.built: $(VENV)/.tools pyproject.toml setup.py $(SOURCES)
	@$(MAKE) --silent --no-print-directory --jobs=2 $(VENV)/.installed $(VENV)/.compiled
	@touch $@

$(VENV)/.test: $(VENV)/.built $(VENV)/.pip
	@$(PIP) --group test --group lint
	@touch $@

$(VENV)/.products: $(VENV)/.test
	@$(PIP) --group products
	@$(BIN)/python -m tests.deliver.products.real
	@touch $@

$(VENV)/.docs: $(VENV)/.pip pyproject.toml
	@$(PIP) --group docs
	@touch $@

$(VENV)/.bench: $(VENV)/.built $(VENV)/.pip
	@$(PIP) --group bench
	@touch $@

# The rivals have a venv of their own; for pixelfast's decoder they look into this one last.
$(VENV)/.rivals: $(VENV)/.venv benchmarks/rivals/requirements.txt
	@echo "setting up $(VENV)/rivals"
	@$(BIN)/python -m venv $(VENV)/rivals
	@$(VENV)/rivals/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r benchmarks/rivals/requirements.txt
	@$(BIN)/python -c 'from sysconfig import get_path as p; print(p("purelib"))' \
	  >`$(VENV)/rivals/bin/python -c 'from sysconfig import get_path as p; print(p("purelib"))'`/pixelfast.pth
	@touch $@
