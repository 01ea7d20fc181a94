#!/usr/bin/env bash
# Measures every technique on two models (`optimize table`), and writes the result into README.md between its markers:
# tools/table.sh [OPTIONS OF OPTIMIZE TABLE...]. `make table` runs it. Finished rows are kept in target/table.
#
# TABLE_OUTPUT is the folder of the result (default: target/table); with TABLE_README= (empty), README.md and docs are
# not changed. TABLE_THREADS is the number of threads of a session. With one (the default), times are CPU time, which
# other programs disturb less.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
deps=target/deps
output=${TABLE_OUTPUT:-target/table}
readme=${TABLE_README-README.md}
mkdir -p "$output"
output=$(realpath "$output")

# Prints files of the Brown corpus without their tags, one sentence on each line. The files below are of many genres.
brown() {
  local file
  for file; do
    awk 'NF > 8 { for (i = 1; i <= NF; i++) { sub(/\/[^\/]*$/, "", $i) } print }' "$deps/corpus/brown/$file" |
      sed -e "s/ \([,.;:?!]\)/\1/g" -e "s/\`\` /\"/g" -e "s/ ''/\"/g"
  done
}
brown ca01 ca02 cb01 cc01 cd01 ce01 cf01 cg01 ch01 cj01 ck01 cl01 cn01 cp01 cr01 >"$output/text.txt"

export ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$PWD/$deps/onnxruntime/libonnxruntime.so.1}
# The decoder in float32: the table compares each technique with the float32 model, and the downloaded file has 4 bits.
decoder=$output/SmolLM2-135M
if [[ ! -f $decoder/model.onnx ]]; then
  cargo bench --quiet --bench floats -- "$PWD"/$deps/models/smollm2/*.gguf "$decoder"
fi
target/release/optimize table --models $deps/models/all-MiniLM-L6-v2 "$decoder" --data "$output/text.txt" \
  --threads "${TABLE_THREADS:-1}" --output "$output" "$@"

[[ -n $readme ]] || exit 0
cp "$output/all-MiniLM-L6-v2.svg" docs/table-encoder.svg
cp "$output/SmolLM2-135M.svg" docs/table-decoder.svg
# The table in README.md lacks the last and longest column, which docs/table.md explains, and the folders of the models.
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
