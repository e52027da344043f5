# exile: `make run` builds and starts it, `make test` runs every test.
# Everything is built and installed below target/ and ~/.cache/exile-ci; nothing else is touched
# except, as root on Debian or Ubuntu, the missing system packages that .ci/need names.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Minutes that a cold release build takes on 2 cores; measured, see server/FIGURES.md.
RELEASE_MINUTES := 6

TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release/exile
CACHE := $(HOME)/.cache/exile-ci

# The debug binary of the tests, for the judges and the examples; `make litellm EXILE=…` takes
# another one.
EXILE ?=
DEBUG := $(or $(EXILE),$(TARGET)/debug/exile)

LITELLM := litellm[proxy]==1.106.2
CLIENTS := openai==3.57.0 langchain-openai==1.7.4 jsonschema==4.26.0
PHOENIX := arize-phoenix==20.26.1
LANGGRAPH := langgraph==1.2.24 langgraph-checkpoint-sqlite==3.1.2 'langgraph-cli[inmem]==0.4.40'

FUZZ ?= 20
KILLS ?= 500
SEED ?= 1
MINUTES ?= 60

# Both packages at once, so that their dependencies are built with one set of features.
BENCHES := -p exile-engine -p exile-server --bench engine --bench bounds --bench journal --bench bytes --bench history

.PHONY: help run build test kills wire fuzz lint litellm clients metrics phoenix examples figures \
	compare steady pressure binary

help: ## This list.
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 16

run: build ## Build in release mode and start `exile serve` (ARGS="--bind 0.0.0.0:8080").
	@exec $(RELEASE) $(ARGS) serve

build:
	@.ci/need cargo compiler pip
	@if [[ ! -x $(RELEASE) ]]; then \
		echo "Building exile in release mode: about $(RELEASE_MINUTES) minutes on 2 cores the first time."; \
	fi
	cargo build --release --locked -p exile-server --bin exile

test: ## Run every test of the workspace.
	@.ci/need cargo compiler
	@.ci/test

kills: ## Kill a worker KILLS times (500), at points that SEED chooses, and check what is left.
	@.ci/need cargo compiler
	EXILE_KILLS=$(KILLS) EXILE_SEED=$(SEED) cargo test --locked -p exile-server \
		--features failpoints --test all -- --nocapture --exact \
		durable::kills::no_kill_loses_what_was_acknowledged_or_repeats_what_was_recorded

wire: ## Replay recorded exchanges with model providers (EXILE_DATA=FOLDER, which holds wire/*.jsonl).
	@.ci/need cargo compiler
	@EXILE_DATA=$$(realpath "$${EXILE_DATA:-../shared/data}") cargo test --locked --workspace --quiet \
		--features exile-server/failpoints --test all -- --nocapture --exact \
		cli::wire::every_recording_reads_as_it_says_however_it_is_cut_and_through_the_binary

# On the stable toolchain: no sanitizer, which Rust without `unsafe` has little use for. What was
# found is kept in the corpus, so that a second run begins where the first one ended.
fuzz: ## Read made-up answers of model providers for FUZZ (20) seconds.
	@.ci/need cargo compiler
	@.ci/fuzz $(FUZZ)

lint: ## Formatting and clippy, warnings denied.
	@.ci/need cargo compiler
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

litellm: binary ## Talk to a scripted model through LiteLLM's proxy (PyPI).
	@.ci/venv $(CACHE)/litellm '$(LITELLM)'
	python3 server/tests/outside/through_litellm.py --exile $(DEBUG) --venv $(CACHE)/litellm

clients: binary ## Drive /v1 with OpenAI's clients, LangChain and the AI SDK (PyPI, npm).
	@command -v npm >/dev/null || { echo "The clients in JavaScript need Node.js with npm" >&2; exit 1; }
	@.ci/venv $(CACHE)/clients $(CLIENTS)
	@install -Dt $(CACHE)/clients/node server/tests/outside/openai_clients/package.json
	@npm install --prefix $(CACHE)/clients/node --no-audit --no-fund --no-package-lock --loglevel=error
	$(CACHE)/clients/bin/python server/tests/outside/openai_clients.py --exile $(DEBUG) --venv $(CACHE)/clients

metrics: binary ## Let Prometheus read /metrics, and evaluate the example dashboard over it.
	@.ci/need prometheus
	python3 server/tests/outside/into_prometheus.py --exile $(DEBUG)

phoenix: binary ## Show a run's trace in Arize Phoenix (PyPI) and check what it shows.
	@.ci/venv $(CACHE)/phoenix '$(PHOENIX)'
	python3 server/tests/outside/into_phoenix.py --exile $(DEBUG) --venv $(CACHE)/phoenix

examples: binary ## Run examples/requests against a fresh server.
	@.ci/need curl
	examples/requests/fresh.sh $(DEBUG)

figures: ## Measure what server/FIGURES.md states, a cold release build included.
	@.ci/need cargo compiler
	cargo bench --locked $(BENCHES)
	@rm -rf $(TARGET)/cold
	@SECONDS=0; \
		CARGO_TARGET_DIR=$(TARGET)/cold cargo build --release --locked -p exile-server --bin exile; \
		echo "a cold release build: $$((SECONDS / 60)) min $$((SECONDS % 60)) s"
	python3 server/tests/outside/figures.py --exile $(TARGET)/cold/release/exile
	@rm -rf $(TARGET)/cold

compare: ## Measure exile beside LangGraph and LiteLLM (PyPI): same work, same machine.
	@.ci/need cargo compiler
	@.ci/venv $(CACHE)/langgraph $(LANGGRAPH)
	@.ci/venv $(CACHE)/litellm '$(LITELLM)'
	python3 server/tests/outside/compare/compare.py --venv $(CACHE)/langgraph
	python3 server/tests/outside/gateway/compare.py --venv $(CACHE)/litellm

steady: ## Hold exile under a steady load for MINUTES (60) and show its memory.
	@.ci/need cargo compiler
	python3 server/tests/outside/gateway/compare.py --minutes $(MINUTES)

pressure: build ## Hold memory and sockets to their bounds: large bodies, idle readers, half heads, a stop.
	python3 server/tests/outside/pressure.py --exile $(RELEASE)

# Built with the tests' features, so that after `make test` there is nothing left to build.
binary:
ifeq ($(EXILE),)
	@.ci/need cargo compiler
	cargo build --workspace --features exile-server/failpoints --bins --tests --locked
endif
