#!/bin/sh
# Builds the CUDA parts into build/cuda and runs their tests; those that need a GPU say that they were skipped where there is none.
# A CUDA Toolkit 13 with NCCL on this machine is used ($CUDACXX, PATH, or where its installer puts it); else pinned wheels are
# installed into build/cuda-toolkit, once.
# usage: tools/setup/cuda.sh JOBS
set -eu
cd "$(dirname "$0")/../.."
jobs=$1
toolkit=build/cuda-toolkit
started=$(date +%s)
say() { echo "== $(($(date +%s) - started))s: $*"; }

# The nvcc of a CUDA Toolkit 13 on this machine that has NCCL too.
installed_nvcc() {
  for nvcc in "${CUDACXX:-}" "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc; do
    [ -n "$nvcc" ] && [ -x "$nvcc" ] || continue
    "$nvcc" --version | grep -q 'release 13\.' || continue
    root=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
    for header in "$root/include/nccl.h" /usr/include/nccl.h; do
      [ ! -f "$header" ] || { echo "$nvcc"; return; }
    done
  done
}

# Wheels lack the unversioned names of libraries and a few files that CMake looks for.
complete_toolkit() {
  ln -sfn lib "$1/lib64"
  for library in "$1"/lib/lib*.so.* "$2"/lib/lib*.so.*; do
    [ -f "$library" ] || continue
    name=$(basename "$library")
    [ "${library%/lib/*}" = "$1" ] || ln -sf "../../nccl/lib/$name" "$1/lib/$name"
    ln -sf "$name" "$1/lib/${name%%.so.*}.so"
  done
  ln -sf ../../nccl/include/nccl.h "$1/include/nccl.h"
  # FindCUDAToolkit of CMake 3.25 wants it, no program does.
  [ -f "$1/lib/libnvToolsExt.a" ] || printf '!<arch>\n' >"$1/lib/libnvToolsExt.a"
}

nvcc=$(installed_nvcc)
if [ -z "$nvcc" ]; then
  [ "$(uname -m)" = x86_64 ] || {
    echo "error: the CUDA wheels are for x86-64, this is $(uname -m): install CUDA Toolkit 13 and NCCL" >&2
    exit 1
  }
  if ! cmp -s tools/setup/requirements-cuda.txt "$toolkit/installed.txt"; then
    say "installing the CUDA compiler and NCCL into $toolkit (300 MB to download)"
    tools/setup/install.sh cuda
    rm -rf "$toolkit"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-compile \
      --no-deps --only-binary=:all: --require-hashes --target "$toolkit" -r tools/setup/requirements-cuda.txt
    complete_toolkit "$toolkit/nvidia/cu13" "$toolkit/nvidia/nccl"
    cp tools/setup/requirements-cuda.txt "$toolkit/installed.txt"
  fi
  nvcc=$PWD/$toolkit/nvidia/cu13/bin/nvcc
fi

say "building with $("$nvcc" --version | sed -n 's/.*release \([0-9.]*\), V\([0-9.]*\)/CUDA \2/p')"
if ! grep -qs "^CMAKE_CUDA_COMPILER:[A-Z]*=$nvcc\$" build/cuda/CMakeCache.txt; then
  rm -rf build/cuda
  cmake --preset cuda --log-level=WARNING -DCMAKE_CUDA_COMPILER="$nvcc" >/dev/null
fi
cmake --build build/cuda -j "$jobs" --target baleen_cuda -- --quiet
say "testing"
ctest --test-dir build/cuda --output-on-failure -L cuda
say "done"
