# `make demo` and `make test` are all a newcomer needs; each sets up what it uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
JOBS ?= 2
SEEDS ?= 50
NAME ?= all

.PHONY: setup demo up test check format sim accept bench lock clean help

help: ## Say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "kapelle needs Python 3.11 or newer: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "could not make $(VENV); on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/runtime: $(VENV)/made requirements/runtime.txt pyproject.toml
	@echo "setting up $(VENV) (once) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev: $(VENV)/runtime requirements/dev.txt
	@echo "setting up what tests and checks need (once) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

setup: $(VENV)/runtime ## Make .venv with kapelle in it

demo: $(VENV)/runtime ## Watch 2,000 simulated devices become one plant (ARGS="--devices 500")
	@$(BIN)/kapelle demo $(ARGS)

up: $(VENV)/runtime ## Run the plant for real (ARGS="--config kapelle.toml")
	@$(BIN)/kapelle up $(ARGS)

test: $(VENV)/dev ## Run the tests, two files at a time (ARGS="-k fleet" JOBS=4)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: $(VENV)/dev ## Format, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/dev ## Put the code into its format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

sim: $(VENV)/runtime ## Seeded chaos in virtual time (SEEDS=200)
	@$(BIN)/python -m kapelle.sim.chaos --seeds $(SEEDS) $(ARGS)

accept: $(VENV)/runtime ## Play every fault with many seeds against what is promised (SEEDS=50; goes on where it was)
	@$(BIN)/kapelle sim accept --seeds $(SEEDS) --keep acceptance.jsonl $(ARGS)

bench: $(VENV)/dev ## Print benchmarks and append them to benchmarks/results.jsonl (NAME=journal)
	@$(BIN)/kapelle bench $(NAME) $(ARGS)

lock: $(VENV)/dev ## Write the lock files anew
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --extra protocols pyproject.toml requirements/build.in -o requirements/runtime.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links -c requirements/runtime.txt --extra protocols pyproject.toml requirements/build.in --group dev -o requirements/dev.txt

clean: ## Remove what was made here
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
