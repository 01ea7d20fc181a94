#!/usr/bin/env bash
# Makes a release.
#
#   tools/dist.sh build               builds target/dist/{liboptimize.so,liboptimize.a,optimize}, for glibc 2.28
#   tools/dist.sh link FOLDER         is the last step of `build`: links them from FOLDER/{liboptimize.a,optimize}
#   tools/dist.sh check               checks the files in target/dist: versions of symbols, soname, size
#   tools/dist.sh pack FOLDER [OUT]   packs library and command of FOLDER, with ONNX Runtime, into OUT (target/dist):
#                                     a tarball, the bill of materials, SHA256SUMS, and Debian packages if there is
#                                     dpkg-deb
#
# `build` needs cargo-zigbuild and zig (`pip install cargo-zigbuild ziglang`): zig links for an older glibc than that of
# the machine. FOLDER of `pack` may be target/dist or the output of another build, such as target/release.
# OPTIMIZE_PACK_LEVEL is the level of compression (default: 9).
set -euo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
glibc=2.28 triple=x86_64-unknown-linux-gnu most_megabytes=18
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# Before 1.0, a minor version may break programs, so the soname contains it.
if [[ $version == 0.* ]]; then abi=${version%.*}; else abi=${version%%.*}; fi
soname=liboptimize.so.$abi
dist=$root/target/dist
level=${OPTIMIZE_PACK_LEVEL:-9}
about='makes trained models smaller and faster'
# Times in the packages are that of the last commit, so that equal sources give equal packages.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}
export SOURCE_DATE_EPOCH

say() { printf 'dist: %s\n' "$*" >&2; }
die() { say "$*" && exit 1; }
need() {
  local tool
  for tool; do command -v "$tool" >/dev/null || die "$tool is missing"; done
}

functions() { # those of the header, and what ONNX Runtime looks up in an execution provider
  cc -E -P -Iinclude -include optimize.h -x c /dev/null | grep -oE '\boptimize_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u
  printf '%s\n' CreateEpFactories ReleaseEpFactory
}

# Copies a file without symbols and debug information, which go into TO.debug, for debuggers.
strip_to() { # FROM TO
  objcopy --only-keep-debug "$1" "$2.debug"
  objcopy --strip-all --add-gnu-debuglink="$2.debug" "$1" "$2"
}

build() {
  need cargo-zigbuild
  OPTIMIZE_COMMIT=${OPTIMIZE_COMMIT:-$(git rev-parse --short=12 HEAD 2>/dev/null || true)}
  if [[ -n $OPTIMIZE_COMMIT ]]; then export OPTIMIZE_COMMIT; else unset OPTIMIZE_COMMIT; fi
  # A release supports TensorRT in all versions whose headers tools/deps.sh fetches.
  export OPTIMIZE_REQUIRE_TENSORRT=1
  cargo-zigbuild rustc --locked --lib --crate-type staticlib --profile dist --target "$triple.$glibc"
  cargo-zigbuild zigbuild --locked --bin optimize --profile dist --target "$triple.$glibc"
  link "$CARGO_TARGET_DIR/$triple/dist"
}

link() { # FOLDER of liboptimize.a and the command
  local from=$1 names flags=() name
  need cargo-zigbuild objcopy cc
  mkdir -p "$dist"
  # The library is linked here and not by rustc, whose list of exported symbols cannot be combined with symbol versions.
  names=$(functions)
  printf 'LIBOPTIMIZE_%s {\n  global:\n%s\n  local: *;\n};\n' "$abi" "$(sed 's/.*/    &;/' <<<"$names")" \
    >"$dist/exports.map"
  for name in $names; do flags+=("-Wl,-u,$name"); done
  cargo-zigbuild zig cc -- -target "x86_64-linux-gnu.$glibc" -shared -o "$dist/liboptimize.whole.so" \
    "-Wl,-soname,$soname" "-Wl,--version-script=$dist/exports.map" -Wl,--gc-sections -Wl,--build-id=sha1 \
    -Wl,-z,relro,-z,now,-z,defs "${flags[@]}" "$from/liboptimize.a" -lunwind -lpthread -ldl -lm
  strip_to "$dist/liboptimize.whole.so" "$dist/liboptimize.so"
  rm "$dist/liboptimize.whole.so"
  objcopy --strip-debug "$from/liboptimize.a" "$dist/liboptimize.a"
  strip_to "$from/optimize" "$dist/optimize"
  check
}

