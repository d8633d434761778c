# `make` alone lists the targets.
# TensorFlow 1.15, or 2.15 for machines that 1.15 does not serve.
TF := 1.15
PYTHON ?=
# Of the slow tests: 0/2 and 1/2 are the halves of `test-all`, for two that run at once.
SHARE ?=
VENV_1.15 := .venv
VENV_2.15 := .venv-tf2
PYTHON_1.15 := 3.7
PYTHON_2.15 := 3.11
VENV := $(or $(VENV_$(TF)),$(error TF=$(TF): must be 1.15 or 2.15))
MODEL := models/demo
RECORDS := data/demo/tfrecords
# TensorFlow 2.15 for GPUs is a build of its own.
GPU_VENV := $(if $(filter 2.15,$(TF)),.venv-tf2-gpu,$(VENV))
RUN := $(VENV)/bin/python
# With its progress where a person watches, which make knows since 4.1.
PIP := -m pip install --disable-pip-version-check $(if $(MAKE_TERMOUT),,--quiet)

.PHONY: help demo test test-all coverage test-faults test-intel test-gpu test-both test-install lint benchmark clean

help:
	@echo "make demo         draw pictures, convert, train, evaluate and predict, in some minutes"
	@echo "make test         run the quick tests, in some minutes"
	@echo "make test-all     run all tests, in half an hour or less"
	@echo "make coverage     the same, and list the lines that no test runs"
	@echo "make lint         check style, formatting, docstrings and types"
	@echo "make test-intel   run the tests of Intel's build of TensorFlow, in an environment of its own"
	@echo "make test-gpu     run the tests that need a GPU: its answers, steps and memory, in ten minutes or so"
	@echo "make test-faults  kill, damage and fuzz, in large numbers: an hour"
	@echo "make test-both    train with one TensorFlow and go on with the other, 1.15 and 2.15"
	@echo "make test-install follow each install line of README.md in a fresh environment, in some minutes"
	@echo "make benchmark    compare the speed with other suites, in an hour or less"
	@echo "make clean        remove what the other targets made, .venv too"
	@echo
	@echo "Each is complete from a fresh clone: it makes .venv with a Python 3.7 and TensorFlow 1.15."
	@echo "TF=2.15 behind demo, test, test-all or lint makes .venv-tf2, and behind test-gpu .venv-tf2-gpu, with a Python 3.11 and TensorFlow 2.15 instead."
	@echo "PYTHON=/path/to/python names one that is not found by itself."

demo: $(VENV)/run
	$(RUN) data/draw_demo.py --output data/demo
	$(RUN) FlowIO.py --dataset data/demo/dataset --output $(RECORDS) --image_size 32
	$(RUN) train.py --data $(RECORDS) --output $(MODEL) --layers 50 --mini --step 240 --save_num 120
	$(RUN) evaluate.py --model $(MODEL) --data $(RECORDS)
	$(RUN) predict.py data/demo/new_pictures/banana.jpg --model $(MODEL)
	@echo
	@echo "That was a picture it had never seen: data/demo/new_pictures/banana.jpg"
	@echo "Report:      $(MODEL)/evaluation/report.html (open it in a browser)"
	@echo "TensorBoard: $(VENV)/bin/tensorboard --logdir models"
	@echo "Your own:    put pictures into data/dataset/<class>/ and go on with README.md, or README.zh-CN.md"

test: $(VENV)/dev
	$(RUN) -m pytest -m "not slow"

test-all: $(VENV)/dev
	$(RUN) -m pytest $(if $(SHARE),--share $(SHARE))

coverage: .venv/dev
	.venv/bin/python -m pytest --cov="$(CURDIR)" --cov-config=pyproject.toml

test-faults: $(VENV)/dev
	$(RUN) -m pytest tests/faults
	$(RUN) tests/faults/kills.py
	$(RUN) tests/faults/damage.py
	$(RUN) tests/faults/fuzz.py
	$(RUN) tests/faults/fuzz_serving.py
	$(RUN) tests/faults/largest.py

