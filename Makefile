# Every target sets up .venv by itself, and again only when pyproject.toml or constraints.txt has changed.
# It takes Python 3.11 or newer, pip and make; uv is used when it is there.
#   make test PYTHON=/path/to/python3.11      another interpreter
#   make test TESTS=tests/keys                some of the tests
#   make test ARGS="-x -n 0"                  other options for pytest
#   make demo FULL=1                          a census of everything installed here, not only of Dask, pandas and SciPy
#   make demo-cluster KEEP=1                  keep its servers until Ctrl-C, to look at Prefect's UI

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
UV := $(shell command -v uv 2>/dev/null)
INSTALL = $(if $(UV),$(UV) pip install --quiet --python $(RUN),$(RUN) -m pip install -qq --disable-pip-version-check) -c constraints.txt
TESTS ?= tests
# Five processes on two cores: many tests wait for a server or a lease, and with four a fifth of the cores was idle.
ARGS ?= -n 5 --dist loadgroup
FUZZ_SECONDS ?= 600
GROWTH ?= 1000000
STORM_SECONDS ?= 600
MATRIX := .venv-matrix
# The oldest Prefect that we support is in constraints.txt; this is the newest.
NEWEST_PREFECT ?= 3.9.1
OTHER_PREFECT := .venv-prefect
LOWEST := .venv-lowest
VERSIONS ?= 3.12 3.13 3.14
UV_VENV := .venv-uv
PEER_VENV := .venv-peer
# What Prefect's tests import, and its distribution does not need.
PEER_NEEDS := moto opentelemetry-distro opentelemetry-exporter-otlp opentelemetry-instrumentation-logging \
	opentelemetry-test-utils pytest-asyncio pytest-env redis respx virtualenv watchfiles

PACKAGES := core cacheness_dask cacheness_prefect
CODE := $(PACKAGES) tests examples benchmarks docs

.PHONY: help demo demo-cluster test test-fast check format bench bench-quick bench-growth fuzz storm mutants accept-mutants sceptic matrix test-portable prefect-versions test-matrix test-lowest peer-dask peer-prefect first-hour browser docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## a census of Dask, pandas, SciPy and what they need, on SQLite and files (under 3 minutes)
	@$(RUN) -m examples.census $(if $(FULL),--full) $(if $(KEEP),--keep)

demo-cluster: $(STAMP) ## the same on PostgreSQL, S3, a Prefect server and a Dask cluster
	@$(RUN) -m examples.census --cluster $(if $(FULL),--full) $(if $(KEEP),--keep)

# Compiled first: the tests start hundreds of processes, and where PYTHONDONTWRITEBYTECODE is set each would compile all.
# Collected first for the same reason: pytest rewrites what tests assert, and each of its processes would do all of that.
test: $(STAMP) ## every test, on real PostgreSQL and S3 servers that the run starts itself
	@$(RUN) -m compileall -q $(CODE)
	@PYTHONDONTWRITEBYTECODE= $(RUN) -m pytest $(TESTS) --collect-only -q >/dev/null 2>&1 || true
	$(RUN) -m pytest $(TESTS) $(ARGS)

test-fast: $(STAMP) ## the tests without servers, clusters and killed processes (under 90 seconds)
	$(RUN) -m pytest $(TESTS) -n 2 --dist loadgroup -m "not slow"

check: $(STAMP) ## lint, format, types, which module may import which, and spelling
	$(RUN) -m ruff check $(CODE)
	$(RUN) -m ruff format --check $(CODE)
	$(RUN) -m mypy
	$(RUN) -m mypy tests/typing_api.py
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/codespell $(CODE) *.md

format: $(STAMP) ## format the code in place
	$(RUN) -m ruff format $(CODE)
	$(RUN) -m ruff check --fix $(CODE)

bench: $(STAMP) ## every budget beside its peers (under 15 minutes)
	@$(RUN) -m benchmarks

