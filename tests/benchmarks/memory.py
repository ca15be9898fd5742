"""Resident memory against the length of a recording: the whole program, a process of its own each time.

    python -m tests.benchmarks.memory [MODEL...] [--quick] [--minutes 1 10 60] [--channels keep]

Models: mini; 24khz, 32khz, 44khz with random weights; or a folder. The recording is 44.1 kHz stereo, made of
the shipped ones over and over. Prints the peak of the resident memory and the speed, for both directions.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from snac.hub.registry import MODELS
from snac.nn.model import SNAC

RECORDINGS = sorted((Path(__file__).parents[2] / "examples" / "audio").glob("*.flac"))

RATE = 44100
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes: getrusage counts kilobytes but on macOS


class Run(NamedTuple):
    """Resident peak in bytes, and seconds of wall clock."""

    peak: int
    seconds: float


def measure(*arguments: str | Path) -> Run:
    """Runs ``snac`` with these arguments, as a child that nothing else is counted with."""
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "snaccli", *map(str, arguments)])
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"snac {' '.join(map(str, arguments))}: status {child.returncode}")
    return Run(usage.ru_maxrss * PEAK_UNIT, time.perf_counter() - started)


def recording(path: Path, minutes: float) -> None:
    """Writes 44.1 kHz stereo: the shipped recordings over and over, the right channel a little later."""
    left = round(minutes * 60 * RATE)
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16", format="RF64") as file:
        for block in over_and_over():
            file.write(np.stack((block, np.roll(block, RATE // 4)), axis=1)[:left])
            left -= len(block)
            if left <= 0:
                return


def over_and_over() -> Iterator[np.ndarray]:
    """Blocks of the first channel of the shipped recordings, without end; their rates do not matter here."""
    for path in itertools.cycle(RECORDINGS):
        with soundfile.SoundFile(path) as file:
            for block in file.blocks(1 << 20, dtype="float32", always_2d=True):
                yield block[:, 0]


def model_folder(name: str, folder: Path) -> str:
    """What ``-m`` is given; for a published model a folder with its configuration and random weights."""
    if name not in MODELS or MODELS[name].folder is not None:
        return name
    SNAC.from_model_config(MODELS[name].config).save_pretrained(folder / name)
    return str(folder / name)


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", default=["mini", "24khz"], metavar="MODEL")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 60])
    parser.add_argument("--quick", action="store_true", help="half a minute, one and two")
    parser.add_argument("--channels", choices=["mono", "keep"], default="mono")
    parser.add_argument("--threads", type=int, help="of snac; its own choice by default")
    arguments = parser.parse_args()
    threads = ["--threads", str(arguments.threads)] if arguments.threads else []
    print(f"44.1 kHz stereo, --channels {arguments.channels}; resident peaks")
    print("| model | minutes | encode MiB | x real time | decode MiB | x real time |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="snac-memory-") as name:
        folder = Path(name)
        audio, coded, decoded = (folder / file for file in ("in.wav", "x.snac", "out.wav"))
        models = {name: model_folder(name, folder) for name in arguments.models}
        for minutes in [0.5, 1, 2] if arguments.quick else arguments.minutes:
            recording(audio, minutes)
            for name, model in models.items():
                common = ["-m", model, "-q", "-f", *threads]
                there = measure("encode", audio, "-o", coded, "--channels", arguments.channels, *common)
                back = measure("decode", coded, "-o", decoded, *common)
                cells = (
                    f"{run.peak / 2**20:.0f} | {60 * minutes / run.seconds:.1f}" for run in (there, back)
                )
                print(f"| {name} | {minutes:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
