#!/usr/bin/env bash
# Compiles and runs the programs that `optimize compile --codegen` writes in four languages for a package of a real
# model, and compares their output with that of `optimize run` for the same inputs. Called by tests/run.sh, which sets
# $tmp and the loader's path.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${OPTIMIZE_TEST_TMP:?}/codegen
model=$OPTIMIZE_TEST_DEPS/models/paraphrase-MiniLM-L3-v2
lib=$root/target/lib
optimize=$root/target/release/optimize

mkdir -p "$folder"
for language in c cpp go csharp; do
  "$optimize" compile --model "$model" --output "$folder/package" --dynamic --codegen "$language" \
    --codegen-output "$folder/$language" -q
done
# The first eight values of the output "461" for inputs of ones: [1, 384] of float32.
"$optimize" run --model "$folder/package" --only 461 --shapes input_ids:1x1 --shapes attention_mask:1x1 \
  --values input_ids:1 --values attention_mask:1 | sed -n 2p | tr -s ' ' '\n' | sed '/^$/d; /\.\.\./d' >"$folder/wanted"

same() { # LANGUAGE PROGRAM…: prints the values that are wanted
  local language=$1
  shift
  "$@" | sed -n 's/^461 \[1, 384\] //p' | tr -s ' ' '\n' >"$folder/$language.out"
  diff "$folder/wanted" "$folder/$language.out" || {
    echo "the program in $language prints something else" >&2
    exit 1
  }
}

[[ $(wc -l <"$folder/wanted") -eq 8 ]]
cc -std=c11 -Wall -Wextra -Werror "-I$root/include" "$folder/c/main.c" -o "$folder/c/main" "-L$lib" -loptimize
same c "$folder/c/main"
c++ -std=c++17 -Wall -Wextra -Werror "-I$root/include" "$folder/cpp/main.cpp" -o "$folder/cpp/main" "-L$lib" -loptimize
same cpp "$folder/cpp/main"

cd "$folder/go"
sed -i "s#=> .*#=> $root/bindings/go#" go.mod
go build -o main .
same go ./main

cd "$folder/csharp"
make -s OPTIMIZE="$root/bindings/csharp"
same csharp mono main.exe
