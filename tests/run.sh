#!/usr/bin/env bash
# Every check of the project: lint, types, tests. Makes or repairs the environment first.
#
#   bash tests/run.sh [PYTEST ARGUMENT...]    for instance: bash tests/run.sh -k container -x
set -euo pipefail

# shellcheck source=examples/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/../examples/env.sh"
started=$PWD
make_environment test
cd "$ROOT"

failed=()
check() {
    printf '\n$ %s\n' "$*"
    "$@" || failed+=("$1 $2 $3")
}

# Arguments that name files are relative to where the caller stands, the rest of the run is not.
arguments=()
for argument in "$@"; do
    case $argument in
        -* | /*) arguments+=("$argument") ;;
        *) if [ -e "$started/${argument%%::*}" ]; then arguments+=("$started/$argument"); else arguments+=("$argument"); fi ;;
    esac
done

check python -m ruff check .
check python -m mypy
check python -m pytest ${arguments[@]+"${arguments[@]}"}

if [ ${#failed[@]} -gt 0 ]; then
    printf '\ntests/run.sh: failed:%s\n' "$(printf ' [%s]' "${failed[@]}")"
    exit 1
fi
printf '\ntests/run.sh: lint, types and tests passed\n'
