# make demo   run the shipped model on real images and show it in demo/
# make test   all tests
# make clean  remove what these two made, the environment included
#
# Both build .venv first, with .venv/bin/medmapai in it. They can be repeated and interrupted at any time.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

venv := .venv
python := $(venv)/bin/python
# Written last. Holds the folder that the environment was made for, because a moved one does not work.
stamp := $(venv)/.medmapai-installed
unfinished := $(venv)/.medmapai-unfinished

.PHONY: help demo test clean moved

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: $(stamp)
	@$(python) Testing/demo/run_demo.py

# Two processes; one thread each, so that they do not fight for the cores.
test: $(stamp)
	@OMP_NUM_THREADS=1 $(python) -m pytest -n 2 --dist loadfile

clean:
	rm -rf $(venv) demo Testing/artifacts .pytest_cache .ruff_cache MedMapAI/*.egg-info
	find MedMapAI MedMapAITraining Testing -name __pycache__ -prune -exec rm -rf {} +

ifneq ($(shell cat $(stamp) 2>/dev/null),$(CURDIR))
$(stamp): moved
endif

$(stamp): pyproject.toml constraints.txt Testing/environment.sh
	@bash Testing/environment.sh $(venv) $(unfinished)
	@printf '%s\n' "$(CURDIR)" > $@
