"""Speech-like sound from a small model of tokens, trained on the spot: from recordings to a WAV.

    python examples/generate.py [RECORDING...] [-o generated.wav] [--seconds 10] [--seed 0] [--model mini]

1. Recordings become codes, and the codes one sequence of ids a recording (docs/tokens.md).
2. The "language model" counts which id follows which few before it (an n-gram model that backs off to fewer).
   It learns two minutes in seconds and speaks in the voice, not in words. A transformer would take the place
   of ``Ngrams``; nothing else would change.
3. Each frame of ids that it draws goes through the streaming decoder, which returns audio while the model
   still generates.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from snac.noise import Noise
from snaccli.audio import AudioWriter, downmix, open_audio
from snaccli.codec import Codec
from snaccli.errors import SnacError
from snaccli.tokens import Interleaving, flatten, unflatten

RECORDINGS = Path(__file__).parent / "audio"


class Ngrams:
    """Counts of what follows the last ids, for every number of last ids up to ``reach``.

    Ids have offsets, so that the last id alone tells the place in the frame, and only ids of the next place
    follow it.
    """

    def __init__(self, sequences: list[list[int]], reach: int) -> None:
        self.reach = reach
        self.counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        self.starts = [sequence[0] for sequence in sequences]
        for sequence in sequences:
            for end in range(1, len(sequence)):
                for length in range(1, min(reach, end) + 1):
                    self.counts[tuple(sequence[end - length : end])][sequence[end]] += 1

    def next(self, past: list[int], rng: np.random.Generator) -> int:
        """An id after ``past``: by the longest past that had at least two ids after it, lest it recites."""
        for length in range(min(self.reach, len(past)), 0, -1):
            found = self.counts.get(tuple(past[-length:]))
            if found and (len(found) > 1 or length == 1):
                ids, counts = np.array(list(found)), np.array(list(found.values()), float)
                return int(rng.choice(ids, p=counts / counts.sum()))
        return self.starts[rng.integers(len(self.starts))]


def sequence_of(path: Path, codec: Codec, order: Interleaving) -> list[int]:
    """The ids of a recording."""
    with open_audio(path) as reader:
        codes = codec.encode(downmix(reader.blocks()), reader.rate, 1).codes
    ids: list[int] = flatten([level[0] for level in codes.levels], order).tolist()
    return ids


def frames(model: Ngrams, order: Interleaving, rng: np.random.Generator) -> Iterator[list[int]]:
    """Frames of ids without end."""
    past = [model.starts[rng.integers(len(model.starts))]]
    while True:
        while len(past) % order.frame_length:
            past.append(model.next(past, rng))
        yield past[-order.frame_length :]
        past = past[-order.frame_length :]  # as far back as any count goes
        past.append(model.next(past, rng))


def generate(options: argparse.Namespace) -> None:
    codec = Codec.load(options.model)
    order = Interleaving(codec.strides, codec.codebook_size, offsets=True)
    print(f"encoding {len(options.recordings)} recordings")
    sequences = [sequence_of(path, codec, order) for path in options.recordings]
    model = Ngrams(sequences, order.frame_length)
    print(f"{sum(map(len, sequences)):,} tokens; {len(model.counts):,} pasts counted")

    rng = np.random.default_rng(options.seed)
    decoder = codec.engine.decoder_stream(noise=Noise.seeded(options.seed))
    samples = codec.hop_length * codec.config.frame_alignment  # attention takes whole windows
    samples *= max(1, round(options.seconds * codec.rate / samples))
    wanted = samples // (codec.hop_length * codec.strides[0])
    with AudioWriter(options.output, codec.rate, 1, frames=samples, overwrite=True) as writer:
        for _, ids in zip(range(wanted), frames(model, order, rng), strict=False):
            codes = unflatten(np.array([ids]), order)  # (1, tokens) a level
            writer.write(decoder.push(codes).T)  # what is final by now: a player could play it
        writer.write(decoder.push(None, ended=True).T)
    behind = 1000 * decoder.latency / codec.rate
    print(
        f"{samples / codec.rate:.1f} s in {options.output}; audio came at most {behind:.0f} ms behind the ids"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    speech = sorted(RECORDINGS.glob("speech-*.flac"))
    parser.add_argument("recordings", nargs="*", type=Path, default=speech, metavar="RECORDING")
    parser.add_argument("-o", "--output", default="generated.wav")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="mini")
    try:
        generate(parser.parse_args())
    except (SnacError, OSError) as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
