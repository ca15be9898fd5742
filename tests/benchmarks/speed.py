"""Our speed over that of the published package, on the same weights and audio, in turn within one run.

    python -m tests.benchmarks.speed [--seconds 10] [--rounds 3] [CONFIGURATION...]

Configurations: 24khz, 32khz, 44khz (random weights) and mini. Prints how many times real time each codes,
the ratio, and the share of the machine's matrix peak that ours reaches, counting convolutions and linear
layers alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from snac.snac import SNAC
from snac.tiles import decode_tiles, encode_tiles
from tests.published import FULL, VERSION, install, load, test_signal


def matrix_peak(size: int = 1024, repeats: int = 8) -> float:
    """Floating-point operations a second of a float32 matrix product, the best of some."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(seconds_of(lambda: a @ b) for _ in range(repeats))


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of one call, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@torch.no_grad()
def compare(name: str, config: dict[str, Any], published: ModuleType, seconds: float, rounds: int) -> None:
    """Prints two lines, encoding and decoding."""
    theirs = published.SNAC(**config).eval()
    ours = SNAC(**config)
    ours.load_state_dict(theirs.state_dict())
    audio = test_signal(int(seconds * ours.sampling_rate), ours.sampling_rate, 0)
    ours.fold()
    codes = ours.encode(audio)
    flops = {
        "encode": operations(lambda: ours.encode(audio)),
        "decode": operations(lambda: ours.decode(codes)),
    }
    tasks: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "encode": (lambda: theirs.encode(audio), lambda: list(encode_tiles(ours, [audio[0]], 1))),
        "decode": (lambda: theirs.decode(codes), lambda: list(decode_tiles(ours, codes))),
    }
    for task, (their_work, our_work) in tasks.items():
        their_work(), our_work()  # warm up
        times: list[tuple[float, float]] = []
        peak = 0.0
        for _ in range(rounds):
            times.append((seconds_of(their_work), seconds_of(our_work)))
            peak = max(peak, matrix_peak())
        their_best, our_best = (min(column) for column in zip(*times, strict=True))
        print(
            f"| {name} | {task} | {seconds / their_best:.1f} | {seconds / our_best:.1f} | "
            f"{their_best / our_best:.1f} | {flops[task] / our_best / peak:.0%} |",
            flush=True,
        )


def configurations(names: list[str]) -> dict[str, dict[str, Any]]:
    """Constructor arguments by name."""
    shipped: Callable[[], dict[str, Any]] = lambda: SNAC.from_pretrained("mini").config.to_dict()  # noqa: E731
    return {name: FULL[name] if name in FULL else shipped() for name in names}


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*FULL, "mini"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--target", type=Path, default=Path(tempfile.gettempdir()) / f"published-snac-{VERSION}"
    )
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    install(arguments.target)
    published = load(arguments.target)
    print(f"threads {torch.get_num_threads()}, matrix peak {matrix_peak() / 1e9:.0f} GFLOP/s")
    print("| model | task | PyPI snac x real time | ours x real time | ratio | of peak |")
    print("|---|---|---|---|---|---|")
    for name, config in configurations(arguments.names).items():
        compare(name, config, published, arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