highest_glibc() { # FILE…
  objdump -T "$@" | grep -oE 'GLIBC_[0-9.]+' | sed 's/GLIBC_//' | sort -uV | tail -n 1
}

check() {
  local file found bytes others
  for file in liboptimize.so optimize; do
    found=$(highest_glibc "$dist/$file")
    [[ $(printf '%s\n' "$found" "$glibc" | sort -V | tail -n 1) == "$glibc" ]] ||
      die "$file needs glibc $found, above $glibc"
    say "$file needs glibc $found, and has $(stat -c %s "$dist/$file") bytes"
  done
  bytes=$(stat -c %s "$dist/liboptimize.so")
  ((bytes < most_megabytes * 1000000)) || die "liboptimize.so has $bytes bytes, above $most_megabytes MB"
  readelf -d "$dist/liboptimize.so" | grep -qF "[$soname]" || die "the soname is not $soname"
  diff <(functions | sort -u | sed "s/$/@@LIBOPTIMIZE_$abi/") \
    <(nm -D --defined-only --with-symbol-versions "$dist/liboptimize.so" | awk '$2 != "A" { print $NF }' | sort -u) ||
    die 'the exports (>) are not the versioned functions of the header (<)'
  others=$(readelf -d "$dist/liboptimize.so" "$dist/optimize" | grep -E 'NEEDED|RPATH|RUNPATH' |
    grep -vE '\[(libc|libm|libdl|libpthread|librt|ld-linux-x86-64)\.so\.[0-9]+\]' || true)
  [[ -z $others ]] || die "needs more than glibc: $others"
}

