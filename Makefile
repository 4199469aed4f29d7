# `make demo` and `make test` are all that a newcomer types. Both call `make setup` first, which installs what is missing.

export CARGO_TERM_COLOR ?= auto
SETUP = ./scripts/setup

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint unit cli bench simulate generate clean-demo

help:
	@echo "make demo   build, generate data, run the e-wallet example twice, say what to look at (about 8 minutes at first, then seconds)"
	@echo "make test   everything that CI checks (about 25 minutes at first, then about 3)"
	@echo "make lint   format, clippy, tidy, licences, spelling"
	@echo "make bench  the measurements in bench/ (needs Python packages; see bench/README.md)"
	@echo "make simulate  20,000 simulated runs of each kind instead of hundreds (about 8 minutes)"
	@echo "make setup  install what is missing; the others call it"

setup:
	@$(SETUP)

demo: setup
	@echo "Building (about 8 minutes on two cores the first time), then running the example (seconds)."
	cargo build --locked --package subak
	@rm -rf demo
	@$$(./scripts/target-dir)/debug/subak demo demo

test: setup lint unit
	@echo "make test: all passed"

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo xtask tidy
	./scripts/lint-extra

unit:
	cargo nextest run --locked --workspace

# Each simulated run has a seed; a failure names it.
simulate: setup
	SUBAK_SEEDS=20000 cargo nextest run --locked --profile simulate --package subak-engine simulation two_leaders

generate: setup
	cargo xtask generate

bench: setup
	cargo build --locked --release --package subak --package subak-bench
	./bench/run
