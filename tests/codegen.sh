#!/usr/bin/env bash
# Compiles and runs the programs that `optimize compile --codegen` writes in C, C++, Go and C# for a package of a real
# model, and compares their output with that of `optimize run` for the same inputs. tests/run.sh calls it, and sets
# $OPTIMIZE_TEST_TMP and the path of the dynamic loader.
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
"$optimize" run --model "$folder/package" --output-names 461 --shapes input_ids:1x1 --shapes attention_mask:1x1 \
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

# Go gets the module from a folder with the files that the public module proxy has after a release.
module=github.com/liboptimize/liboptimize/bindings/go
version=v$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
proxy=$folder/proxy/$module/@v
mkdir -p "$proxy"
printf '{"Version":"%s"}\n' "$version" >"$proxy/$version.info"
cp "$root/bindings/go/go.mod" "$proxy/$version.mod"
python3 - "$root/bindings/go" "$proxy/$version.zip" "$module@$version" <<'PYTHON'
import pathlib, sys, zipfile

folder, archive, prefix = sys.argv[1:]
with zipfile.ZipFile(archive, "w") as archive:
    for path in sorted(pathlib.Path(folder).iterdir()):
        archive.write(path, f"{prefix}/{path.name}")
PYTHON
cd "$folder/go"
(
  export GOPROXY=file://$folder/proxy GONOSUMDB='*' GOFLAGS=-modcacherw GOMODCACHE=$folder/modules
  go mod tidy && go build -o main .
) >go.log 2>&1 || { cat go.log && exit 1; }
same go ./main

cd "$folder/csharp"
grep -qF '<PackageReference Include="LibOptimize"' package-program.csproj
mcs -nologo -target:library -out:Optimize.dll "$root"/bindings/csharp/*.cs
make -s
same csharp mono main.exe