bench-quick: $(STAMP) ## the same with fewer rounds (under 2 minutes)
	@$(RUN) -m benchmarks --quick

bench-growth: $(STAMP) ## single calls, surveys and eviction at GROWTH=1000000 entries (five minutes)
	@GROWTH=$(GROWTH) $(RUN) -m benchmarks growth

fuzz: $(STAMP) ## hostile bytes for every decoder, FUZZ_SECONDS=600 in all
	@$(RUN) -c 'import atheris' 2>/dev/null || $(INSTALL) --group fuzz
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(RUN) -m tests.fuzz

storm: $(STAMP) ## processes killed at random on each pair of stores, STORM_SECONDS=600 each, and 1,500 forks on SQLite
	$(RUN) -m tests.crash.storm --world sqlite --seconds $(STORM_SECONDS) --forks 1500
	$(RUN) -m tests.crash.storm --world postgresql --world pooled --seconds $(STORM_SECONDS)

mutants: $(STAMP) ## take out the rules that docs promise, one at a time: a test must notice each
	$(RUN) -m tests.mutants

accept-mutants: $(STAMP) ## 500 and more mutants of 40 functions: which changes does `accept` let through? (three minutes)
	$(RUN) -m benchmarks.accept_mutants

sceptic: $(STAMP) ## counts, at full size: what a warm chain moves, and what an edit of 10,000 tasks computes (three minutes)
	$(RUN) -m benchmarks.sceptic

