# make figures | smoke | claims | claims-all | claims-redistributed | claims-published | release | release-check | arena | rivals | forecasters | test | coverage | test-all | test-k8s | test-faults | test-scale-out | test-studies | fuzz | chart | lab | data | config | pages | recorded-kubernetes | recorded-kind-pool | docs | metadata | crate | locks | clean. Each sets up .venv by itself; needs Python >= 3.11, make and git.
#   make figures CONFIG=config/paper.yaml WORKLOAD=my.csv SET="jobs=my_jobs.csv trials=5" CORES=2 ARGS=--dry-run

CONFIG ?=
WORKLOAD ?=
SET ?=
CORES ?= all
ARGS ?=
# The run whose record `make crate` validates and `make release` archives.
RUN ?= results/synthetic

# A Python that the pinned wheels exist for.
ACCEPTED = (3, 11) <= sys.version_info < (3, 14)
CANDIDATES = $(or $(shell cat wheelhouse/PYTHON 2>/dev/null),python3.11 python3.12 python3.13 python3)
# In an archive of `make release`, packages come from the wheelhouse, without a network.
ifneq ($(wildcard wheelhouse/PYTHON),)
export PIP_NO_INDEX = 1
export PIP_FIND_LINKS = $(CURDIR)/wheelhouse
endif
BIN = .venv/bin
PINS = .venv/.pins
READY = .venv/.ready
CHOSEN = $(if $(WORKLOAD),'workload=$(WORKLOAD)') $(SET)

export PATH := $(CURDIR)/$(BIN):$(PATH)
.DEFAULT_GOAL := figures
.PHONY: compiled figures smoke claims claims-all claims-redistributed claims-published release release-check arena rivals forecasters test test-fast test-computed coverage test-all test-k8s test-faults test-scale-out test-studies fuzz kubeconfig lint notebooks chart pages recorded-kubernetes recorded-kind-pool lab data config docs metadata crate locks clean

figures: $(READY)
	@for file in $(CONFIG); do [ -f "$$file" ] || { echo "make: CONFIG: $$file: no such file; those at hand: $(wildcard config/*.yaml)" >&2; exit 2; }; done
	@report=$$(mktemp); trap 'rm -f "$$report"' EXIT; export FARO_REPORT="$$report"; \
	snakemake --cores $(CORES) $(if $(CONFIG),--configfile $(CONFIG)) $(if $(strip $(CHOSEN)),--config $(CHOSEN)) $(ARGS) && \
	cat "$$report"

# The smoke run without a network. It needs `unshare`.
smoke: $(READY)
	python tests/support/network.py $(MAKE) figures CONFIG=config/smoke.yaml

lint: $(READY)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint
	mypy

PACKAGES = faro_lib faro_ops studies workflow/faro_pipeline
# A file of tests or a notebook stays in one process: its tests share what takes long to make. The longest files begin first
# (tests/conftest.py).
TOGETHER = --dist=loadfile --no-loadscope-reorder
WORKERS = -n logical --maxprocesses=4 $(TOGETHER)
# The notebooks that `make test` runs. The others take longer than these; `make test-all` runs all.
QUICK = $(patsubst %,notebooks/%.ipynb,exercises/1_objective 00_tour 10_traces 80_live 81_kubernetes)
# Two processes more than cores, but at most four, because some tests wait for time-outs.
MORE = $(shell $(BIN)/python -c "import os; print(min(4, os.cpu_count() + 2))")
FAST = -n $(MORE) $(TOGETHER) --doctest-modules --nbval-lax $(PACKAGES) tests $(QUICK) -m "not slow and not live and not k8s and not scale_out and not study"
test: $(READY)
	@$(MAKE) --no-print-directory -j2 lint test-fast
test-fast: compiled
	pytest $(FAST)
# One process compiles, beside the linters, what all processes of the tests would compile at the same time: numba keeps it beside
# the modules.
compiled: $(READY)
	PYTHONPATH="tests/lib:tests/support:$$PYTHONPATH" python -c "import test_uncompiled; test_uncompiled.world()" >/dev/null

