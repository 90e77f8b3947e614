# make demo   run the shipped model on real images and show it in demo/
# make test   all tests
# make bench  speed and memory beside MONAI and nnU-Net, in one table and bench/results.json; hours, unless
#             ARGS="--quick --case small"; ARGS=--help says what else there is
# make clean  remove what these made, the environment included
#
# All build .venv first, with .venv/bin/medmapai in it. They can be repeated and interrupted at any time.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

venv := .venv
python := $(venv)/bin/python
# Written last. Holds the folder that the environment was made for, because a moved one does not work.
stamp := $(venv)/.medmapai-installed
unfinished := $(venv)/.medmapai-unfinished
# The same for what only the benchmarks need.
bench_stamp := $(venv)/.medmapai-bench-installed

.PHONY: help demo test bench clean moved

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: $(stamp)
	@$(python) Testing/demo/run_demo.py

# Two processes; one thread each, so that they do not fight for the cores.
test: $(stamp)
	@OMP_NUM_THREADS=1 $(python) -m pytest -n 2 --dist loadfile

bench: $(bench_stamp)
	@$(python) Testing/benchmarks/inference.py $(ARGS)

clean:
	rm -rf $(venv) demo bench Testing/artifacts .pytest_cache .ruff_cache MedMapAI/*.egg-info
	find MedMapAI MedMapAITraining Testing -name __pycache__ -prune -exec rm -rf {} +

ifneq ($(shell cat $(stamp) 2>/dev/null),$(CURDIR))
$(stamp): moved
endif

$(stamp): pyproject.toml constraints.txt Testing/environment.sh
	@bash Testing/environment.sh $(venv) $(unfinished) test
	@printf '%s\n' "$(CURDIR)" > $@

$(bench_stamp): $(stamp)
	@bash Testing/environment.sh $(venv) $(unfinished) test,bench
	@touch $@
