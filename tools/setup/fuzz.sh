#!/bin/sh
# Builds every fuzz target with clang and runs each for a while. What it learns stays in build/fuzz/corpus; a crash is left as a file and fails.
# usage: tools/setup/fuzz.sh SECONDS_EACH
set -eu
cd "$(dirname "$0")/../.."
seconds=$1
tools/setup/install.sh build fuzz

echo "== building the fuzz targets"
test -f build/fuzz/build.ninja || cmake --preset fuzz --log-level=WARNING >/dev/null
cmake --build build/fuzz --target baleen_fuzzers

failed=0
for target in build/fuzz/fuzz/*_fuzz; do
  name=$(basename "$target")
  subject=${name%_fuzz}
  mkdir -p "build/fuzz/corpus/$subject"
  dictionary=$(find tests/fuzz -name "$name.dict")
  [ -n "$dictionary" ] && dictionary=-dict=$dictionary || dictionary=
  echo "== $name: $seconds seconds"
  # 64 kB is more than any file of the corpus; the size limits themselves have unit tests.
  "$target" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -verbosity=0 $dictionary -artifact_prefix="build/fuzz/$name-" \
    "build/fuzz/corpus/$subject" "tests/fuzz/corpus/$subject" 2>&1 |
    grep -E 'stat::number_of_executed_units|stat::new_units_added|ERROR|SUMMARY|check failed|Test unit written' || true
  if ls "build/fuzz/$name-"* >/dev/null 2>&1; then
    echo "$name: failing inputs: $(ls "build/fuzz/$name-"*)" >&2
    failed=1
  fi
done
[ $failed -eq 0 ] && echo "== no failing input"
exit $failed