# The gate is in pyproject.toml. Compiled functions show no lines, so a small world runs uncompiled first.
COV = --cov=faro_lib --cov=faro_ops --cov-config=pyproject.toml
coverage: $(READY)
	NUMBA_DISABLE_JIT=1 pytest $(COV) --cov-report= --cov-fail-under=0 tests/lib/test_uncompiled.py
	pytest $(FAST) $(COV) --cov-append --cov-report=term --deselect tests/lib/test_uncompiled.py

# Property tests try all their examples (tests/support/examples.py). Tests that run in real time have the machine for themselves:
# they wait until nothing else holds the lock FARO_REAL_TIME, if one is named.
test-all: export FARO_ALL_EXAMPLES = 1
test-all: $(READY)
	@$(MAKE) --no-print-directory -j2 lint test-computed
	$(if $(FARO_REAL_TIME),flock "$(FARO_REAL_TIME)" )pytest --durations=20 tests -m "live and not k8s and not study"
	pytest $(WORKERS) --nbval-lax notebooks
test-computed: compiled
	pytest $(WORKERS) --durations=40 --doctest-modules $(PACKAGES) tests -m "not live and not k8s and not scale_out and not study"

# Studies: minutes of CPU each, or load on real replicas that needs a quiet machine. Not in CI.
test-studies: $(READY)
	pytest -n0 tests -m study

# On the kind cluster of `cluster/up.sh --only-cluster`, whose nodes these tests stop: all of them, those that also match
# SELECT, or the faults. Only `make test-faults` includes the soak, an hour of events; FARO_SOAK_MINUTES=3 tries it, and it writes
# its tables into the folder FARO_SOAK (CONTRIBUTING.md). An offline build keeps kubectl in its cache.
K8S = bash -c '. cluster/offline/settings.sh; exec pytest -n0 --durations=0 --durations-min=1 tests -m "$$1"' -
test-k8s: kubeconfig $(READY)
	$(K8S) "k8s and not soak$(if $(SELECT), and ($(SELECT)))"

test-faults: kubeconfig $(READY)
	$(K8S) fault

kubeconfig:
	@$(if $(KUBECONFIG),,$(error KUBECONFIG is not set; set it, and cluster/up.sh --only-cluster starts a kind cluster and writes it)):

# On a SLURM cluster that the tests start here (root, Debian's packages of SLURM), and in pods of the kind cluster if KUBECONFIG
# is set (after `cluster/up.sh --only-cluster` and `cluster/pipeline.sh`). About ten minutes each.
test-scale-out: $(READY)
	@command -v slurmctld >/dev/null || { echo "make: SLURM is not installed: apt-get install slurmctld slurmd slurm-client munge" >&2; exit 1; }
	FARO_SCALE_OUT=1 pytest -n0 -rs tests/pipeline/test_scale_out.py tests/pipeline/test_pods.py

# The readers of users' files on random input; `make test-all` runs a minute of it.
fuzz: $(READY)
	FARO_FUZZ=10000 pytest tests/ops/test_fuzz.py

# Run every notebook by its defaults and keep the outputs that nbval checks.
notebooks: $(READY)
	python tests/support/refresh_notebooks.py

# The claims of docs/artifact.md: the quick ones, all, those that need no data but the repository's, or all of the others.
claims: $(READY)
	python -m studies.claims.run

claims-all: $(READY)
	python -m studies.claims.run --all

claims-redistributed: $(READY)
	python -m studies.claims.run --all --redistributed

claims-published: $(READY)
	python -m studies.claims.run --published

# The archive dist/faro-VERSION.tar: the code of HEAD, recorded tables, a wheelhouse for this Python with its bill of materials and
# licences, the site, and the run RUN. The tools for the bill and for the lock files have an environment of their own.
RELEASE = build/release-venv
release: $(READY) $(RELEASE)/.ready metadata
	python -m release.archive --run $(RUN)

