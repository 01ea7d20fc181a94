#!/usr/bin/env bash
# Writes the HTML reference of the C interface with doxygen: tools/reference.sh [FOLDER] (default: target/reference).
# Fails if doxygen warns of anything, for example of a parameter that does not exist, or if a function of the header is
# not in the reference.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-target/reference}
header=include/optimize.h
mkdir -p "$folder"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# Prints the functions of the header. The reference has a group for each noun, which is the second word of the names of
# functions and types, for example `model` in optimize_model_load; other declarations are in the group `types`.
declared() { cc -E -P -Iinclude -x c "$header" | grep -oE '\boptimize_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u; }

mapfile -t nouns < <(declared | cut -d_ -f2 | sort -u)

# The first comment becomes the main page. Each documented declaration gets the group of its noun.
# shellcheck disable=SC2016
filter='
NR == 1 { print "/** @mainpage liboptimize " VERSION; print " * @verbatim"; next }
!introduced && /\*\/$/ { print " * @endverbatim"; print; introduced = 1; next }
!introduced { print; next }
/^\/\*\*/ { comment = $0; inside = !/\*\/$/; pending = 1; next }
inside { if (/\*\/$/) inside = 0; gsub(/</, "\\<"); comment = comment "\n" $0; next }
pending && $0 == "OPTIMIZE_API" { next }
pending {
  group = "types"
  if (match($0, /optimize_[a-z0-9_]+\(/) || match($0, /optimize_[a-z0-9_]+/)) {
    split(substr($0, RSTART, RLENGTH), words, "_")
    if (index(NOUNS, " " words[2] " ")) group = words[2]
  }
  sub(/^\/\*\*/, "/** @ingroup " group "\n *", comment)
  print comment
  pending = 0
}
{ if (/^ *\* /) gsub(/</, "\\<"); print }
'
{
  awk -v VERSION="$version" -v NOUNS=" ${nouns[*]} " "$filter" "$header"
  printf '/** @defgroup types Types of several groups */\n'
  for noun in "${nouns[@]}"; do printf '/** @defgroup %s optimize_%s */\n' "$noun" "$noun"; done
} >"$folder/optimize.h"

cat >"$folder/Doxyfile" <<EOF
PROJECT_NAME = liboptimize
PROJECT_NUMBER = $version
OUTPUT_DIRECTORY = $folder
INPUT = $folder/optimize.h
STRIP_FROM_PATH = $folder
OPTIMIZE_OUTPUT_FOR_C = YES
JAVADOC_AUTOBRIEF = YES
AUTOLINK_SUPPORT = YES
MACRO_EXPANSION = YES
EXPAND_ONLY_PREDEF = YES
PREDEFINED = OPTIMIZE_API= OPTIMIZE_DEPRECATED(x)=
EXTRACT_ALL = NO
SHOW_INCLUDE_FILES = NO
GENERATE_LATEX = NO
QUIET = YES
WARN_IF_UNDOCUMENTED = YES
WARN_AS_ERROR = FAIL_ON_WARNINGS
HTML_TIMESTAMP = NO
DISABLE_INDEX = NO
GENERATE_TREEVIEW = NO
SEARCHENGINE = NO
HAVE_DOT = NO
EOF
doxygen "$folder/Doxyfile"

missing=$(comm -13 <(grep -rhoE '\boptimize_[a-z0-9_]+\b' "$folder"/html/group__*.html | sort -u) <(declared))
[[ -z $missing ]] || { printf 'not in the reference: %s\n' "$missing" >&2 && exit 1; }
printf '%s/html/index.html  %s functions\n' "$folder" "$(declared | wc -l)"
