# make quickstart   a small search, end to end, on the embedded data
# make test         all tests
# make notebooks    executes notebooks/*.ipynb on the embedded data
# make lint         ruff and mypy
# make benchmark    our measurements; with DATA=folder, of train.record*, val.record* and
#                   label_map.pbtxt, also training and its input beside tf-models-official's
# make wheel-test   builds the wheel and installs it into fresh virtualenvs, with pip 23.0 and the
#                   newest pip, for every Python 3.10 to 3.12 on this machine; prints the seconds
#
# Each but wheel-test sets up what it needs in .venv first. PYTHON chooses the interpreter (3.10 to 3.12).

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	$$python -c "$(SUPPORTED)" 2>/dev/null && echo $$python && break; done)

.PHONY: quickstart test notebooks lint benchmark wheel-test clean

quickstart: $(INSTALLED)
	$(BIN)/mnasdet-search --pipeline_config_path=configs/quickstart.config \
		--model_dir=runs/quickstart --resume

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile

notebooks: $(INSTALLED)
	$(BIN)/python notebooks/execute.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: $(INSTALLED)
	$(BIN)/python benchmarks/latency_of_published.py
	$(BIN)/python benchmarks/bookkeeping.py
	$(BIN)/python benchmarks/controllers.py
	$(BIN)/python benchmarks/latency_table_fidelity.py
	$(BIN)/python benchmarks/export_vs_tf_lite.py
ifdef DATA
	$(BIN)/python benchmarks/training_vs_tf_models.py --train_input='$(DATA)/train.record*' \
		--eval_input='$(DATA)/val.record*' --label_map=$(DATA)/label_map.pbtxt
	$(BIN)/python benchmarks/input_pipeline.py --input='$(DATA)/train.record*' \
		--label_map=$(DATA)/label_map.pbtxt
endif

wheel-test:
	.ci/wheel_test

$(INSTALLED): setup.py pyproject.toml $(wildcard protos/*.proto scripts/*.py)
	@test -n "$(PYTHON)" || { echo "error: Python 3.10, 3.11 or 3.12 is needed; make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info runs
