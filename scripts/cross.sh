#!/usr/bin/env bash
# Builds for systems that this machine is not, and runs what can be run: scripts/cross.sh aarch64|windows
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The programs run for a moment or not at all, so they are compiled for a short compilation; what they
# are compiled by (procedural macros, build scripts) is shared with the other tests' development profile.
quick=(--config 'profile.dev.opt-level=0' --config 'profile.dev.debug=false'
    --config 'profile.dev.package."*".opt-level=0'
    --config 'profile.dev.package.gemmesh-kernel.opt-level=2')

# expect WHAT WANTED GOT: one test, reported as the test runners do.
expect() {
    if [ "$2" = "$3" ]; then
        printf '%s: ok\ntest result: ok. 1 passed; 0 failed;\n' "$1"
    else
        printf '%s: wanted %q, got %q\ntest result: FAILED. 0 passed; 1 failed;\n' "$1" "$2" "$3"
        failed=1
    fi
}

failed=0
case ${1-} in
    aarch64)
        target=aarch64-unknown-linux-gnu
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
        cargo test --quiet --target $target "${quick[@]}" -p gemmesh-kernel --lib --test bits || failed=1
        cargo build --quiet --target $target "${quick[@]}" -p gemmesh --bin gemmesh
        gemmesh=(qemu-aarch64 -L /usr/aarch64-linux-gnu target/$target/debug/gemmesh)
        version=$(awk -F '"' '/^version = / { print $2; exit }' Cargo.toml)
        expect "aarch64: gemmesh --version" "gemmesh $version" "$("${gemmesh[@]}" --version | cut -d " " -f 1-2)"
        dir=$(mktemp -d)
        trap 'rm -rf "$dir"' EXIT
        printf '1,2,3\n4,5,6\n' >"$dir/a.csv"
        printf '7,8\n9,10\n11,12\n' >"$dir/b.csv"
        product=$(GEMMESH_BIND=127.0.0.1 GEMMESH_DATA_DIR=$dir/data "${gemmesh[@]}" multiply "$dir/a.csv" "$dir/b.csv" || true)
        expect "aarch64: gemmesh multiply" $'58,64\n139,154' "$product"
        ;;
    windows)
        target=x86_64-pc-windows-gnu
        cargo build --quiet --target $target "${quick[@]}" -p gemmesh --bin gemmesh
        expect "windows: gemmesh.exe is a program for Windows" "MZ" "$(head -c 2 target/$target/debug/gemmesh.exe)"
        ;;
    *)
        echo "usage: scripts/cross.sh aarch64|windows" >&2
        exit 2
        ;;
esac
exit $failed
