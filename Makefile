# Every target sets up what it needs: a virtual environment in the checkout, and a release build.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
TOOLS  := --group dev --group bench --group docs --group upstream
BUILT  := $(VENV)/.built
NODE_CLIENTS := tests/e2e/node_modules/.package-lock.json
QUICK  := tests/encoding tests/stream
CORE   := tests/encoding tests/stream/test_options.py
RUST   := Cargo.toml Cargo.lock build.rs $(wildcard src/*.rs src/*/*.rs) \
          python/fastapi_sse_fast/_core.pyi

.DEFAULT_GOAL := help
.PHONY: help install build format lint test test-quick test-slow fuzz memcheck test-matrix test-rust e2e soak chaos upstream-tests sse-starlette-tests mcp-tests test-frozen dist audit bench bench-server bench-instructions bench-anchors demo docs check clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "%-18s %s\n", $$1, $$2}' Makefile

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TOOLS)
	@touch $@

$(BUILT): $(VENV)/.installed $(RUST)
	PIP_QUIET=2 VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet
	@touch $@

install: $(VENV)/.installed ## Create the virtual environment and install all tools

build: $(BUILT) ## Build the package in release mode and install it into the virtual environment

format: install ## Format the Python and Rust code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .
	cargo fmt
	cargo fmt --manifest-path fuzz/Cargo.toml
	cargo fmt --manifest-path benches/anchors/axum/Cargo.toml

lint: build ## Run ruff, mypy, stubtest, rustfmt and clippy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest fastapi_sse_fast --allowlist tests/stubtest-allowlist.txt
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo fmt --check --manifest-path benches/anchors/axum/Cargo.toml
	cargo clippy --all-targets --quiet -- -D warnings

# The tests of a file share servers, so they run in the same process.
test: build test-rust ## Run the Rust tests, then the Python tests in two processes (8 minutes)
	$(BIN)/pytest -n 2 --dist loadfile

test-quick: build ## Run the tests of encoding and streams in one process (30 seconds)
	HYPOTHESIS_PROFILE=few $(BIN)/pytest -m "not heavy" $(QUICK)

test-slow: build ## Run the property tests with twenty times the examples (several minutes)
	HYPOTHESIS_PROFILE=slow $(BIN)/pytest -m hypothesis -o faulthandler_timeout=0

# A stable compiler accepts the flags of the sanitizer only with RUSTC_BOOTSTRAP=1.
fuzz: ## Fuzz every target of the Rust core for SECONDS=60, or only TARGETS="frames strings"
	command -v cargo-fuzz >/dev/null || cargo install --quiet --locked cargo-fuzz
	@for target in $(or $(TARGETS),$(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))); do \
	echo "$$target"; RUSTC_BOOTSTRAP=1 cargo fuzz run $$target -- \
	-max_total_time=$(or $(SECONDS),60) -verbosity=0 -print_final_stats=1 || exit; done

# Undefined values are not checked, because CPython has hundreds of them and safe Rust has none.
memcheck: build ## Run the tests of the Rust core under valgrind (10 minutes)
	HYPOTHESIS_PROFILE=few PYTHONMALLOC=malloc valgrind --undef-value-errors=no \
	--suppressions=tests/valgrind.supp --error-exitcode=1 \
	$(BIN)/python -m pytest -o faulthandler_timeout=0 -m "not heavy" $(CORE)

test-matrix: ## Test all installed Pythons and older dependencies, or only ONLY="python-3.12 oldest"
	$(PYTHON) tests/matrix.py $(ONLY)

test-rust: install ## Run the Rust tests
	PYO3_PYTHON=$(abspath $(BIN)/python) cargo test --quiet

$(NODE_CLIENTS): tests/e2e/package-lock.json
	npm ci --silent --prefix tests/e2e
	@touch $@

e2e: build ## Test with browsers, SDKs and proxies (Debian: apache2-bin chromium curl haproxy nginx nodejs npm)
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(NODE_CLIENTS); \
	else echo "npm is not installed: the Node clients are skipped"; fi
	$(BIN)/pytest tests/e2e -rs

soak: build ## Run thousands of streams that end in every possible way (several minutes)
	$(BIN)/python -m tests.soak

chaos: build ## Break workers, connections and a Redis while a thousand clients read (4 minutes)
	$(BIN)/python -m tests.chaos

upstream-tests: build ## Run FastAPI's own tests of Server-Sent Events against this package
	$(BIN)/python -m tests.upstream

sse-starlette-tests: build ## Run sse-starlette's own tests against fastapi_sse_fast.sse_starlette
	$(BIN)/python -m tests.upstream_sse_starlette

mcp-tests: build ## Run the tests of the MCP SDK with fastapi_sse_fast.sse_starlette (2 minutes)
	$(BIN)/python -m pip install --quiet --group mcp-tests
	$(BIN)/python -m tests.upstream_mcp

test-frozen: build ## Test applications frozen by PyInstaller and cx_Freeze (several minutes)
	$(BIN)/python -m pip install --quiet --group frozen
	$(BIN)/python tests/frozen.py

dist: install ## Build the source distribution and a wheel from it, and test the wheel
	rm -rf dist build/dist
	mkdir -p build/dist
	$(BIN)/maturin sdist --out dist
	tar xzf dist/*.tar.gz --strip-components 1 -C build/dist
	@if grep -rIF "$(CURDIR)" build/dist; then echo "the archive contains a local path"; exit 1; fi
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist dist/*.tar.gz
	$(BIN)/twine check --strict dist/*
	@wc --bytes dist/*
	$(BIN)/python build/dist/tests/matrix.py --wheels dist current

audit: install ## Check dependencies for vulnerabilities and licenses, and the workflows for weaknesses
	$(BIN)/zizmor --offline .github
	command -v cargo-deny >/dev/null || cargo install --quiet --locked cargo-deny
	cargo deny check
	$(BIN)/pip-audit --path $(VENV)/lib/python*/site-packages --skip-editable

bench: build ## Run the microbenchmarks
	$(BIN)/pytest benches --benchmark-columns=min,median,iqr --benchmark-sort=name

bench-server: build ## Compare whole streams over real sockets with other implementations
	$(BIN)/python benches/server.py

bench-instructions: build ## Count the instructions per event under valgrind (several minutes)
	$(BIN)/python benches/instructions.py

bench-anchors: build ## Compare with compiled servers (Go, axum) if they can be built
	$(BIN)/python benches/anchors/run.py

demo: build ## Serve the demo page
	$(BIN)/python -m fastapi_sse_fast demo

docs: install ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: lint test ## Run lint and test (before every commit)

clean: ## Remove everything that was built, and the virtual environment
	rm -rf $(VENV) .venv-matrix target fuzz/target build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