# Unpack an archive in a new folder and run its claims there without a network; TRACES=data/raw lays the published traces beside it.
ARCHIVE ?= $(wildcard dist/faro-*.tar)
TRACES ?=
release-check: $(READY)
	@[ -n "$(ARCHIVE)" ] || { echo "make: ARCHIVE: no archive in dist; make release builds one" >&2; exit 2; }
	python -m release.archive check $(ARCHIVE) $(if $(TRACES),--traces $(TRACES))

$(RELEASE)/.ready: envs/release/requirements.txt
	python3 -m venv $(RELEASE)
	$(RELEASE)/bin/$(INSTALL) -r $<
	@touch $@

# The lock files, after an edit (envs/README.md): each package at one version, with the SHA-256 of each of its files on the index.
# A file NAME.txt beside NAME.in is resolved from it; the image's, from pyproject.toml. The others are complete lists, edited by hand.
COMPILE = $(RELEASE)/bin/uv pip compile --quiet --no-config --generate-hashes --no-annotate --no-strip-extras --no-emit-index-url \
  --custom-compile-command 'make locks' --python-version 3.11.15 --python-platform x86_64-manylinux_2_28
LISTS = requirements.txt $(patsubst %,envs/%.txt,build/requirements crate/requirements docs/requirements tests/requirements kubernetes/launcher)
RESOLVED = $(patsubst %,envs/%.txt,forecasters/requirements forecasters/zero-shot kubernetes/job release/requirements)
locks: $(RELEASE)/.ready
	set -e; for lock in $(LISTS); do $(COMPILE) --no-deps $$lock -o $$lock >/dev/null; done
	set -e; for lock in $(RESOLVED); do $(COMPILE) $${lock%.txt}.in -o $$lock >/dev/null; done
	$(COMPILE) --extra live --extra kube -c requirements.txt pyproject.toml -o envs/image/requirements.txt >/dev/null

# The entries of docs/arena.md, run again with their seeds: exit status 1 if one does not reproduce.
arena: $(READY)
	python -m studies.arena.run

# The Go program with the autoscalers of other projects, for `python -m studies.arena.agreement` and its tests: 109 s of CPU with
# nothing in the caches but the modules. It needs Go 1.26.
rivals: $(READY)
	python -m studies.arena.agreement --build

# The table of notebook 35: our forecasters beside those of other packages, which have an environment of their own. It runs the
# stages up to the forecasts first. ZERO_SHOT=1 adds a pretrained model and its 3 GB of libraries.
OTHERS = .venv-forecasters/.ready$(if $(ZERO_SHOT),-zero-shot)
forecasters: $(READY) $(OTHERS)
	@snakemake --cores $(CORES) $(if $(CONFIG),--configfile $(CONFIG)) $(if $(strip $(CHOSEN)),--config $(CHOSEN)) -- compared_forecasters

$(OTHERS): envs/forecasters/requirements.txt $(if $(ZERO_SHOT),envs/forecasters/zero-shot.txt)
	python3 -m venv .venv-forecasters
	.venv-forecasters/bin/pip install --quiet $(addprefix -r ,$^)
	touch $@

# The tables and pictures of README and docs that recorded tables are behind; `snakemake --list` has the rules that record them.
pages: $(READY)
	python -m studies.tables.pages

# Live runs on the kind cluster, on an otherwise idle machine: those of notebook 81 (about two hours), and shared replicas with the
# requests and cores of its first two trials. If a command is interrupted, it continues with the runs that are missing.
recorded-kubernetes: ON_KIND = config/kind-full.yaml
recorded-kind-pool: ON_KIND = config/kind-pool.yaml
recorded-kubernetes recorded-kind-pool: kubeconfig $(READY)
	WORKER_CORES=8 cluster/up.sh
	bash -c '. cluster/offline/settings.sh; exec snakemake --cores all --configfile $(ON_KIND) --rerun-incomplete -- $(subst -,_,$@)'