matrix: $(STAMP) ## keys of every carrier of code and kind of value, and tensors, with more libraries
	@test -x $(MATRIX)/bin/python || { $(PYTHON) -m venv $(MATRIX) && $(MATRIX)/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'; }
	@$(MATRIX)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[all]' --group dev --group matrix
	$(MATRIX)/bin/python -m tests.keys.matrix
	$(MATRIX)/bin/python -W ignore -m tests.keys.matrix.values
	$(MATRIX)/bin/python -m pytest tests/codecs/test_tensors.py -n 0 -q

test-portable: $(STAMP) ## tests of crashes, forks and locks, and a storm, in the ways of systems without /proc
	CACHENESS_TEST_PORTABLE=1 $(RUN) -m pytest tests/crash tests/test_forks.py tests/test_platform.py tests/cache/test_processes.py tests/metadata/test_embedded.py $(ARGS)
	CACHENESS_TEST_PORTABLE=1 $(RUN) -m tests.crash.storm --world sqlite --seconds 60 --forks 150

prefect-versions: $(STAMP) ## the tests of the Prefect plug-in under the newest Prefect, in an environment of its own
	@test -x $(OTHER_PREFECT)/bin/python || { $(PYTHON) -m venv $(OTHER_PREFECT) && $(OTHER_PREFECT)/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'; }
	@sed -E '/^(prefect|prefect-aws|certifi)==/d' constraints.txt > $(OTHER_PREFECT)/constraints.txt
	@$(OTHER_PREFECT)/bin/python -m pip install -qq --disable-pip-version-check -c $(OTHER_PREFECT)/constraints.txt -e '.[all]' 'prefect==$(NEWEST_PREFECT)' --group dev
	$(OTHER_PREFECT)/bin/python -m pytest tests/prefect $(ARGS)

# uv installs in a fifth of pip's time, and into an environment without pip, such as Debian's Python makes.
$(UV_VENV)/bin/uv:
	@$(if $(UV),mkdir -p $(@D) && ln -sf $(UV) $@,$(PYTHON) -m venv $(UV_VENV) && $(UV_VENV)/bin/pip install -qq --disable-pip-version-check uv)

.venv-%/.installed: pyproject.toml constraints.txt | $(STAMP) $(UV_VENV)/bin/uv
	@test -x .venv-$*/bin/python || { python=$$($(RUN) -m tests.interpreters $*) && "$$python" -m venv --without-pip .venv-$*; }
	@$(UV_VENV)/bin/uv pip install --quiet --python .venv-$*/bin/python -c constraints.txt -e '.[all]' --group dev --group bench --group docs
	@touch $@

test-matrix: $(VERSIONS:%=.venv-%/.installed) ## the fast tests on other versions of Python: VERSIONS="3.12 3.13 3.14"
	@for version in $(VERSIONS); do \
		.venv-$$version/bin/python -m pytest $(TESTS) $(ARGS) -m "not slow" || exit 1; \
	done

# Our direct dependencies at their floors; pip cannot resolve to these.
test-lowest: $(UV_VENV)/bin/uv ## the fast tests with the oldest version of each dependency that pyproject.toml allows
	@test -x $(LOWEST)/bin/python || $(UV_VENV)/bin/uv venv --quiet --python $(PYTHON) $(LOWEST)
	@$(UV_VENV)/bin/uv pip compile --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --all-extras pyproject.toml -o $(LOWEST)/floors.txt >/dev/null
	@$(UV_VENV)/bin/uv pip install --quiet --python $(LOWEST)/bin/python -c $(LOWEST)/floors.txt -e '.[all]' --group dev --group bench --group docs
	$(LOWEST)/bin/python -m pytest $(TESTS) $(ARGS) -m "not slow"

peer-dask: $(STAMP) ## the tests inside dask's wheel with a cache, empty and full, beside a run without; PEER_TESTS= some of them
	$(RUN) -m tests.peers.dask_suite $(PEER_TESTS)

peer-prefect: ## the tests of PEER=folder, a checkout of Prefect, with a cache beside a run without; PEER_TESTS= some modules
	@test -n "$(PEER)" || { echo "Name a checkout of Prefect: make peer-prefect PEER=folder"; exit 1; }
	@test -x $(PEER_VENV)/bin/python || { $(PYTHON) -m venv $(PEER_VENV) && $(PEER_VENV)/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'; }
	@$(PEER_VENV)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[all]' --group dev $(PEER_NEEDS)
	$(PEER_VENV)/bin/python -m tests.peers.prefect_suite $(PEER) $(PEER_TESTS)

# Uncommitted changes are not in the clone that it makes.
first-hour: ## a newcomer's hour: the tutorials' commands in an empty folder, with the newest dependencies (five minutes and more)
	@$(PYTHON) -m tests.first_hour $(TUTORIALS)

browser: $(STAMP) ## the page in Chromium, on 100,000 entries (a minute); PICTURES=folder keeps pictures
	@$(RUN) -m tests.page.in_a_browser $(if $(PICTURES),--pictures $(PICTURES))

docs: $(STAMP) ## write what comes from the code and from make bench, and make a site of docs/: out/site
	$(RUN) -m cacheness.metadata.sql.write_texts
	$(RUN) -m docs.write_api
	$(RUN) -m docs.write_cli
	$(RUN) -m docs.write_performance
	$(RUN) -m sphinx -W --keep-going -q -d out/doctrees docs out/site
	@echo "file://$(CURDIR)/out/site/index.html"

clean: ## remove everything that these commands made
	rm -rf $(VENV) $(MATRIX) $(OTHER_PREFECT) $(LOWEST) $(UV_VENV) $(PEER_VENV) $(VERSIONS:%=.venv-%) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .cacheness
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# pip learnt dependency groups in 25.1, and Python 3.11 comes with an older one.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. Install one, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON); a minute or more the first time."
ifneq ($(UV),)
	@test -x $(RUN) || $(UV) venv --quiet --python $(PYTHON) $(VENV)
else
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(RUN) -m ensurepip >/dev/null
	@$(RUN) -m pip --version | awk '{ split($$2, v, "."); exit !(v[1] > 25 || v[1] == 25 && v[2] >= 1) }' || \
		$(RUN) -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
endif
	@$(INSTALL) -e '.[all]' --group dev --group bench --group docs
	@touch $(STAMP)
