#!/usr/bin/env bash
# Every test, or the named steps of them: scripts/test.sh [host] [sim] [wasm] [aarch64] [windows]
#
#   host      unit and property tests, examples of the documentation, real processes on loopback and in
#             network namespaces, the browser, NumPy, the README
#   sim       20,000 simulated meshes under faults
#   wasm      the page's kernel in headless Chromium and Firefox
#   aarch64   the kernel's tests and the program as 64-bit Arm Linux, under qemu
#   windows   the program compiled for Windows
#
# A step that fails does not stop the others. Logs are in target/test-logs; the counts are added up from
# what the test runners print there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PWD/.cache/tools/bin:$PATH:$HOME/.cargo/bin

steps=("$@")
[ ${#steps[@]} != 0 ] || steps=(host sim wasm aarch64 windows)
logs=target/test-logs
mkdir -p "$logs"
rm -f "$logs"/*

passed=0
failed=0
table=()

# step NAME SECONDS COMMAND...: runs a step within a time limit and counts its tests.
step() {
    local name=$1 limit=$2 log=$logs/$1.log begin=$SECONDS status=0 ok=0 bad=0
    shift 2
    printf '\n== %s ==\n' "$name"
    timeout --kill-after=10 "$limit" "$@" </dev/null 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
    read -r ok bad < <(awk '/^test result: / {
        for (i = 1; i < NF; i++) { if ($(i + 1) == "passed;") ok += $i; if ($(i + 1) == "failed;") bad += $i }
    } END { print ok + 0, bad + 0 }' "$log")
    # A step that ended badly without a failed test did not even get that far: that is a failure too.
    if [ "$status" != 0 ] && [ "$bad" = 0 ]; then
        bad=1
        [ "$status" != 124 ] || printf 'step %s did not end within %s s\n' "$name" "$limit"
    fi
    if [ "$status" = 0 ] && [ "$ok" = 0 ]; then
        printf 'step %s ran no test\n' "$name"
        bad=1
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
    table+=("$(printf '%-10s %5d passed %4d failed %6d s' "$name" "$ok" "$bad" $((SECONDS - begin)))")
}

prepare() {
    local needs=(rust cc wasm)
    for name in "${steps[@]}"; do
        case $name in
            host) needs+=(browser firefox page netns python) ;;
            sim) ;;
            wasm) needs+=(browser firefox) ;;
            aarch64 | windows) needs+=(cross) ;;
            *)
                printf 'no such step: %s (host, sim, wasm, aarch64, windows)\n' "$name" >&2
                exit 2
                ;;
        esac
    done
    scripts/bootstrap.sh "${needs[@]}"
    make --no-print-directory build
}

begin=$SECONDS
prepare
table+=("$(printf '%-10s %32d s' build $((SECONDS - begin)))")
for name in "${steps[@]}"; do
    case $name in
        host) step host 1200 cargo test --workspace --no-fail-fast --quiet ;;
        sim) step sim 300 make --no-print-directory sim SEEDS=20000 ;;
        wasm) step wasm 900 scripts/wasm-test.sh ;;
        aarch64) step aarch64 900 scripts/cross.sh aarch64 ;;
        windows) step windows 600 scripts/cross.sh windows ;;
    esac
done

printf '\n'
printf '%s\n' "${table[@]}"
printf '%s %s\n' "$passed" "$failed" >"$logs/summary"
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
