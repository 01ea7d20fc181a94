#!/usr/bin/env bash
# Runs all tests of the project that need no GPU, or the parts named: tests/run.sh [lint rust header reference symbols c
# valgrind cpp go csharp codegen strace install dist]. It needs what `make` built and what `make deps` fetched.
#
# A test program in another language than Rust prints one line per test, `ok - name` or `not ok - name`, and exits
# non-zero if one failed. It finds fetched files under $OPTIMIZE_TEST_DEPS and may write under $OPTIMIZE_TEST_TMP. Under
# valgrind, $OPTIMIZE_TEST_VALGRIND is 1, and tests that would take minutes are skipped.
#
# A part whose tool is missing is skipped; with CI=true or LIBOPTIMIZE_REQUIRE_ALL=1, it fails.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export CARGO_TARGET_DIR=$root/target CARGO_TERM_COLOR=never OPTIMIZE_TEST_DEPS=$root/target/deps
library=$root/target/release/liboptimize.so
lib=$root/target/lib # what a consumer links: the library under its soname, and the runtime beside it
if [[ -x $OPTIMIZE_TEST_DEPS/go/bin/go ]]; then PATH=$OPTIMIZE_TEST_DEPS/go/bin:$PATH; fi
model=$OPTIMIZE_TEST_DEPS/models/paraphrase-MiniLM-L3-v2/model.onnx

