# make demo   set up, tag real audio, draw a picture        make test    set up, check, run the tests
# make lint   ruff and mypy                                  make docs    build the documentation
# make bench  measure speed, start-up, memory and size       make torture damaged, killed and hostile, the long form
# make clean  remove all that was made here

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Weights, labels and test clips beside the checkout are used where they are there.
ifneq ($(wildcard ../shared/assets),)
export AUDIOSET_ASSETS ?= $(abspath ../shared/assets)
endif

.PHONY: demo test lint docs bench torture clean

demo: $(VENV)/demo.stamp
	@$(BIN)/python examples/demo.py

test: lint docs
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/test.stamp
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html

BENCHMARKS := fft log_mel tag models networks vggish checkpoint segments features download metrics train export learn finetune search start memory size

bench: $(VENV)/bench.stamp
	@for name in $(BENCHMARKS); do $(BIN)/python benchmarks/bench_$$name.py || exit 1; done

# Writes its figures into docs/reliability.md.
torture: $(VENV)/test.stamp
	$(BIN)/python tests/torture --docs --json torture.json

# pip 25.1 is the first that installs dependency groups.
$(VENV)/pip.stamp:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@

$(VENV)/demo.stamp: $(VENV)/pip.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[plot]"
	@touch $@

$(VENV)/test.stamp: $(VENV)/pip.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group test --group docs
	@touch $@

$(VENV)/bench.stamp: $(VENV)/test.stamp
	$(BIN)/python -m pip install --quiet --group bench
	@touch $@

clean:
	rm -rf $(VENV) build dist docs/_build demo torture.json .pytest_cache .mypy_cache .ruff_cache .hypothesis
