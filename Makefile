# Everything one does with this repository. `make` lists it; `make demo` and `make test` need no preparation.
#
# Not here: what a goal does step by step, where that is more than a few lines (scripts/).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

# Where rustup puts cargo, for shells that haven't read its profile.
export PATH := $(PATH):$(HOME)/.cargo/bin
export CARGO_TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))

BIN := $(CARGO_TARGET_DIR)/bin
PREFIX ?= /usr/local

.PHONY: help demo test fuzz setup setup-bench build install bench bench-core fmt lint deny clean

help: ## list the goals
	@echo "usage: make GOAL"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 15

demo: setup build ## publish a real web server and fetch from it; touches nothing, takes seconds
	@scripts/demo.sh $(BIN)

test: setup build ## run all tests; those in network namespaces need root or sudo
	@scripts/test.sh

fuzz: ## feed the readers of foreign bytes with libFuzzer, 30 s each (FUZZ_SECONDS); needs nightly Rust and g++
	@scripts/fuzz.sh

setup: ## install what is missing of Debian's packages (root or sudo)
	@scripts/setup.sh

setup-bench: ## install, besides, the proxies and name servers that the benchmarks compare with
	@scripts/setup.sh bench

build: ## build portmap and netproxy into target/bin
	cargo build --release -p portmap
	cargo rustc --profile netproxy -p netproxy --bin netproxy -- -C target-feature=+crt-static
	@install -D -t $(BIN) $(CARGO_TARGET_DIR)/release/portmap $(CARGO_TARGET_DIR)/netproxy/netproxy
	@echo "built $(BIN)/portmap and $(BIN)/netproxy"

install: ## copy them to PREFIX/bin (PREFIX=/usr/local, DESTDIR for packages); build first
	install -D -t $(DESTDIR)$(PREFIX)/bin $(BIN)/portmap $(BIN)/netproxy

bench: setup-bench build ## measure beside other proxies and no proxy; 20 minutes, BENCH=--quick takes 3
	cargo run --release -p bench -- --bin-dir $(BIN) $(BENCH)

bench-core: setup-bench build ## measure sandboxes, networks, names and the daemon; minutes, BENCH=--quick takes one
	cargo run --release -p bench -- core --bin-dir $(BIN) $(BENCH)

fmt: ## format all code
	cargo fmt --all

lint: ## formatting, clippy and documentation, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

deny: ## check licences, bans and sources of the dependencies; builds cargo-deny if it is missing
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo builds it, which takes minutes"; cargo install --locked cargo-deny; }
	cargo deny --workspace check licenses bans sources

clean: ## remove everything that was built
	cargo clean
