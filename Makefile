# All targets need Python 3.11 or later and make; everything else is installed into $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test docs gpu walk clean

# Exports a denoiser of the zoo as ONNX and analyses one of its layers; see demo/report.html.
demo: $(BIN)/python
	rm -rf build
	$(PIP) install --quiet -c constraints.txt .
	$(BIN)/ctinv zoo export yang model.onnx
	$(BIN)/ctinv analyze --model model.onnx --layer conv7 --out demo

# Style, types, tests and doctests.
test: $(BIN)/python
	rm -rf build
	$(PIP) install --quiet -c constraints.txt -e '.[test]' --config-settings editable_mode=strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# What needs a GPU: its tests, PyTorch against ONNX Runtime, and the bench; at most nine minutes, into gpu.json.
gpu: $(BIN)/python
	rm -rf build
	$(PIP) install --quiet -c constraints.txt -e '.[test]' --config-settings editable_mode=strict
	$(BIN)/python benchmarks/gpu.py

# The site, in docs/_build/index.html; a warning is an error.
docs: $(BIN)/python
	rm -rf build
	$(PIP) install --quiet -c constraints.txt -e '.[docs]' --config-settings editable_mode=strict
	rm -rf docs/_build docs/_generated
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

# Follows docs/walk.md and takes pictures of its pages in Chromium, into the folder walk.
walk: $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e '.[test]' --config-settings editable_mode=strict
	CTINV_WALK=$(CURDIR)/walk $(BIN)/python -m pytest --slow tests/browser/test_walk.py -k with_fits

clean:
	rm -rf $(VENV) build *.egg-info demo walk docs/_build docs/_generated model.onnx

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ctinv needs Python 3.11 or later; try: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
