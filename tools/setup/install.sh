#!/bin/sh
# Installs what is missing, and only that: Debian packages from the given lists, and the Rust toolchain when there is no cargo.
# usage: tools/setup/install.sh build [test]
set -eu
cd "$(dirname "$0")"

missing=""
for list in "$@"; do
  for package in $(grep -v '^#' "packages-$list.txt"); do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
  done
done
# The text crate needs Rust 1.87 or newer (llguidance); Debian's own rustc is older, rustc-web follows the browsers' needs.
command -v cargo >/dev/null 2>&1 || missing="$missing rustc-web cargo-web"

[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null 2>&1 || {
  echo "error: missing packages:$missing; this system has no apt-get, install their equivalents by hand" >&2
  exit 1
}
sudo=""
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 || {
    echo "error: missing packages:$missing; run as root or install sudo" >&2
    exit 1
  }
  sudo=sudo
fi
echo "== installing Debian packages:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { $sudo apt-get update -q &&
       $sudo env DEBIAN_FRONTEND=noninteractive \
         apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "error: apt-get failed, see the lines above" >&2
  exit 1
fi
echo "== installed"
