# The commands of the project; `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.PHONY: build wasm windows demo run check test bench bench-mesh bench-page takeover bench-kernel bench-browser miri sim sim-bugs chaos verify fix clean help

# Tools that scripts/bootstrap.sh had to build come first, then the person's own.
export PATH := $(CURDIR)/.cache/tools/bin:$(PATH):$(HOME)/.cargo/bin

# One selection of packages for every release build, so that Cargo resolves features once and compiles
# each dependency once.
RELEASE := cargo build --release --quiet --bins -p gemmesh -p gemmesh-tests

WASM_SOURCES := $(shell find kernel protocol wasm-worker -name '*.rs' -o -name Cargo.toml -o -name build.sh) \
	Cargo.toml Cargo.lock rust-toolchain.toml

build: wasm ## the program, with the page inside: target/release/gemmesh
	@scripts/bootstrap.sh rust cc
	@echo "building target/release/gemmesh"
	@$(RELEASE)

wasm: target/wasm.stamp
	@[ -d www/wasm ] || { rm target/wasm.stamp; $(MAKE) --no-print-directory target/wasm.stamp; }

target/wasm.stamp: $(WASM_SOURCES)
	@scripts/bootstrap.sh wasm
	@echo "building the page's wasm kernels"
	@bash wasm-worker/build.sh
	@mkdir -p target
	@touch $@

windows: wasm ## the program for Windows: target/x86_64-pc-windows-gnu/release/gemmesh.exe
	@scripts/bootstrap.sh cross
	@cargo build --release --quiet --target x86_64-pc-windows-gnu -p gemmesh --bin gemmesh

demo: build ## three nodes on this machine share two products, and you see who computed what
	@target/release/demo

run: build ## one node for the devices of this LAN (options: make run ARGS="--port 9000")
	@target/release/gemmesh serve $(ARGS)

check: wasm ## the inner loop: format, lints, unit tests
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --quiet -- -D warnings
	@cargo test --workspace --lib --quiet

test: ## every test, real processes, networks and browsers included (some steps: make test STEPS="host wasm")
	@scripts/test.sh $(STEPS)

bench: build ## the kernel's speed next to this machine's limit, and how long three nodes take for a job
	@target/release/gemmesh bench
	@target/release/bench

bench-mesh: build ## what a mesh wins and what it sends for that (parts: make bench-mesh ARGS="pair 4096 3"; names in tests/src/bin/bench/mesh/mod.rs)
	@scripts/bootstrap.sh netns browser python $(if $(filter-out others,$(firstword $(ARGS))),,others)
	@target/release/bench mesh $(ARGS)

bench-page: build ## what a phone waits for when it opens the page, and how smoothly the page draws; needs root
	@scripts/bootstrap.sh netns browser
	@target/release/bench page

takeover: build ## what the loss of a coordinator costs (make takeover KILLS=20; one kind and size: ARGS="int 5000"; in parts: KILLS=5 ARGS="int 5000 FROM")
	@target/release/takeover $(or $(KILLS),20) $(ARGS)

bench-kernel: ## the kernel next to other libraries, in one run (parts: make bench-kernel ARGS="floats exact")
	@scripts/bootstrap.sh rust cc python flint
	@cargo run --release --quiet --locked --manifest-path kernel/peers/Cargo.toml --target-dir target/peers -- $(ARGS)

bench-browser: wasm ## the page's kernel next to other libraries, in one headless Chromium (parts: make bench-browser ARGS="f64 f32 int")
	@scripts/bootstrap.sh browser node
	@node wasm-worker/bench/run.mjs $(ARGS)

miri: ## the kernel's unsafe code, interpreted by Miri (nightly Rust; some minutes)
	@scripts/bootstrap.sh rust cc
	@scripts/miri.sh

sim: ## meshes under faults, one a seed, on all cores (make sim SEEDS=1000000 FROM=0; one, with all it says: make sim SEED=7)
	@scripts/bootstrap.sh rust cc
	@cargo build --release --quiet -p gemmesh-tests --bin sim
	@target/release/sim $(if $(SEED),seed $(SEED),$(or $(FROM),0) $(or $(SEEDS),20000))

sim-bugs: ## deliberate bugs, each of which the simulator must find
	@scripts/bootstrap.sh rust cc
	@scripts/sim-bugs.sh

chaos: build ## five real nodes under 100 real faults in network namespaces; needs root (make chaos SEED=7 FAULTS=100)
	@scripts/bootstrap.sh netns
	@target/release/chaos $(if $(SEED),--seed $(SEED)) --faults $(or $(FAULTS),100) $(ARGS)

verify: wasm ## read-only checks: format, lints, docs, no_std, licences, advisories
	@scripts/verify.sh

fix: wasm ## applies format and the lints' own suggestions
	@cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged --quiet
	@cargo fmt --all

clean: ## removes what was built, tools included
	@rm -rf target www/wasm .cache

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
