# Two commands for a fresh machine: `make demo` and `make test`. Both create .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint protos bench bench-demo bench-aggregate bench-federated bench-hostile bench-gradients bench-codec bench-train-tuning bench-train bench-link bench-leakage fuzz attacks attacks-audit clean

help: ## say what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

KERNELS := hatch_build.py fedsparse/kernels/_compiled.pyx fedsparse/kernels/_wide.h

$(VENV)/.installed: pyproject.toml constraints.txt $(KERNELS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable '.[train,interchange,demo]' --group dev
	@touch $@

demo: $(VENV)/.installed ## three plants, one hub, real images: a federation end to end
	$(BIN)/fedsparse demo --settings deploy/examples/demo.toml

test: $(VENV)/.installed ## every test, the ones with real processes included
	$(BIN)/python -m pytest -n 2 -m 'not processes'
	$(BIN)/python -m pytest -m processes

test-fast: $(VENV)/.installed ## the tests that start no processes
	$(BIN)/python -m pytest -n 2 -m 'not processes'

lint: $(VENV)/.installed ## format, lint, types, import contracts, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/generate_protos.py --check

protos: $(VENV)/.installed ## regenerate fedsparse/v1 from protos/
	$(BIN)/python scripts/generate_protos.py

bench: bench-demo bench-aggregate bench-federated bench-hostile bench-gradients bench-codec bench-train-tuning bench-train bench-link bench-leakage ## every benchmark; each writes benchmarks/results/NAME.json

bench-demo: $(VENV)/.installed ## the demo's promises, and rounds of bare Flower beside it
	$(BIN)/python -m benchmarks.demo

bench-aggregate: $(VENV)/.installed ## a hundred updates of ten million values each, merged in one process
	$(BIN)/python -m benchmarks.aggregate

bench-federated: $(VENV)/.installed ## federations whose plants differ, beside seven other ways and centralised training; about three hours, goes on where it was
	$(BIN)/python -m benchmarks.federated

bench-hostile: $(VENV)/.installed ## two of ten plants hostile, in seven ways; about half an hour, goes on where it was
	$(BIN)/python -m benchmarks.hostile

bench-gradients: $(VENV)/.installed ## ways to compute gradients at a support and of depthwise kernels, side by side
	$(BIN)/python -m benchmarks.gradients
	$(BIN)/python -m benchmarks.depthwise

bench-codec: $(VENV)/.installed ## index bits, speed, and the bytes of whole rounds; about 40 minutes
	$(BIN)/python -m benchmarks.codec

bench-train-tuning: $(VENV)/.installed ## learning rates for bench-train, equally many per arm; about an hour
	$(BIN)/python -m benchmarks.train_tuning

bench-train: $(VENV)/.installed ## sparse adapters beside PEFT's LoRA, full fine-tuning and a linear probe; about an hour
	$(BIN)/python -m benchmarks.train

bench-link: $(VENV)/.installed ## the link between plants and hub beside bare Flower, and 500 plants on one hub; about eight minutes
	$(BIN)/python -m benchmarks.link

bench-leakage: $(VENV)/.installed ## what an update tells of its images, ours beside LoRA and all weights; a quarter of an hour beside other work
	$(BIN)/python -m benchmarks.leakage

fuzz: $(VENV)/.installed ## a million mutated messages against everything that decodes what strangers send
	$(BIN)/python -m benchmarks.fuzz

attacks-audit: $(VENV)/.installed ## attacks on ledger, gate and witness: altered evidence, faults, kills, smuggled data
	$(BIN)/python -m benchmarks.attacks_audit

attacks: $(VENV)/.installed ## a hundred attacks on the link between plants and hub, against real processes; a few minutes
	$(BIN)/python -m benchmarks.attacks

clean: ## remove .venv, runs and caches
	rm -rf $(VENV) runs dist .pytest_cache .mypy_cache .ruff_cache
