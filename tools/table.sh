#!/usr/bin/env bash
# Measures every technique on two models (`optimize table`), and writes the result into README.md between its markers:
# tools/table.sh [OPTIONS OF OPTIMIZE TABLE...]. `make table` runs it. Finished rows are kept in target/table.
#
# TABLE_OUTPUT is the folder of the result; with TABLE_README= (empty), README.md is not changed. TABLE_THREADS is the
# number of threads of a session. With one (the default), times are CPU time, which other programs disturb less.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
deps=target/deps
output=${TABLE_OUTPUT:-target/table}
readme=${TABLE_README-README.md}
mkdir -p "$output"
output=$(realpath "$output")

# A text of several kinds, from the Brown corpus without its tags, one sentence a line.
brown() {
  local file
  for file; do
    awk 'NF > 8 { for (i = 1; i <= NF; i++) { sub(/\/[^\/]*$/, "", $i) } print }' "$deps/corpus/brown/$file" |
      sed -e "s/ \([,.;:?!]\)/\1/g" -e "s/\`\` /\"/g" -e "s/ ''/\"/g"
  done
}
brown ca01 ca02 cb01 cc01 cd01 ce01 cf01 cg01 ch01 cj01 ck01 cl01 cn01 cp01 cr01 >"$output/text.txt"

export ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$PWD/$deps/onnxruntime/libonnxruntime.so.1}
# The decoder as float32, which is what promises are about.
decoder=$output/SmolLM2-135M
if [[ ! -f $decoder/model.onnx ]]; then
  cargo bench --quiet --bench floats -- "$PWD"/$deps/models/smollm2/*.gguf "$decoder"
fi
target/release/optimize table --models $deps/models/all-MiniLM-L6-v2 "$decoder" --data "$output/text.txt" \
  --threads "${TABLE_THREADS:-1}" --output "$output" "$@"

[[ -n $readme ]] || exit 0
cp "$output/all-MiniLM-L6-v2.svg" docs/table-encoder.svg
cp "$output/SmolLM2-135M.svg" docs/table-decoder.svg
# The table without its longest column, which docs/table.md explains, and without the folders of the models.
awk '/^## / { print "**" substr($0, 4) "**"; next } /^\|/ { sub(/\|[^|]*\|$/, "|") } { print }' "$output/table.md" |
  sed -E -e '/^- /d' -e 's|^Original: .*/([^/]+ \()|Original: \1|' | cat -s |
  while IFS= read -r line; do
    case $line in "Original: "*) fold -s -w 120 <<<"$line" | sed 's/ $//' ;; *) printf '%s\n' "$line" ;; esac
  done >"$output/readme.md"
awk -v table="$output/readme.md" '
  /<!-- table: end -->/ { skip = 0 }
  !skip { print }
  /<!-- table: begin -->/ { print ""; while ((getline line < table) > 0) print line; skip = 1 }
' "$readme" >"$output/README.new"
cat "$output/README.new" >"$readme"
