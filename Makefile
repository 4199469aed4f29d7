# `make demo` and `make test` are all that a newcomer types. Both call `make setup` first, which installs what is missing.

export CARGO_TERM_COLOR ?= auto
SETUP = ./scripts/setup

.DEFAULT_GOAL := help
.PHONY: help setup web demo test lint unit web-test cli bench simulate generate clean-demo

help:
	@echo "make demo   build, generate data, run the e-wallet example twice, say what to look at (about 8 minutes at first, then seconds)"
	@echo "make test   everything that CI checks (about 30 minutes at first, then about 8)"
	@echo "make web    build the web app, which the next build of Subak carries"
	@echo "make lint   format, clippy, tidy, licences, spelling"
	@echo "make bench  the measurements in bench/ (needs Python packages; see bench/README.md)"
	@echo "make simulate  20,000 simulated runs of each kind instead of hundreds (about 8 minutes)"
	@echo "make setup  install what is missing; the others call it"

setup:
	@$(SETUP)

# What a build of Subak carries: without it a server answers programs, and has no pages.
web:
	@./scripts/web

demo: setup web
	@echo "Building (about 8 minutes on two cores the first time), then running the example (seconds)."
	cargo build --locked --package subak
	@rm -rf demo
	@$$(./scripts/target-dir)/debug/subak demo demo

test: setup web lint unit web-test
	@echo "make test: all passed"

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo xtask tidy
	./scripts/lint-extra

unit:
	cargo nextest run --locked --workspace

# The web app in a real browser, against the real server.
web-test: setup web
	cargo build --locked --package subak
	SUBAK_BINARY="$$(./scripts/target-dir)/debug/subak" npm --prefix web run --silent test

# Each simulated run has a seed; a failure names it.
simulate: setup web
	SUBAK_SEEDS=20000 cargo nextest run --locked --profile simulate --package subak-engine simulation two_leaders

generate: setup
	cargo xtask generate

bench: setup web
	cargo build --locked --release --package subak --package subak-bench
	./bench/run
