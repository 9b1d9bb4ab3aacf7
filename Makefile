# Every command a person needs. Each says what it does while it does it; `make help` lists them.
SHELL := /bin/sh
JOBS ?= $(shell nproc)
BINARIES := baleen baleen-router baleen-worker
MODEL ?= models/nano
QUIET_NINJA := $(if $(CI),--quiet,)

.DEFAULT_GOAL := help
.PHONY: help setup run build test cuda lint format bench fuzz oracle clean

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

setup: ## install what building needs (Debian packages, Rust)
	@tools/setup/install.sh build

build: setup ## build the release binaries into build/release/bin
	@echo "== building release ($(JOBS) jobs)"
	@test -f build/release/build.ninja || cmake --preset release --log-level=WARNING
	@cmake --build build/release -j $(JOBS) --target $(BINARIES)

run: build ## start a cluster on this machine and ask it a question
	@build/release/bin/baleen demo --model $(MODEL)

test: ## build and run every test: release, dev (ASan + UBSan) and tsan
	@tools/setup/install.sh build test
	@tools/setup/test.sh $(JOBS)

cuda: ## build the CUDA parts and run their tests; needs no GPU, fetches the toolkit where there is none
	@tools/setup/install.sh build test
	@tools/setup/cuda.sh $(JOBS)

lint: ## formatting, sizes, include rules, banned calls
	@tools/setup/install.sh build test
	@python3 tests/tidy/tidy.py

format: ## rewrite the sources as clang-format and rustfmt want them
	@tools/setup/install.sh test
	@python3 tests/tidy/tidy.py --fix-format

bench: build ## kernels, KV transfer and the exchange of groups, as ratios to ceilings measured in the same run
	@tools/setup/install.sh bench || echo "== without MPI: its column stays empty"
	@cmake --preset release --log-level=WARNING >/dev/null
	@cmake --build build/release -j $(JOBS) --target baleen_benches
	@for b in build/release/bin/bench/*; do echo "== $$b"; $$b; done

fuzz: setup ## fuzz every parser of outside bytes for SECONDS_EACH (default 60) seconds
	@tools/setup/fuzz.sh $${SECONDS_EACH:-60}

oracle: build ## compare with Hugging Face transformers: goldens, fresh random models, text, smoke training
	@cmake --build build/release -j $(JOBS) --target golden_test router_text_test
	@tools/golden/oracle.sh

clean: ## delete everything that was built
	@echo "== removing build/ and .venv/"
	@rm -rf build .venv
