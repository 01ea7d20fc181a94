#!/usr/bin/env bash
# Makes the NuGet package, without a .NET SDK: tools/nupkg.sh [FOLDER [OUT]]. FOLDER contains liboptimize.so (default:
# target/release), and OUT receives the package (default: target/dist). Mono's compiler `mcs` compiles bindings/csharp.
# The package contains this assembly, and liboptimize and ONNX Runtime for Linux x86-64.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
from=${1:-target/release} out=${2:-target/dist}
runtime=target/deps/onnxruntime/libonnxruntime.so.1
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# Times in the package are that of the last commit, so that equal sources give equal packages.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}
export SOURCE_DATE_EPOCH

die() { printf 'nupkg: %s\n' "$*" >&2 && exit 1; }
for tool in mcs objcopy python3; do command -v "$tool" >/dev/null || die "$tool is missing"; done
[[ -f $from/liboptimize.so ]] || die "there is no build in $from"
[[ -f $runtime ]] || die "ONNX Runtime is missing: tools/deps.sh runtime"
tools/deps.sh notices

mkdir -p "$out"
work=$(mktemp -d "$out/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lib/netstandard2.0" "$work/runtimes/linux-x64/native" "$work/_rels"
mcs -nologo -warnaserror -target:library "-out:$work/lib/netstandard2.0/Optimize.dll" \
  "-doc:$work/lib/netstandard2.0/Optimize.xml" bindings/csharp/*.cs
objcopy --strip-debug "$from/liboptimize.so" "$work/runtimes/linux-x64/native/liboptimize.so"
cp -L "$runtime" "$work/runtimes/linux-x64/native/libonnxruntime.so.1"
cp bindings/csharp/README.md LICENSE-MIT LICENSE-APACHE "$work/"
cp target/deps/onnxruntime-notices/LICENSE "$work/ONNXRuntime-LICENSE"
cp target/deps/onnxruntime-notices/ThirdPartyNotices.txt "$work/ONNXRuntime-ThirdPartyNotices.txt"

property() { sed -n "s|.*<$1>\(.*\)</$1>.*|\1|p" bindings/csharp/Optimize.csproj; }
cat >"$work/LibOptimize.nuspec" <<XML
<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://schemas.microsoft.com/packaging/2013/05/nuspec.xsd">
  <metadata>
    <id>LibOptimize</id>
    <version>$version</version>
    <authors>$(property Authors)</authors>
    <license type="expression">$(property PackageLicenseExpression)</license>
    <readme>README.md</readme>
    <projectUrl>$(property PackageProjectUrl)</projectUrl>
    <description>$(property Description)</description>
    <dependencies>
      <group targetFramework=".NETStandard2.0" />
    </dependencies>
  </metadata>
</package>
XML
cat >"$work/_rels/.rels" <<'XML'
<?xml version="1.0" encoding="utf-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
  <Relationship Type="http://schemas.microsoft.com/packaging/2010/07/manifest" Target="/LibOptimize.nuspec" Id="R1" />
</Relationships>
XML
{
  printf '<?xml version="1.0" encoding="utf-8"?>\n'
  printf '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">\n'
  printf '  <Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml" />\n'
  for extension in nuspec dll xml so 1 md txt; do
    printf '  <Default Extension="%s" ContentType="application/octet" />\n' "$extension"
  done
  for file in LICENSE-MIT LICENSE-APACHE ONNXRuntime-LICENSE; do
    printf '  <Override PartName="/%s" ContentType="application/octet" />\n' "$file"
  done
  printf '</Types>\n'
} >"$work/[Content_Types].xml"

python3 - "$work" "$out/LibOptimize.$version.nupkg" <<'PYTHON'
import os, sys, time, zipfile

folder, package = sys.argv[1:]
date = time.gmtime(max(int(os.environ["SOURCE_DATE_EPOCH"]), 315532800))[:6]
names = sorted(os.path.relpath(os.path.join(where, name), folder) for where, _, files in os.walk(folder) for name in files)
names.sort(key=lambda name: name != "[Content_Types].xml")  # first, as readers of streams expect
with zipfile.ZipFile(package + ".part", "w") as archive:
    for name in names:
        entry = zipfile.ZipInfo(name, date)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        with open(os.path.join(folder, name), "rb") as content:
            archive.writestr(entry, content.read())
os.replace(package + ".part", package)
PYTHON
printf '%s\n' "$out/LibOptimize.$version.nupkg"
