#!/usr/bin/env bash
# Quantizes the model of the demo, and writes the command with its output, and a description of the machine, into
# README.md between the markers `demo`. `make readme` runs it; tests/docs.rs fails if the sizes in README.md are not
# those of the current version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
model=$root/target/deps/models/paraphrase-MiniLM-L3-v2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

export ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$root/target/deps/onnxruntime/libonnxruntime.so.1}
cp "$model/model.onnx" "$work/minilm.onnx"
cp "$model/tokenizer.json" "$work/"
command='optimize quantize --model minilm.onnx --output small.onnx --benchmark'
processor=$("$root/target/release/optimize" --version --verbose | sed -n 's/^processor *//p')
(cd "$work" && "$root/target/release/"$command) >"$work/table"

# The block ends with a paragraph that describes the measurement, in place of the line `Timed on ...` of the output.
{
  printf '\n```console\n$ %s\n' "$command"
  sed -e '/^Timed on /d' "$work/table" | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'
  printf '```\n\n'
  printf 'The model is paraphrase-MiniLM-L3-v2, and the machine has %s processors (%s). Latencies are medians on\n' \
    "$(nproc)" "$processor"
  printf '1 x 128 tokens; runs of the two models alternate. The brackets hold the 95 %% bootstrap interval of the speed-up.\n'
  printf '`make demo` repeats this measurement on your machine.\n\n'
} >"$work/block"
awk -v block="$work/block" '
  /<!-- demo: end -->/ { skip = 0 }
  !skip { print }
  /<!-- demo: begin -->/ { while ((getline line < block) > 0) print line; skip = 1 }
' README.md >"$work/README.md"
cat "$work/README.md" >README.md
