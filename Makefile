# Needs Python >= 3.11 with pip and venv, and make; nothing else.
#
#   make demo     install, train the embedded model by R1-Zero, name the report page to open
#   make test     install, lint, run the test suite
#   make install  the virtual environment in .venv, with the tested versions of constraints.txt
#   make bench    every benchmark, one after the other, as JSON
#   make clean    remove .venv, caches and runs/demo
#
# PYTHON=python3.12 chooses another Python; PIP_ARGS="…" reaches pip (say, another package index).

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := runs/demo

.PHONY: install test demo bench clean

install: $(INSTALLED)

# Made again only when what is to be installed has changed.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: pellucid needs Python 3.11 or newer; say make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[test]'
	@touch $@

test: $(INSTALLED)
	$(BIN)/ruff check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

# A run folder of another recipe is never overwritten: `pellucid run` says so and stops.
demo: $(INSTALLED)
	@$(BIN)/pellucid run recipes/r1-zero-tiny --out $(DEMO) || { code=$$?; \
	  test $$code -ne 2 || echo "If $(DEMO) is of an older recipe: rm -r $(DEMO), then make demo." >&2; \
	  exit $$code; }

bench: $(INSTALLED)
	@for file in benchmarks/*.py; do $(BIN)/python $$file || exit $$?; done

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
