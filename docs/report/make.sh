#!/usr/bin/env bash
# Measures `mini` beside Opus and Codec 2 on the shipped recordings, and makes of that: mini.html beside this script,
# its pictures where there is a Chromium, the spectrograms, and the tables of README.md and docs/bench.md. Needs
# opusenc, opusdec, c2enc, c2dec (Debian: opus-tools, codec2), and snaccli[metrics].
#
#   bash docs/report/make.sh
#   SOUNDS=folder TEXTS=file bash docs/report/make.sh    also the word errors, see tests/benchmarks/recogniser.py
set -euo pipefail
unset CDPATH
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

python=${PYTHON:-python}
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || python=.venv/bin/python
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

COLUMNS=86 "$python" -m snaccli bench examples/audio --levels --against opus:6 --against codec2:3200 \
    --html docs/report/mini.html --clip 5 --force >"$scratch/table"
"$python" docs/put.py README.md figures --indent <"$scratch/table"
"$python" -m tests.benchmarks.peers --against opus:6,12 --against codec2:3200 |
    "$python" docs/put.py docs/bench.md peers
"$python" docs/report/spectrograms.py examples/audio/speech-en.flac 12.1 3.5 docs/report/spectrograms.png
if [ -n "${SOUNDS:-}" ]; then
    "$python" -m tests.benchmarks.recogniser --every 3 "$SOUNDS" "${TEXTS:?}" |
        "$python" docs/put.py docs/bench.md recogniser
fi

# $1: a picture; $2, $3: width and height of the window; $4: what of the page
picture() {
    "$browser" --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
        --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$scratch/profile" \
        --window-size="$2,$3" --screenshot="$here/$1" "file://$here/mini.html$4" 2>/dev/null
}

for browser in chromium google-chrome; do
    command -v "$browser" >/dev/null || continue
    picture mini.png 1200 3300 '#r1'
    exit
done
echo "no Chromium here: docs/report/mini.png stays as it was" >&2
