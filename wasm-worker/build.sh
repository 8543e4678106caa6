#!/bin/sh
# Builds the page's two wasm modules: www/wasm/simd for every browser with SIMD, www/wasm/relaxed
# for those with relaxed SIMD too. Needs wasm-pack and the target wasm32-unknown-unknown.
set -eu
cd "$(dirname "$0")"

# The profile strips names; wasm-bindgen still has to see which features the module uses.
keep="-C link-arg=--keep-section=target_features"
# LLVM's loop strength reduction rewrites addresses as sums that are not known not to wrap, so that they
# no longer fold into the offsets of loads: each load of the innermost loops took an addition, and a
# register. Without it the products are a tenth faster and the module is smaller.
addresses="-C llvm-args=-disable-lsr"

build() {
    # remap-path-prefix keeps paths of the machine that builds out of the module.
    RUSTFLAGS="-C target-feature=$2 --remap-path-prefix=$HOME=~ $keep $addresses" \
        wasm-pack build --profile wasm --no-opt --target web --no-typescript --no-pack --no-gitignore \
        --out-dir "../www/wasm/$1" . -- --locked
    # A phone needs no documentation of the functions.
    sed -i -e '/^ *\/\*\*.*\*\/ *$/d' -e '/^ *\/\*\*/,/\*\/ *$/d' "../www/wasm/$1/gemmesh_wasm_worker.js"
}

build simd +simd128
build relaxed +simd128,+relaxed-simd
