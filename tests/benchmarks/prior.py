"""What a model's learned prior saves on sets of recordings, as Markdown.

    python -m tests.benchmarks.prior [-m MODEL] [--prior PRIOR] [--seconds 8] [--shortest 0.5] [--clips 40]
        SET...

A set is a packed file as examples/corpus writes it (NAME.npy beside NAME.json), a folder of recordings, or
one recording. Recordings are mixed down, brought to the model's rate and cut into clips of at most so many
seconds; of these some are coded that lie evenly over the set, each twice: with the adaptive coder alone, and
with the prior. The table gives bits a token, over all tokens of a set: of the coded tokens, and of the whole
files.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snaccli.audio import downmix, open_audio, resample
from snaccli.bench import find_recordings
from snaccli.codec import Codec, Recording, dumps
from snaccli.codec.recording import loads
from snaccli.entropy import Prior

PACKED_RATE = 24_000
SHORTEST = 0.5  # seconds; what is shorter is no clip, unless told
HEAD = (
    "| | clips | seconds each | adaptive | with the prior | less | with the container | | less |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
)


@dataclass(frozen=True)
class Bits:
    """Bits that recordings take.

    Attributes:
        tokens: of the recordings.
        payload: bits of their coded tokens.
        file: bits of the whole files.
    """

    tokens: int = 0
    payload: int = 0
    file: int = 0

    def __add__(self, other: Bits) -> Bits:
        return Bits(self.tokens + other.tokens, self.payload + other.payload, self.file + other.file)


def recordings_of(place: Path, rate: int) -> Iterator[np.ndarray]:
    """The recordings of a set, mono at ``rate`` Hz, float32 (n, 1) in -1..1.

    Raises:
        OSError: one of them, or a pack's list of recordings, cannot be read.
    """
    if place.suffix != ".npy":
        for path in find_recordings([str(place)]):
            with open_audio(path) as reader:
                yield _joined(resample(downmix(reader.blocks()), reader.rate, rate, 1))
        return
    packed = np.load(place, mmap_mode="r")
    for row in json.loads(place.with_suffix(".json").read_text(encoding="utf-8")):
        samples = packed[row["start"] : row["start"] + row["length"]].astype(np.float32) / 32768
        yield _joined(resample([samples[:, None]], PACKED_RATE, rate, 1))


def _joined(blocks: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 1), np.float32), *blocks])


def clips_of(recordings: Iterator[np.ndarray], most: int, least: int, count: int) -> list[np.ndarray]:
    """At most ``count`` clips of ``least`` to ``most`` samples, evenly over all that the recordings give."""
    clips = [
        samples[start : start + most]
        for samples in recordings
        for start in range(0, len(samples), most)
        if len(samples) - start >= least
    ]
    wanted = min(count, len(clips))
    return [clips[number * len(clips) // wanted] for number in range(wanted)]


def bits_of(recording: Recording, codec: Codec, prior: Prior | None) -> Bits:
    """What a recording takes as a file, with a prior or without."""
    data = dumps(recording, codec.codebooks, prior=prior)
    streams = loads(io.BytesIO(data)).streams
    payload = sum(len(stream.payload) for stream in streams)
    return Bits(recording.codes.tokens, 8 * payload, 8 * len(data))


def row(name: str, seconds: list[float], adaptive: Bits, learned: Bits) -> str:
    """One line of the table."""
    shown = [name, str(len(seconds)), f"{np.mean(seconds):.1f}"]
    pairs = ((adaptive.payload, learned.payload), (adaptive.file, learned.file))
    for without, bits in pairs:
        shown += [f"{without / adaptive.tokens:.2f}", f"{bits / learned.tokens:.2f}"]
        shown.append(f"{100 * (1 - bits / without):.1f} %")
    return f"| {' | '.join(shown)} |"


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path, metavar="SET")
    parser.add_argument("-m", "--model", default="mini")
    parser.add_argument("--prior", help="by default the one beside the model's weights")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a clip, at most")
    parser.add_argument("--shortest", type=float, default=SHORTEST, help="seconds of a clip, at least")
    parser.add_argument("--clips", type=int, default=40, help="of a set, at most")
    arguments = parser.parse_args()
    codec = Codec.load(arguments.model, prior=arguments.prior or True)
    if codec.prior is None:
        parser.error(f"{arguments.model} has no prior; name one with --prior")
    print("\n".join(HEAD))
    for place in arguments.sets:
        most, least = (round(seconds * codec.rate) for seconds in (arguments.seconds, arguments.shortest))
        clips = clips_of(recordings_of(place, codec.rate), most, least, arguments.clips)
        if not clips:
            parser.error(f"{place} holds no recording of {arguments.shortest:g} s or more")
        adaptive = learned = Bits()
        for clip in clips:
            recording = codec.encode([clip], codec.rate, 1)
            adaptive += bits_of(recording, codec, None)
            learned += bits_of(recording, codec, codec.prior)
        print(row(place.stem, [len(clip) / codec.rate for clip in clips], adaptive, learned), flush=True)


if __name__ == "__main__":
    main()
