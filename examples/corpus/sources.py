"""What goes into the corpus: the sources, their licences, and which recordings are held out for validation.

Only CC0, public-domain, MIT and CC-BY recordings are listed, so that weights trained on them can carry the
MIT licence with a line of credit.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
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


@dataclass(frozen=True)
class Collection:
    """Many recordings in one GitHub repository.

    Attributes:
        repository: owner/name.
        patterns: of the recordings in it.
        licence: of all of them.
        kind: ``speech`` or ``sound``.
        each: most recordings that are taken of a folder; 0 for all.
    """

    repository: str
    patterns: tuple[str, ...]
    licence: str
    kind: str
    each: int = 0


COLLECTIONS = {
    "common-voice": Collection(
        "omnilingo/rsample-100-cv-corpus-6.1-2020-12-11", ("*/clips/*.mp3",), "CC0-1.0", "speech"
    ),
    "dspspeech": Collection("zhongyuchen/DSPSpeech-20", ("*/*.wav",), "MIT", "speech", each=10),
    "picovoice": Collection(
        "Picovoice/speech-to-intent-benchmark", ("data/speech/clean/*.wav",), "Apache-2.0", "speech", each=300
    ),
    "esc-10": Collection("karolpiczak/ESC-10", ("*/*.ogg",), "CC-BY-3.0 AND CC0-1.0", "sound"),
    **{
        name: Collection(f"sfzinstruments/{name}", ("**/*.wav", "**/*.flac"), "CC0-1.0", "sound", each=12)
        for name in ("karoryfer.meatbass", "karoryfer.emilyguitar", "dsmolken.double-bass", "body_percussion")
    },
}
UNSEEN_LANGUAGE = "fr"
"""Left out, so that fine-tuning can be shown on a language that the default model has not heard."""

ABA_GAMES = tuple(
    f"{game}-data"
    for game in (
        *("a7xpg", "gunroar", "mu-cade", "noiz2sa", "parsec47", "rrootage", "titanion"),
        *("torus-trooper", "tumiki-fighters", "val-and-rick"),
    )
)
NAEV = "naev-data"
# The pieces of naev-data under CC-BY 3.0 or CC0; the others are ShareAlike or GPL.
NAEV_PIECES = frozenset(
    (
        *("ambient1", "ambient2", "ambient2_5", "ambient3", "ambiphonic", "automat", "battlesomething1"),
        *("battlesomething2", "blackmoor_tides", "collective1", "collective2", "dark_city", "empire1"),
        *("empire2", "flf_battle1", "heartofmachine", "imminent_threat", "intrigue", "intro"),
        *("landing_sinister", "nebu_battle1", "nebu_battle2", "pirate1_theme1", "pirates_orchestra"),
        *("sirius1", "tension", "upbeat", "void_sensor", "zalek1", "zalek2"),
    )
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


def collected(folder: Path) -> dict[str, Split]:
    """Reads ``folder``/manifest.csv: ``voices`` and ``sounds`` by the folders that its rows lie in.

    One voice in fifty and one sound in twenty is held out. The columns are file, source, licence,
    bandwidth_hz and, for voices, language; French is left out.
    """
    splits = {"voices": Split(), "sounds": Split()}
    with open(folder / "manifest.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["language"] == UNSEEN_LANGUAGE:
                continue
            name = row["file"]
            kind, percent = ("speech", 2) if name.startswith("voices/") else ("sound", 5)
            bandwidth = min(FULL_BAND, int(row["bandwidth_hz"]))
            clip = Clip(name, (folder / name,), bandwidth, kind, row["licence"], row["source"])
            splits[name.partition("/")[0]].add(clip, held_out(name, percent))
    return splits


def cloned_collections(folder: Path, unpacked: Path) -> dict[str, Split]:
    """Voices and sounds in ``folder``/NAME, clones of COLLECTIONS, and music of games in Debian packages."""
    splits = {"voices": Split(), "sounds": Split()}
    for name, collection in COLLECTIONS.items():
        split = splits["voices" if collection.kind == "speech" else "sounds"]
        speakers = _speakers(folder / name)
        for path in _taken(folder / name, collection):
            label = f"{name}/{path.relative_to(folder / name).as_posix()}"
            clip = Clip(label, (path,), 0, collection.kind, collection.licence, collection.repository)
            split.add(clip, held_out(speakers.get(path.name, label), 2 if clip.kind == "speech" else 5))
    for package in (*ABA_GAMES, NAEV):
        licence = "CC-BY-3.0 AND CC0-1.0" if package == NAEV else "BSD-2-Clause"
        for path in sorted((unpacked / package).rglob("*.ogg")):
            if package == NAEV and path.stem not in NAEV_PIECES:
                continue
            label = f"{package}/{path.name}"
            splits["sounds"].add(Clip(label, (path,), 0, "music", licence, package), held_out(label))
    return splits


def _taken(root: Path, collection: Collection) -> Iterator[Path]:
    paths = {path for pattern in collection.patterns for path in root.glob(pattern)}
    count: Counter[Path] = Counter()
    for path in sorted(paths, key=_in_order):
        count[path.parent] += 1
        if collection.each and count[path.parent] > collection.each:
            continue
        if path.relative_to(root).parts[0] != UNSEEN_LANGUAGE:
            yield path


def _speakers(root: Path) -> dict[str, str]:
    """File name to speaker, where a clone of Common Voice says so in its validated.tsv files."""
    speakers = {}
    for table in root.glob("*/validated.tsv"):
        with open(table, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                speakers[row["path"]] = row["client_id"]
    return speakers
