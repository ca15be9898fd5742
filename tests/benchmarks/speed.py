"""Our speed over that of the published package, on the same weights and audio, in turn within one run.

    python -m tests.benchmarks.speed [CONFIGURATION...] [--quick] [--seconds 10] [--rounds 3] [--threads N]

Configurations: 24khz, 32khz, 44khz (random weights) and mini. Prints for the models alone how many times
real time each codes, the ratio, and the share of the machine's matrix peak that ours reaches, counting
convolutions and linear layers alone. For mini also whole files: the program's way from a recording to a .snac
file and back, against reading, resampling and the published model, whose codes go into no file.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
import torch
from torch.utils.flop_counter import FlopCounterMode

from snac.nn.model import SNAC
from snaccli.codec import Codec, decode_file, encode_file
from snaccli.workers import available
from tests.published import FULL, VERSION, install, load, test_signal

Work = Callable[[], object]
REST = 0.3  # seconds
RECORDING = Path(__file__).parents[2] / "examples" / "audio" / "speech-en.flac"


class Setting(NamedTuple):
    """How to measure."""

    seconds: float
    rounds: int
    threads: int


def matrix_peak(size: int = 1024, repeats: int = 8) -> float:
    """Floating-point operations a second of a float32 matrix product, the best of torch's and NumPy's."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    products: list[Work] = [lambda: a @ b, lambda: a.numpy() @ b.numpy()]
    return 2 * size**3 / min(seconds_of(product) for product in products for _ in range(repeats))


def seconds_of(work: Work) -> float:
    """Wall-clock time of one call, begun when threads of other libraries, which wait busily, rest."""
    time.sleep(REST)
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def operations(work: Work) -> int:
    """Floating-point operations of one call, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def compare(label: str, theirs: Work, ours: Work, seconds: float, setting: Setting, flops: int = 0) -> None:
    """Prints one line: the best of each over some rounds in turn, and the ratios of the single rounds."""
    theirs(), ours()  # warm up
    times: list[tuple[float, float]] = []
    peak = 0.0
    for _ in range(setting.rounds):
        times.append((seconds_of(theirs), seconds_of(ours)))
        peak = max(peak, matrix_peak())
    their_best, our_best = (min(column) for column in zip(*times, strict=True))
    ratios = [their / our for their, our in times]
    print(
        f"| {label} | {seconds / their_best:.1f} | {seconds / our_best:.1f} | {their_best / our_best:.1f} | "
        f"{min(ratios):.1f} to {max(ratios):.1f} | {f'{flops / our_best / peak:.0%}' if flops else ''} |",
        flush=True,
    )


@torch.no_grad()
def compare_models(name: str, config: dict[str, Any], published: ModuleType, setting: Setting) -> None:
    """Two lines: encoding and decoding by the models alone."""
    theirs = published.SNAC(**config).eval()
    model = SNAC(**config)
    model.load_state_dict(theirs.state_dict())
    ours = model.fold(threads=setting.threads)
    audio = test_signal(int(setting.seconds * model.sampling_rate), model.sampling_rate, 0)
    codes = theirs.encode(audio)

    tasks: list[tuple[str, Work, Work]] = [
        ("encode", lambda: theirs.encode(audio), lambda: ours.encode(audio)),
        ("decode", lambda: theirs.decode(codes), lambda: ours.decode(codes)),
    ]
    for task, their_work, our_work in tasks:
        # Counted on the published modules: ours need not run as torch's operators.
        flops = operations(their_work)
        compare(f"{name} | {task}", their_work, our_work, setting.seconds, setting, flops)


@torch.no_grad()
def compare_files(published: ModuleType, setting: Setting) -> None:
    """Two lines: a shipped recording to a file and back with mini."""
    model = SNAC.from_pretrained("mini")
    theirs = published.SNAC(**model.config.to_dict()).eval()
    theirs.load_state_dict(model.state_dict())
    codec = Codec.load("mini", device="cpu", threads=setting.threads)
    with tempfile.TemporaryDirectory(prefix="snac-speed-") as name:
        folder = Path(name)
        source, coded, back = (folder / file for file in ("in.wav", "x.snac", "out.wav"))
        samples, rate = soundfile.read(RECORDING, dtype="float32", frames=round(4 * setting.seconds * 48000))
        soundfile.write(source, samples, rate)
        codes: list[torch.Tensor] = []

        def their_encoding() -> None:
            read, found = soundfile.read(source, dtype="float32")
            codes[:] = theirs.encode(torch.from_numpy(soxr.resample(read, found, codec.rate))[None, None])

        def their_decoding() -> None:
            audio = theirs.decode(codes)[0, 0].numpy()
            soundfile.write(back, np.clip(soxr.resample(audio, codec.rate, rate), -1, 1), rate)

        def our_encoding() -> None:
            encode_file(source, coded, model=codec, overwrite=True)

        def our_decoding() -> None:
            decode_file(coded, back, model=codec, overwrite=True)

        seconds = len(samples) / rate
        compare("mini, files | encode", their_encoding, our_encoding, seconds, setting)
        compare("mini, files | decode", their_decoding, our_decoding, seconds, setting)


def machine() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*FULL, "mini"], metavar="CONFIGURATION")
    parser.add_argument("--quick", action="store_true", help="two seconds, once")
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio; files are four times as long")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=available())
    parser.add_argument(
        "--target", type=Path, default=Path(tempfile.gettempdir()) / f"published-snac-{VERSION}"
    )
    arguments = parser.parse_args()
    seconds, rounds = (2.0, 1) if arguments.quick else (arguments.seconds, arguments.rounds)
    setting = Setting(seconds, rounds, arguments.threads)
    torch.set_num_threads(setting.threads)
    install(arguments.target)
    published = load(arguments.target)
    print(f"{machine()}, threads {setting.threads}, matrix peak {matrix_peak() / 1e9:.0f} GFLOP/s\n")
    print("| model | task | PyPI snac x real time | ours x real time | ratio | of each round | of peak |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.names:
        config = FULL[name] if name in FULL else SNAC.from_pretrained(name).config.to_dict()
        compare_models(name, config, published, setting)
        if name == "mini":
            compare_files(published, setting)


if __name__ == "__main__":
    main()
