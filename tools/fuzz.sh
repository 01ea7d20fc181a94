#!/usr/bin/env bash
# Coverage-guided fuzzing: tools/fuzz.sh [TARGET…] builds the targets of fuzz/ with libFuzzer and AddressSanitizer, and runs
# each until OPTIMIZE_FUZZ_RUNS executions (10,000,000) or OPTIMIZE_FUZZ_SECONDS (none) are done. No nightly toolchain: the
# flags that stable Rust hides are opened with RUSTC_BOOTSTRAP. OPTIMIZE_FUZZ_SANITIZER=none is faster and sees less.
#
# Inputs that reach new code are kept in target/fuzz/corpus/TARGET, those that crash in target/fuzz/crashes/TARGET;
# fuzz/corpus/TARGET is the small corpus that is committed. Ends with a table, and with 1 if anything crashed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
host=$(rustc -vV | sed -n 's/^host: //p')
sanitizer=${OPTIMIZE_FUZZ_SANITIZER:-address}
runs=${OPTIMIZE_FUZZ_RUNS:-10000000} seconds=${OPTIMIZE_FUZZ_SECONDS:-0}
all=(onnx packed gguf safetensors checkpoint tokenizer template package manifest contract calls)
targets=("$@")
((${#targets[@]})) || targets=("${all[@]}")

flags=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg=fuzzing)
[[ $sanitizer == none ]] || flags+=("-Zsanitizer=$sanitizer")
export RUSTC_BOOTSTRAP=1 CARGO_ENCODED_RUSTFLAGS
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf '%s' "${flags[*]}")
# --target keeps the flags from build scripts.
CARGO_TARGET_DIR=$root/target/fuzz/$sanitizer cargo build --release --manifest-path fuzz/Cargo.toml --target "$host"
bin=$root/target/fuzz/$sanitizer/$host/release

work=$root/target/fuzz
export ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$root/target/deps/onnxruntime/libonnxruntime.so.1}
"$bin/seeds" "$work/seeds"
export OPTIMIZE_FUZZ_FILES=$work/seeds/files OPTIMIZE_FUZZ_PACKAGE=$work/seeds/files/package
if [[ ! -e $OPTIMIZE_FUZZ_PACKAGE ]]; then
  command=$root/target/release/optimize
  "$command" compile --model "$OPTIMIZE_FUZZ_FILES/decoder" --dynamic --output "$OPTIMIZE_FUZZ_PACKAGE" --quiet
  mkdir -p "$work/seeds/package" "$work/seeds/manifest"
  "$command" compile --model "$OPTIMIZE_FUZZ_FILES/model.onnx" --output "$work/seeds/package/model.package" --single-file --quiet
  "$command" prune --model "$OPTIMIZE_FUZZ_FILES/model.onnx" --sparsity 0.5 --packed --output "$work/model.packed" --quiet
  mkdir -p "$work/seeds/packed"
  head -c -32 "$work/model.packed" >"$work/seeds/packed/model" # the target puts the checksum there
  cp "$OPTIMIZE_FUZZ_PACKAGE/optimize.json" "$work/seeds/manifest/"
fi

status=0 table=()
for target in "${targets[@]}"; do
  mkdir -p "$work/corpus/$target" "$work/crashes/$target" "$work/seeds/$target"
  given=("$work/corpus/$target" "$work/seeds/$target")
  [[ -d fuzz/corpus/$target ]] && given+=("fuzz/corpus/$target")
  log=$work/$target.log code=0
  options=(-runs="$runs" -max_total_time="$seconds" -max_len=65536 -timeout=60 -rss_limit_mb=4096 -print_final_stats=1
    -artifact_prefix="$work/crashes/$target/" -detect_leaks=0)
  [[ -f fuzz/$target.dict ]] && options+=(-dict="fuzz/$target.dict")
  OPTIMIZE_FUZZ_TARGET=$target "$bin/fuzz" "${options[@]}" "${given[@]}" >"$log" 2>&1 || code=$?
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  coverage=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1 || true)
  table+=("$target ${executions:-?} executions, ${coverage:-cov: ?}, exit $code")
  printf '%s\n' "${table[-1]}"
  rm -rf /dev/shm/liboptimize-fuzz-* 2>/dev/null || true
  ((code == 0)) || { status=1 && grep -E 'SUMMARY|panicked|ERROR' "$log" | head -n 5 || true; }
done
printf '\n'; printf '%s\n' "${table[@]}"
exit $status
