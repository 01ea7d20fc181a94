#!/usr/bin/env bash
# Coverage-guided fuzzing: tools/fuzz.sh [TARGET…] builds the targets of fuzz/ with libFuzzer and AddressSanitizer, and
# runs each for OPTIMIZE_FUZZ_RUNS executions (default: 10,000,000) or OPTIMIZE_FUZZ_SECONDS seconds (default: no
# limit). It needs no nightly toolchain: RUSTC_BOOTSTRAP enables the unstable flags of stable Rust.
#
# OPTIMIZE_FUZZ_SANITIZER=none is four times as fast and detects less. OPTIMIZE_FUZZ_COMPARES=0 omits the
# instrumentation of comparisons, for more executions. Assertions and overflow checks are always enabled.
#
# Inputs that reach new code are saved in target/fuzz/corpus/TARGET, those that crash in target/fuzz/crashes/TARGET.
# fuzz/corpus/TARGET is the small committed corpus, made with libFuzzer's option -merge=1. The script needs what `make`
# built and what `make deps` fetched. It prints a table at the end; the exit code is 1 if a target crashed, exceeded the
# time limit of an input (60 s) or the memory limit (4 GiB), or did not run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
host=$(rustc -vV | sed -n 's/^host: //p')
sanitizer=${OPTIMIZE_FUZZ_SANITIZER:-address} compares=${OPTIMIZE_FUZZ_COMPARES:-1}
runs=${OPTIMIZE_FUZZ_RUNS:-10000000} seconds=${OPTIMIZE_FUZZ_SECONDS:-0}
# The maximum length of an input in bytes per target: short inputs allow more executions.
declare -A longest=([onnx]=2048 [packed]=4096 [gguf]=12288 [safetensors]=2048 [checkpoint]=12000 [tokenizer]=2048
  [template]=1024 [package]=20480 [manifest]=4096 [contract]=512 [calls]=64)
all=(onnx packed gguf safetensors checkpoint tokenizer template package manifest contract calls)
targets=("$@")
((${#targets[@]})) || targets=("${all[@]}")

flags=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table --cfg=fuzzing)
[[ $compares == 0 ]] || flags+=(-Cllvm-args=-sanitizer-coverage-trace-compares)
[[ $sanitizer == none ]] || flags+=("-Zsanitizer=$sanitizer")
export RUSTC_BOOTSTRAP=1 CARGO_ENCODED_RUSTFLAGS
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf '%s' "${flags[*]}")
# With --target, the flags do not apply to build scripts.
CARGO_TARGET_DIR=$root/target/fuzz/$sanitizer cargo build --release --manifest-path fuzz/Cargo.toml --target "$host"
bin=$root/target/fuzz/$sanitizer/$host/release

work=$root/target/fuzz
export ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$root/target/deps/onnxruntime/libonnxruntime.so.1}
"$bin/seeds" "$work/seeds"
export OPTIMIZE_FUZZ_FILES=$work/seeds/files OPTIMIZE_FUZZ_PACKAGE=$work/seeds/files/small
command=$root/target/release/optimize files=$OPTIMIZE_FUZZ_FILES

# Writes the files of a package as the parts of an input of the target `package`.
parts_of() {
  local weights=$1/shared/weights.safetensors separator=$'\n--8<--\n' name
  for name in optimize.json manifest.json model/fp32/model.onnx model/fp32-ahead/model.onnx assets/tokenizer.json; do
    [[ -f $1/$name ]] && cat "$1/$name"
    printf '%s' "$separator"
  done
  tail -c +9 "$weights" | head -c "$(od -An -tu8 -N8 "$weights" | tr -d ' ')"
}
if [[ ! -e $OPTIMIZE_FUZZ_PACKAGE ]]; then
  mkdir -p "$work"/seeds/{package,manifest}
  "$command" compile --model "$files/decoder" --dynamic --output "$files/package" --quiet
  "$command" compile --model "$files/model.onnx" --output "$work/seeds/package/model.package" --single-file --quiet
  "$command" compile --model "$files/model.onnx" --output "$OPTIMIZE_FUZZ_PACKAGE" --quiet
  parts_of "$OPTIMIZE_FUZZ_PACKAGE" >"$work/seeds/package/parts"
  cp "$OPTIMIZE_FUZZ_PACKAGE/optimize.json" "$work/seeds/manifest/"
fi

# Temporary files are kept in memory.
[[ -d /dev/shm ]] && export TMPDIR=${TMPDIR:-/dev/shm}
status=0 table=()
for target in "${targets[@]}"; do
  mkdir -p "$work/corpus/$target" "$work/crashes/$target" "$work/seeds/$target"
  given=("$work/corpus/$target" "$work/seeds/$target")
  [[ -d fuzz/corpus/$target ]] && given+=("fuzz/corpus/$target")
  log=$work/$target.log code=0
  options=(-runs="$runs" -max_total_time="$seconds" -max_len="${longest[$target]}" -timeout=60 -rss_limit_mb=4096
    -print_final_stats=1 -artifact_prefix="$work/crashes/$target/" -detect_leaks=0 -entropic_scale_per_exec_time=1)
  [[ -f fuzz/$target.dict ]] && options+=(-dict="fuzz/$target.dict")
  "$bin/$target" "${options[@]}" "${given[@]}" >"$log" 2>&1 &
  process=$!
  wait "$process" || code=$?
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  coverage=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1 || true)
  table+=("$target ${executions:-?} executions, ${coverage:-cov: ?}, exit $code")
  printf '%s\n' "${table[-1]}"
  rm -rf "/dev/shm/liboptimize-fuzz-$process"
  ((code == 0)) || { status=1 && grep -E 'SUMMARY|panicked|ERROR' "$log" | head -n 5 || true; }
done
printf '\n'; printf '%s\n' "${table[@]}"
exit $status
