# Every target sets up what it needs; `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
# Tests run in this many processes.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo picture reference notebooks docs test test-slow coverage test-oldest test-newest fuzz mutations check lint types layers format bench bench-full dist real clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# PyTorch first and alone: otherwise another package's range could choose its build.
.venv/ready: pyproject.toml setup.py constraints.txt lm_eval_ape.pth
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet --editable '.[dev]' -c constraints.txt
	touch .venv/ready

setup: .venv/ready ## make .venv with the package and all tools, at the versions of constraints.txt

demo: .venv/ready ## compare encoding strategies on the shipped model, offline
	$(BIN)/lm-eval-ape demo

picture: .venv/ready ## docs/images/report.png from the demo's report; needs chromium and chromedriver
	$(BIN)/python docs/report_picture.py

reference: .venv/ready ## the reference's tables of model arguments and flags, from the code
	$(BIN)/python docs/reference_pages.py

.venv/docs-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[docs]' -c constraints.txt
	touch .venv/docs-ready

notebooks: .venv/docs-ready ## run the notebooks of examples/ and keep what they print and draw
	$(BIN)/python docs/run_notebooks.py

docs: .venv/docs-ready ## build the documentation's site into site/; a link that leads nowhere is an error
	$(BIN)/mkdocs build --quiet

test: .venv/ready ## run the tests, but for those that start processes, build, or draw many numbers: six minutes
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses $(JOBS) -m "not slow"

test-slow: .venv/ready ## run those
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses $(JOBS) -m slow

coverage: .venv/ready ## run all tests and print which lines they leave out
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --cov --cov-report=term

# PyTorch of these versions comes in its CUDA build: gigabytes.
test-oldest: ## run all tests with the oldest versions that pyproject.toml admits
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --editable '.[dev]' -c constraints-oldest.txt
	HF_HUB_OFFLINE=1 .venv-oldest/bin/python -m pytest --numprocesses $(JOBS)

test-newest: ## run all tests with the newest versions of everything
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade --editable '.[dev]'
	HF_HUB_OFFLINE=1 .venv-newest/bin/python -m pytest --numprocesses $(JOBS)

fuzz: .venv/ready ## the property tests alone, fifty times as many examples, other ones each time
	HF_HUB_OFFLINE=1 HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest --numprocesses $(JOBS) -m hypothesis

mutations: .venv/ready ## try every small wrong change of the modules that make the numbers, an hour on two quiet cores
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python tests/mutations.py --jobs $(JOBS)

check: lint types layers ## ruff, mypy, import-linter and schemas, as pre-commit runs the first three

lint: .venv/ready ## ruff: rules and format; the files that a host reads, against their published schemas
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

types: .venv/ready ## mypy, on the package as it is installed
	$(BIN)/python .ci/installed.py mypy

layers: .venv/ready ## import-linter: no room imports from one above it
	$(BIN)/python .ci/installed.py lint-imports

format: .venv/ready ## let ruff mend and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready ## all benchmarks at small sizes, two minutes
	$(BIN)/python benchmarks/all.py

bench-full: .venv/ready ## the benchmarks of docs/results/performance.md, twenty minutes on two quiet cores
	$(BIN)/python benchmarks/all.py --full

.venv/dist-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --editable '.[release]' -c constraints.txt
	touch .venv/dist-ready

dist: .venv/dist-ready ## the source distribution and the wheel, into dist/, as PyPI would take them
	rm -rf dist build
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*

real: .venv/ready ## the tables of docs/results/real-model.md, hours; DATA=DIR with longbench/ and fewshot/
	$(BIN)/lm-eval-ape fetch smollm2
	$(BIN)/python benchmarks/real_model.py --data $(DATA) --output_path out/real

clean: ## remove what the targets made
	rm -rf .venv .venv-oldest .venv-newest build dist out site *.egg-info .mypy_cache .pytest_cache .ruff_cache
