"""What goes into the corpus: the sources, their licences, and which recordings are held out for validation.

Only CC0, public-domain, MIT and CC-BY recordings are listed, so that weights trained on them can carry the
MIT licence with a line of credit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pack import RATE, Clip

FULL_BAND = RATE // 2


@dataclass
class Split:
    """Clips to train on and clips held out; no clip is in both."""

    train: list[Clip] = field(default_factory=list)
    val: list[Clip] = field(default_factory=list)

    def add(self, clip: Clip, held: bool) -> None:
        """Put a clip on its side."""
        (self.val if held else self.train).append(clip)

    def __iadd__(self, other: Split) -> Split:
        self.train += other.train
        self.val += other.val
        return self


@dataclass(frozen=True)
class Voice:
    """A voice: its GitHub repository, the folder of its recordings there, its true bandwidth."""

    repository: str
    folder: str
    bandwidth_hz: int
    licence: str


VOICES = {
    "kathleen": Voice("rhasspy/dataset-voice-kathleen", ".", FULL_BAND, "CC0-1.0"),
    "nathalie": Voice("rhasspy/dataset-voice-nathalie", ".", FULL_BAND, "CC0-1.0"),
    "flemishguy": Voice("rhasspy/dataset-voice-flemishguy", ".", 11_000, "CC0-1.0"),
    "kerstin": Voice("rhasspy/dataset-voice-kerstin", ".", 7_500, "CC0-1.0"),
    "vocobox": Voice(
        "vocobox/human-voice-dataset", "data/voices/martin/notes/exports/mono", FULL_BAND, "MIT"
    ),
}
SPEECH_ENDINGS = {".wav", ".flac", ".webm", ".ogg", ".opus"}
HELD_OUT_UTTERANCES = 40
HELD_OUT_SONG = "Escape from chaosland"
HELD_OUT_PIECES = 2

PROMPTS = ("asterisk-core-sounds-it-g722", "asterisk-core-sounds-ru-g722")
SONGS = "fretsonfire-songs-sectoid"
# package: folder inside it and licence, of collections of short sounds
SOUNDS = (
    ("sonic-pi-samples", "usr/share/sonic-pi/samples", "CC0-1.0 AND MIT"),
    ("endless-sky-data", "usr/share/games/endless-sky/sounds", "public-domain"),
    ("hydrogen-drumkits", "usr/share/hydrogen/data/drumkits/Audiophob", "CC0-1.0"),
    ("hydrogen-drumkits", "usr/share/hydrogen/data/drumkits/rumpf_kit_z01_h2", "CC-BY-3.0"),
)
# CC-BY-SA recordings among the public-domain ones of endless-sky-data.
NOT_FREE_ENOUGH = {"heavy rocket hit.wav", "explosion huge.wav"}
SOUNDFONTS = (
    "fluid-soundfont-gm/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "musescore-general-soundfont/usr/share/sounds/sf3/MuseScore_General_Full.sf3",
)


def held_out(name: str, percent: int = 5) -> bool:
    """Whether the recording of this name belongs to the validation set; depends on the name alone."""
    return hashlib.sha256(name.encode()).digest()[0] * 100 < percent * 256


def _in_order(path: Path) -> list[int | str]:
    # "10" after "9": numbers in a name count as numbers.
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.as_posix())]


def joined_voices(folder: Path) -> Split:
    """Find VOICE-NNN.opus in ``folder``; of each voice with several files the last one is held out."""
    split = Split()
    for name, voice in VOICES.items():
        pattern = re.compile(re.escape(name) + r"-\d+\.opus")
        paths = sorted((path for path in folder.iterdir() if pattern.fullmatch(path.name)), key=_in_order)
        for index, path in enumerate(paths):
            clip = Clip(path.stem, (path,), voice.bandwidth_hz, "speech", voice.licence, voice.repository)
            split.add(clip, held=index == len(paths) - 1 and len(paths) > 1)
    return split


def cloned_voices(folder: Path) -> Split:
    """Find the utterances in ``folder``/VOICE, clones of the repositories; the last ones are held out."""
    split = Split()
    for name, voice in VOICES.items():
        root = folder / name / voice.folder
        paths = sorted((path for path in root.rglob("*") if path.suffix in SPEECH_ENDINGS), key=_in_order)
        held = min(HELD_OUT_UTTERANCES, len(paths) // 10)
        for index, path in enumerate(paths):
            label = f"{name}/{path.relative_to(root).as_posix()}"
            clip = Clip(label, (path,), voice.bandwidth_hz, "speech", voice.licence, voice.repository)
            split.add(clip, held=index >= len(paths) - held)
    return split


def prompts(unpacked: Path, packages: Iterable[str] = PROMPTS) -> Split:
    """Telephone prompts (G.722, 16 kHz) below ``unpacked``/PACKAGE; about one in twenty is held out."""
    split = Split()
    for package in packages:
        root = unpacked / package
        for path in sorted(root.rglob("*.g722")):
            inner = path.relative_to(root).as_posix()
            if path.is_symlink() or "/silence/" in f"/{inner}":
                continue
            name = f"{package}/{inner.removesuffix('.g722').split('sounds/', 1)[-1]}"
            split.add(Clip(name, (path,), 7_000, "speech", "CC-BY-3.0", package), held_out(name))
    return split


def songs(unpacked: Path, package: str = SONGS) -> Split:
    """Songs whose stems lie in one folder each, mixed; one whole song is held out."""
    split = Split()
    for path in sorted((unpacked / package).rglob("song.ogg")):
        stems = tuple(sorted(path.parent.glob("*.ogg")))
        title = path.parent.name
        clip = Clip(f"{package}/{title}", stems, FULL_BAND, "music", "MIT", package)
        split.add(clip, held=title == HELD_OUT_SONG)
    return split


def sounds(unpacked: Path) -> Split:
    """Short sounds and loops of instruments and machines; about one in twenty is held out."""
    split = Split()
    for package, folder, licence in SOUNDS:
        root = unpacked / package / folder
        for path in sorted(root.rglob("*")):
            if path.suffix not in {".wav", ".flac", ".mp3"} or path.name in NOT_FREE_ENOUGH:
                continue
            name = f"{package}/{path.relative_to(root.parent).as_posix()}"
            split.add(Clip(name, (path,), FULL_BAND, "sound", licence, package), held_out(name))
    return split


def pieces(paths: list[Path]) -> Split:
    """Rendered pieces of generated music; the last two (one a soundfont) are held out."""
    split = Split()
    for index, path in enumerate(paths):
        clip = Clip(f"generated/{path.stem}", (path,), FULL_BAND, "music", "MIT", "generated")
        split.add(clip, held=len(paths) > HELD_OUT_PIECES and index >= len(paths) - HELD_OUT_PIECES)
    return split
