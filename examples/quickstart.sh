#!/usr/bin/env bash
# From a fresh checkout to a first .snac file: makes the environment, encodes a real recording, decodes it
# and prints what that cost. Needs Python 3.10+; only the package index is asked, and only the first time.
#
#   bash examples/quickstart.sh [RECORDING [FOLDER]]
#
# RECORDING is examples/audio/speech-en.flac by default. What it makes stays in FOLDER, by default
# build/quickstart in the checkout. SNAC_MODEL chooses another model than "mini".
set -euo pipefail

# shellcheck source=examples/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

started=$PWD
cd "$ROOT"

run() {
    local shown
    printf -v shown ' %q' "$@"
    printf '\n$%s\n' "$shown"
    "$@"
}

# What the caller names is relative to where the caller stands.
absolute() {
    case $1 in
        /*) printf '%s' "$1" ;;
        *) printf '%s' "$started/$1" ;;
    esac
}

recording=examples/audio/speech-en.flac
[ $# -lt 1 ] || recording=$(absolute "$1")
out=build/quickstart
[ $# -lt 2 ] || out=$(absolute "$2")
[ -f "$recording" ] || die "no such recording: $recording"
name=$(basename "$recording")
name=${name%.*}
model=()
[ -z "${SNAC_MODEL:-}" ] || model=(--model "$SNAC_MODEL")

make_environment base
mkdir -p "$out"
run snac encode --force ${model[@]+"${model[@]}"} "$recording" -o "$out/$name.snac"
run snac info "$out/$name.snac"
run snac decode --force ${model[@]+"${model[@]}"} "$out/$name.snac" -o "$out/$name.wav"
run snac bench ${model[@]+"${model[@]}"} "$recording"
printf '\nListen to %s.\nFor work of your own: source .venv/bin/activate, then snac --help.\n' "$out/$name.wav"
