# make app: the workbench on the bundled teacher.  make test: everything that is tested.
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: app test lint unit clean
app: $(READY)
	$(PY) app.py $(ARGS)

test: lint unit

lint: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

unit: $(READY)
	$(PY) -m pytest $(ARGS)

# torch first and pinned, so that no looser range elsewhere pulls another build
$(READY): pyproject.toml
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install -q torch==2.13.0
	$(PY) -m pip install -q -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
