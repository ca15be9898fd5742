"""Many short recordings: overhead of each, and memory from the first to the last.

    python -m tests.benchmarks.corpus [--count 10000] [--seconds 1.0] [--model mini] [--cluster local]

Makes the recordings in a temporary folder, exports their tokens to shards by the command line in a process
of its own, and samples the memory of that process and of those below it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 24000


def make(folder: Path, count: int, seconds: float) -> float:
    """Writes recordings of 0.5 to 1.5 times so many seconds; returns the seconds of all."""
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal(round(2 * seconds * RATE)).astype(np.float32)
    total = 0
    for number in range(count):
        length = round(seconds * RATE * rng.uniform(0.5, 1.5))
        path = folder / f"{number // 1000:03}" / f"{number:06}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, noise[:length] * np.sin(np.arange(length) * rng.uniform(0.001, 0.1)), RATE)
        total += length
    return total / RATE


def resident(pid: int) -> int:
    """Bytes resident in a process; 0 once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def run(command: list[str]) -> tuple[float, float, list[int]]:
    """Seconds that a command takes, seconds of processors, and its resident bytes every half second."""
    began, computed, memory = time.monotonic(), processor_seconds(), []
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            memory.append(resident(process.pid))
            time.sleep(0.5)
    if process.returncode:
        sys.exit(process.returncode)
    return time.monotonic() - began, processor_seconds() - computed, memory


def processor_seconds() -> float:
    """Seconds of processors that the processes below this one have taken and ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def export(source: Path, target: Path, options: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "snaccli", "tokens", "export", str(source), "-o", str(target), "-q"]
    command += [
        "-m",
        options.model,
        "--shard-size",
        "500",
        "--layout",
        "interleaved",
        "-j",
        str(options.jobs),
    ]
    return command + (["--cluster", options.cluster] if options.cluster else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cluster")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("one", "many", "joined"):
            (folder / part).mkdir()
        make(folder / "one", 1, options.seconds)
        audio = make(folder / "many", options.count, options.seconds)
        start, start_computed, _ = run(export(folder / "one", folder / "start", options))
        seconds, computed, memory = run(export(folder / "many", folder / "out", options))
        each = (seconds - start) / options.count
        tenth = max(1, len(memory) // 10)
        early, late = max(memory[tenth : 2 * tenth] or [0]), max(memory[-2 * tenth : -1] or [0])
        print(
            f"{options.count} recordings, {audio:.0f} s of audio: {seconds:.1f} s, of them {start:.1f} s once"
        )
        print(f"{1000 * each:.2f} ms a recording, {audio / (seconds - start):.0f} times real time")
        computing = computed - start_computed
        share = 1000 * computing / options.count
        print(f"{share:.2f} ms of a processor a recording, {audio / computing:.0f} times real time for each")
        print(f"memory {early >> 20} MiB in the second tenth of the run, {late >> 20} MiB at its end")


if __name__ == "__main__":
    main()
