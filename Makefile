# Nothing else is needed than Python 3.11 or newer with venv, and make.
PYTHON ?= python3
PORT ?= 8000
# How many processes run tests; 0: all in one, `auto`: one for each core.
PROCESSES ?= 2
BIN := .venv/bin

.PHONY: run test check bench endurance docs release audit train lock clean

run: .venv/run.installed  ## start the development server and print what to try
	$(BIN)/authwright dev --port $(PORT)

test: .venv/test.installed  ## run the whole test suite
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/check.installed  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/test.installed .venv-peer/installed  ## measure, beside peers in the same run
	$(BIN)/python -m bench $(ARGS)

endurance: .venv/test.installed  ## kill the server and its databases under load, for an hour
	$(BIN)/python tests/endurance.py $(ARGS)

docs: .venv/docs.installed  ## write the pages that are read off the code, and the site into .site
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/site.py

release: .venv/release.installed .venv/node/installed  ## what is published, into dist: see CONTRIBUTING.md
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m hatchling build -d dist
	$(BIN)/cyclonedx-py requirements --output-reproducible --output-file dist/authwright.cdx.json requirements/run.txt
	clients/typescript/build.sh $$($(BIN)/python -m hatchling version) dist

audit: .venv/release.installed  ## whether a known vulnerability is in what a server runs
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements/run.txt

train: .venv/train.installed  ## train the sample model again and write its card
	$(BIN)/python -m authwright.ml.train

# The locks name packages and digests and nothing else; they install with pip as well.
# A week is what it takes until a version that somebody slipped in is found; for a fix of a hole take --exclude-newer-package.
COMPILE := $(BIN)/uv --no-config pip compile --quiet --upgrade --exclude-newer "7 days" --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: .venv/check.installed  ## choose versions anew
	$(COMPILE) --extra all --group build --group check --group test --output-file requirements/check.txt pyproject.toml
	$(COMPILE) --extra all --group build --constraint requirements/check.txt --output-file requirements/run.txt pyproject.toml
	for set in test train docs release; do $(COMPILE) --extra all --group build --group $$set \
		--constraint requirements/check.txt --output-file requirements/$$set.txt pyproject.toml || exit 1; done
	$(COMPILE) --output-file requirements/peer.txt requirements/peer.in
	$(COMPILE) --group build --output-file requirements/products.txt pyproject.toml requirements/products.in

.venv/%.installed: requirements/%.txt pyproject.toml | .venv/bin/python
	@echo "Installing what $< names into .venv: about a minute."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Independent clients in JavaScript, for tests that are skipped without them.
.venv/node/installed: tests/node/package-lock.json | .venv/bin/python
	mkdir -p .venv/node
	cp tests/node/package.json tests/node/package-lock.json .venv/node
	cd .venv/node && npm ci --silent --no-audit --no-fund --ignore-scripts
	touch $@

# The products that we protect or stand behind, for tests that are skipped without them.
.venv/products/installed: requirements/products.txt | .venv/bin/python
	$(PYTHON) -m venv .venv/products
	.venv/products/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	.venv/products/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# The peer that is measured beside us needs versions of its own.
.venv-peer/installed: requirements/peer.txt
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	touch $@

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

clean:  ## remove what make made
	rm -rf .venv .venv-peer .site .mypy_cache .ruff_cache .import_linter_cache
