"""Word errors of a speech recogniser on original and on decoded speech, as Markdown.

    python -m tests.benchmarks.recogniser [-m MODEL] [--against CODEC:RATE,...] SOUNDS TEXTS

The recogniser is that of the package pocketsphinx (extra snaccli[metrics]), with the English acoustic and
language models that it carries, nothing adapted, at 16 kHz. SOUNDS is a folder of recordings, TEXTS a file of
lines `name: what is said`, by the names of the recordings without extension; lines with square brackets or
digits and those of fewer than FEWEST words are left out. The texts are the prompts that the speaker read, so
errors on the original speech count, too. With Debian's packages asterisk-core-sounds-en and -en-g722 (an
American voice that no model of ours was trained on; unpacked in x):

    for f in x/usr/share/asterisk/sounds/en_US_f_Allison/*.g722; do
        ffmpeg -f g722 -i "$f" sounds/"$(basename "$f" .g722)".wav
    done
    gunzip -c x/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz > texts.txt
    python -m tests.benchmarks.recogniser sounds texts.txt

Substitutions, insertions and deletions count alike, over the words of the texts; the interval is a 95 %
bootstrap interval over recordings.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr
from pocketsphinx import Decoder

from snaccli.bench import parse_peers
from snaccli.bench.peers import Peer, Samples
from snaccli.bench.results import interval
from snaccli.bench.subjects import ModelSubject, PeerSubject, Subject, Track, open_original
from snaccli.progress import SILENT

RATE = 16_000
FEWEST = 5
"""Words of a text: shorter prompts tell more of the language model than of the sound."""
SETTINGS = {"maxhmmpf": 3000, "maxwpf": 5, "fwdflat": False}
"""One pass and a narrower search than by default: two thirds of the time for as many errors."""


def words(text: str) -> list[str]:
    """The words of a text, as the recogniser's dictionary spells them."""
    return re.findall(r"[a-z']+", text.lower().replace("-", " "))


def read_texts(path: Path) -> dict[str, list[str]]:
    """What is said in each recording, by its name; see the top for what is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, colon, text = line.partition(": ")
        if colon and not re.search(r"[\d\[\];]", line) and len(words(text)) >= FEWEST:
            found[name] = words(text)
    return found


def errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest words to substitute, insert and delete to make one of the other (Levenshtein 1966)."""
    row = list(range(len(heard) + 1))
    for count, word in enumerate(said, 1):
        diagonal, row[0] = row[0], count
        for place, other in enumerate(heard, 1):
            diagonal, row[place] = (
                row[place],
                min(diagonal + (word != other), row[place] + 1, row[place - 1] + 1),
            )
    return row[-1]


class Recogniser:
    """The recogniser, made once: what it heard before does not count."""

    def __init__(self) -> None:
        self._decoder = Decoder(samprate=RATE, loglevel="FATAL", **SETTINGS)

    def heard(self, samples: Samples, rate: int) -> list[str]:
        """The words of a recording, (samples,), full scale 1.0."""
        sound = np.pad(soxr.resample(samples, rate, RATE), RATE // 4)
        pcm = np.clip(np.rint(sound * 32767), -32768, 32767).astype("<i2").tobytes()
        self._decoder.reinit_feat()  # the level of the last recording must not tint the next
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return words(found.hypstr) if found else []


def through(subject: Subject, original: Track, folder: Path) -> Samples:
    """A recording as a codec gives it back."""
    coded = folder / "coded"
    subject.encode(original, coded, SILENT)
    track, _ = subject.decode(coded, original, folder / "decoded", None, SILENT)
    return track.read(0, track.frames)


def measure(
    sounds: Sequence[Path], texts: dict[str, list[str]], models: Sequence[str], peers: Sequence[Peer]
) -> dict[str, list[int]]:
    """Word errors of each recording, by what it went through."""
    from snaccli.codec import Codec

    recogniser = Recogniser()
    found: dict[str, list[int]] = {"original": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subjects: list[Subject] = [ModelSubject(Codec.load(model), by_levels=False) for model in models]
        subjects += [PeerSubject(peer, folder) for peer in peers]
        for path in sounds:
            original = open_original(path, folder / "original")
            versions = {"original": original.read(0, original.frames)}
            versions |= {subject.name: through(subject, original, folder) for subject in subjects}
            for version, samples in versions.items():
                heard = recogniser.heard(samples, original.rate)
                found.setdefault(version, []).append(errors(texts[path.stem], heard))
    return found


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sounds", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("-m", "--model", action="append", help="by default mini")
    parser.add_argument("--against", action="append", help="by default opus:6 and codec2:3200")
    parser.add_argument("--every", type=int, default=1, help="take one recording of so many")
    arguments = parser.parse_args()
    texts = read_texts(arguments.texts)
    sounds = [path for path in sorted(arguments.sounds.iterdir()) if path.stem in texts][:: arguments.every]
    peers = parse_peers(arguments.against or ["opus:6", "codec2:3200"])
    found = measure(sounds, texts, arguments.model or ["mini"], peers)
    counts = [float(len(texts[path.stem])) for path in sounds]
    print(f"{len(sounds)} recordings, {sum(counts):.0f} words")
    print("| speech | word errors | 95 % interval | to the original's |\n|---|---|---|---|")
    for name, wrong in found.items():
        low, high = interval([float(each) for each in wrong], counts) or (0.0, 0.0)
        rate, ratio = sum(wrong) / sum(counts), sum(wrong) / max(1, sum(found["original"]))
        print(f"| {name} | {rate:.1%} | {low:.1%} to {high:.1%} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
