# make app: the workbench on the bundled teacher.  make test: lint and every test.
# make quick: the fast tests.  make help: all targets.
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
# Two worker processes: the tests use one thread each. JOBS=0 runs them in one process.
JOBS := 2
PYTEST := $(PY) -m pytest -n $(JOBS)

.PHONY: help app test lint format unit quick coverage docs site hooks clean

help:  ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s:

app: $(READY)  ## Open the app on the bundled teacher (ARGS="--port 8000")
	$(PY) app.py $(ARGS)

test: lint unit  ## Check format, lint and types, run every test

lint: $(READY)  ## Check format, lint and types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(READY)  ## Format the code and apply safe fixes
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

unit: $(READY)  ## Run the tests (ARGS="tests/rules -k amber")
	$(PYTEST) $(ARGS)

quick: $(READY)  ## Run the tests that take milliseconds, within 90 seconds
	$(PYTEST) -m quick $(ARGS)

# apart from the tests: tracing takes up to as long again as the tests themselves
coverage: $(READY)  ## Run the tests, print the coverage and write htmlcov/index.html
	$(PYTEST) --cov --cov-report=term --cov-report=html $(ARGS)

docs: $(READY)  ## Check links, words, examples and generated pages
	$(PYTEST) tests/docs tests/test_project.py tests/test_words.py tests/test_extending.py $(ARGS)

site: $(READY)  ## Build the documentation as a site in site/, every link checked
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build -q

hooks: $(READY)  ## Format and lint before every commit of this clone
	$(VENV)/bin/pre-commit install

# torch first and pinned, so that no looser range elsewhere pulls another build
$(READY): pyproject.toml
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install -q torch==2.13.0
	$(PY) -m pip install -q -e ".[test]"
	touch $@

clean:  ## Remove the environment and all caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .coverage htmlcov site
