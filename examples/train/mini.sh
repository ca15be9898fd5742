#!/usr/bin/env bash
# From the packages to the weights of `mini`: fetches the corpus, trains, exports. Run it again to resume.
#
#   bash examples/train/mini.sh [--speech DIR]      (see examples/corpus/README.md)
#
# Needs a Debian machine with the package installed (examples/quickstart.sh does that), about 3 GB of disk and,
# on two cores, four hours. The model lands in runs/mini/model; use it with `-m runs/mini/model`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
# Large tensors come and go at every step: keep their memory rather than give it back to the system.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184
if [ -x .venv/bin/python ]; then PATH="$root/.venv/bin:$PATH"; fi

bash examples/corpus/fetch.sh corpus "$@"
spectra=runs/mini-spectra
python -m snaccli train examples/train/mini.toml -o "$spectra" --resume
if [ ! -e "$spectra/low-band/low_band.json" ]; then
    python examples/train/low_band.py "$spectra/model" "$spectra/low-band" \
        corpus/speech_train.npy=0.55 corpus/music_train.npy=0.45
fi
second=runs/mini-low-band
python -m snaccli train examples/train/mini-low-band.toml -o "$second" --resume
cp "$spectra/low-band/low_band.json" "$second/model"
python -m snaccli train examples/train/mini-refit.toml -o runs/mini --resume
