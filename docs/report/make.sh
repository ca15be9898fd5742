#!/usr/bin/env bash
# Makes mini.html beside this script, the report of `mini` beside Opus on the shipped recordings, and its
# screenshot where there is a Chromium. Needs opusenc and opusdec (Debian: opus-tools), and snaccli[metrics].
#
#   bash docs/report/make.sh
set -euo pipefail
unset CDPATH
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

python=${PYTHON:-python}
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || python=.venv/bin/python
"$python" -m snaccli bench examples/audio --levels --against opus:6,12 \
    --html docs/report/mini.html --clip 3 --force

for browser in chromium google-chrome; do
    command -v "$browser" >/dev/null || continue
    profile=$(mktemp -d)
    trap 'rm -rf "$profile"' EXIT
    "$browser" --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking \
        --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$profile" \
        --window-size=1200,3300 --screenshot="$here/mini.png" "file://$here/mini.html#r1" 2>/dev/null
    exit
done
echo "no Chromium here: docs/report/mini.png stays as it was" >&2
