#!/usr/bin/env bash
# Runs the tests that need an NVIDIA GPU: building, loading and running engines, compared with fp32 on the CPU; sessions
# on CUDA and TensorRT; speed compared with other programs. `make test-gpu` runs it; docs/tensorrt.md lists the
# requirements. A part whose requirements are missing is skipped with a message and counted; with
# LIBOPTIMIZE_REQUIRE_ALL=1 it fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v nvidia-smi >/dev/null && nvidia-smi -L | grep -q GPU || {
  echo 'There is no NVIDIA device here (nvidia-smi lists none).' >&2
  exit 1
}
export OPTIMIZE_TENSORRT_PATH=${OPTIMIZE_TENSORRT_PATH:-$PWD/target/deps/tensorrt-rtx}
optimize=target/release/optimize models=target/deps/models
mkdir -p target/tests
scratch=$(mktemp -d target/tests/gpu.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
skipped=0
skip() {
  echo "skipped: $1"
  skipped=$((skipped + 1))
  [[ ${LIBOPTIMIZE_REQUIRE_ALL:-} != 1 ]]
}

# The minimum cosine similarity between the outputs of an engine and fp32 on the CPU, chosen from the errors that builds
# report.
declare -A least=([fp32]=0.99999 [fp16]=0.9999 [bf16]=0.995 [int8]=0.99 [fp8]=0.99)
for model in paraphrase-MiniLM-L3-v2 all-MiniLM-L6-v2; do
  for precision in fp32 fp16 bf16 int8 fp8; do
    engine=$scratch/$model-$precision.engine
    if ! "$optimize" tensorrt --model "$models/$model" --precision "$precision" \
      --dimensions batch=1:8:32,sequence=1:64:512 --output "$engine" 2>"$scratch/why"; then
      cat "$scratch/why"
      [[ $precision == int8 || $precision == fp8 ]] || exit 1
      skip "$model in $precision: the library does not build it for this device"
      continue
    fi
    "$optimize" tensorrt --check "$engine" --model "$models/$model" --trust -q
    # The engine runs on the device, and its outputs are near fp32 on the CPU. The latency includes the copies of inputs
    # and outputs.
    "$optimize" benchmark --model "$models/$model" --against "$engine" --trust-engines --runs 50 --min-cosine "${least[$precision]}"
    echo "ok - $model $precision"
  done
done

# The tests through the C interface: an engine as a session, from a package, and compared with its original.
mkdir -p "$scratch/lib" "$scratch/tmp"
ln -s "$PWD/target/release/liboptimize.so" "$scratch/lib/liboptimize.so"
ln -s "$PWD/target/release/liboptimize.so" "$scratch/lib/$(readelf -d target/release/liboptimize.so | sed -n 's/.*soname: \[\(.*\)\]/\1/p')"
cc -std=c11 -O1 -pthread -Iinclude tests/capi/test_tensorrt.c -o "$scratch/test_tensorrt" "-L$scratch/lib" -loptimize -lm
OPTIMIZE_TEST_DEVICE=1 OPTIMIZE_TEST_DEPS=$PWD/target/deps OPTIMIZE_TEST_TMP=$scratch/tmp \
  LD_LIBRARY_PATH=$scratch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$scratch/test_tensorrt"

"$optimize" providers
for provider in cuda tensorrt; do
  if ! "$optimize" providers | grep -q "^$provider  *can be used"; then
    skip "sessions on $provider: set ORT_DYLIB_PATH to the libonnxruntime of the Python package onnxruntime-gpu"
    continue
  fi
  cache=()
  [[ $provider == tensorrt ]] && cache=(--engine-cache "$scratch/cache")
  "$optimize" run --model "$models/paraphrase-MiniLM-L3-v2" --text 'A short text.' --provider "$provider" "${cache[@]}" \
    --json >"$scratch/$provider.json"
  grep -q "\"provider\":\"$provider\"" "$scratch/$provider.json"
  "$optimize" generate --model "$models"/smollm2/*.gguf --prompt 'One, two, three,' --max-new-tokens 8 --provider "$provider"
  echo "ok - sessions on $provider"
done
if "$optimize" providers | grep -q '^tensorrt  *can be used'; then
  "$optimize" tensorrt --backend onnxruntime --model "$models/paraphrase-MiniLM-L3-v2" --precision fp16 \
    --dimensions batch=1:1:8,sequence=1:64:128 --output "$scratch/m_ctx.onnx"
  "$optimize" run --model "$scratch/m_ctx.onnx" --provider tensorrt --trust-engines --shapes input_ids:1x64 \
    --shapes attention_mask:1x64 >/dev/null
  echo 'ok - a model with engines in it'
fi

cargo nextest run --release -E 'binary(tensorrt) + binary(tensorrt_low) + test(/runtime::register/)'

if python3 -c 'import torch, transformers, onnxruntime; assert torch.cuda.is_available()' 2>/dev/null; then
  (cd benches/peers && python3 tensorrt_speed.py)
else
  skip 'speed against peers: needs torch with CUDA, transformers and onnxruntime-gpu'
fi
echo "$skipped parts skipped"
