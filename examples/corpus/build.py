"""Build the corpus from what fetch.sh has brought: render music, pack speech and music, sum up.

Writes OUT/{speech,voices,music,sounds}_{train,val}.{npy,json}; a pack that is there already is kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import sources
from pack import RATE, Clip, Row, write_pack
from render import render_pieces


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the corpus")
    parser.add_argument("--speech", type=Path, help="folder of VOICE-NNN.opus files, in place of OUT/voices")
    parser.add_argument("--collection", type=Path, help="folder with manifest.csv, voices/ and sounds/")
    parser.add_argument("--pieces", type=int, default=80, help="pieces of generated music, 70 s each (80)")
    return parser.parse_args()


def speech(out: Path, folder: Path | None) -> sources.Split:
    """Voices and prompts."""
    split = sources.joined_voices(folder) if folder else sources.cloned_voices(out / "voices")
    split += sources.prompts(out / "packages")
    return split


def music(out: Path, count: int) -> sources.Split:
    """Songs, sounds and generated pieces; renders the pieces that are missing."""
    packages = out / "packages"
    split = sources.songs(packages)
    split += sources.sounds(packages)
    if count:
        fonts = [packages / name for name in sources.SOUNDFONTS]
        split += sources.pieces(render_pieces(fonts, out / "pieces", count))
    return split


def pack(clips: list[Clip], target: Path) -> list[Row]:
    """Write a pack unless it is there already; return its rows."""
    table = target.with_suffix(".json")
    if table.exists() and target.with_suffix(".npy").exists():
        print(f"{target.name}: kept", file=sys.stderr)
        return [Row(**row) for row in json.loads(table.read_text(encoding="utf-8"))]
    if not clips:
        raise SystemExit(f"{target.name}: no recordings found; was everything fetched?")
    print(f"{target.name}: packing {len(clips)} recordings", file=sys.stderr)
    return write_pack(clips, target)


def summary(rows: list[Row]) -> str:
    """A line for each source: hours, recordings, licence."""
    samples: dict[tuple[str, str], int] = defaultdict(int)
    count: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        samples[row.source, row.licence] += row.length
        count[row.source, row.licence] += 1
    lines = [
        f"  {source:32} {length / RATE / 3600:6.2f} h {count[source, licence]:5} recordings  {licence}"
        for (source, licence), length in sorted(samples.items())
    ]
    return "\n".join([*lines, f"  {'total':32} {sum(samples.values()) / RATE / 3600:6.2f} h"])


def main() -> None:
    """Build what is missing and say what there is."""
    options = arguments()
    if shutil.which("ffmpeg") is None or (options.pieces and shutil.which("fluidsynth") is None):
        raise SystemExit("needs ffmpeg and fluidsynth on the PATH (or --pieces 0, which needs ffmpeg only)")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.collection:
        more = sources.collected(options.collection)
    else:
        more = sources.cloned_collections(options.out / "voices", options.out / "packages")
    for name, split in (
        ("speech", speech(options.out, options.speech)),
        ("voices", more["voices"]),
        ("music", music(options.out, options.pieces)),
        ("sounds", more["sounds"]),
    ):
        for part, clips in (("train", split.train), ("val", split.val)):
            rows = pack(clips, options.out / f"{name}_{part}")
            print(f"{name} {part}\n{summary(rows)}")


if __name__ == "__main__":
    main()
