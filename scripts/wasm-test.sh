#!/usr/bin/env bash
# The page's kernel and worker in headless Chromium and Firefox, once for each of the two builds that the
# page has. A browser that has no relaxed SIMD, says the page's own probe, runs only the other build.
# wasm-worker/webdriver.json keeps both to this machine: Firefox has a proxy for every other address, on a
# port where nobody listens, because some of what it fetches by itself no setting turns off.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=target/wasm-test.log
mkdir -p target

# build FEATURES BROWSER: the tests of one build in one browser.
build() {
    printf '\nwasm with %s in %s\n' "$1" "$2"
    RUSTFLAGS="-C target-feature=$1" wasm-pack test --headless "--$2" wasm-worker -- --nocapture 2>&1 | tee "$log"
}

status=0
for browser in chrome firefox; do
    build +simd128 "$browser" || status=1
    if grep -q 'the page takes: relaxed' "$log"; then
        build +simd128,+relaxed-simd "$browser" || status=1
    elif grep -q 'the page takes: simd' "$log"; then
        printf '\nskipped: wasm with relaxed SIMD in %s, which has none: %s\n' "$browser" \
            "its WebAssembly.validate refuses f64x2.relaxed_madd"
    else
        printf '\n%s did not say which build it takes\n' "$browser"
        status=1
    fi
done
exit $status
