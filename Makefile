# `make` alone lists the targets.
PYTHON ?=
MODEL := models/demo
RECORDS := data/demo/tfrecords
RUN := .venv/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test lint clean

help:
	@echo "make demo    draw pictures, convert, train, evaluate and predict, in some minutes"
	@echo "make test    run the tests"
	@echo "make lint    check style and formatting"
	@echo "make clean   remove what the other targets made, .venv too"
	@echo
	@echo "Each is complete from a fresh clone: it makes .venv with a Python 3.7 and the packages."
	@echo "PYTHON=/path/to/python3.7 names one that is not found by itself."

demo: .venv/run
	$(RUN) data/draw_demo.py --output data/demo
	$(RUN) FlowIO.py --dataset data/demo/dataset --output $(RECORDS) --image_size 32
	$(RUN) train.py --data $(RECORDS) --output $(MODEL) --layers 50 --mini --step 240 --save_num 120
	$(RUN) evaluate.py --model $(MODEL) --data $(RECORDS)
	$(RUN) predict.py data/demo/new_pictures/banana.jpg --model $(MODEL)
	@echo
	@echo "That was a picture it had never seen: data/demo/new_pictures/banana.jpg"
	@echo "Report:      $(MODEL)/evaluation/report.html (open it in a browser)"
	@echo "TensorBoard: .venv/bin/tensorboard --logdir models"
	@echo "Your own:    put pictures into data/dataset/<class>/ and go on with README.md"

test: .venv/dev
	$(RUN) -m pytest

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis __pycache__ tests/__pycache__ data/demo models/demo

.venv/made:
	python=$$(PYTHON="$(PYTHON)" tools/python37.sh) && "$$python" -m venv --clear .venv
	$(PIP) pip==24.0
	touch $@

.venv/run: .venv/made requirements.txt constraints.txt
	$(PIP) -r requirements.txt
	touch $@

.venv/dev: .venv/run requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	touch $@