# It opens the table of contents, shown as a page by the settings in notebooks/.jupyter.
lab: export JUPYTER_CONFIG_PATH := $(CURDIR)/notebooks/.jupyter:$(JUPYTER_CONFIG_PATH)
lab: $(READY)
	jupyter lab --notebook-dir=. notebooks/README.md

# The Helm chart: the templates of `faro manifests`, filled with the expressions of Helm.
chart: $(READY)
	python charts/generate.py charts/faro

data: $(READY)
	python -m faro_pipeline fetch

config: $(READY)
	python -m faro_pipeline.settings

# The crate of the repository, from CITATION.cff, the data, the notebooks and the figures. The validator has an environment of
# its own.
metadata: $(READY) build/crate-venv/.ready
	python -m studies.report.repository
	build/crate-venv/bin/python tests/support/validate_crate.py . workflow-ro-crate

# Whether the crate of the repository can be made, and whether it and the record of a run are valid.
crate: metadata
	@[ -f "$(RUN)/ro-crate-metadata.json" ] || { echo "make: RUN: $(RUN)/ro-crate-metadata.json: no such file; make smoke writes results/synthetic" >&2; exit 2; }
	build/crate-venv/bin/python tests/support/validate_crate.py $(RUN)

build/crate-venv/.ready: envs/crate/requirements.txt
	python3 -m venv build/crate-venv
	build/crate-venv/bin/$(INSTALL) -r $<
	@touch $@

# The documentation as a site in build/site, with the executed notebooks of EXECUTED (`make figures` writes them); the others,
# such as the tour, are executed first, by their defaults. Its tools are in an environment of their own; a link or reference
# that leads nowhere is an error.
EXECUTED ?= results/synthetic/notebooks
DOCS = build/docs-venv
docs: $(READY) $(DOCS)/.ready
	EXECUTED=$(EXECUTED) PYTHONPATH=.:workflow python docs/executed.py
	EXECUTED=$(EXECUTED) NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict
	@echo "$(CURDIR)/build/site/index.html; with search: python3 -m http.server --directory build/site"

$(DOCS)/.ready: envs/docs/requirements.txt
	python3 -m venv $(DOCS)
	$(DOCS)/bin/$(INSTALL) -r $<
	@touch $@

clean:
	rm -rf results .snakemake .mypy_cache .ruff_cache .hypothesis

# Stamps are written last, so that an interrupted installation is begun again.
# pip checks the hashes of all packages of a command or of none, and a folder has no hash: Faro itself has its own command.
INSTALL = python -m pip install --quiet --disable-pip-version-check
$(READY): $(PINS) pyproject.toml envs/tests/requirements.txt
	$(BIN)/$(INSTALL) --no-deps -r envs/tests/requirements.txt
	$(BIN)/$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

# What builds Faro and the one package without a wheel comes first, so that pip fetches nothing unlocked to build them.
$(PINS): requirements.txt envs/build/requirements.txt
	@for candidate in $(CANDIDATES); do \
	  "$$candidate" -c 'import sys; sys.exit(not ($(ACCEPTED)))' 2>/dev/null || continue; \
	  python=$$candidate; "$$python" -c 'import ensurepip, venv' 2>/dev/null && break; \
	done; \
	if [ -z "$$python" ]; then echo "make: no Python from 3.11 to 3.13 found (tried: $(CANDIDATES)); on Debian: apt-get install python3 python3-venv" >&2; exit 1; fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "make: $$python lacks venv; on Debian: apt-get install $$("$$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')" >&2; exit 1; fi; \
	echo "Setting up .venv with $$("$$python" --version); a few minutes the first time." >&2; \
	"$$python" -m venv .venv
	$(BIN)/$(INSTALL) -r envs/build/requirements.txt
	$(BIN)/$(INSTALL) --no-build-isolation -r requirements.txt
	@touch $@
