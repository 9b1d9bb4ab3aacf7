#!/bin/sh
# Builds the three presets and runs their tests with ctest. usage: tools/setup/test.sh JOBS
#   dev      everything, with AddressSanitizer and UndefinedBehaviorSanitizer, and the tidy checks
#   tsan     everything that links no uninstrumented library, with ThreadSanitizer
#   release  what depends on how the shipped code was compiled: kernels, the forward pass, the real processes
set -eu
cd "$(dirname "$0")/../.."
jobs=$1
started=$(date +%s)
say() { echo "== $(($(date +%s) - started))s: $*"; }

build() { # preset target...
  preset=$1
  shift
  say "building $preset"
  test -f "build/$preset/build.ninja" || cmake --preset "$preset" --log-level=WARNING >/dev/null
  cmake --build "build/$preset" -j "$jobs" --target "$@" -- --quiet
}

# Every suppression gives its reason. The processes that tests start are covered too.
export LSAN_OPTIONS="suppressions=$PWD/tests/suppressions/lsan_ucx.supp:print_suppressions=0"
export UBSAN_OPTIONS="print_stacktrace=1"
export TSAN_OPTIONS="halt_on_error=1"

# The official clients that tests/clients runs; .venv may have more (make oracle).
if ! cmp -s tests/clients/requirements.txt .venv/clients.txt; then
  say "installing clients into .venv"
  python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
  cp tests/clients/requirements.txt .venv/clients.txt
fi

build release baleen baleen-router baleen-worker baleen_shipped_tests
build dev baleen baleen-router baleen-worker baleen_tests
build tsan baleen_tests
failed=0
for preset in tsan dev release; do
  labels=""
  [ "$preset" != release ] || labels="-L shipped"
  say "testing $preset"
  ctest --test-dir "build/$preset" --output-on-failure -j "$jobs" $labels || failed=1
done
say "done"
exit $failed
