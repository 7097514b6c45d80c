#!/usr/bin/env bash
# Feeds netcore's readers of foreign bytes with libFuzzer: each target of fuzz/ for FUZZ_SECONDS (30), or only those named.
#
# What libFuzzer learns and finds stays under target/fuzz, so a later run goes on from there. A finding ends the run with
# the file that shows it.
#
# usage: fuzz.sh [TARGET…]
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-30}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')

die() { echo "fuzz: $*" >&2; exit 1; }
rustc +nightly --version >/dev/null 2>&1 || die "it wants a nightly compiler: rustup toolchain install nightly --profile minimal"
command -v c++ >/dev/null || die "libFuzzer is C++, and there is no compiler for it: install g++"

# Counters at each edge, and what comparisons compare: what cargo-fuzz asks of rustc, without having to install that.
# No address sanitizer: what is fuzzed has no unsafe code.
flags=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks --cfg fuzzing
)
# With --target, build scripts are spared. Not --locked: what netcore needs may have changed since fuzz/ had its lock file.
RUSTFLAGS="${flags[*]}" cargo +nightly build --release --manifest-path fuzz/Cargo.toml \
    --target "$triple" --target-dir "$target"

if (($# == 0)); then
    set -- $(cd fuzz/targets && printf '%s\n' *.rs | sed 's/\.rs$//')
fi
for name; do
    echo "== $name, $seconds s"
    corpus=$target/corpus/$name
    found=$target/found/$name
    mkdir -p "$corpus" "$found"
    log=$target/$name.log
    "$target/$triple/release/$name" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$found/" "$corpus" "fuzz/seeds/$name" >"$log" 2>&1 ||
        { tail -n 40 "$log"; die "$name has found something: see $found"; }
    grep -aE '^Done|cov:.*DONE' "$log" || true
done
