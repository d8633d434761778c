# `make` alone lists the targets.
PYTHON ?=
MODEL := models/demo
RECORDS := data/demo/tfrecords
RUN := .venv/bin/python
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test test-intel lint benchmark clean

help:
	@echo "make demo    draw pictures, convert, train, evaluate and predict, in some minutes"
	@echo "make test    run the tests"
	@echo "make lint    check style and formatting"
	@echo "make clean   remove what the other targets made, .venv too"
	@echo "make test-intel   run the tests of Intel's build of TensorFlow, in an environment of its own"
	@echo "make benchmark    compare the speed with other suites, in half an hour or more"
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

test-intel: .venv-intel/dev
	.venv-intel/bin/python -m pytest tests/intel

benchmark: .venv/run .venv-intel/run .venv-peers/run
	$(RUN) benchmarks/throughput.py --intel .venv-intel/bin/python --pytorch .venv-peers/bin/python
	.venv-peers/bin/python benchmarks/plot.py
	$(RUN) benchmarks/startup.py
	$(RUN) benchmarks/growth.py

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

clean:
	rm -rf .venv .venv-intel .venv-peers .pytest_cache .ruff_cache .hypothesis __pycache__ tests/__pycache__ data/demo models/demo

.venv/made .venv-intel/made:
	python=$$(PYTHON="$(PYTHON)" tools/python37.sh) && "$$python" -m venv --clear $(@D)
	$(@D)/bin/python $(PIP) pip==24.0
	touch $@

.venv/run: .venv/made requirements.txt constraints.txt
	$(@D)/bin/python $(PIP) -r requirements.txt
	touch $@

.venv/dev: .venv/run requirements-dev.txt
	$(@D)/bin/python $(PIP) -r requirements-dev.txt
	touch $@

.venv-intel/run: .venv-intel/made requirements-cpu.txt constraints.txt
	$(@D)/bin/python $(PIP) -r requirements-cpu.txt
	touch $@

.venv-intel/dev: .venv-intel/run
	$(@D)/bin/python $(PIP) -c constraints.txt pytest hypothesis
	touch $@

.venv-peers/run: requirements-benchmark.txt
	python3 -m venv --clear .venv-peers
	$(@D)/bin/python $(PIP) -r requirements-benchmark.txt
	touch $@
