#!/usr/bin/env bash
# What needs an NVIDIA device: engines built for it and read on it. `make test-gpu`; see docs/tensorrt.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v nvidia-smi >/dev/null && nvidia-smi -L | grep -q GPU || {
  echo 'There is no NVIDIA device here (nvidia-smi lists none).' >&2
  exit 1
}
export OPTIMIZE_TENSORRT_PATH=${OPTIMIZE_TENSORRT_PATH:-$PWD/target/deps/tensorrt-rtx}
scratch=$(mktemp -d target/tests/gpu.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
for model in paraphrase-MiniLM-L3-v2 all-MiniLM-L6-v2; do
  for precision in fp32 fp16 bf16; do
    engine=$scratch/$model-$precision.engine
    target/release/optimize tensorrt --model "target/deps/models/$model" --precision "$precision" \
      --dimensions batch=1:8:32,sequence=1:64:128 --output "$engine"
    # Read by the library, on the device.
    target/release/optimize tensorrt --check "$engine" --model "target/deps/models/$model" --trust -q
    echo "ok - $model $precision"
  done
done
cargo nextest run --release -E 'binary(tensorrt)'