test-intel: .venv-intel/dev
	.venv-intel/bin/python -m pytest tests/intel

test-gpu: $(GPU_VENV)/dev
	$(GPU_VENV)/bin/python -m pytest tests/gpu

test-both: .venv/dev .venv-tf2/run
	TF2_PYTHON=.venv-tf2/bin/python .venv/bin/python -m pytest tests/both

test-install: .venv/dev
	.venv/bin/python -m pytest tests/install

benchmark: .venv/run .venv-intel/run .venv-tf2/run .venv-peers/run
	.venv/bin/python benchmarks/throughput.py --intel .venv-intel/bin/python --tf2 .venv-tf2/bin/python \
		--pytorch .venv-peers/bin/python
	.venv-peers/bin/python benchmarks/plot.py
	.venv/bin/python benchmarks/startup.py
	.venv/bin/python benchmarks/growth.py

lint: $(VENV)/dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf .venv .venv-intel .venv-node .venv-tf2 .venv-tf2-gpu .venv-peers .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage .coverage.* data/demo models/demo
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/made .venv-intel/made .venv-node/made: version := $(PYTHON_1.15)
.venv-tf2/made .venv-tf2-gpu/made .venv-peers/made: version := $(PYTHON_2.15)
.venv/made .venv-intel/made .venv-node/made .venv-tf2/made .venv-tf2-gpu/made .venv-peers/made:
	python=$$(PYTHON="$(if $(filter $(version),$(PYTHON_$(TF))),$(PYTHON))" requirements/python.sh $(version)) && "$$python" -m venv --clear $(@D)
	$(@D)/bin/python $(PIP) pip==24.0
	touch $@

.venv/run: .venv/made requirements/tf1.lock
	@echo "Installing TensorFlow 1.15 into $(@D): 430 MB to fetch, 1.5 GB on disk; some minutes, once"
	$(@D)/bin/python $(PIP) --require-hashes -r requirements/tf1.lock
	touch $@

.venv/dev: .venv/run requirements/tf1-dev.txt
	$(@D)/bin/python $(PIP) -r requirements/tf1-dev.txt
	touch $@

.venv-intel/run: .venv-intel/made requirements/intel.lock
	$(@D)/bin/python $(PIP) --require-hashes -r requirements/intel.lock
	touch $@

.venv-intel/dev: .venv-intel/run
	$(@D)/bin/python $(PIP) -c requirements/tf1-constraints.txt pytest hypothesis
	touch $@

.venv-tf2/run: .venv-tf2/made requirements/tf2.lock
	@echo "Installing TensorFlow 2.15 into $(@D): 290 MB to fetch, 1.3 GB on disk; some minutes, once"
	$(@D)/bin/python $(PIP) --require-hashes -r requirements/tf2.lock
	touch $@

.venv-tf2/dev: .venv-tf2/run requirements/tf2-dev.txt requirements/tf2-export.txt
	$(@D)/bin/python $(PIP) -r requirements/tf2-dev.txt
	touch $@

.venv-tf2-gpu/dev: .venv-tf2-gpu/made requirements/tf2-gpu.txt
	@echo "Installing TensorFlow 2.15 with CUDA into $(@D): GB to fetch; some minutes, once"
	$(@D)/bin/python $(PIP) -r requirements/tf2-gpu.txt
	$(@D)/bin/python $(PIP) -c requirements/tf2-constraints.txt pytest hypothesis
	touch $@

# Node.js, for the test of README's JavaScript.
.venv-node/run: .venv-node/made requirements/node.txt
	$(@D)/bin/python $(PIP) -r requirements/node.txt
	$(@D)/bin/npm install --silent --no-audit --no-fund --prefix $(@D) onnxruntime-node@1.16.3
	touch $@

.venv-peers/run: .venv-peers/made requirements/peers.txt
	$(@D)/bin/python $(PIP) -r requirements/peers.txt
	touch $@
