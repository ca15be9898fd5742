# shellcheck shell=bash
# The environment of examples/quickstart.sh and tests/run.sh, which source this file.
#
#   make_environment EXTRA   makes or repairs .venv in the checkout and installs this package with its
#                            optional EXTRA ("test", or "base" for none); does nothing where that is done already
#
# Sets ROOT (the checkout), VENV, PYTHON (the environment's interpreter), and puts the environment's
# programs first on PATH. Written for bash 3.2, the one that macOS has.

unset CDPATH  # cd would print, and look elsewhere
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
CONSTRAINTS=${SNAC_CONSTRAINTS:-tests/constraints.txt}  # relative to ROOT

# Either would let another installation shadow the environment's packages.
unset PYTHONHOME PYTHONPATH

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

note() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
}

# Prints the first interpreter that runs and suits: one of the tested versions before a newer one.
find_python() {
    local test candidate
    for test in "(3, 10) <= sys.version_info < (3, 14)" "sys.version_info >= (3, 10)"; do
        for candidate in python3 python3.13 python3.12 python3.11 python3.10 python3.14 python; do
            if "$candidate" -c "import sys; sys.exit(not $test)" >/dev/null 2>&1; then
                command -v "$candidate"
                return 0
            fi
        done
    done
    return 1
}

# An empty environment in VENV, in place of whatever is there.
create_environment() {
    local python
    rm -rf "$VENV"
    if python=$(find_python); then
        note "making .venv with $("$python" --version) ($python)"
        "$python" -m venv "$VENV" >/dev/null 2>&1 && return 0
        # Debian's python3 comes without the half of venv that installs pip, and stops midway.
        rm -rf "$VENV"
        if ! command -v uv >/dev/null; then
            die "$python cannot make a virtual environment: install its venv module" \
                "(Debian, Ubuntu: apt install python3-venv) or uv, then run this again"
        fi
    elif command -v uv >/dev/null; then
        python=">=3.10"
    else
        die "no Python 3.10 or newer found (as python3, python3.13 ... python3.10 or python): install one," \
            "then run this again"
    fi
    note "making .venv with uv"
    UV_PYTHON_DOWNLOADS=never uv venv --quiet --seed --python "$python" "$VENV" ||
        die "uv could not make a virtual environment (its reason stands above)"
}

# Where the interpreter is depends on the system, and on the environment being there.
locate_programs() {
    local folder=$VENV/bin
    if [ -d "$VENV/Scripts" ]; then
        folder=$VENV/Scripts
    fi
    PYTHON=$folder/python
    case ":$PATH:" in
        *":$folder:"*) ;;
        *) PATH=$folder:$PATH ;;
    esac
}

interpreter_works() {
    locate_programs
    "$PYTHON" -c 'import pip, sys; sys.exit(sys.prefix == sys.base_prefix or sys.version_info < (3, 10))' \
        >/dev/null 2>&1
}

# A fast look that finds packages deleted or cut off; $1 adds what is slow to import.
packages_work() {
    "$PYTHON" -c "
import constriction, einops, huggingface_hub, numpy, rich, safetensors, soundfile, soxr, typer
import importlib.util, snac, snaccli
assert importlib.util.find_spec('torch')
${1:-}" >/dev/null 2>&1 && snac --help >/dev/null 2>&1
}

# All that an installation depends on. It names ROOT because installed programs hold absolute paths.
wanted() {
    printf '%s\n' "$ROOT"
    cat "$ROOT/pyproject.toml" "$ROOT/$CONSTRAINTS"
}

is_installed() {
    [ -f "$VENV/installed-$1" ] && [ "$(cat "$VENV/installed-$1")" = "$(wanted)" ]
}

install_packages() {
    local target=. quiet=--progress-bar=on
    [ "$1" = base ] || target=".[$1]"
    [ -t 2 ] || quiet=-qq
    note "installing snaccli and what it needs into .venv (some minutes the first time)"
    rm -f "$VENV"/installed-*
    (cd "$ROOT" && "$PYTHON" -m pip install $quiet --constraint "$CONSTRAINTS" --editable "$target") ||
        die "installing failed (pip's reason stands above); if it is not the network, delete $VENV and run this again"
}

make_environment() {
    local extra=$1
    if interpreter_works && is_installed "$extra" && packages_work; then
        return 0
    fi
    interpreter_works || create_environment
    locate_programs
    install_packages "$extra"
    if ! packages_work "import torch"; then
        note "the environment is damaged: making it anew"
        create_environment
        locate_programs
        install_packages "$extra"
        packages_work "import torch" ||
            die "what was installed does not work: $("$PYTHON" -c 'import torch, snaccli' 2>&1 | tail -n 1)"
    fi
    wanted >"$VENV/installed-base"
    wanted >"$VENV/installed-$extra"
}