# Writes the documents of a release: the licences of this library, of crates, of ONNX Runtime and of what the compilers
# add, the bill of materials, README and changelog, bindings and examples.
documents() { # FOLDER RUNTIME
  local folder=$1 runtime=$2 metadata inventory=$CARGO_TARGET_DIR/inventory
  mkdir -p "$folder"
  install -m 644 LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md "$folder/"
  install -m 644 target/deps/onnxruntime-notices/LICENSE "$folder/ONNXRuntime-LICENSE"
  install -m 644 target/deps/onnxruntime-notices/ThirdPartyNotices.txt "$folder/ONNXRuntime-ThirdPartyNotices.txt"
  metadata=$(cargo metadata --locked --format-version 1 --filter-platform "$triple")
  CARGO_TARGET_DIR=$inventory cargo build --quiet --locked --manifest-path tools/inventory/Cargo.toml
  {
    cat <<'TEXT'
The Rust standard library (MIT OR Apache-2.0, https://github.com/rust-lang/rust) is linked too. So is, in releases,
libunwind of LLVM (Apache-2.0 WITH LLVM-exception). The interface to TensorRT is compiled with the headers of NVIDIA
(Apache-2.0). ONNX Runtime is a library of its own, with its own notices beside this file.

TEXT
    "$inventory/debug/inventory" licences deny.toml <<<"$metadata"
  } >"$folder/THIRD-PARTY.txt"
  runtime="pkg:pypi/onnxruntime@$runtime_version=$(sha256sum <"$runtime" | cut -d ' ' -f 1)"
  "$inventory/debug/inventory" sbom Cargo.lock "ONNX Runtime=$runtime_version=MIT=$runtime" <<<"$metadata" \
    >"$folder/sbom.cdx.json"
  # Only tracked files are copied, because examples may have been built in their folders.
  if ! git ls-files --error-unmatch examples/c/quantize.c >/dev/null 2>&1; then
    cp -r bindings examples "$folder/"
  else
    git ls-files -z bindings examples | xargs -0 cp --parents -t "$folder"
  fi
}

debian() { # PACKAGE DEPENDS DESCRIPTION FILE…: a package of these files of $deb/all
  local package=$1 depends=$2 description=$3 folder=$deb/$1 file
  shift 3
  for file; do
    mkdir -p "$folder/$(dirname "$file")"
    mv "$deb/all/$file" "$folder/$file"
  done
  mkdir -p "$folder/DEBIAN" "$folder/usr/share/doc/$package"
  cat >"$folder/usr/share/doc/$package/copyright" <<'TEXT'
https://github.com/liboptimize/liboptimize, licensed under MIT or Apache-2.0. The texts, and the notices of what is
linked, are in /usr/share/doc/liboptimize, in the package of the library.
TEXT
  cat >"$folder/DEBIAN/control" <<CONTROL
Package: $package
Version: $version
Architecture: amd64
Maintainer: ${DEB_MAINTAINER:-liboptimize <liboptimize@localhost>}
Section: libs
Priority: optional
Homepage: https://github.com/liboptimize/liboptimize
Installed-Size: $(du -sk --exclude=DEBIAN "$folder" | cut -f 1)
Depends: $depends
Description: $description
CONTROL
  if [[ $package == liboptimize0* || $package == liboptimize[1-9]* ]]; then
    printf 'activate-noawait ldconfig\n' >"$folder/DEBIAN/triggers"
  fi
  dpkg-deb --root-owner-group -Zgzip "-z$level" --build "$folder" "$out/${package}_${version}_amd64.deb" >/dev/null
}

pack() {
  local from=$1 name=liboptimize-$version-linux-x86_64 runtime=target/deps/onnxruntime/libonnxruntime.so.1
  local work static='' least tree file arguments
  out=${2:-$dist}
  need make objcopy objdump gzip tar
  [[ -f $from/liboptimize.so && -x $from/optimize ]] || die "there is no build in $from"
  [[ -f $runtime ]] || die "ONNX Runtime is missing: tools/deps.sh runtime"
  tools/deps.sh notices
  runtime_version=$(sed -n 's/^pypi onnxruntime \([^ ]*\) .*/\1/p' tools/deps.lock)
  mkdir -p "$out"
  out=$(realpath "$out")
  work=$(mktemp -d "$out/.work.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  for file in liboptimize.so optimize; do
    objcopy --strip-debug "$from/$file" "$work/$file"
  done
  if [[ -f $from/liboptimize.a ]]; then static=$from/liboptimize.a; fi
  arguments=(LIBRARY="$work/liboptimize.so" COMMAND="$work/optimize" STATIC="$static")

  tree=$work/$name
  make -s install PREFIX="$tree" RELOCATABLE=1 "${arguments[@]}"
  install -m 755 "$runtime" "$tree/lib/libonnxruntime.so.1"
  documents "$tree/share/doc/liboptimize" "$runtime"
  tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner "--mtime=@$SOURCE_DATE_EPOCH" -cf - "$name" |
    gzip -n "-$level" >"$out/$name.tar.gz"
  cp "$tree/share/doc/liboptimize/sbom.cdx.json" "$out/$name.cdx.json"

  if command -v dpkg-deb >/dev/null; then
    deb=$work/deb
    make -s install PREFIX=/usr DESTDIR="$deb/all" "${arguments[@]}"
    install -D -m 755 "$runtime" "$deb/all/usr/lib/liboptimize/libonnxruntime.so.1"
    cp -r "$tree/share/doc" "$deb/all/usr/share/doc"
    gzip -n -9 "$deb"/all/usr/share/man/man1/*
    least=$(highest_glibc "$work/liboptimize.so" "$work/optimize" "$runtime")
    # ONNX Runtime needs the C++ library.
    debian "liboptimize$abi" "libc6 (>= $least), libgcc-s1, libstdc++6" "$about (library)" \
      "usr/lib/$soname" "usr/lib/liboptimize.so.$version" usr/lib/liboptimize usr/share/doc/liboptimize
    debian optimize-tools "liboptimize$abi (= $version)" "$about (command)" usr/bin usr/share
    debian liboptimize-dev "liboptimize$abi (= $version)" "$about (headers)" usr
  else
    say 'no Debian packages: dpkg-deb is missing'
  fi
  (cd "$out" && sha256sum "$name".* ./*"_${version}_amd64.deb" | sed 's|\./||' >SHA256SUMS)
  (cd "$out" && du -h -- "$name".* ./*"_${version}_amd64.deb" SHA256SUMS)
}

case ${1:-} in
  build) build ;;
  link) [[ $# == 2 ]] || die 'link needs a FOLDER' && link "$2" ;;
  check) check ;;
  pack) [[ $# -ge 2 ]] || die 'pack needs a FOLDER' && pack "${@:2}" ;;
  *) say 'usage: tools/dist.sh build | link FOLDER | check | pack FOLDER [OUT]' && exit 2 ;;
esac
