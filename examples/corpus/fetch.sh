#!/usr/bin/env bash
# Fetch openly licensed speech and music, render more music, and pack all of it for `snac train`.
#
#   examples/corpus/fetch.sh OUT [--speech DIR] [--collection DIR] [--pieces N]
#
# OUT           folder for everything; run again to go on where a run stopped
# --speech      folder of VOICE-NNN.opus files, instead of cloning the five long voices from GitHub
# --collection  folder with manifest.csv, voices/ and sounds/, instead of cloning the many short ones
# --pieces      how many pieces of generated music, about 70 s each (80)
#
# Needs Debian or Ubuntu (apt-get, dpkg; no root), ffmpeg, fluidsynth, git, and a Python with numpy, soundfile and
# soxr (PYTHON names it). GITHUB names another place to clone from.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
github=${GITHUB:-https://github.com}
packages=(
  asterisk-core-sounds-it-g722 asterisk-core-sounds-ru-g722 fretsonfire-songs-sectoid sonic-pi-samples
  endless-sky-data hydrogen-drumkits fluid-soundfont-gm musescore-general-soundfont
)

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }
die() { echo "fetch.sh: $*" >&2; exit 1; }

out="" speech="" collection="" pieces=80
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --speech) speech=${2:?--speech needs a folder}; shift 2 ;;
    --collection) collection=${2:?--collection needs a folder}; shift 2 ;;
    --pieces) pieces=${2:?--pieces needs a number}; shift 2 ;;
    -*) usage >&2; exit 2 ;;
    *) [[ -z $out ]] || { usage >&2; exit 2; }; out=$1; shift ;;
  esac
done
[[ -n $out ]] || { usage >&2; exit 2; }
[[ -z $speech || -d $speech ]] || die "no such folder: $speech"
[[ -z $collection || -e $collection/manifest.csv ]] || die "no manifest.csv in $collection"
mkdir -p "$out/download" "$out/packages" "$out/voices"
[[ -z $speech ]] || speech=$(cd "$speech" && pwd)
[[ -z $collection ]] || collection=$(cd "$collection" && pwd)
out=$(cd "$out" && pwd)

fetch_package() {
  local name=$1 file
  [[ ! -d $out/packages/$name ]] || return 0
  echo "package $name" >&2
  if ! compgen -G "$out/download/${name}_*.deb" >/dev/null; then
    rm -rf "$out/download/part" && mkdir "$out/download/part"
    (cd "$out/download/part" && apt-get -qq download "$name") || die "cannot download $name (apt-get update?)"
    mv "$out/download/part/${name}"_*.deb "$out/download/"
  fi
  file=$(compgen -G "$out/download/${name}_*.deb" | head -n 1)
  rm -rf "$out/packages/.$name"
  dpkg -x "$file" "$out/packages/.$name"
  mv "$out/packages/.$name" "$out/packages/$name"
}

fetch_voice() {
  local name=$1 repository=$2
  [[ ! -d $out/voices/$name ]] || return 0
  echo "voice $name" >&2
  rm -rf "$out/voices/.$name"
  git clone --quiet --depth 1 "$github/$repository" "$out/voices/.$name" || die "cannot clone $github/$repository"
  mv "$out/voices/.$name" "$out/voices/$name"
}

listed() { "$python" -c 'import sys; sys.path.insert(0, sys.argv[1]); import sources
for line in eval(sys.argv[2]): print(line)' "$here" "$1"; }

clone_all() {
  local list
  list=$(listed "[f'{name} {each.repository}' for name, each in sources.$1.items()]")
  while read -r name repository; do fetch_voice "$name" "$repository"; done <<<"$list"
}

if [[ -z $collection ]]; then
  mapfile -t more < <(listed "(*sources.ABA_GAMES, sources.NAEV)")
  packages+=("${more[@]}")
fi
for name in "${packages[@]}"; do fetch_package "$name"; done
[[ -n $speech ]] || clone_all VOICES
[[ -n $collection ]] || clone_all COLLECTIONS
exec "$python" "$here/build.py" "$out" ${speech:+--speech "$speech"} ${collection:+--collection "$collection"} \
  --pieces "$pieces"
