#!/usr/bin/env bash
# Compares the statuses that functions of the header document with those that the C tests provoke.
#
# tests/statuses.sh record HEADER: writes macros around the functions that can fail. A test compiled with them appends
# each status, except OPTIMIZE_OK, to the file $OPTIMIZE_TEST_STATUSES.
# tests/statuses.sh check FILE: fails if a documented status is neither in this file nor in tests/statuses.txt, which
# says why no C test provokes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Prints `FUNCTION STATUS` for each status in the comment of a function that can fail; without statuses, only its name.
documented() {
  awk '
    /^typedef enum optimize_status_t/ { enum = 1 }
    enum && $1 ~ /^OPTIMIZE_[A-Z_]+$/ && $1 != "OPTIMIZE_OK" { known[$1] = 1 }
    /^} optimize_status_t/ { enum = 0 }
    /^\/\*\*/ { comment = "" }
    { comment = comment " " $0 }
    /^OPTIMIZE_API/ { declaration = " "; next }
    declaration != "" {
      declaration = declaration $0
      if ($0 !~ /;$/) next
      if (declaration ~ /optimize_status_t optimize_/ && declaration ~ /optimize_error_t \*\*error/) {
        match(declaration, /optimize_status_t optimize_[a-z0-9_]+/)
        name = substr(declaration, RSTART + 18, RLENGTH - 18)
        print name
        count = split(comment, words, /[^A-Z_]+/)
        split("", seen)
        for (i = 1; i <= count; i++)
          if (words[i] in known && !(words[i] in seen)) { seen[words[i]] = 1; print name, words[i] }
      }
      declaration = ""
    }' include/optimize.h
}

case ${1:-} in
  record)
    {
      # Some tests define _GNU_SOURCE before their includes, which has no effect after the includes here.
      printf '#define _GNU_SOURCE\n#include <optimize.h>\n#include <stdio.h>\n#include <stdlib.h>\n'
      cat <<'C'
static inline optimize_status_t recorded(const char *name, optimize_status_t status) {
    const char *path = status == OPTIMIZE_OK ? NULL : getenv("OPTIMIZE_TEST_STATUSES");
    FILE *file = path == NULL ? NULL : fopen(path, "a");
    if (file != NULL) {
        fprintf(file, "%s %s\n", name, optimize_status_name(status));
        fclose(file);
    }
    return status;
}
C
      documented | awk 'NF == 1 { printf "#define %s(...) recorded(\"%s\", %s(__VA_ARGS__))\n", $1, $1, $1 }'
    } >"$2"
    ;;
  check)
    provoked=$(awk '{ print $1, "OPTIMIZE_" toupper($2) }' "$2" | sort -u)
    excused=$(awk '!/^#/ && NF { print $1, $2 }' tests/statuses.txt | sort -u)
    missing=$(documented | awk 'NF == 2' | sort -u | comm -23 - <(printf '%s\n' "$provoked"))
    printf '%s documented statuses, %s of them provoked by C tests\n' "$(documented | awk 'NF == 2' | wc -l)" \
      "$(documented | awk 'NF == 2' | sort -u | comm -12 - <(printf '%s\n' "$provoked") | wc -l)"
    unexplained=$(comm -23 <(printf '%s\n' "$missing") <(printf '%s\n' "$excused"))
    [[ -z $unexplained ]] || printf 'no C test provokes, and tests/statuses.txt does not name:\n%s\n' "$unexplained"
    stale=$(comm -13 <(printf '%s\n' "$missing") <(printf '%s\n' "$excused"))
    [[ -z $stale ]] || printf 'tests/statuses.txt names, although provoked or not documented:\n%s\n' "$stale"
    [[ -z $unexplained$stale ]]
    ;;
  *)
    sed -n '2,8p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
