# Everything a developer does here, with nothing but Python >= 3.11, pip and make.
#
# The first target that needs it makes .venv and installs the tested versions of
# constraints.txt; it is done again when those or pyproject.toml change, or when
# PYTHON names another version.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test storm lint types docs screenshots bench soak kill format clean

# The first Python that is new enough. A name may be there and yet not run (shims do that).
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	if "$$name" -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then echo "$$name"; break; fi; done)
endif
VERSION := $(shell "$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null && \
	"$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/made-with-python-$(or $(VERSION),none)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
ARGS ?=

# Tests start hundreds of Pythons, and compiling takes longer than what most of them do.
unexport PYTHONDONTWRITEBYTECODE

help: ## say what there is
	@echo "make TARGET [PYTHON=python3.12] [ARGS='...']"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile

demo: $(VENV)/demo.stamp ## run an agent on the embedded model: no key, no service
	@$(BIN)/agentkit demo $(ARGS)

test: $(VENV)/dev.stamp ## run the tests, side by side (ARGS='-n 0' for one after the other)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

storm: $(VENV)/dev.stamp ## run the laws at their full size, and what is too slow for `make test`
	$(BIN)/python -m pytest -n auto -m 'hypothesis or storm or storm_only' --hypothesis-profile=storm $(ARGS)

lint: $(VENV)/dev.stamp ## check form, lint rules and the floors of the imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

types: $(VENV)/dev.stamp ## check the types: pyright strictly, the public ones with mypy and pyrefly too
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/mypy
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python tests/typing/*.py

docs: $(VENV)/docs.stamp ## build the documentation into site/
	$(BIN)/zensical build --clean --strict
	$(BIN)/python -c 'from agentkit.viewer import write; write("site/sample.html", "examples/traces/boston.jsonl")'

screenshots: $(VENV)/dev.stamp ## make the pictures of the documentation, with Chromium
	$(BIN)/python -m tests.viewer.screenshots docs/images

bench: $(VENV)/dev.stamp ## measure agentkit beside a loop written by hand (ROWS='run typed', PEERS=1)
	$(BIN)/python -m tests.benchmarks $(if $(ROWS),--rows $(ROWS)) $(if $(PEERS),--peers) $(ARGS)

soak: $(VENV)/dev.stamp ## run 10,000 agents in one process and watch its memory
	$(BIN)/python tests/benchmarks/soak.py

kill: $(VENV)/dev.stamp ## kill N workers at random points and look for what was done twice
	$(BIN)/python -c "import sys; from tests.durable.kill import main; sys.exit(main())" $(or $(N),1000)

format: $(VENV)/dev.stamp ## bring the code into form
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

clean: ## remove everything that was made here
	rm -rf $(VENV) build dist site .cache .benchmarks .hypothesis \
		.mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@test -n "$(VERSION)" || { \
		echo "agentkit needs Python 3.11 or newer; $(or $(PYTHON),what is here) is not." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@echo "Making $(VENV) with Python $(VERSION) ..."
	@"$(PYTHON)" -m venv --clear $(VENV) || { \
		echo "Python has no venv module here; Debian has it as python3-venv." >&2; exit 1; }
	@touch $@

$(VENV)/%.stamp: $(MADE) pyproject.toml constraints.txt
	@echo "Installing (the first time takes a minute or two) ..."
	@$(INSTALL) -e '.[$(EXTRAS)]'
	@touch $@

$(VENV)/demo.stamp: EXTRAS := cli,local
$(VENV)/dev.stamp: EXTRAS := dev
$(VENV)/docs.stamp: EXTRAS := docs
