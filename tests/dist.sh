#!/usr/bin/env bash
# Packs a build, tests/dist.sh [FOLDER] (default: target/release), and uses the packages without this checkout. It
# unpacks the tarball, and builds and runs its examples in C, C++ and Go while this checkout is hidden. It unpacks the
# Debian packages into a root that otherwise has only the C and C++ libraries, and runs the command and a program there.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
from=$(realpath "${1:-$root/target/release}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset LD_LIBRARY_PATH ORT_DYLIB_PATH CGO_CFLAGS CGO_LDFLAGS PKG_CONFIG_PATH

have() {
  command -v "$1" >/dev/null && return
  printf 'skipped: no %s\n' "$1"
  [[ ${CI:-} != true && ${LIBOPTIMIZE_REQUIRE_ALL:-} != 1 ]] || exit 1
  return 1
}

# Runs a function of this script in a new mount namespace, in which it can hide folders.
apart() { # FUNCTION
  local how=(--mount) functions
  ((EUID == 0)) || how+=(--map-root-user)
  if ! unshare "${how[@]}" true 2>/dev/null; then
    printf 'skipped: the system allows no mount namespace\n'
    return 0
  fi
  functions=$(declare -f have quantized "$1")
  unshare "${how[@]}" bash -euo pipefail -c "$functions; work='$work' root='$root' version='$version'; $1"
}

quantized() { # PROGRAM [ARGUMENT…]: it must make the model smaller
  rm -f "$work/small.onnx"
  "$@" "$work/model/model.onnx" "$work/small.onnx" >"$work/log" 2>&1 || { cat "$work/log" && return 1; }
  (($(stat -c %s "$work/small.onnx") * 2 < $(stat -c %s "$work/model/model.onnx")))
}

tarball() {
  local start prefix examples flags module=github.com/liboptimize/liboptimize/bindings/go
  if [[ -d $root/target/deps/go ]]; then
    mkdir "$work/go"
    mount --bind "$root/target/deps/go" "$work/go"
    PATH=$work/go/bin:$PATH
  fi
  mount -t tmpfs none "$root" # from here on, there is no checkout
  cd "$work"
  [[ ! -e $root/Makefile ]]
  start=$(date +%s%N)
  tar -xf packages/liboptimize-*.tar.gz
  # An unpacked folder may be moved.
  prefix="$work/moved here" examples=$work/examples
  mv liboptimize-*-linux-x86_64 "$prefix"
  cp -r "$prefix/share/doc/liboptimize/examples" "$prefix/share/doc/liboptimize/bindings" "$work"
  "$prefix/bin/optimize" inspect --model model/model.onnx >/dev/null
  quantized sh -c '"$0" quantize --no-benchmark --model "$1" --output "$2"' "$prefix/bin/optimize"
  printf 'from the tarball to the first result: %d ms\n' $((($(date +%s%N) - start) / 1000000))
  "$prefix/bin/optimize" providers | grep -qF "$prefix/lib/libonnxruntime.so.1"
  "$prefix/bin/optimize" providers | grep -q '^kernels '
  bash -n "$prefix/share/bash-completion/completions/optimize"
  grep -q 'CycloneDX' "$prefix/share/doc/liboptimize/sbom.cdx.json"
  grep -q '^serde ' "$prefix/share/doc/liboptimize/THIRD-PARTY.txt"

  # pkg-config escapes the space in the path, for a shell.
  export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
  eval "flags=($(pkg-config --cflags --libs optimize))"
  cc -std=c11 -Wall -Werror "$examples/c/quantize.c" -o in-c "${flags[@]}" -lm
  c++ -std=c++17 -Wall -Werror "$examples/cpp/quantize.cpp" -o in-cpp "${flags[@]}"
  quantized ./in-c
  quantized ./in-cpp
  if [[ -f $prefix/lib/liboptimize.a ]]; then
    eval "flags=($(pkg-config --static --cflags --libs optimize))"
    flags=("${flags[@]/-loptimize/$prefix/lib/liboptimize.a}")
    cc -std=c11 -DOPTIMIZE_STATIC "$examples/c/quantize.c" -o static "${flags[@]}" -lm
    env -u LD_LIBRARY_PATH ORT_DYLIB_PATH="$prefix/lib/libonnxruntime.so.1" bash -euo pipefail \
      -c "$(declare -f quantized); work='$work'; quantized ./static"
  fi
  if have go; then
    # The example is built in its folder next to the bindings, and then in a module that refers to the tarball's
    # bindings. A unique compiler flag keeps Go from reusing a cached build: its cache depends on the flags, but not
    # on the output of pkg-config.
    export GOPROXY=off GOTOOLCHAIN=local CGO_CFLAGS="-O2 -g -DPREFIX=$(basename "$work")"
    go build -C "$examples/go" -o "$work/in-go" ./quantize
    quantized ./in-go
    mkdir importer
    cp "$examples/go/quantize/main.go" importer/
    cd importer
    { go mod init example.com/importer &&
      go mod edit -require="$module@v0.0.0" -replace="$module=$prefix/share/doc/liboptimize/bindings/go" &&
      go build -o "$work/importing" .; } >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }
    cd "$work"
    quantized ./importing
  fi
  if have cmake; then
    mkdir cmake
    cat >cmake/CMakeLists.txt <<CMAKE
cmake_minimum_required(VERSION 3.16)
project(stranger CXX)
find_package(optimize $version REQUIRED)
add_executable(in-cmake $examples/cpp/quantize.cpp)
target_link_libraries(in-cmake PRIVATE optimize::optimize)
CMAKE
    { cmake -S cmake -B cmake/build -DCMAKE_PREFIX_PATH="$prefix" && cmake --build cmake/build; } >log 2>&1 ||
      { cat log && exit 1; }
    quantized cmake/build/in-cmake
  fi
}

