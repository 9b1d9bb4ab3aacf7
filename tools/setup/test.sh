#!/bin/sh
# Builds the three presets and runs their tests with ctest. usage: tools/setup/test.sh JOBS
#   dev      everything, with AddressSanitizer and UndefinedBehaviorSanitizer, and the tidy checks
#   tsan     everything that links no uninstrumented library, with ThreadSanitizer
#   release  the tests that start the shipped binaries
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

# UCX and gRPC keep memory for the life of the process; each suppression gives its reason.
export LSAN_OPTIONS="suppressions=$PWD/tests/suppressions/lsan.txt:print_suppressions=0"
export TSAN_OPTIONS="suppressions=$PWD/tests/suppressions/tsan.txt:halt_on_error=1"
export UBSAN_OPTIONS="print_stacktrace=1"

build release baleen baleen-router baleen-worker baleen_tests
build dev baleen baleen-router baleen-worker baleen_tests
build tsan baleen_tests
failed=0
for preset in tsan dev release; do
  labels=""
  [ "$preset" != release ] || labels="-L integration"
  say "testing $preset"
  ctest --test-dir "build/$preset" --output-on-failure -j "$jobs" $labels || failed=1
done
say "done"
exit $failed
