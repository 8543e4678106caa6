#!/usr/bin/env bash
# The kernel's unsafe code under Miri, which sees every access outside a buffer and every use of memory
# that was never written: packing, the portable instances and the loops around them. For a processor without
# vector instances, so that the portable one is what runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    rustup component add miri rust-src --toolchain nightly >&2 || {
        echo "Miri is missing: rustup toolchain install nightly --component miri,rust-src" >&2
        exit 1
    }
fi

export MIRIFLAGS="-Zmiri-disable-isolation"
cargo +nightly miri test --quiet --target riscv64gc-unknown-linux-gnu --target-dir target/miri \
    -p gemmesh-kernel --lib --test gemm --test modular -- \
    every_instance fused_rounds wrong_shapes an_inner what_can_not
