# StrongBox. `make help` says what there is; everything runs from .venv, which `make install` makes.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
T ?= 1h

.DEFAULT_GOAL := help
.PHONY: help install run test quick lint types contracts unit scenarios robustness soak rehearsal heavy bench \
        protos protos-check protos-image etcd map map-check manifests lock
.NOTPARALLEL:

# Not written out where it is used: a recipe that names $(MAKE) is run even by `make -n`.
beside = $(MAKE) --no-print-directory

# A capability that is not built yet says so; make turns that into exit status 2.
built = @test -e $(1) || { echo "make $@: not built yet ($(1) does not exist)" >&2; exit 1; }

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | while IFS='	' read -r name text; do \
		printf '  make %-13s %s\n' "$$name" "$$text"; done

install: $(STAMP) .tools/.etcd-tried ## .venv from requirements.lock, with .venv/bin/{python,strongbox,strongbox-verify}; idempotent

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: PYTHON=…")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing from requirements.lock (every file is checked against its hash)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Once: what cannot be fetched here is not asked for again by every target. `make etcd` tries again.
.tools/.etcd-tried: $(wildcard tools/fetch_etcd.sh)
	@mkdir -p .tools
	@if [ -x tools/fetch_etcd.sh ] && command -v apt-get >/dev/null 2>&1; then sh tools/fetch_etcd.sh || \
		echo "notice: no newer etcd could be fetched; the wheel's 3.5.1 is for trying out only" >&2; \
	else echo "notice: etcd is not fetched here; the wheel's 3.5.1 is for trying out only" >&2; fi
	@touch $@

# Once: a rehearsal of the manifests needs `ip`.
.tools/.ip-tried:
	@mkdir -p .tools
	@if ! command -v ip >/dev/null 2>&1; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
			apt-get -qq update >/dev/null 2>&1; apt-get -qq install -y --no-install-recommends iproute2 >/dev/null 2>&1; \
		fi; \
		command -v ip >/dev/null 2>&1 || echo "notice: there is no \`ip\` here, so the manifests cannot be rehearsed" >&2; \
	fi
	@touch $@

etcd: ## fetch an etcd of 3.5.28 or newer into .tools/ (needs apt, not root)
	$(call built,tools/fetch_etcd.sh)
	@sh tools/fetch_etcd.sh

run: install ## three nodes, unsealed, a secret written and read; Ctrl-C ends it
	$(call built,strongbox/dev/demo.py)
	@exec $(BIN)/python -m strongbox.dev.demo

test: lint types contracts unit ## lint, types, contracts, unit and cluster tests, the scenarios' short form (25 min)
	$(call built,tests/scenarios/__main__.py)
	@$(BIN)/python -m tests.scenarios --short
	@echo "make test: all passed"

# What it leaves out is marked by tests/conftest.py, and run by `unit`. A test that takes longer than 20 s fails here,
# and the slowest are named. Types and contracts are checked beside the tests, on another core, and speak afterwards.
quick: lint ## lint, types, contracts, and the tests that start no etcd, Envoy, PostgreSQL or service (4 min)
	@$(beside) types contracts >.tools/quick.log 2>&1 & checks=$$!; \
	$(BIN)/python -m pytest tests -m "not processes and not heavy" --timeout 20 --durations 5; status=$$?; \
	wait $$checks || status=1; cat .tools/quick.log; exit $$status

lint: install ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: install ## mypy --strict
	@$(BIN)/mypy --strict strongbox services tools bench

contracts: install protos-check map-check ## who may import whom, and its picture; buf lint; no breaking change of the protos
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/buf lint
	@$(BIN)/buf breaking protos --against protos/image.binpb

unit: install .tools/.ip-tried ## pytest: unit and cluster tests, without the heavy ones
	@$(BIN)/python -m pytest tests -m "not heavy"

scenarios: install ## the ten scenarios, two checks each, against three real nodes
	$(call built,tests/scenarios/__main__.py)
	@$(BIN)/python -m tests.scenarios

robustness: install ## faults under load, histories checked (10 min)
	$(call built,tests/robustness/__main__.py)
	@$(BIN)/python -m tests.robustness

soak: install ## robustness for T (default 1h)
	$(call built,tests/robustness/__main__.py)
	@$(BIN)/python -m tests.robustness --for $(T)

rehearsal: install .tools/.ip-tried ## the overlays of k8s/ applied and run without a Kubernetes cluster (root; 20 min)
	$(call built,tests/rehearsal/__main__.py)
	@$(BIN)/python -m tests.rehearsal

heavy: install .tools/.ip-tried ## long trials and those over a million records
	@$(BIN)/python -m pytest tests -m heavy --timeout 3600 || \
		{ status=$$?; [ $$status -ne 5 ] || echo "make heavy: not built yet (no heavy test exists)" >&2; exit $$status; }

bench: install ## measured figures, beside those of OpenBao in the same run
	$(call built,bench/__main__.py)
	@$(BIN)/python -m bench

protos: install ## generate strongbox/*/v1 and gateway/strongbox.binpb from protos/
	@$(BIN)/python -m tools.generate_protos

protos-check: install ## is what is committed what the protos say?
	@$(BIN)/python -m tools.check_protos

protos-image: install ## take the protos of today as what later ones must not break (at a release, or for a break on purpose)
	@$(BIN)/buf build protos --exclude-source-info -o protos/image.binpb

map: install ## draw the rooms in docs/architecture.md from the imports
	@$(BIN)/python -m tools.draw_rooms

map-check: install ## are the rooms in docs/architecture.md those of the code?
	@$(BIN)/python -m tools.draw_rooms --check

manifests: install ## what follows from tables: network policies, cert-manager's certificates, docs of roles and settings
	@$(BIN)/python -m tools.generate_manifests

lock: ## resolve pyproject.toml anew into requirements.lock
	@sh tools/lock.sh
