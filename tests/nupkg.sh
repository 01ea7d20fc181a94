#!/usr/bin/env bash
# Makes the NuGet package of target/release, checks its content, and compiles and runs a program with only that content.
# tests/run.sh calls it, and sets $OPTIMIZE_TEST_TMP.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${OPTIMIZE_TEST_TMP:?}/nupkg
unset LD_LIBRARY_PATH ORT_DYLIB_PATH
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)

grep -qF "<Version>$version</Version>" "$root/bindings/csharp/Optimize.csproj"
"$root/tools/nupkg.sh" "$root/target/release" "$work/out" >/dev/null
mkdir "$work/package"
python3 -m zipfile -e "$work/out/LibOptimize.$version.nupkg" "$work/package"
cd "$work/package"
diff <(find . -type f -printf '%P\n' | LC_ALL=C sort) - <<'FILES'
LICENSE-APACHE
LICENSE-MIT
LibOptimize.nuspec
ONNXRuntime-LICENSE
ONNXRuntime-ThirdPartyNotices.txt
README.md
[Content_Types].xml
_rels/.rels
lib/netstandard2.0/Optimize.dll
lib/netstandard2.0/Optimize.xml
runtimes/linux-x64/native/libonnxruntime.so.1
runtimes/linux-x64/native/liboptimize.so
FILES
python3 - "$version" <<'PYTHON'
import os, sys, xml.etree.ElementTree as tree

nuspec = tree.parse("LibOptimize.nuspec").getroot()
of = lambda name: nuspec.find(".//{http://schemas.microsoft.com/packaging/2013/05/nuspec.xsd}" + name).text
assert (of("id"), of("version"), of("license")) == ("LibOptimize", sys.argv[1], "MIT OR Apache-2.0")
assert of("description") and of("authors")
types = tree.parse("[Content_Types].xml").getroot()
known = {one.get("Extension") or one.get("PartName") for one in types}
for folder, _, files in os.walk("."):
    for path in (os.path.join(folder, name)[1:] for name in files):
        assert path in known or path.rsplit(".", 1)[-1] in known or path == "/[Content_Types].xml", path
documented = {member.get("name") for member in tree.parse("lib/netstandard2.0/Optimize.xml").iter("member")}
assert {"T:Optimize.Model", "P:Optimize.DistillOptions.Temperature", "F:Optimize.Status.Busy"} <= documented
PYTHON

# Where only programs are installed, the library has its versioned name alone.
mkdir "$work/program" "$work/installed"
cp lib/netstandard2.0/Optimize.dll "$root/examples/csharp/Quantize.cs" "$root/examples/csharp/Json.cs" "$work/program/"
ln -s "$PWD/runtimes/linux-x64/native/liboptimize.so" "$work/installed/liboptimize.so.${version%.*}"
cp -L "$root/target/deps/models/paraphrase-MiniLM-L3-v2"/* "$work/program/"
cd "$work/program"
mcs -nologo -warnaserror -r:Optimize.dll -out:Quantize.exe Quantize.cs Json.cs
for folder in "$work/package/runtimes/linux-x64/native" "$work/installed"; do
  rm -f small.onnx
  if [[ $folder == */installed ]]; then cp "$root/bindings/csharp/Optimize.dll.config" .; fi
  LD_LIBRARY_PATH=$folder mono Quantize.exe model.onnx small.onnx >log 2>&1 || { cat log && exit 1; }
  (($(stat -c %s small.onnx) * 2 < $(stat -c %s model.onnx)))
done
