# Each target creates .venv when it is missing and installs what it needs; nothing else has to be installed by hand.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test check train bench docs pictures clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("pathopan needs Python 3.11 or newer, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/pathopan demo --out demo-out

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff format --check pathopan tests workflows
	$(BIN)/ruff check pathopan tests workflows
	$(BIN)/snakefmt --check workflows
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/test_house.py

train: $(STAMP)
	$(BIN)/pathopan crossvalidate breast-he-3 --data ../shared/data --out runs/folds
	$(BIN)/pathopan train breast-he-3 --data ../shared/data --out runs/breast-he-3 --folds runs/folds
	$(BIN)/pathopan train breast-he-4 --data ../shared/data --out runs/breast-he-4 --start-from runs/breast-he-3/bundle
	$(BIN)/pathopan train breast-he-5 --data ../shared/data --out runs/breast-he-5 --start-from runs/breast-he-4/bundle
	$(BIN)/pathopan train breast-he-6 --data ../shared/data --out runs/breast-he-6 --start-from runs/breast-he-5/bundle
	$(BIN)/pathopan train breast-he-7 --data ../shared/data --out runs/breast-he-7 --start-from runs/breast-he-6/bundle
	$(BIN)/pathopan train breast-he-9 --data ../shared/data --out runs/breast-he-9 --start-from runs/breast-he-7/bundle
	$(BIN)/pathopan train breast-he-10 --data ../shared/data --out runs/breast-he-10 --start-from runs/breast-he-9/bundle
	$(BIN)/pathopan crossvalidate breast-he-11 --data ../shared/data --out runs/folds-11
	$(BIN)/pathopan train breast-he-11 --data ../shared/data --out runs/breast-he-11 --start-from runs/breast-he-10/bundle --folds runs/folds-11
	$(BIN)/pathopan quantise runs/breast-he-11/bundle --data ../shared/data

docs: $(STAMP)
	$(BIN)/python -m pathopan.dictionary docs/data-dictionary.md README.md

pictures: demo
	$(BIN)/python docs/make_pictures.py demo-out docs/pictures

# Time and memory on large slides, built on first use in ~/.cache/pathopan-bench or $PATHOPAN_BENCH_CACHE.
# make bench BENCH="--sides 10000 20000 40000 80000 --peers"
bench: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m bench $(BENCH)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
