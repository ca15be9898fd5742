"""Runs cases in a process of its own, and notices when that dies, hangs or grows."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.cases import Kind, attempt, lay_out, make

HANG = 300.0  # seconds that a case may last, on a machine that does much else
ROOM = 4 << 30  # bytes of addresses that a process may take beside those after its first case
LAST_WORDS = "stderr"  # file of what the process wrote there
START = 1800.0  # seconds in which originals are made, and kernels compiled

Make = Callable[[Path], Kind]


@dataclass
class Find:
    """One thing that is wrong, with the first case that shows it."""

    kind: str
    number: int
    what: str
    times: int = 1

    @property
    def title(self) -> str:
        """The first line: what tells it from others."""
        return self.what.partition("\n")[0]


@dataclass
class Tally:
    """What came of the cases of a kind."""

    name: str
    cases: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    largest: int = 0
    words: Counter[str] = field(default_factory=Counter)
    finds: dict[str, Find] = field(default_factory=dict)

    def found(self, find: Find) -> bool:
        """Counts a find; returns whether it is the first of its title."""
        known = self.finds.setdefault(find.title, find)
        known.times += known is not find
        return known is find


def fuzz(
    make_kind: Make, name: str, seed: int, first: int, seconds: float, most: int | None, keep: Path
) -> Tally:
    """Runs cases of one kind until the time is over.

    Args:
        make_kind: called with an empty folder, in the process that runs the cases.
        name: of the kind.
        seed: of all cases.
        first: number of the first case.
        seconds: to run for.
        most: cases, or None.
        keep: folder for the inputs of finds.
    """
    tally, until, number = Tally(name), time.monotonic() + seconds, first
    last = None if most is None else first + most
    while time.monotonic() < until and (last is None or number < last):
        with tempfile.TemporaryDirectory(prefix="snac-fuzz-", ignore_cleanup_errors=True) as folder:
            number = _one_process(tally, make_kind, seed, number, last, until, Path(folder), keep)
    return tally


def _one_process(
    tally: Tally,
    make_kind: Make,
    seed: int,
    number: int,
    last: int | None,
    until: float,
    folder: Path,
    keep: Path,
) -> int:
    """Runs cases until the time is over or the process is gone; returns the number of the next case."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, make_kind, seed, number, last, str(folder)))
    process.start()
    theirs.close()
    began, patience = time.monotonic(), START
    try:
        while time.monotonic() < until:
            if not mine.poll(patience):
                process.kill()  # before its files are kept, which it may yet change
                process.join()
                _note(
                    tally,
                    Find(tally.name, number, f"hang: over {patience:.0f} s"),
                    folder,
                    keep,
                )
                return number + 1
            try:
                number, word, what, took, size = mine.recv()
            except EOFError:  # the cases are done, or the process is gone
                process.join()
                if process.exitcode == 0:
                    return number + 1
                words = (folder / LAST_WORDS).read_text("utf-8", "replace")[-4000:]
                what = f"crash: status {process.exitcode}\n{words}"
                _note(tally, Find(tally.name, number, what), folder, keep)
                return number + 1
            if word is None:  # it begins this case
                patience = HANG
                continue
            tally.cases += 1
            tally.words[word] += 1
            tally.slowest, tally.largest = max(tally.slowest, took), max(tally.largest, size)
            if what is not None:
                _note(tally, Find(tally.name, number, what), folder, keep)
            mine.send(True)
        return number + 1
    finally:
        tally.seconds += time.monotonic() - began
        mine.close()
        process.kill()
        process.join()


def _note(tally: Tally, find: Find, folder: Path, keep: Path) -> None:
    """Keeps the input of a find that is the first of its kind."""
    if not tally.found(find):
        return
    place = keep / f"{find.kind}-{find.number}"
    shutil.rmtree(place, ignore_errors=True)
    if (folder / "case").is_dir():
        shutil.copytree(folder / "case", place)
    else:
        place.mkdir(parents=True)
    (place / "find.txt").write_text(find.what + "\n", "utf-8", errors="backslashreplace")
    print(f"{find.kind} {find.number}: {find.title}", file=sys.stderr, flush=True)


def _work(pipe: Connection, make_kind: Make, seed: int, number: int, last: int | None, folder: str) -> None:
    """The process that may die."""
    os.environ["PATH"] = ""  # no ffmpeg: what it does with a file is not ours
    with open(Path(folder, LAST_WORDS), "wb") as file:  # libraries talk, too; of a crash the end is told
        os.dup2(file.fileno(), sys.stderr.fileno())
    faulthandler.enable()
    kind = make_kind(Path(folder, "originals"))
    bounded = False
    while last is None or number < last:
        case, rng = make(kind, seed, number)
        place = lay_out(case, Path(folder, "case"))
        pipe.send((number, None, None, 0.0, 0))
        outcome = attempt(kind, case, rng, place)
        pipe.send((number, outcome.word, outcome.find, outcome.seconds, outcome.bytes))
        pipe.recv()  # the input is kept, if need be
        if not bounded:
            bounded = True
            _bound_addresses()
        number += 1


def _bound_addresses() -> None:
    """Lets allocations fail that no file of such a size may ask for."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    most = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
