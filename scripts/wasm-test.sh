#!/usr/bin/env bash
# The page's kernel and worker in headless Chromium, once for each of the two builds that the page has.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

status=0
for features in +simd128 +simd128,+relaxed-simd; do
    echo "wasm with $features"
    RUSTFLAGS="-C target-feature=$features" wasm-pack test --headless --chrome wasm-worker || status=1
done
exit $status
