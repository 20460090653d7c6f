# Needs Python (3.11 or later) and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
ZOO := .venv-zoo
# uv installs in seconds what takes pip minutes; torch and torchvision come from the package index as a matching pair.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python

.PHONY: help demo test test-unit test-fast test-all test-red test-oldest test-zoo regimes layers lint types bench bench-attacks bench-gate \
	bench-leak bench-adversarial clean
help:           ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

.setup/%: $(BIN)/uv pyproject.toml
	@echo "Setting up $(VENV) ($*): about a minute the first time"
	$(INSTALL) -e '.[$*]'
	@mkdir -p .setup && touch $@

.setup/oldest: pyproject.toml tests/oldest.txt
	@echo "Setting up $(OLDEST): some minutes the first time"
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python \
		--resolution lowest-direct --constraints tests/oldest.txt -e '.[test]'
	@mkdir -p .setup && touch $@

.setup/zoo: pyproject.toml
	@echo "Setting up $(ZOO): some minutes the first time"
	$(PYTHON) -m venv --clear $(ZOO)
	$(ZOO)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(ZOO)/bin/uv pip install --quiet --python $(ZOO)/bin/python -e '.[test,zoo]'
	@mkdir -p .setup && touch $@

demo: .setup/demo   ## train a small CNN on handwritten digits and show how its explanations change
	$(BIN)/python examples/digits.py

test: lint types    ## lint, types, tests and doctests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile  # files go to one of two processes, whole

test-unit: .setup/dev  ## the tests of single modules, with coverage: about two minutes
	$(BIN)/python -m pytest -q -n 2 -m "not slow and not red and not whole and not zoo" --cov --cov-report=term:skip-covered tests/unit

test-fast: .setup/dev  ## tests without the slow ones
	$(BIN)/python -m pytest -q -m "not slow and not red and not whole and not zoo"

test-all: lint types    ## `make test` with every model of torchvision, a few minutes more
	$(BIN)/python -m pytest -q -m "not red and not zoo"

test-red: .setup/dev   ## remove every guard, one by one, and require the regimes that depend on it to fail
	$(BIN)/python -m pytest -q -m red tests/mutants

regimes: .setup/dev   ## docs/regimes.md, from the tests' table of ways to train
	$(BIN)/python -m tests.regimes.page

test-oldest: .setup/oldest  ## tests and doctests with the oldest versions of what pyproject asks for (Python 3.11 or 3.12)
	$(OLDEST)/bin/python -m pytest -q

test-zoo: .setup/zoo  ## models of timm, transformers, segmentation-models-pytorch, MONAI and vit-pytorch: some minutes
	HF_HUB_OFFLINE=1 $(ZOO)/bin/python -m pytest -q -m zoo tests/zoo

layers: .setup/dev    ## the table of docs/layers.md, from what is chosen in torchvision's models
	$(BIN)/python -m tests.parity.architectures

lint: .setup/dev    ## ruff, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: .setup/dev   ## mypy
	$(BIN)/mypy

bench: .setup/bench ## measure speed and memory against other libraries, for docs/benchmarks.md (40 minutes)
	$(BIN)/python -m benchmarks.speed

bench-leak: .setup/bench ## measure what remains in memory after 50 to 300 snapshots, for docs/leak.md
	$(BIN)/python -m benchmarks.leak

bench-attacks: .setup/bench ## measure the cost of an attack against its passes and torchattacks, for docs/attacks.md
	$(BIN)/python -m benchmarks.attacks

bench-gate: .setup/dev ## false alarms and power of the regression check, into docs/regression.md
	$(BIN)/python -m benchmarks.gate

bench-adversarial: .setup/test ## ten seeds of natural and adversarial training, into docs/adversarial.md (20 minutes)
	$(BIN)/python -m benchmarks.adversarial

clean:          ## remove what the other targets created
	rm -rf $(VENV) $(OLDEST) $(ZOO) .setup lightning_logs .mypy_cache .pytest_cache .ruff_cache .hypothesis
