#!/usr/bin/env bash
# Every check of the project: lint, types, tests. Makes or repairs the environment first.
#
#   bash tests/run.sh [PYTEST ARGUMENT...]
#
# Files among the arguments are relative to the checkout: bash tests/run.sh tests/test_container.py -x
# SNAC_CONSTRAINTS names another file of constraints than tests/constraints.txt; then only the tests are run, since
# what the linters find changes with their versions and with those of the packages they read.
set -euo pipefail

# shellcheck source=examples/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/../examples/env.sh"
make_environment test
cd "$ROOT"

failed=()
check() {
    printf '\n$ %s\n' "$*"
    "$@" || failed+=("$1 $2 $3")
}

if [ -z "${SNAC_CONSTRAINTS:-}" ]; then
    check python -m ruff check .
    check python -m ruff format --check .
    check python -m mypy
fi
# Files of tests run side by side, a process for each processor: they share nothing.
check python -m pytest -n auto --dist loadfile "$@"

if [ ${#failed[@]} -gt 0 ]; then
    printf '\ntests/run.sh: failed:%s\n' "$(printf ' [%s]' "${failed[@]}")"
    exit 1
fi
printf '\ntests/run.sh: all checks passed\n'
