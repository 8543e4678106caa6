#!/usr/bin/env bash
# Read-only checks of the sources: format, lints, documentation, no_std, licences, advisories.
# Nothing outside target and .cache is written.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/bootstrap.sh rust cc nostd deny page

check() {
    local name=$1
    shift
    printf '%s ... ' "$name"
    local log=target/verify.log
    mkdir -p target
    if "$@" >"$log" 2>&1; then
        echo ok
    else
        echo FAILED
        cat "$log" >&2
        exit 1
    fi
}

check "format" cargo fmt --all --check
check "lints" cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
check "format and lints, kernel/peers" bash -c 'cargo fmt --check --manifest-path kernel/peers/Cargo.toml &&
    cargo clippy --manifest-path kernel/peers/Cargo.toml --target-dir target/peers --all-targets --locked --quiet -- -D warnings'
check "lints, wasm" cargo clippy -p gemmesh-wasm-worker --target wasm32-unknown-unknown --locked --quiet -- -D warnings
# Private items are documented too, for who works on this; so links to them are fine.
check "documentation" env RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items --locked --quiet
check "kernel without std, Cortex-M" \
    cargo build -p gemmesh-kernel --no-default-features --target thumbv7em-none-eabihf --locked --quiet
for features in "" +simd128 +simd128,+relaxed-simd; do
    check "kernel without std, wasm ${features:-without simd}" env RUSTFLAGS="${features:+-C target-feature=$features}" \
        cargo build -p gemmesh-kernel --no-default-features --target wasm32-unknown-unknown --locked --quiet
done
check "types of the page" tests/page/node_modules/.bin/tsc -p tests/page/tsconfig.json
check "types of the service worker" tests/page/node_modules/.bin/tsc -p tests/page/tsconfig.worker.json
check "lints of the page" tests/page/node_modules/.bin/eslint --config tests/page/eslint.config.mjs www/js www/sw.js
check "bytes of the page" cargo test -p gemmesh --lib --locked --quiet a_phone_loads_little -- --nocapture
grep -o "the page and one kernel.*" target/verify.log || true
check "unsafe only in the kernel" bash -c '! grep -rnE --include=*.rs "\bunsafe\b *(\{|fn|impl|extern)|allow\(unsafe_code" protocol node wasm-worker tests'
check "licences, bans, sources" cargo deny --locked check --hide-inclusion-graph licenses bans sources
# The database of advisories is a repository of its own, which not every network reaches.
if timeout 120 cargo deny --locked fetch db >target/verify.log 2>&1; then
    check "advisories" cargo deny --locked check --disable-fetch --hide-inclusion-graph advisories
else
    echo "advisories ... SKIPPED: the advisory database could not be fetched from here"
fi
