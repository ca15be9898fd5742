#!/usr/bin/env bash
# Decodes every .snac file of a directory tree into a second tree, where all other files are copied.
#
#   bash examples/restore-tree.sh SOURCE TARGET [OPTION OF snac decode...]
#
# The recordings become WAV files unless an option says otherwise (--format flac). SOURCE stays as it is. Run it
# again to go on after an interruption. A file that cannot be decoded is named; the exit status is 1 then.
set -euo pipefail

if [ $# -lt 2 ] || [ ! -d "$1" ]; then
    echo "usage: bash examples/restore-tree.sh SOURCE TARGET [OPTION OF snac decode...]" >&2
    exit 2
fi
mkdir -p "$2"
unset CDPATH  # cd would print, and look elsewhere
source=$(cd "$1" && pwd) target=$(cd "$2" && pwd)
shift 2
case $target/ in
    "$source"/*) echo "restore-tree.sh: TARGET lies in SOURCE: name a folder elsewhere" >&2; exit 2 ;;
esac

status=0
snac decode "$source" -o "$target" --skip-existing "$@" || status=$?
[ "$status" -le 1 ] || exit "$status"

while IFS= read -r -d '' file; do
    below=${file#"$source"/}
    if [ ! -e "$target/$below" ]; then
        mkdir -p "$(dirname "$target/$below")"
        cp -p "$file" "$target/$below"
        echo "copied $below"
    fi
done < <(find "$source" -type f ! -iname '*.snac' -print0)
exit "$status"
