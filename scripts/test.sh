#!/usr/bin/env bash
# All tests, in two rings, and their sum at the end: pure ones, then end to end with the built programs. What netproxy
# does is tested with each of its engines.
#
# The second ring makes network namespaces: its test programs run as root, by sudo if need be, while cargo never does.
# Where root is out of reach they skip themselves, and the sum says so.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()

ring() {
    local name=$1 began=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    "$@" 2>&1 | tee -a "$log" || failed+=("$name")
    printf '== %s: %d s\n' "$name" $((SECONDS - began))
}

# The same packages each time: with others cargo would settle on other features and build again.
ring "pure tests" cargo test --workspace --lib --bins --no-fail-fast
ring "documentation's examples" cargo test --workspace --doc --no-fail-fast

export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
if ((EUID == 0)); then
    export E2E_REQUIRED=1
elif command -v sudo >/dev/null && sudo -v; then
    echo "end-to-end tests need root: running them by sudo"
    export E2E_REQUIRED=1
    triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${triple}_RUNNER=sudo --preserve-env=E2E_REQUIRED,NETPROXY_ENGINE,PORTMAP_BIN_DIR"
else
    echo "end-to-end tests need root, and there is no sudo: most will skip themselves"
fi
# First with the engine that netproxy chooses by itself, then what depends on it with the other one.
unset NETPROXY_ENGINE
ring "end to end" cargo test --workspace --test '*' --no-fail-fast
NETPROXY_ENGINE=portable ring "end to end, portable engine" \
    cargo test --workspace --test netproxy --test contract --no-fail-fast -- --skip docker_proxy

echo
grep '^SKIP ' "$log" || true
awk '/^test result:/ { passed += $4; bad += $6; ignored += $8 }
     /^SKIP / { skipped++ }
     END { printf "tests: %d passed (%d of them by skipping), %d failed, %d ignored\n", passed, skipped, bad, ignored }' "$log"
if ((${#failed[@]} > 0)); then
    (IFS=,; echo "failed: ${failed[*]}")
    exit 1
fi