debian() {
  local package file
  mount -t tmpfs none "$root"
  cd "$work"
  mkdir empty
  for package in packages/*.deb; do dpkg-deb -x "$package" empty; done
  export PKG_CONFIG_SYSROOT_DIR=$work/empty PKG_CONFIG_LIBDIR=$work/empty/usr/lib/pkgconfig
  read -ra flags <<<"$(pkg-config --cflags --libs optimize)"
  cc -std=c11 empty/usr/share/doc/liboptimize/examples/c/quantize.c -o empty/in-c "${flags[@]}" -lm
  # The packages depend only on the C and C++ libraries, which are copied from this system.
  LD_LIBRARY_PATH=$work/empty/usr/lib ldd empty/in-c empty/usr/bin/optimize empty/usr/lib/liboptimize/*.so.1 |
    awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\/lib/ { print $1 }' | grep -vF "$work" | sort -u >system
  while read -r file; do cp --parents -L "$file" empty/; done <system
  mkdir empty/proc empty/tmp
  mount --rbind /proc empty/proc
  cp model/model.onnx empty/
  chroot empty /usr/bin/optimize --version --verbose | tee log
  grep -q '^ONNX Runtime  1\..*/usr/lib/liboptimize/libonnxruntime.so.1$' log
  chroot empty /usr/bin/optimize quantize --quiet --no-benchmark --model /model.onnx --output /tmp/small.onnx
  chroot empty /in-c /model.onnx /tmp/again.onnx >log 2>&1 || { cat log && exit 1; }
  test -s empty/tmp/small.onnx && test -s empty/tmp/again.onnx
  umount -l empty/proc
}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
OPTIMIZE_PACK_LEVEL=${OPTIMIZE_PACK_LEVEL:-1} "$root/tools/dist.sh" pack "$from" "$work/packages" >"$work/log" 2>&1 ||
  { cat "$work/log" && exit 1; }
(cd "$work/packages" && sha256sum --quiet -c SHA256SUMS)
mkdir "$work/model"
cp -L "$root"/target/deps/models/paraphrase-MiniLM-L3-v2/* "$work/model/"
have pkg-config && apart tarball
have pkg-config && have dpkg-deb && apart debian
