"""Frames of codes to audio as they come, on one core, beside the published package's sliding window.

    python -m tests.benchmarks.streaming [--frames 40] [--rounds 3]

The configuration is 24khz, with random weights. The published package has no streaming: the programs around
it decode the last four frames anew for each one that comes and keep the part in the middle, an
approximation. Ours is the streaming decoder, whose audio is that of decoding all frames at once. Both
compute with one thread, in turn.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from snac.engine import Engine, build_engine
from snac.hub.checkpoint import load_checkpoint, save_checkpoint
from snac.nn.model import SNAC
from tests.published import FULL, install, load, randomise

WINDOW = 4  # frames that the programs around the published package decode together
Frame = list[np.ndarray]
Decode = Callable[[Frame], object]


def made_frames(engine: Engine, count: int) -> list[Frame]:
    """Random codes, a frame of seven tokens each."""
    rng, strides = np.random.default_rng(0), engine.config.vq_strides
    size = engine.config.codebook_size
    return [[rng.integers(0, size, (1, strides[0] // stride)) for stride in strides] for _ in range(count)]


def sliding(model: torch.nn.Module) -> Decode:
    """What is done with the published package, frame by frame."""
    held: list[Frame] = []

    def decode(frame: Frame) -> object:
        held.append(frame)
        del held[:-WINDOW]
        if len(held) < WINDOW:
            return None
        codes = [torch.from_numpy(np.concatenate(level, axis=1)) for level in zip(*held, strict=True)]
        with torch.inference_mode():
            return model.decode(codes)[:, :, 2048:4096]

    return decode


def streaming(engine: Engine, together: int) -> Decode:
    """The streaming decoder, given so many frames at a time."""
    decoder, held = engine.decoder_stream(), []

    def decode(frame: Frame) -> object:
        held.append(frame)
        if len(held) < together:
            return None
        codes = [np.concatenate(level, axis=1) for level in zip(*held, strict=True)]
        held.clear()
        return decoder.push(codes)

    return decode


def milliseconds(decode: Decode, frames: list[Frame]) -> tuple[float, float, float]:
    """Mean and longest milliseconds of a frame, the first ones left out, and those to the first audio."""
    times, first, began = [], 0.0, time.process_time()
    for frame in frames:
        started = time.process_time()
        audio = decode(frame)
        ended = time.process_time()
        times.append(1000 * (ended - started))
        if not first and audio is not None and audio.shape[-1]:
            first = 1000 * (ended - began)
    steady = times[2 * WINDOW :]
    return statistics.fmean(steady), max(steady), first


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--published", type=Path, default=Path(tempfile.gettempdir()) / "published-snac")
    options = parser.parse_args()
    torch.set_num_threads(1)
    install(options.published)
    theirs = load(options.published).SNAC(**FULL["24khz"]).eval()
    randomise(theirs, 0)
    with tempfile.TemporaryDirectory() as name:
        ours = SNAC(**FULL["24khz"])
        ours.load_state_dict(theirs.state_dict())
        folder = save_checkpoint(Path(name) / "24khz", ours.config, ours.state_dict())
        engine = build_engine(load_checkpoint(folder), threads=1)
    frames = made_frames(engine, options.frames)
    length = 1000 * engine.config.vq_strides[0] * engine.config.hop_length / engine.config.sampling_rate
    latency = 1000 * engine.decoder_stream().latency / engine.config.sampling_rate
    print(f"a frame is {length:.1f} ms; the decoder looks {latency:.0f} ms ahead\n")
    print("| | a frame, ms | longest, ms | times real time | computing to the first audio, ms |")
    print("|---|---|---|---|---|")
    rows: dict[str, Callable[[], Decode]] = {
        "published, sliding window of 4": lambda: sliding(theirs),
        "streaming decoder, frame by frame": lambda: streaming(engine, 1),
        "streaming decoder, 4 frames at a time": lambda: streaming(engine, 4),
    }
    found = {
        name: [milliseconds(make(), frames) for _ in range(options.rounds)] for name, make in rows.items()
    }
    for name, rounds in found.items():
        mean, longest, first = (min(column) for column in zip(*rounds, strict=True))
        print(f"| {name} | {mean:.1f} | {longest:.1f} | {length / mean:.2f} | {first:.0f} |")


if __name__ == "__main__":
    main()