mkdir -p target/tests
scratch=$(mktemp -d "$root/target/tests/run.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

declare -A passed=([Rust]=0 [C]=0 [C++]=0 [Go]=0 [C#]=0 [checks]=0)
failures=() failed=0
pass() { passed[$1]=$((passed[$1] + ${2:-1})); }
fail() { # WHAT [HOW MANY TESTS]
  printf 'FAILED: %s\n' "$1"
  failures+=("$1") failed=$((failed + ${2:-1}))
}
check() { # NAME COMMAND…: one check, passed if the command succeeds
  local name=$1
  shift
  if "$@"; then pass checks && printf 'ok - %s\n' "$name"; else fail "$name"; fi
}
skip() {
  printf 'skipped: %s\n' "$1"
  if [[ ${CI:-} == true || ${LIBOPTIMIZE_REQUIRE_ALL:-} == 1 ]]; then fail "$1, where nothing may be skipped"; fi
}
have() { # TOOL…
  local tool
  for tool; do command -v "$tool" >/dev/null || { skip "no $tool" && return 1; }; done
}
heading() { printf '\n== %s\n' "$*"; }

# Runs a command in the environment of a test program, for at most 20 minutes: an empty $tmp, and the library in the
# loader's path.
tmp=$scratch/tmp
in_test() {
  rm -rf "$tmp"
  mkdir "$tmp"
  OPTIMIZE_TEST_TMP=$tmp LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} timeout 1200 "$@"
}

# Runs a program and counts the tests that it prints. An example that succeeds counts as one test; of examples, only the
# output of the assistant is checked.
run() { # LANGUAGE NAME COMMAND…
  local language=$1 name=$2 status=0 good bad line
  shift 2
  heading "$language: $name"
  in_test "$@" </dev/null 2>&1 | tee "$scratch/log" || status=$?
  good=$(grep -E '^ok\b' "$scratch/log" | grep -cv '# SKIP' || true)
  mapfile -t bad < <(grep -E '^not ok\b' "$scratch/log" | grep -v '# TODO' || true)
  if ((status == 0 && good == 0)) && [[ $name == examples/* ]]; then good=1; fi
  if ((status == 0)) && [[ ${name,,} == examples/*assistant* ]]; then check_assistant "$name"; fi
  pass "$language" "$good"
  for line in "${bad[@]}"; do fail "$name: $line"; done
  if ((${#bad[@]} == 0 && status != 0)); then fail "$name: exit status $status"; fi
  if ((${#bad[@]} == 0 && status == 0 && good == 0)); then fail "$name: ran no test"; fi
}

# Prints the sum of the final counts of cargo test or nextest over all test programs, for the tests that are WORD, for
# example `passed`.
count_cargo() { # WORD
  { grep -E '^ *Summary \[|^test result:' "$scratch/log" || true; } |
    { grep -oE "[0-9]+ $1" || true; } | awk '{ sum += $1 } END { print sum + 0 }'
}
run_cargo() {
  local status=0 bad
  "$@" 2>&1 | tee "$scratch/log" || status=$?
  bad=$(count_cargo '(failed|timed out)')
  pass Rust "$(count_cargo passed)"
  if ((status != 0 || bad > 0)); then fail "$*" "$((bad > 0 ? bad : 1))"; fi
}

lint() {
  heading style
  if cargo fmt --version >/dev/null 2>&1; then
    check 'cargo fmt' cargo fmt --check
    check 'cargo fmt of tools/inventory' cargo fmt --check --manifest-path tools/inventory/Cargo.toml
  else
    skip 'no rustfmt'
  fi
  if cargo clippy --version >/dev/null 2>&1; then
    check 'cargo clippy' cargo clippy --quiet --release --all-targets -- -D warnings
  else
    skip 'no clippy'
  fi
  # cargo-deny is optional, because it is not part of Rust: tools/inventory checks the licences as well.
  if cargo deny --version >/dev/null 2>&1; then check 'cargo deny' cargo deny --offline check licenses bans sources; fi
}

rust() {
  heading Rust
  if cargo nextest --version >/dev/null 2>&1; then
    run_cargo cargo nextest run --release --no-fail-fast --no-tests=pass
    run_cargo cargo test --release --doc --quiet
  else
    run_cargo cargo test --release --no-fail-fast
  fi
}

# In a checkout, build.rs has regenerated the header: it must equal the committed one.
header() {
  heading header
  if [[ $(git rev-parse --show-toplevel 2>/dev/null) != "$root" ]]; then
    printf 'skipped: header (not a git checkout)\n'
  else
    check 'include/ is what the code generates (git add it, if so meant)' git --no-pager diff --exit-code include/
  fi
}

reference() {
  heading reference
  have doxygen || return 0
  check 'doxygen documents every function' tools/reference.sh "$scratch/reference"
}

declared() { # the preprocessor takes the comments away
  cc -E -P -Iinclude -include optimize.h -x c /dev/null | grep -oE '\boptimize_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u
}
exported() { nm -D --defined-only "$library" | awk '{ sub(/@.*/, "", $NF); print $NF }' | sort -u; }
symbols() {
  heading symbols
  # The first two are those that ONNX Runtime looks up in the library of an execution provider.
  check 'exports are the functions of the header (< declared, > exported)' \
    diff <(printf '%s\n' CreateEpFactories ReleaseEpFactory "$(declared)" | sort -u) <(exported)
  check 'dlclose does not unload the library' grep -q 'NODELETE' <(readelf -d "$library")
  check 'soname' grep -q "\[$soname\]" <(readelf -d "$library")
}

record=() # options of C programs that record statuses
build() { # LANGUAGE SOURCE PROGRAM
  local compiler=(cc -std=c11 "${record[@]}")
  [[ $1 == C ]] || compiler=(c++ -std=c++17)
  "${compiler[@]}" -O1 -g -Wall -Wextra -Werror -pthread -Iinclude "$2" -o "$3" "-L$lib" -loptimize -lm || {
    fail "$2 does not compile"
    return 1
  }
}
arguments() { # SOURCE: what the program is given
  local decoder=("$OPTIMIZE_TEST_DEPS"/models/smollm2/*.gguf)
  case ${1,,} in
    examples/*chat*) arguments=("${decoder[0]}" 'What is the capital of France?') ;;
    examples/*generate*) arguments=("${decoder[0]}" 'One, two, three,') ;;
    examples/*ensemble*) arguments=('One, two, three,' "${decoder[0]}" "${decoder[0]}") ;;
    examples/*distill*) arguments=("$model" "$(text)" "$tmp/student.onnx") ;;
    examples/*benchmark*) arguments=("$model" "$(smaller)") ;;
    examples/*tensorrt*) arguments=("$model" "$tmp/model.engine") ;;
    examples/*assistant*)
      mapfile -t arguments < <(lines)
      arguments=("$OPTIMIZE_TEST_DEPS/models/all-MiniLM-L6-v2" "$(reranker)" "$OPTIMIZE_TEST_DEPS/models/rampart"
        "${decoder[0]}" 'Where does Maria live?' "${arguments[@]}")
      ;;
    examples/*) arguments=("$model" "$tmp/result.onnx") ;;
    *) arguments=() ;;
  esac
}
# These functions make files that examples read besides those of `make deps`, and print their paths; `lines` prints
# text.
text() {
  local number
  for number in {1..24}; do printf 'Sentence number %d says that small models answer sooner.\n' "$number"; done >"$scratch/text"
  printf '%s\n' "$scratch/text"
}
smaller() {
  [[ -e $scratch/int8/model.onnx ]] ||
    target/release/optimize quantize --quiet --no-benchmark --model "$model" --output "$scratch/int8" >/dev/null
  printf '%s\n' "$scratch/int8/model.onnx"
}
reranker() { # a small model that was not trained, with a tokenizer
  mkdir -p "$scratch/reranker"
  cp tests/fixtures/encoders/bert-classify/{config.json,model.safetensors} tests/fixtures/sentences/model/tokenizer.json \
    "$scratch/reranker"
  printf '%s\n' '{"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask",
    "token_type_ids"]}' >"$scratch/reranker/tokenizer_config.json"
  printf '%s\n' "$scratch/reranker"
}
lines() { # 1,000 lines, the last of which answers a question
  seq -f 'Sentence number %g says that small models answer sooner.' 998
  printf '%s\n' 'Tom likes apples.' 'Maria Silva lives in Springfield.'
}
# Checks that the assistant finds the answer, and that it prints the same in every language that is tested.
check_assistant() { # NAME
  [[ -e $scratch/assistant ]] || cp "$scratch/log" "$scratch/assistant"
  grep -q '  CITY: Springfield' "$scratch/log" || fail "$1 does not find the line"
  cmp "$scratch/assistant" "$scratch/log" || fail "$1 prints something else than in another language"
}
compiled() { # LANGUAGE EXTENSION FOLDER: the tests and the examples of a language
  local source program
  for source in tests/capi/*."$2" "$3"/*."$2"; do
    [[ -e $source ]] || continue
    program=$scratch/${source//\//_}
    build "$1" "$source" "$program" || continue
    arguments "$source"
    run "$1" "$source" "$program" "${arguments[@]}"
  done
}
c() {
  tests/statuses.sh record "$scratch/statuses.h"
  record=(-include "$scratch/statuses.h")
  export OPTIMIZE_TEST_STATUSES=$scratch/statuses
  compiled C c examples/c
  record=()
  unset OPTIMIZE_TEST_STATUSES
  check 'every documented status is provoked by a C test' tests/statuses.sh check "$scratch/statuses"
}
cpp() { compiled C++ cpp examples/cpp; }

valgrind_c() {
  local source program kernels options=(--error-exitcode=99 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite
    --fair-sched=try -q)
  heading valgrind
  have valgrind || return 0
  [[ ! -e tests/valgrind.supp ]] || options+=(--suppressions=tests/valgrind.supp)
  for source in tests/capi/*.c; do
    [[ -e $source ]] || continue
    program=$scratch/${source//\//_}
    [[ -x $program ]] || build C "$source" "$program" || continue
    # On the processor that valgrind emulates, this library's kernels would take minutes, so only one program uses them.
    kernels=stock
    [[ $source != */test_provider.c ]] || kernels=auto
    OPTIMIZE_TEST_VALGRIND=1 OPTIMIZE_KERNELS=$kernels check "valgrind $source" in_test valgrind "${options[@]}" "$program"
  done
}

# Checks the tools for Go. bindings/go has iterators, which Go has since 1.23.
have_go() {
  local version
  have go gofmt pkg-config || return 1
  # -DCHECKOUT keeps Go from reusing builds against another library: its cache depends on the flags of C, but not
  # on the output of pkg-config.
  export PKG_CONFIG_PATH=$lib/pkgconfig GOPROXY=off GOTOOLCHAIN=local CGO_CFLAGS="-O2 -g -DCHECKOUT"
  version=$(go env GOVERSION)
  [[ $(printf 'go1.23\n%s\n' "$version" | sort -V | head -n 1) == go1.23 ]] ||
    { skip "$version is older than go1.23" && return 1; }
}

go_programs() {
  local status=0 bad folder program
  heading Go
  have_go || return 0
  check 'gofmt' test -z "$(gofmt -l bindings/go examples/go)"
  cd "$root/bindings/go"
  check 'go vet of bindings/go' go vet ./...
  in_test go test -race -count=1 -v ./... 2>&1 | tee "$scratch/log" || status=$?
  cd "$root/examples/go"
  check 'go vet of examples/go' go vet ./...
  for folder in */; do
    folder=${folder%/}
    go build -o "$scratch/go_$folder" "./$folder" || fail "examples/go/$folder does not compile"
  done
  cd "$root"
  pass Go "$(grep -cE '^ *--- PASS' "$scratch/log" || true)"
  bad=$(grep -cE '^ *--- FAIL' "$scratch/log" || true)
  ((status == 0)) || fail 'go test' "$((bad > 0 ? bad : 1))"
  for folder in examples/go/*/; do
    folder=${folder%/} program=$scratch/go_$(basename "$folder")
    [[ -x $program ]] || continue
    arguments "$folder"
    run Go "$folder" "$program" "${arguments[@]}"
  done
}

# Tests the bindings for C#. A C# file with a Main is a program; the other files beside it are compiled into each
# program.
csharp() {
  local folder source programs parts program
  heading 'C#'
  have mcs mono || return 0
  # With -doc, a public member without documentation is a warning.
  mcs -nologo -warnaserror -target:library "-out:$scratch/Optimize.dll" "-doc:$scratch/Optimize.xml" bindings/csharp/*.cs || {
    fail 'bindings/csharp does not compile'
    return
  }
  for folder in tests/csharp examples/csharp; do
    programs=() parts=(examples/csharp/Json.cs)
    for source in "$folder"/*.cs; do
      if grep -qE 'static .*\bMain *\(' "$source"; then
        programs+=("$source")
      elif [[ $source != "${parts[0]}" ]]; then
        parts+=("$source")
      fi
    done
    for source in "${programs[@]}"; do
      program=$scratch/$(basename "$source" .cs).exe
      mcs -nologo -warnaserror "-r:$scratch/Optimize.dll" "-out:$program" "$source" "${parts[@]}" || {
        fail "$source does not compile"
        continue
      }
      arguments "$source"
      run 'C#' "$source" mono "$program" "${arguments[@]}"
    done
  done
  check 'tests/nupkg.sh' in_test tests/nupkg.sh
}

# Tests the packages of a release, with the build of `make` instead of the one for an old glibc.
packages() {
  heading packages
  check 'tools/inventory' env CARGO_TARGET_DIR="$root/target/inventory" \
    cargo test --quiet --locked --manifest-path tools/inventory/Cargo.toml
  check 'tests/dist.sh' in_test tests/dist.sh
}

# Tests the programs that the command writes for a package.
codegen() {
  heading codegen
  have_go && have mcs mono || return 0
  check 'programs in four languages print what the command prints' in_test tests/codegen.sh
}

# Checks that the library opens no socket and no GPU driver on the CPU, and writes only where requested.
strace_command() {
  local calls=network,open,openat,openat2,creat,mkdir,mkdirat,link,linkat,symlink,symlinkat trace=$scratch/trace
  heading strace
  have strace || return 0
  mkdir -p "$scratch/home"
  check 'the traced command' in_test env HOME="$scratch/home" TMPDIR="$tmp" \
    strace -f -y -qq -o "$trace" -e "trace=$calls" -e signal=none \
    sh -c 'target/release/optimize quantize --model "$1" --output "$2" --benchmark --benchmark-runs 2 -q &&
      target/release/optimize run --model "$2" --text "How are you?" >/dev/null' sh "$model" "$tmp/int8"
  # Calls that fail with ENOTSOCK are removed: signal handlers first try the pipe that wakes their thread as a socket.
  grep -v 'ENOTSOCK' "$trace" >"$trace.calls" || true
  check 'no socket' nothing -E '(socket|connect|bind|sendto)\(' "$trace.calls"
  grep -E 'O_WRONLY|O_RDWR|O_CREAT|(creat|mkdir|mkdirat|link|linkat|symlink|symlinkat)\(' "$trace" |
    grep -vE ' = -1 |/dev/(null|tty|urandom)' | grep -vF "$tmp" >"$scratch/writes" || true
  check 'no file outside the output folder' nothing . "$scratch/writes"
  check 'no GPU driver' nothing -F libcuda "$trace"
}
nothing() { ! grep "$@"; }

# Prints the soname of a version. Before 1.0, a minor version may break programs, so the soname contains it.
soname_of() { # VERSION
  if [[ $1 == 0.* ]]; then printf 'liboptimize.so.%s\n' "${1%.*}"; else printf 'liboptimize.so.%s\n' "${1%%.*}"; fi
}

# Copies the library to $lib, under its soname. It is not linked, because it searches for ONNX Runtime next to its real
# path.
prepare() {
  [[ -e $library ]] || {
    printf 'target/release/liboptimize.so is not there: run make first.\n' >&2
    exit 1
  }
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
  soname=$(soname_of "$version")
  mkdir -p "$lib"
  install -m 755 "$library" "$lib/liboptimize.so.$version"
  ln -sfn "liboptimize.so.$version" "$lib/$soname"
  ln -sfn "$soname" "$lib/liboptimize.so"
  # optimize.pc, as `make install` writes it, for programs that are linked with the copy.
  mkdir -p "$lib/pkgconfig"
  sed -e "s|@PC_PREFIX@|$root|; s|@PC_LIBDIR@|$lib|; s|@PC_INCLUDEDIR@|$root/include|; s|@VERSION@|$version|" \
    tools/install/optimize.pc.in >"$lib/pkgconfig/optimize.pc"
}

parts=("$@")
((${#parts[@]})) || parts=(lint rust header reference symbols c valgrind cpp go csharp codegen strace install dist)
for part in "${parts[@]}"; do
  case $part in
    lint | rust | header | reference) "$part" ;;
    symbols | c | cpp | csharp) prepare && "$part" ;;
    valgrind) prepare && valgrind_c ;;
    go) prepare && go_programs ;;
    codegen) prepare && codegen ;;
    strace) strace_command ;;
    install) heading install && check 'tests/install.sh' in_test tests/install.sh ;;
    dist) packages ;;
    *) printf 'no such part: %s\n' "$part" >&2 && exit 2 ;;
  esac
done

heading results
for failure in "${failures[@]}"; do printf 'FAILED: %s\n' "$failure"; done
total=0
for count in "${passed[@]}"; do total=$((total + count)); done
printf 'checks (style, header, symbols, valgrind, strace, install, dist) %d passed\n' "${passed[checks]}"
printf 'Rust %d, C %d, C++ %d, Go %d, C# %d tests passed\n' \
  "${passed[Rust]}" "${passed[C]}" "${passed[C++]}" "${passed[Go]}" "${passed[C#]}"
printf '%d passed, %d failed\n' "$total" "$failed"
((failed == 0))
