"""The adaptive coder's time a token, compiled and plain, in turn within one run.

    python -m tests.benchmarks.entropy [--seconds 10 60 600] [--rounds 3]

Codes the tokens that the shipped model gives the recordings of examples/audio, cut or repeated to the
lengths asked for. Prints microseconds of processor time a token (a busy machine lengthens the wall clock's),
the best of some rounds (the plain coder takes one where that is long), the ratio, and first what it costs to
get the compiled coder: importing numba, and taking it from numba's cache or compiling it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snaccli.audio import downmix, open_audio
from snaccli.codec.model import Codec
from snaccli.codes import CodedStream, Codes
from snaccli.entropy import adaptive, compiled, directions
from snaccli.entropy.compiled import CompiledCoder, TokenCoder
from snaccli.entropy.directions import Points
from snaccli.entropy.plain import PlainCoder

RECORDINGS = Path(__file__).resolve().parents[2] / "examples" / "audio"
LONG = 20_000  # tokens


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
            grids.append(codec.encode(downmix(reader.blocks()), reader.rate, 1)[0])
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


def parents(codes: Codes, space: list[Points]) -> list[adaptive.Parent | None]:
    """The coarser level of each."""
    above = zip(codes.levels, space, codes.strides, strict=True)
    return [None, *(adaptive.Parent(level[0], points, stride) for level, points, stride in above)]


def encode(coder: type[TokenCoder], codes: Codes, space: list[Points]) -> list[CodedStream]:
    """Every level coded by the adaptive coder."""
    rows = zip(codes.levels, space, codes.strides, parents(codes, space), strict=False)
    return [
        CodedStream(1, adaptive.encode(level[0], points, stride, parent, lambda count: None, coder))
        for level, points, stride, parent in rows
    ]


def decode(
    coder: type[TokenCoder], streams: list[CodedStream], codes: Codes, space: list[Points]
) -> list[NDArray[np.uint16]]:
    """The tokens of every level."""
    rows = zip(streams, codes.levels, space, codes.strides, parents(codes, space), strict=False)
    return [
        adaptive.decode(stream.payload, level.size, points, stride, parent, lambda count: None, coder)
        for stream, level, points, stride, parent in rows
    ]


def compare(codes: Codes, space: list[Points], seconds: float, rounds: int) -> None:
    """Print a line for each way."""
    streams = encode(CompiledCoder, codes, space)
    if encode(PlainCoder, codes, space) != streams:
        raise SystemExit("the coders' bytes differ")
    for level, tokens in zip(codes.levels, decode(CompiledCoder, streams, codes, space), strict=True):
        np.testing.assert_array_equal(level[0], tokens)
    plain_rounds = 1 if codes.tokens > LONG else rounds
    tasks: dict[str, Callable[[type[TokenCoder]], object]] = {
        "encode": lambda coder: encode(coder, codes, space),
        "decode": lambda coder: decode(coder, streams, codes, space),
    }
    for name, work in tasks.items():
        fast = min(processor_time(lambda: work(CompiledCoder)) for _ in range(rounds))  # noqa: B023
        plain = min(processor_time(lambda: work(PlainCoder)) for _ in range(plain_rounds))  # noqa: B023
        print(
            f"| {seconds:g} | {codes.tokens} | {name} | {plain / codes.tokens * 1e6:.1f} | "
            f"{fast / codes.tokens * 1e6:.1f} | {plain / fast:.1f} |",
            flush=True,
        )


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 60, 600])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"import numba: {processor_time(compiled._module):.2f} s")
    found = "taken from the cache" if compiled._on_disk() else "compiled"
    print(f"coder {found}: {processor_time(compiled._working):.2f} s")
    codec = Codec.load("mini")
    codes = recorded(codec)
    space = [directions.points(codebook) for codebook in codec.codebooks]
    frame_rate = codec.rate / codec.config.hop_length
    print("| seconds | tokens | task | plain, us a token | compiled, us a token | ratio |")
    print("|---|---|---|---|---|---|")
    for seconds in arguments.seconds:
        compare(of_length(codes, round(seconds * frame_rate)), space, seconds, arguments.rounds)


if __name__ == "__main__":
    main()
