# make demo and make test need nothing but Python 3.11+ and make; both set up .venv on first use.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint docs bench clean

# The first interpreter on the PATH that is new enough; or say which: make setup PYTHON=/path/to/python3
ENOUGH := 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c $(ENOUGH) 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
# Tests of one file stay together, as they share what is slow to build. With a debugger: make test PARALLEL=
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' Makefile
	@echo "  Options for a command go into ARGS, test files into TESTS: make test TESTS=tests/nn ARGS='-x -k gru'"

setup: $(STAMP) ## Create .venv with the tested versions; does nothing when it is up to date

$(STAMP): pyproject.toml constraints.txt
	@'$(PYTHON)' -c $(ENOUGH) 2>/dev/null || { echo "foreworld needs Python 3.11 or newer, found" \
		"$$('$(or $(PYTHON),python3)' --version 2>/dev/null || echo none); install one or run: make setup PYTHON=/path/to/python3" >&2; exit 2; }
	@test -x $(BIN)/pip || '$(PYTHON)' -m venv .venv
	@echo "Installing foreworld and its tested versions into .venv: 1 to 3 minutes on a fast line; 2 GB, or 6 GB where torch comes with CUDA."
	@start=$$(date +%s) && $(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[all,dev]' -c constraints.txt \
		&& echo "Installed in $$(($$(date +%s) - start)) s."
	@touch $@

demo: $(STAMP) ## Train a world model on Atari frames and show its dreams: runs/demo/report.html
	@$(BIN)/foreworld demo --overwrite $(ARGS)

test: $(STAMP) ## Run the fast tests, on every core up to four; ARGS='-m slow' runs the slow ones
	@$(BIN)/python -m pytest $(PARALLEL) $(TESTS) $(ARGS)

lint: $(STAMP) ## Check style, format, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyrefly check
	@$(BIN)/lint-imports --no-cache

docs: $(STAMP) ## Build the site into docs/_build/html, and run every code block and docstring example
	@$(BIN)/python -m sphinx -q -W --keep-going -n -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "The site is in docs/_build/html/index.html"
	@$(BIN)/python -m pytest tests/test_docs.py tests/test_reference.py src/foreworld $(PARALLEL) \
		-m "not slow and not gpu and not net and not train" $(ARGS)

bench: $(STAMP) ## Run the benchmarks that lie in benchmarks/; results go to benchmarks/results/
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" $(ARGS) || exit 1; done

clean: ## Remove .venv and the caches; data and runs stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache
