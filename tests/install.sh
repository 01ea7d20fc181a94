#!/usr/bin/env bash
# Installs into an empty prefix, and builds and runs programs that use the installation: with pkg-config, as a Go
# module, and with CMake. Then uninstalls; no file may be left.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/usr
unset LD_LIBRARY_PATH

have() {
  command -v "$1" >/dev/null && return
  printf 'skipped: no %s\n' "$1"
  [[ ${CI:-} != true && ${LIBOPTIMIZE_REQUIRE_ALL:-} != 1 ]] || exit 1
  return 1
}

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
make -s -C "$root" install PREFIX="$prefix"
"$prefix/bin/optimize" --version
grep -q "^\.TH optimize-quantize" "$prefix/share/man/man1/optimize-quantize.1"
bash -n "$prefix/share/bash-completion/completions/optimize"
# The installed command finds the installed library, in which ONNX Runtime finds the execution provider.
ORT_DYLIB_PATH=$root/target/deps/onnxruntime/libonnxruntime.so.1 "$prefix/bin/optimize" providers >"$work/providers"
if grep '^kernels .* was not found' "$work/providers"; then exit 1; fi
grep -q '^kernels ' "$work/providers"

cat >"$work/version.c" <<'C'
#include <optimize.h>
#include <stdio.h>

int main(void) {
    const char *version = optimize_version();
    if (version == NULL || version[0] == '\0') return 1;
    puts(version);
    return 0;
}
C

# Runs a program, which must find the library by its soname and print the version of the library.
says_version() {
  local got
  got=$(LD_LIBRARY_PATH=$prefix/lib "$1")
  [[ $got == *"$version"* ]] || { printf '%s says %s, not %s\n' "$1" "$got" "$version" && return 1; }
}

if have pkg-config; then
  export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
  [[ $(pkg-config --modversion optimize) == "$version" ]]
  read -ra flags <<<"$(pkg-config --cflags --libs optimize)"
  cc -std=c11 -Wall -Wextra -Werror "$work/version.c" -o "$work/with-pkg-config" "${flags[@]}"
  says_version "$work/with-pkg-config"
  printf '#include <optimize.hpp>\nint main() { return optimize_version() == nullptr; }\n' >"$work/version.cpp"
  c++ -std=c++17 -Wall -Wextra -Werror "$work/version.cpp" -o "$work/in-cpp" "${flags[@]}"
  LD_LIBRARY_PATH=$prefix/lib "$work/in-cpp"
fi

# A Go module outside the checkout finds the installed library through pkg-config.
if have pkg-config && have go; then
  mkdir "$work/importer"
  cat >"$work/importer/main.go" <<'GO'
package main

import (
	"fmt"

	optimize "github.com/liboptimize/liboptimize/bindings/go"
)

func main() { fmt.Println(optimize.Version()) }
GO
  (
    # A unique compiler flag keeps Go from reusing a cached build: its cache depends on the flags, but not on the output
    # of pkg-config.
    export GOPROXY=off GOTOOLCHAIN=local CGO_CFLAGS="-O2 -g -DPREFIX=$(basename "$work")"
    cd "$work/importer"
    go mod init example.com/importer
    go mod edit -require=github.com/liboptimize/liboptimize/bindings/go@v0.0.0 \
      -replace="github.com/liboptimize/liboptimize/bindings/go=$root/bindings/go"
    go build -o "$work/in-go" .
  ) >"$work/go.log" 2>&1 || { cat "$work/go.log" && exit 1; }
  says_version "$work/in-go"
fi

if have cmake; then
  cat >"$work/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.16)
project(version C)
find_package(optimize ${WANTED} REQUIRED)
add_executable(with-cmake version.c)
target_link_libraries(with-cmake PRIVATE optimize::optimize)
CMAKE
  mkdir "$work/build"
  if ! (cd "$work/build" && cmake -DWANTED="$version" -DCMAKE_PREFIX_PATH="$prefix" .. && cmake --build .) \
    >"$work/cmake.log" 2>&1; then
    cat "$work/cmake.log"
    exit 1
  fi
  says_version "$work/build/with-cmake"
  mkdir "$work/newer"
  if (cd "$work/newer" && cmake -DWANTED=99.0 -DCMAKE_PREFIX_PATH="$prefix" ..) >/dev/null 2>&1; then
    printf 'CMake took version %s for 99.0\n' "$version"
    exit 1
  fi
fi

# Staged files must refer to the prefix, not to the staging folder.
make -s -C "$root" install PREFIX=/opt/optimize DESTDIR="$work/stage"
test -x "$work/stage/opt/optimize/bin/optimize"
if grep -rF "$work" "$work/stage/opt/optimize/lib/pkgconfig" "$work/stage/opt/optimize/lib/cmake"; then exit 1; fi

make -s -C "$root" uninstall PREFIX="$prefix"
left=$(find "$prefix" ! -type d)
[[ -z $left ]] || { printf 'left behind:\n%s\n' "$left" && exit 1; }
