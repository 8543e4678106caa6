#!/usr/bin/env bash
# Deliberate bugs: builds the simulator with each `gemmesh_bug = "NAME"` of the protocol, and requires
# that one of its first seeds finds it. Some of them: scripts/sim-bugs.sh NAME...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seeds=5000
names=("$@")
[ ${#names[@]} != 0 ] ||
    mapfile -t names < <(grep -rhoP 'gemmesh_bug\s*=\s*"\K[^"]+' protocol/src | sort -u)
[ ${#names[@]} != 0 ] || {
    printf 'no gemmesh_bug in protocol/src\n' >&2
    exit 2
}

missed=0
for name in "${names[@]}"; do
    dir=target/sim-bugs
    RUSTFLAGS="--cfg gemmesh_bug=\"$name\"" \
        cargo build --release --quiet -p gemmesh-tests --bin sim --target-dir "$dir"
    log=$dir/$name.log
    status=0
    "$dir/release/sim" first 0 $seeds >"$log" 2>&1 || status=$?
    case $status in
        1) printf '%-28s found by %s\n' "$name" "$(tr -d '\r' <"$log" | grep -m1 -o '^seed [0-9]*')" ;;
        0)
            printf '%-28s NOT FOUND in %s seeds\n' "$name" "$seeds"
            missed=$((missed + 1))
            ;;
        *)
            printf '%-28s broke: see %s\n' "$name" "$log"
            missed=$((missed + 1))
            ;;
    esac
done
[ "$missed" = 0 ]
printf 'test result: ok. %s passed; 0 failed;\n' "${#names[@]}"
