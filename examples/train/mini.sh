#!/usr/bin/env bash
# From the packages to the weights of `mini`: fetches the corpus, trains, exports. Run it again to resume.
#
#   bash examples/train/mini.sh [--speech DIR] [--collection DIR] [--pieces N] [--short]
#
# The options but the last are those of examples/corpus/fetch.sh; --short takes a few steps of each part, to see
# that everything works here. Needs a Debian machine with the package installed (examples/quickstart.sh does that),
# about 3 GB of disk and, on two cores with bfloat16, about a day, most of it for mini-large.toml, which takes a GPU
# some minutes. The model lands in runs/mini/model; use it with `-m runs/mini/model`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
# Large tensors come and go at every step: keep their memory rather than give it back to the system.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184
if [ -x .venv/bin/python ]; then PATH="$root/.venv/bin:$PATH"; fi

fetch=() start=() steps=()
sets=(corpus/{speech,voices,music,sounds}_train.npy) broadly=(--minutes 45) closely=(--steps 2000)
for argument in "$@"; do
    if [ "$argument" = --short ]; then
        start=(--set stages.0.steps=60 --set unquantised_steps=20 --set fit_seconds=200)
        steps=(--set stages.0.steps=20)
        sets=(corpus/{voices,sounds}_val.npy) broadly=(--steps 40) closely=(--steps 40)
    else
        fetch+=("$argument")
    fi
done
train() { python -m snaccli train "examples/train/$1.toml" -o "runs/$2" --resume "${@:3}"; }

PYTHON=$(command -v python) bash examples/corpus/fetch.sh corpus "${fetch[@]}"
train mini-start mini-start "${start[@]}"
if [ ! -e runs/mini-grown/config.json ]; then
    python examples/train/grow.py runs/mini-start/model runs/mini-grown --linear-bins 213 --decoder-blocks 8 \
        --running-phases --phase-bins 64
fi
train mini mini-second "${steps[@]}"
train mini-large mini-third "${steps[@]}"
train mini-decoder mini-fourth "${steps[@]}"
train mini-mel mini-fifth "${steps[@]}"
train mini-last mini "${steps[@]}"
prior=runs/mini/model/prior.safetensors broad=runs/mini/broad.safetensors
learn() { python -m snaccli prior train "${sets[@]}" -m runs/mini/model "$@"; }
if [ ! -e "$prior" ]; then
    if [ ! -e "$broad" ]; then
        learn --speed 0.92 --speed 1.09 --speed 0.85 --speed 1.18 "${broadly[@]}" -o "$broad"
    fi
    # Other speeds stand for other voices, and are left out at the end: what will be coded is played at its own.
    learn --init "$broad" "${closely[@]}" -o "$prior"
fi
