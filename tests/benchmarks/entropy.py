"""The adaptive coder's time a token, and what it costs to have it at hand.

    python -m tests.benchmarks.entropy [--seconds 10 60 600] [--rounds 3]

Codes the tokens that the shipped model gives the recordings of examples/audio, cut or repeated to the
lengths asked for. Prints microseconds of processor time a token (a busy machine lengthens the wall clock's),
the best of some rounds; and first the processor time of compiling the kernel, and of loading it from the
cache in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from snac import jit
from snaccli import entropy
from snaccli.audio import downmix, open_audio
from snaccli.codec import Codec
from snaccli.codes import Codes
from snaccli.entropy import kernel

RECORDINGS = Path(__file__).resolve().parents[2] / "examples" / "audio"
LOADING = """
import time
from snaccli.entropy import kernel
from snac import jit
started = time.process_time()
assert jit.available(kernel.code_narrow)
print(f"{1000 * (time.process_time() - started):.0f}")
"""


def processor_time(work: Callable[[], object]) -> float:
    """Seconds of this process's processor time that one call takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def recorded(codec: Codec) -> Codes:
    """Tokens of all recordings, one after the other."""
    grids = []
    for path in sorted(RECORDINGS.glob("*.flac")):
        with open_audio(path) as reader:
            grids.append(codec.encode(downmix(reader.blocks()), reader.rate, 1).codes)
    levels = [np.concatenate(parts, axis=1) for parts in zip(*(grid.levels for grid in grids), strict=True)]
    return Codes(tuple(levels), grids[0].strides, grids[0].codebook_size)


def of_length(codes: Codes, frames: int) -> Codes:
    """The first frames of a grid that is repeated as often as need be."""
    whole = -(-frames // codes.strides[0]) * codes.strides[0]
    levels = [
        np.resize(level, (1, whole // stride))
        for level, stride in zip(codes.levels, codes.strides, strict=True)
    ]
    return Codes(tuple(levels), codes.strides, codes.codebook_size)


def measure(codes: Codes, books: tuple[np.ndarray, ...], seconds: float, rounds: int) -> None:
    """Prints a line for each way."""
    streams = entropy.encode(codes, books)

    def decode() -> Codes:
        return entropy.decode(
            streams,
            strides=codes.strides,
            channels=codes.channels,
            frames=codes.frames,
            codebook_size=codes.codebook_size,
            codebooks=books,
        )

    for level, tokens in zip(codes.levels, decode().levels, strict=True):
        np.testing.assert_array_equal(level, tokens)
    tasks: dict[str, Callable[[], object]] = {
        "encode": lambda: entropy.encode(codes, books),
        "decode": decode,
    }
    for name, work in tasks.items():
        best = min(processor_time(work) for _ in range(rounds))
        print(f"| {seconds:g} | {codes.tokens} | {name} | {best / codes.tokens * 1e6:.1f} |", flush=True)


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 60, 600])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"compiling: {processor_time(lambda: jit._compile(kernel.code_narrow)):.1f} s")
    jit.available(kernel.code_narrow)
    loaded = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, check=True)
    print(f"loading from the cache: {loaded.stdout.strip()} ms")
    codec = Codec.load("mini")
    codes = recorded(codec)
    frame_rate = codec.rate / codec.config.hop_length
    print("| seconds | tokens | task | us a token |")
    print("|---|---|---|---|")
    for seconds in arguments.seconds:
        measure(of_length(codes, round(seconds * frame_rate)), codec.codebooks, seconds, arguments.rounds)


if __name__ == "__main__":
    main()
