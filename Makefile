# Tidemark's commands. `make` alone lists them. Every target does its own set-up, so that a fresh machine with
# Python 3.11 (or newer) and make needs nothing else.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
BUILD := .build
STAMP := $(VENV)/.installed
# What is compiled when this package is installed.
NATIVE := $(wildcard server/alerts/*.pyx server/alerts/*.pxd store/usage/*.pyx)
# The newest of these that is 3.11 or newer makes the virtual environment; PYTHON=/path/to/python overrides.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$name; break; }; done)
# How many processes run the tests: one more than the two processors of CI, because many tests wait for a process or a
# timer. Each takes whole files, in the order of the collection: the longest come first.
WORKERS ?= 3
SHARED := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# More arguments for pytest: make test-unit ARGS='-k periods'
ARGS ?=
# The tests that run against a second PostgreSQL, too: one with the settings of its package, where one is installed.
DATABASE_PART := accounts/test_invoice_alerts.py alerts/test_races.py balances/test_concurrent_drawdown.py \
	notifications/test_watch_order.py notifier/test_delivery.py notifier/test_delivery_queue.py notifier/test_locks.py \
	postgres/test_failures.py postgres/test_lost_connections.py postgres/test_migration_plan.py postgres/test_migrations.py \
	postgres/test_sessions.py \
	usage/test_exactly_once.py usage/test_group_limit.py usage/test_creation_during_usage.py usage/test_new_alerts.py
# How many steps of random calls, and of the story of customers' alerts, are compared with the plain model (default:
# 2,000).
STEPS ?=
# The seed of `make test-random`, and how many examples its slow tests draw.
SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
EXAMPLES ?= 100
# How many random faults `make test-faults` injects.
FAULTS ?= 200
# What builds and runs the image, its name, and more options for its build (a network, or `--secret id=pip,src=FILE`).
CONTAINER_ENGINE ?= docker
IMAGE ?= tidemark
BUILD_OPTIONS ?=
# The demo's input: a CSV of real requests instead of the made-up month.
TRACE ?=
# 1: the demo's console stays until Ctrl-C; 0: it does not. Unset: on a terminal it does.
CONSOLE ?=
# One part of the benchmark, perhaps with options: "soak MINUTES", "rules --scale 0.1 --only create" (default: ingest and
# latency). "plots" draws docs/plots/ from the results of the parts that were run.
PART ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Container images often forbid compiled files. Then each process compiles the whole service again: every worker of the
# tests when it starts, and each of the programs that the tests start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up -------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(STAMP) ## virtual environment and dependencies (does nothing when they are up to date)

$(STAMP): requirements.lock pyproject.toml setup.py clients/python/pyproject.toml proto/generate.py $(NATIVE)
	@if ! $(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "Tidemark needs Python 3.11 or newer; $(if $(PYTHON),$(PYTHON) is not,none was found on the PATH)." >&2; \
		echo "Install it, or name it: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@if [ ! -x $(BIN)/python ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "creating $(VENV) with $(PYTHON)"; rm -rf $(VENV); \
		$(PYTHON) -m venv $(VENV) || { \
			echo "$(PYTHON) cannot create a virtual environment; on Debian or Ubuntu: apt install python3-venv" >&2; \
			rm -rf $(VENV); exit 1; }; fi
	@echo "installing the dependencies of requirements.lock"
	@# Its pip first: the one that comes with Python may take twice as long for all others. The byte code of what is
	@# used is written when it is first imported; of all packages, it would take a third of the time.
	@mkdir -p $(BUILD) && awk '/^[^ #]/ { pip = /^pip==/ } pip' requirements.lock > $(BUILD)/pip.lock
	@$(BIN)/python -m pip install -qq --require-hashes -r $(BUILD)/pip.lock
	@$(BIN)/python -m pip install -qq --require-hashes --no-compile -r requirements.lock
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable clients/python --editable .
	@$(BIN)/python proto/generate.py export-google $(BUILD)/google-protos
	@touch $@

# Of clients/node. Without npm, or without a network, these say so and fail nothing: the tests that need the packages are
# skipped with the reason. npm writes NODE_STAMP when all is installed.
NODE_CLIENT := clients/node
NODE_STAMP := $(NODE_CLIENT)/node_modules/.package-lock.json

.PHONY: node
node: ## packages of clients/node, and its compiled code, where npm is installed
	@if ! command -v npm >/dev/null 2>&1; then \
		echo "npm is not installed: clients/node is not tested"; exit 0; fi; \
	if [ ! -e $(NODE_STAMP) ] || [ $(NODE_CLIENT)/package-lock.json -nt $(NODE_STAMP) ]; then \
		echo "installing the packages of clients/node"; \
		npm ci --prefix $(NODE_CLIENT) --ignore-scripts --no-audit --no-fund --fetch-retries=1 --loglevel=error || { \
			echo "they cannot be installed, so clients/node is not tested; make node tries again" >&2; exit 0; }; \
	fi; \
	npm run --prefix $(NODE_CLIENT) --silent build

.PHONY: lock
lock: $(STAMP) ## bring requirements.lock up to date with pyproject.toml (UPGRADE=1: newest versions of everything)
	@# The client is a package of this repository, which no index has: it is found here, and is not locked.
	$(BIN)/python -m pip wheel -qq --no-deps --no-build-isolation --wheel-dir $(BUILD)/wheels clients/python
	@rm -rf clients/python/build  # which mypy would check
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --extra cli --extra console --extra embedded --extra replay --extra tracing --extra dev --generate-hashes --allow-unsafe \
		--strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
		--find-links $(BUILD)/wheels --quiet $(if $(UPGRADE),--upgrade) --output-file requirements.lock pyproject.toml
	@# Of the image: the same versions, without what only development and the embedded server need.
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --extra console --extra tracing --build-deps-for wheel --generate-hashes --allow-unsafe \
		--strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
		--find-links $(BUILD)/wheels --quiet --constraint requirements.lock \
		--output-file deploy/docker/requirements.lock pyproject.toml
	@for file in requirements.lock deploy/docker/requirements.lock; do \
		awk '/^[^ #]/ { own = /^tidemark-client==/ } !own' $$file > $(BUILD)/lock && cp $(BUILD)/lock $$file; done

# --- running ------------------------------------------------------------------------------------------------

.PHONY: run
run: proto-check ## server and notifier on the embedded database
	@exec $(BIN)/tidemark up

.PHONY: demo
demo: $(STAMP) ## everything live and checked, then the console until Ctrl-C (CONSOLE=0: not); TRACE=file.csv replays real requests
	@exec $(BIN)/python -m demo $(if $(TRACE),--trace "$(TRACE)") $(if $(CONSOLE),$(if $(filter 0,$(CONSOLE)),--no-console,--console))

.PHONY: screenshots
screenshots: $(STAMP) ## docs/screenshots/: every page of the console, made in a real Chromium
	@exec $(BIN)/python -m tests.support.console.screenshots

.PHONY: migrate
migrate: $(STAMP) ## bring the database's schema up to date
	@exec $(BIN)/tidemark migrate

.PHONY: bench
bench: $(STAMP) ## ingest and latency, under 3 minutes; PART= runs one part: batches, cost, peers, sustained and others, see docs/performance.md
	@exec $(BIN)/python -m bench $(PART)

# --- checking -----------------------------------------------------------------------------------------------

# mypy keeps one processor busy: all else that comes before the long run is done beside it.
.PHONY: test
test: $(STAMP) ## everything CI runs: lint, types, contract, generated code, and all rings of tests
	@$(MAKE) --no-print-directory --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) \
		node types check $(if $(ARGS),,compiled test-postgres)
	$(BIN)/pytest $(SHARED) $(ARGS)

# The byte code of the tests, and of what they import: otherwise each process of the run compiles all of it.
.PHONY: compiled
compiled: $(STAMP)
	@$(BIN)/pytest --collect-only -qq > $(BUILD)/collected.log || { cat $(BUILD)/collected.log; exit 1; }

.PHONY: test-postgres
test-postgres: $(STAMP) $(filter compiled,$(MAKECMDGOALS)) ## what depends most on the database, on the operating system's PostgreSQL as it comes
	$(BIN)/pytest $(SHARED) --postgres system $(addprefix tests/integration/,$(DATABASE_PART)) $(ARGS)

.PHONY: check
check: lint types proto-lint proto-check proto-check-node proto-breaking docs-check ## everything of `make test` but the tests

.PHONY: test-unit test-integration test-clients test-acceptance
test-unit: $(STAMP) ## ring 1: pure logic
	$(BIN)/pytest tests/unit $(ARGS)
test-integration: $(STAMP) ## ring 2: the rooms against a real PostgreSQL
	$(BIN)/pytest tests/integration $(ARGS)
test-clients: $(STAMP) node ## the clients against real servers
	$(BIN)/pytest tests/clients $(ARGS)
test-acceptance: $(STAMP) node ## ring 3: real processes and signals
	$(BIN)/pytest tests/acceptance $(ARGS)

.PHONY: test-go
test-go: $(STAMP) ## the Go client with the race detector, where Go is installed
	TIDEMARK_TEST_RACE=1 $(BIN)/pytest tests/clients/go $(ARGS)

.PHONY: test-model
test-model: $(STAMP) ## random calls to real servers against the plain model; STEPS=100000 for longer than in CI
	TIDEMARK_TEST_STEPS=$(STEPS) $(BIN)/pytest $(SHARED) \
		tests/integration/usage/test_machine_calls.py tests/integration/usage/test_machine_streams.py \
		tests/integration/alerts/test_story_of_customers_alerts.py $(ARGS)

.PHONY: test-random
test-random: $(STAMP) ## random tests with other values each time; EXAMPLES=500 STEPS=100000 for more, SEED=7 to repeat
	TIDEMARK_TEST_STEPS=$(STEPS) TIDEMARK_TEST_EXAMPLES=$(EXAMPLES) $(BIN)/pytest $(SHARED) \
		--hypothesis-seed=$(SEED) -m hypothesis $(ARGS)

.PHONY: test-stories
test-stories: $(STAMP) ## random stories of what two ways of evaluation must agree on, of which CI takes the first ones; STORIES=200
	TIDEMARK_TEST_STORIES=$(or $(STORIES),20) $(BIN)/pytest $(SHARED) $(addprefix tests/integration/usage/, \
		test_explanations_agree.py test_quiet_puts_against_evaluations.py test_quiet_moves_against_evaluations.py \
		test_concurrent_puts.py) $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## bad requests and bytes to a real server, COUNT=200000 of them, SEED=7 to repeat; prints memory and latencies
	TIDEMARK_TEST_FUZZ=$(or $(COUNT),20000) TIDEMARK_TEST_SEED=$(SEED) $(BIN)/pytest -s tests/acceptance/test_fuzzing.py $(ARGS)

.PHONY: test-faults
test-faults: $(STAMP) ## random kills, pauses, lost connections, failovers, full disks and clock steps under load; FAULTS=20, SEED=7 to repeat
	TIDEMARK_TEST_FAULTS=$(FAULTS) TIDEMARK_TEST_SEED=$(SEED) $(BIN)/pytest tests/acceptance/test_fault_run.py $(ARGS)

.PHONY: image image-check
image: ## the image of deploy/docker; IMAGE=name:tag (default tidemark), CONTAINER_ENGINE=podman
	DOCKER_BUILDKIT=1 $(CONTAINER_ENGINE) build --file deploy/docker/Dockerfile --tag $(IMAGE) $(BUILD_OPTIONS) .
image-check: image $(STAMP) ## build the image, and run it without rights on a database: not a part of `make test`
	TIDEMARK_TEST_IMAGE=$(IMAGE) CONTAINER_ENGINE=$(CONTAINER_ENGINE) $(BIN)/pytest tests/acceptance/test_image.py $(ARGS)

.PHONY: lint
lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(STAMP) ## mypy --strict, tests included
	$(BIN)/mypy
	@# The oldest Python of the client, which is older than that of the service.
	$(BIN)/mypy --python-version 3.10 clients/python

.PHONY: format
format: $(STAMP) ## format the Python and the proto files in place
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .
	$(BIN)/buf format --write proto

# --- the contract -------------------------------------------------------------------------------------------

.PHONY: proto
proto: $(STAMP) ## regenerate the code of the service and of its clients from proto/
	$(BIN)/python proto/generate.py write
	$(BIN)/python -m proto.node_client write

.PHONY: proto-go
proto-go: $(STAMP) ## regenerate the Go client's code of the contract (needs protoc-gen-go and protoc-gen-go-grpc)
	$(BIN)/buf generate --template clients/go/buf.gen.yaml --output clients/go

.PHONY: proto-check
proto-check: $(STAMP) ## fail when generated/ is not what proto/ generates
	$(BIN)/python proto/generate.py check

.PHONY: proto-check-node
proto-check-node: $(STAMP) $(filter node,$(MAKECMDGOALS)) ## the same for the code of clients/node, where `make node` has installed its packages
	@$(BIN)/python -m proto.node_client check

.PHONY: proto-lint
proto-lint: $(STAMP) ## buf: lint and format of the contract
	$(BIN)/buf lint proto
	$(BIN)/buf format --diff --exit-code proto

.PHONY: proto-breaking
proto-breaking: $(STAMP) ## buf: does the contract break callers of the last tag? (AGAINST= another revision)
	@$(BIN)/python proto/breaking.py $(AGAINST)

.PHONY: docs
docs: proto-check ## write docs/openapi.json, docs/api.md, docs/api/ and docs/cli-reference.md from proto/ and cli/
	$(BIN)/python -m proto.documents write

.PHONY: docs-check
docs-check: proto-check ## fail when these documents are not what proto/ makes
	$(BIN)/python -m proto.documents check

.PHONY: site site-serve
site: $(STAMP) ## the documents as a site in .build/site; a broken link or an unlisted page is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "$(BUILD)/site/index.html"

site-serve: $(STAMP) ## the site on 127.0.0.1:8000, built again when a document changes
	@NO_MKDOCS_2_WARNING=1 exec $(BIN)/mkdocs serve

# --- releasing ----------------------------------------------------------------------------------------------

.PHONY: wheel
wheel: $(STAMP) ## dist/: source archives and wheels of the service and of its Python client; without a network
	$(BIN)/python -m build --no-isolation --outdir dist clients/python
	$(BIN)/python -m build --no-isolation

.PHONY: changelog
changelog: $(STAMP) ## move the fragments of changes/ into CHANGELOG.md, under the version of pyproject.toml
	$(BIN)/towncrier build --yes

.PHONY: clean
clean: ## remove the virtual environment and everything made by tools (never .tidemark, the database)
	rm -rf $(NODE_CLIENT)/dist $(NODE_CLIENT)/node_modules
	rm -rf $(VENV) $(BUILD) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find server store -name 'native_*.c' -delete -o -name 'native_*.so' -delete
