#!/usr/bin/env bash
# Sees to it that this machine has what the project's commands need.
#
#   scripts/bootstrap.sh NEED...
#
# Needs: rust cc wasm browser firefox node page netns python flint others cross nostd deny
# What is there is only looked at, so a second run takes a moment. Cargo's tools go to .cache/tools in
# the checkout, so that no program of the person's is replaced; system packages come from apt-get when
# this is Debian and we are root. Otherwise it says what is missing and how to get it, and fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=$PWD/.cache/tools
python=target/python
export PATH=$tools/bin:$PATH:$HOME/.cargo/bin

wasm_pack_version=0.15.1
cargo_deny_version=0.20.2
geckodriver_version=0.37.1
flint_version=0.9.0

say() { printf 'setup: %s\n' "$*" >&2; }

# fail WHAT FIX: WHAT is missing, FIX gets it.
fail() {
    printf 'setup: %s\n       %s\n' "$1" "$2" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# packages WHY PACKAGE...: Debian packages, in one go.
packages() {
    local why=$1
    shift
    if ! has apt-get || [ ! -e /etc/debian_version ]; then
        fail "$why" "Install it with this system's package manager (on Debian: apt-get install $*)."
    fi
    if [ "$(id -u)" != 0 ]; then
        fail "$why" "Run: sudo apt-get install $*"
    fi
    say "installing $* ($why)"
    mkdir -p target
    local log=target/apt.log
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } \
        >"$log" 2>&1 </dev/null; then
        tail -n 5 "$log" >&2
        fail "$why" "apt-get could not install $*: see $log."
    fi
}

# target TRIPLE: the standard library of a compilation target, for the pinned toolchain.
target() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ] && return
    has rustup || fail "Rust's $1 target is missing and rustup is not installed." \
        "Install Rust with rustup (https://rustup.rs); it adds the target by itself next time."
    say "adding Rust's $1 target"
    rustup target add "$1" >&2 || fail "Rust's $1 target could not be added." \
        "Check the connection and run: rustup target add $1"
}

# cargo_tool PACKAGE PROGRAM VERSION: a program of exactly that version, built here if need be. It is
# run for moments only, so it is compiled for a short compilation.
cargo_tool() {
    local package=$1 program=$2 version=$3
    case " $("$program" --version 2>/dev/null | tr '\n' ' ' || true) " in
        *" $version "*) return ;;
    esac
    say "building $package $version (once, some minutes)"
    mkdir -p target
    local log=target/setup-$package.log
    # The versions its authors locked come first; where one of them can not be had (withdrawn, or not on
    # this network's mirror yet), Cargo chooses the dependencies.
    install_tool "$package" "$version" --locked >"$log" 2>&1 ||
        install_tool "$package" "$version" >>"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        fail "$package $version could not be built." \
            "Check the connection and run: cargo install $package --version $version --locked"
    }
}

install_tool() {
    local package=$1 version=$2
    shift 2
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=false \
        cargo install "$package" --version "$version" "$@" --quiet \
        --root "$tools" --target-dir .cache/build
}

# locked PACKAGE: its version in Cargo.lock.
locked() {
    awk -v name="name = \"$1\"" '$0 == name { getline; gsub(/[^0-9.]/, ""); print; exit }' Cargo.lock
}

need_rust() {
    has cargo && has rustc || fail "Rust is missing." \
        "Install it with rustup (https://rustup.rs), open a new shell, and try again."
}

need_cc() {
    has cc && has make || packages "a C compiler is missing (SQLite is compiled in)" build-essential
}

need_wasm() {
    need_rust
    need_cc
    target wasm32-unknown-unknown
    # wasm-bindgen's program and library must be of one version, and wasm-pack takes the one on PATH.
    cargo_tool wasm-bindgen-cli wasm-bindgen "$(locked wasm-bindgen)"
    cargo_tool wasm-pack wasm-pack "$wasm_pack_version"
    rm -rf .cache/build
}

need_browser() {
    has chromium && has chromedriver && has certutil ||
        packages "Chromium, its driver, or certutil is missing" chromium chromium-driver libnss3-tools
}

need_firefox() {
    need_rust
    has firefox-esr || has firefox || packages "Firefox is missing" firefox-esr
    cargo_tool geckodriver geckodriver "$geckodriver_version"
    rm -rf .cache/build
}

# For the tests of what the page computes, and for the benchmark in the browser, which fetches the libraries
# to compare with and serves the page.
need_node() {
    has node && has npm || packages "Node.js or npm is missing (the tests of the page and one benchmark need them)" nodejs npm
}

# What checks the page's modules and its accessibility, of exactly the versions of the lock file.
need_page() {
    need_node
    local page=tests/page stamp=tests/page/node_modules/.gemmesh-lock
    cmp -s "$page/package-lock.json" "$stamp" && return
    say "installing what checks the page into $page/node_modules"
    npm ci --prefix "$page" --no-audit --no-fund --ignore-scripts --loglevel error >&2 ||
        fail "What checks the page could not be installed into $page." "Check the connection and try again."
    cp "$page/package-lock.json" "$stamp"
}

need_netns() {
    has ip && has nft || packages "ip or nft is missing" iproute2 nftables
}

need_python() {
    [ -x "$python/bin/python" ] && "$python/bin/python" -c 'import numpy' 2>/dev/null && return
    if ! has python3 || ! python3 -c 'import ensurepip' 2>/dev/null; then
        packages "Python is missing (the tests compare with NumPy)" python3 python3-venv
    fi
    say "installing NumPy into $python"
    rm -rf "$python"
    python3 -m venv "$python" >&2
    "$python/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: numpy >&2 ||
        fail "NumPy could not be installed into $python." "Check the connection and try again."
}

need_flint() {
    need_python
    "$python/bin/python" -c 'import flint' 2>/dev/null && return
    say "installing FLINT into $python"
    "$python/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        "python-flint==$flint_version" >&2 ||
        fail "python-flint could not be installed into $python." "Check the connection and try again."
}

# For one benchmark only: what gemmesh is compared with.
need_others() {
    local others=target/others
    [ -x "$others/bin/python" ] && "$others/bin/python" -c 'import dask, distributed, ray' 2>/dev/null && return
    need_python
    say "installing Ray and Dask into $others (once, some 100 MB)"
    rm -rf "$others"
    python3 -m venv "$others" >&2
    "$others/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        numpy ray dask distributed >&2 ||
        fail "Ray and Dask could not be installed into $others." "Check the connection and try again."
}

need_cross() {
    need_rust
    local missing=()
    has aarch64-linux-gnu-gcc && [ -e /usr/aarch64-linux-gnu/lib/libc.so.6 ] ||
        missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
    has qemu-aarch64 || missing+=(qemu-user)
    has x86_64-w64-mingw32-gcc || missing+=(gcc-mingw-w64-x86-64)
    [ ${#missing[@]} = 0 ] || packages "compilers for other systems are missing" "${missing[@]}"
    target aarch64-unknown-linux-gnu
    target x86_64-pc-windows-gnu
}

need_nostd() {
    need_rust
    target thumbv7em-none-eabihf
    target wasm32-unknown-unknown
}

need_deny() {
    need_rust
    need_cc
    cargo_tool cargo-deny cargo-deny "$cargo_deny_version"
    rm -rf .cache/build
}

for need in "$@"; do
    case $need in
        rust | cc | wasm | browser | firefox | node | page | netns | python | flint | others | cross | nostd | deny) "need_$need" ;;
        *) fail "no such need: $need" "One of: rust cc wasm browser firefox node page netns python flint others cross nostd deny." ;;
    esac
done
