# Everything here needs make and Python 3.11 or newer; all else is installed into .venv, as uv.lock has it.
# A package index of your own: set PIP_INDEX_URL (for uv itself) and UV_DEFAULT_INDEX (for the rest).

VENV := .venv
PYTHON := $(VENV)/bin/python
UV := $(VENV)/bin/uv
UV_VERSION := 0.13.8
PYTHONS := python3 python3.13 python3.12 python3.11
NEWEST_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help demo node-red fuxa test fuzz lint bench soak lock clean
.DELETE_ON_ERROR:

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.installed ## a plant, its historian and predictions, live [SECONDS=60] [ENGINES=20]
	@$(VENV)/bin/foretag demo --folder demo $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ENGINES),--engines $(ENGINES))

node-red: examples/node-red/node_modules/.installed ## the demo in Node-RED: http://127.0.0.1:1880/dashboard/engines (Node.js 20)
	@cd examples/node-red && node start.mjs

fuxa: examples/fuxa/node_modules/.installed ## the demo in FUXA: http://127.0.0.1:1881 (Node.js 20)
	@cd examples/fuxa && node start.mjs

test: $(VENV)/.installed-dev ## all tests, two files at a time [ARGS="-k name"] [WORKERS=0: one after the other]
	@$(PYTHON) -m pytest -n $(or $(WORKERS),2) --dist loadfile $(ARGS)

fuzz: $(VENV)/.installed-dev ## hostile bytes against all that reads a server's answers [SECONDS=60]
	@$(PYTHON) -m tests.fuzz.decoder --seconds $(or $(SECONDS),60)

lint: $(VENV)/.installed-dev ## style, types, the arrows between the rooms, dependencies
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/deptry .

bench: $(VENV)/.installed-dev ## all benchmarks, or one [NAME=end_to_end] [QUICK=1] [JSON=rows.json]
	@$(PYTHON) -m tests.benchmarks $(NAME) $(if $(QUICK),--quick) $(if $(JSON),--json "$(JSON)")

soak: $(VENV)/.installed-dev ## a day's trouble for acquisition in minutes [MINUTES=10] [SEED=1]
	@$(PYTHON) -m pytest -m long tests/acceptance
	@$(PYTHON) -m tests.acceptance.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

lock: $(UV) ## lock the dependencies anew, without naming a host [UPGRADE=1]
	@$(UV) lock --python $(PYTHON) $(if $(UPGRADE),--upgrade)
	@$(PYTHON) .ci/strip_lock.py uv.lock

clean: ## remove the environment, caches and the demo's folder
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV):
	@for python in $(PYTHONS); do \
	  if "$$python" -c '$(NEWEST_ENOUGH)' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "foretag needs Python 3.11 or newer with the venv module (on Debian: apt install python3-venv)." >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$found" && "$$found" -m venv $(VENV)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/.installed: uv.lock pyproject.toml | $(UV)
	@$(UV) export --quiet --python $(PYTHON) --frozen --no-emit-project --no-dev --output-file $(VENV)/requirements.txt
	@$(UV) pip install --python $(PYTHON) --require-hashes --requirements $(VENV)/requirements.txt
	@$(UV) pip install --quiet --python $(PYTHON) --no-deps --editable .
	@touch $@

examples/%/node_modules/.installed: examples/%/package-lock.json
	@cd examples/$* && npm ci --ignore-scripts && (! test -d node_modules/sqlite3 || npm rebuild sqlite3)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(UV) export --quiet --python $(PYTHON) --frozen --no-emit-project --output-file $(VENV)/requirements-dev.txt
	@$(UV) pip install --python $(PYTHON) --require-hashes --requirements $(VENV)/requirements-dev.txt
	@touch $@
