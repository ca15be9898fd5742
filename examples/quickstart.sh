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

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

recording=${1:-$ROOT/examples/audio/speech-en.flac}
[ -f "$recording" ] || die "no such recording: $recording"
model=${SNAC_MODEL:-mini}
out=${2:-$ROOT/build/quickstart}
name=$(basename "$recording")

make_environment base
mkdir -p "$out"
run snac encode --force --model "$model" "$recording" -o "$out/${name%.*}.snac"
run snac info "$out/${name%.*}.snac"
run snac decode --force "$out/${name%.*}.snac" -o "$out/${name%.*}.wav"
run snac bench --model "$model" "$recording"
printf '\nListen: %s\nThe environment is in .venv: source .venv/bin/activate, then snac --help.\n' "$out/${name%.*}.wav"
