#!/usr/bin/env bash
# Runs every fuzz target of a build by the preset "fuzz", one after the other.
#
#   tests/fuzz/run.sh BUILD_DIR [SECONDS]      seconds for each target: 600
#
# What is found worth keeping gathers in BUILD_DIR/fuzz/NAME, crashes in
# BUILD_DIR/fuzz/NAME-*. A file may take at most 512 MiB in one allocation and
# 2 GiB in all, and ten seconds.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(realpath "$1")
seconds=${2:-600}
for list in "$build"/fuzz/*.seeds; do
  name=$(basename "$list" .seeds)
  corpus="$build/fuzz/$name"
  mkdir -p "$corpus"
  while read -r seed; do
    find "$seed" -type f | while read -r file; do
      cp "$file" "$corpus/$(sha256sum < "$file" | cut -c1-40)"
    done
  done < "$list"
  echo "fuzz_$name for $seconds s"
  "$build/tests/fuzz/fuzz_$name" "$corpus" -max_total_time="$seconds" \
    -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=512 -max_len=65536 \
    -artifact_prefix="$build/fuzz/$name-" -print_final_stats=1 -print_funcs=0 -verbosity=0
done
