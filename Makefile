# Every target makes .venv and installs into it when needed, so each one suffices on a fresh machine.
PYTHON ?= python3
RECIPE ?= nutrition_tables
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Threads that wait awake slow each other down as soon as the cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE
# Where it is forbidden to keep bytecode, each of the tests' processes compiles all of the project anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow style bench

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: .venv/installed  ## train a small model on drawn pictures and write a report
	$(BIN)/python -m demo $(RECIPE)

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

style: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/installed
	$(BIN)/python -m benchmarks.collator
	$(BIN)/python -m benchmarks.constraints
	$(BIN)/python -m benchmarks.label_scores
	$(BIN)/python -m benchmarks.training_speed
	$(BIN)/python -m benchmarks.evaluation_speed
	$(BIN)/python -m benchmarks.last_evaluation
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.gpu
