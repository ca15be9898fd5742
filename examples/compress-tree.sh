#!/usr/bin/env bash
# Compresses every recording of a directory tree into a second tree, where all other files are copied.
#
#   bash examples/compress-tree.sh SOURCE TARGET [OPTION OF snac encode...]
#
# SOURCE stays as it is. Run it again to go on after an interruption, or to add what is new. A recording that
# cannot be encoded is copied as it is and named; the exit status is 1 then. restore-tree.sh leads back.
set -euo pipefail

if [ $# -lt 2 ] || [ ! -d "$1" ]; then
    echo "usage: bash examples/compress-tree.sh SOURCE TARGET [OPTION OF snac encode...]" >&2
    exit 2
fi
mkdir -p "$2"
unset CDPATH  # cd would print, and look elsewhere
source=$(cd "$1" && pwd) target=$(cd "$2" && pwd)
shift 2
case $target/ in
    "$source"/*) echo "compress-tree.sh: TARGET lies in SOURCE: name a folder elsewhere" >&2; exit 2 ;;
esac

status=0
snac encode "$source" -o "$target" --skip-existing "$@" || status=$?
[ "$status" -le 1 ] || exit "$status"

# A recording that was encoded is not copied; whatever else is not in TARGET yet is.
while IFS= read -r -d '' file; do
    below=${file#"$source"/}
    case $(printf %s "${file##*.}" | tr '[:upper:]' '[:lower:]') in
        wav | flac | ogg | oga | opus | mp3 | m4a | aac | aif | aiff | aifc | au | caf | w64 | rf64 | webm | mp4 | mkv)
            [ ! -e "$target/${below%.*}.snac" ] || continue ;;
    esac
    if [ ! -e "$target/$below" ]; then
        mkdir -p "$(dirname "$target/$below")"
        cp -p "$file" "$target/$below"
        echo "copied $below"
    fi
done < <(find "$source" -type f -print0)

snac verify --quiet "$target" || status=1
printf '%s KiB became %s KiB\n' "$(du -sk "$source" | cut -f1)" "$(du -sk "$target" | cut -f1)"
exit "$status"
