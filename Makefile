# Every command that a developer or CI runs. What it makes stands in .venv/.

PYTHON ?= python3
VENVS := $(CURDIR)/.venv
DEMO := $(VENVS)/demo/bin/python
TEST := $(VENVS)/test/bin/python
# Models for the demo and the tests stand here, not in the user's home.
MODELS := $(VENVS)/home
found = $(shell find "$(MODELS)/models" -iname '$(1)*.gguf' | head -n 1)
WITH_MODELS = LMSTUDIO_TEST_MODEL="$(call found,smollm2-135m-instruct)" \
    LMSTUDIO_TEST_EMBEDDING_MODEL="$(call found,all-minilm-l6-v2)"
# More arguments: `make test ARGS="-k chat"` (then without interop), `make bench ARGS=-h`.
ARGS ?=
# What needs no model runs in several processes (how many, tests/conftest.py says); a part
# of it in one, which starts sooner. A process without tests takes some of another's. The
# model has the cores for itself.
SPREAD = $(if $(ARGS),,-n auto --dist worksteal)
# Python's development mode (-X dev), and warnings as errors (-W error) from the first import
# on; as variables, since pytest-xdist hands no flags to its processes. `DEV=` is without.
DEV = LMSTUDIO_TEST_DEV=1 PYTHONDEVMODE=1 PYTHONWARNINGS=error
# Of that mode the quick tests leave out the checks of memory that extensions in C use: a
# fifth of their time. The others have them.
QUICK = $(if $(DEV),PYTHONMALLOC=default)
# The tests are compiled once and not by each of those processes; hundreds of programs that
# they start load the same files. `make clean` removes them.
unexport PYTHONDONTWRITEBYTECODE
# Nor is a test to pass only because somebody's programs never wait with their output.
unexport PYTHONUNBUFFERED

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DELETE_ON_ERROR:
.PHONY: demo test live slow check lint format types pyright unit wheel interop bench resilience load docs clean help
.PHONY: coverage soak model FORCE

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

demo: .venv/demo.made  ## talk to a small model on this machine; nothing else is needed
	@LMSTUDIO_HOME="$(MODELS)" "$(DEMO)" docs/examples/demo.py $(ARGS)

test: .venv/test.made model  ## all tests, with the real model and the official clients
ifeq ($(ARGS),)
	@$(MAKE) --no-print-directory unit slow live interop
else
	@echo "== Running the tests"
	@$(DEV) $(WITH_MODELS) "$(TEST)" -m pytest --ignore=tests/interop $(ARGS)
endif

live: .venv/test.made model  ## the embedded server with the real model
	@echo "== Running the tests with the real model"
	@$(DEV) $(WITH_MODELS) "$(TEST)" -m pytest -m live --ignore=tests/interop $(ARGS)

interop: .venv/test.made model  ## the official clients against the embedded server
	@echo "== Running the official clients against the embedded server"
	@$(WITH_MODELS) "$(TEST)" -m pytest tests/interop $(ARGS)

check: lint types unit slow wheel  ## what needs no model, in the order that fails fastest

lint: .venv/test.made  ## style and layout of the code
	@echo "== Checking the style"
	@"$(TEST)" -m ruff check .
	@"$(TEST)" -m ruff format --check .

format: .venv/test.made  ## lay out the code as lint wants it
	@"$(TEST)" -m ruff check --fix .
	@"$(TEST)" -m ruff format .

types: .venv/test.made  ## the package, and the public API as its users write it
	@echo "== Checking the types"
	@"$(TEST)" -m mypy --strict lmstudio $(wildcard tests/typing)

pyright: .venv/test.made  ## the public API again, as another type checker sees it
	@test -x .venv/pyright/bin/pyright \
	    || { "$(TEST)" -m venv .venv/pyright \
	    && .venv/pyright/bin/python -m pip install -qq pyright; }
	@.venv/pyright/bin/pyright --pythonpath "$(TEST)" -p tests/typing

unit: .venv/test.made  ## the tests that need no model and take no time
	@echo "== Running the tests that need no model and take no time"
	@$(DEV) $(QUICK) "$(TEST)" -m pytest -m "not slow and not live and not interop" \
	    --ignore=tests/interop $(SPREAD) $(ARGS)

slow: .venv/test.made  ## those that take up to some seconds each, and start programs
	@echo "== Running the slow tests, which need no model either"
	@$(DEV) "$(TEST)" -m pytest -m "slow and not live and not interop" \
	    --ignore=tests/interop $(SPREAD) $(ARGS)

wheel: .venv/test.made  ## build the wheel, install it into an empty environment, import it
	@echo "== Building the wheel"
	@rm -rf build .venv/dist .venv/wheel
	@"$(TEST)" -m build --wheel --outdir .venv/dist . > .venv/build.log 2>&1 \
	    || { cat .venv/build.log; exit 1; }
	@echo "== Installing it into an empty environment"
	@"$(TEST)" -m venv .venv/wheel
	@.venv/wheel/bin/python -m pip install -qq .venv/dist/*.whl
	@cd .venv && wheel/bin/python "$(CURDIR)/tests/installed.py"

bench: .venv/test.made model  ## speed and overhead, next to the engine and the official SDK
	@$(WITH_MODELS) "$(TEST)" tests/bench $(ARGS)

resilience: .venv/test.made  ## what the client does when things go wrong, test by test
	@"$(TEST)" tests/bench/resilience.py $(ARGS)

load: .venv/test.made model  ## 32 clients that stream at once, next to llama.cpp's server
	@$(WITH_MODELS) "$(TEST)" tests/bench/load.py $(ARGS)

soak: .venv/test.made  ## thousands of predictions and clients: nothing may grow
	@"$(TEST)" tests/soak.py $(ARGS)

coverage: .venv/test.made  ## what the tests of each module alone reach of it
	@"$(TEST)" tests/coverage_by_module.py $(ARGS)

docs: .venv/test.made  ## the reference, as web pages: .venv/docs/index.html
	@"$(TEST)" docs/make_reference.py .venv/docs

clean:  ## remove everything that make made
	rm -rf .venv build dist *.egg-info .coverage .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

model: .venv/test.made
	@echo "== Fetching the starter models into .venv/home, unless they are there"
	@LMSTUDIO_HOME="$(MODELS)" "$(TEST)" -m lmstudio.cli.main get smollm2-135m-instruct
	@LMSTUDIO_HOME="$(MODELS)" "$(TEST)" -m lmstudio.cli.main get all-minilm-l6-v2

# Environments are made once, and again when what they are made from changes.

.venv/demo.made: EXTRA = server
.venv/test.made: EXTRA = dev
.venv/%.made: setup.cfg setup.py pyproject.toml lmstudio/_version.py .venv/python
	@echo "== Making the environment .venv/$* with .[$(EXTRA)]: a minute or two"
	@rm -rf ".venv/$*"
	@"$(PYTHON)" -m venv ".venv/$*" || { \
	    echo "$(PYTHON) can't make environments."; \
	    echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@".venv/$*/bin/python" -m pip install -qq --editable ".[$(EXTRA)]"
	@touch $@

# Holds the interpreter, and changes only when that does.
.venv/python: FORCE
	@mkdir -p .venv
	@"$(PYTHON)" -c 'import sys; print(sys.executable, sys.version); \
	    sys.exit(sys.version_info < (3, 10))' > $@.new || { rm -f $@.new; \
	    echo "Python 3.10 or newer is needed. Where python3 is older or missing:"; \
	    echo "  make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

FORCE:
