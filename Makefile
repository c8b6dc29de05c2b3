# Two commands set everything up on a machine with Python 3.11, make and git: `make run` and `make test`.

PYTHON ?= python3.11
PORT ?= 8000
EXTRAS ?=
LOCKS := env_setup/locks
UV_VERSION := 0.13.9

# Ray on loopback: without this it listens on all addresses (see docs/security.md).
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER := 0
export RAY_AUTH_MODE := token
export RAY_USAGE_STATS_ENABLED := 0

# With an NVIDIA GPU `make run` also prepares the environment of the f5 replicas; `F5=` prevents it, `F5=prepared`
# asks for it without a GPU. F5_ARGS are for `env_setup install`: `--attention sdpa` does without flash_attn.
F5_ARGS ?=
F5 ?= $(if $(filter f5,$(EXTRAS)),,$(if $(wildcard /dev/nvidia[0-9]*),prepared))

.PHONY: run f5-environment test test-long test-unit test-gpu chaos chaos-short lint format bench lock clean

run: .venv/.installed$(EXTRAS) $(if $(F5),f5-environment)
	.venv/bin/python -m serve_app.launcher deploy.yaml --port $(PORT)

# Files of tests side by side: most of them wait, for Ray, for a store, for speech.
WORKERS ?= 2
PYTEST = .venv-test/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 25
# Chaos by itself: beside others on two cores a Ray node it starts may not be up within the 30 s that Ray gives it.
test: .venv-test/.installed .venv/.installed$(EXTRAS)
	$(PYTEST) -m "not long" --ignore tests/e2e/test_chaos.py
	.venv-test/bin/python -m pytest tests/e2e/test_chaos.py

# What CI has no time for: whole environments installed by Ray, the image's commands, the published size of the engine.
test-long: .venv-test/.installed .venv/.installed$(EXTRAS)
	$(PYTEST) -m long

test-unit: .venv-test/.installed
	$(PYTEST) tests/unit tests/contract

# On a machine with a GPU; elsewhere everything skips with the reason.
test-gpu: .venv-test/.installed
	.venv-test/bin/python -m pytest -rP tests/gpu

# Kills everything that can be killed under load, again and again (docs/chaos.md).
CHAOS_ARGS ?= --seed 1 --jobs 10000 --replica-kills 100 --ingress-kills 50 --actor-kills 20 --controller-kills 10 \
	--node-kills 5 --cluster-kills 5 --store-kills 5 --cuts 10 --slows 10 --pauses 20 --updates 3 --full --report docs/chaos.md
chaos: .venv-test/.installed
	.venv-test/bin/python -m tests.chaos $(CHAOS_ARGS)

chaos-short: .venv-test/.installed
	.venv-test/bin/python -m pytest -s tests/e2e/test_chaos.py

lint: .venv-test/.installed
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy
	.venv-test/bin/lint-imports

format: .venv-test/.installed
	.venv-test/bin/ruff check --fix .
	.venv-test/bin/ruff format .

bench: .venv-test/.installed
	.venv-test/bin/python -m bench

# The base environment: no torch in it unless EXTRAS=f5 asks for it.
.venv/.installed$(EXTRAS): $(LOCKS)/base.lock $(LOCKS)/f5.lock pyproject.toml Makefile
	rm -rf .venv
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	.venv/bin/uv pip install --quiet --python .venv --no-deps --compile-bytecode \
		-r $(LOCKS)/base.lock $(if $(filter f5,$(EXTRAS)),-r $(LOCKS)/f5.lock)
	.venv/bin/uv pip install --quiet --python .venv --no-deps --editable .
	touch $@

# Each time: it does only what is missing, and knows better than a time stamp what that is.
f5-environment: .venv/.installed$(EXTRAS)
	.venv/bin/python -m env_setup install --environment .venv-f5 --no-weights $(F5_ARGS)

.venv-test/.installed: $(LOCKS)/base.lock $(LOCKS)/f5.lock $(LOCKS)/test.lock pyproject.toml Makefile
	rm -rf .venv-test
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	.venv-test/bin/uv pip install --quiet --python .venv-test --no-deps \
		-r $(LOCKS)/base.lock -r $(LOCKS)/f5.lock -r $(LOCKS)/test.lock
	.venv-test/bin/uv pip install --quiet --python .venv-test --no-deps --editable .
	touch $@

# Locks carry hashes and no index address. f5 is resolved against base, test against both, so that they install together.
COMPILE = .venv-test/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header
EXTRA = $(PYTHON) -c 'import sys, tomllib; \
	print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]]))'
LINUX = --python-platform x86_64-manylinux_2_28
lock:
	$(COMPILE) --universal pyproject.toml -o $(LOCKS)/base.lock
	$(EXTRA) f5 | $(COMPILE) $(LINUX) - -c $(LOCKS)/base.lock --override $(LOCKS)/f5.override -o $(LOCKS)/f5.lock
	$(EXTRA) test | $(COMPILE) $(LINUX) - -c $(LOCKS)/base.lock -c $(LOCKS)/f5.lock -o $(LOCKS)/test.lock

clean:
	rm -rf .venv .venv-f5 .venv-test build *.egg-info .ruff_cache .mypy_cache .pytest_cache .import_linter_cache
