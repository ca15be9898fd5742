"""The fuzzer: some hundred cases of each kind, and that it notices what it is for."""

from __future__ import annotations

import functools
import importlib
import mmap
import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from snaccli.errors import ContainerError
from tests.fuzz import watch
from tests.fuzz.cases import Case, attempt, lay_out, make, promise
from tests.fuzz.kinds import NAMES, kind_of

CASES = {"snac": 300, "prior": 200, "tokens": 120, "audio": 200, "checkpoint": 50, "training-checkpoint": 25}
NEEDS = {"checkpoint": "torch", "training-checkpoint": "torch"}


@pytest.mark.parametrize("name", NAMES)
def test_some_cases(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.setenv("PATH", "")  # no ffmpeg
    kind = kind_of(name, tmp_path / "originals")
    words: Counter[str] = Counter()
    for number in range(CASES[name]):
        case, rng = make(kind, 1, number)
        outcome = attempt(kind, case, rng, lay_out(case, tmp_path / "case"))
        assert outcome.find is None, f"case {number}, {case.change}: {outcome.find}"
        words[outcome.word] += 1
    assert len(words) > 1  # cases are neither all refused nor all taken


@pytest.mark.parametrize("name", ["snac", "prior", "tokens", "audio"])
def test_a_case_follows_from_its_number(name: str, tmp_path: Path):
    kinds = [kind_of(name, tmp_path / place) for place in ("here", "there")]
    for number in range(40):
        first, second = (make(kind, 7, number)[0] for kind in kinds)
        assert first == second
    assert make(kinds[0], 8, 3)[0] != first


class Faulty:
    """A kind whose cases do what none may."""

    name = "faulty"
    seconds = memory = 0.0

    def __init__(self, folder: Path, faults: tuple[str, ...]) -> None:
        self._faults = faults

    def case(self, rng: Random) -> Case:
        return Case({"a/case": rng.choice(self._faults).encode()}, "")

    def run(self, case: Case, folder: Path, rng: Random) -> str:
        fault = (folder / "a" / "case").read_text()
        if fault == "dies":
            os._exit(3)
        if fault == "hangs":
            importlib.import_module("threading").Event().wait()
        if fault == "breaks":
            promise(False, "it broke")
        if fault == "lines":
            raise ContainerError("two\nlines")
        if fault == "raises":
            raise KeyError("x")
        if fault == "grows":
            with mmap.mmap(-1, 300 << 20) as room:  # new pages, where an allocator may have some left
                room.write(b"1" * len(room))
        return "fine"


def _faulty(faults: tuple[str, ...], folder: Path) -> Faulty:
    return Faulty(folder, faults)


@pytest.mark.parametrize(
    ("fault", "title"),
    [
        ("breaks", "it broke"),
        ("lines", "message of ContainerError is not one line"),
        ("raises", "KeyError in"),
    ],
)
def test_faults_are_found(fault: str, title: str, tmp_path: Path):
    kind = Faulty(tmp_path, (fault,))
    case, rng = make(kind, 0, 0)
    outcome = attempt(kind, case, rng, lay_out(case, tmp_path / "case"))
    assert outcome.find is not None
    assert outcome.find.startswith(title)


def test_a_process_that_dies_or_hangs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for fault, title, patience in (("dies", "crash: status 3", 600.0), ("hangs", "hang: over 0 s", 0.1)):
        monkeypatch.setattr(watch, "HANG", patience)
        tally = watch.fuzz(functools.partial(_faulty, (fault,)), "faulty", 0, 5, 600, 2, tmp_path)
        (find,) = tally.finds.values()
        assert (find.title, find.number, find.times) == (title, 5, 2)
        assert (tmp_path / "faulty-5" / "a" / "case").read_text() == fault


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's peak of memory")
def test_memory_out_of_proportion_is_found(tmp_path: Path):
    kind = Faulty(tmp_path, ("grows",))
    case, rng = make(kind, 0, 0)
    outcome = attempt(kind, case, rng, lay_out(case, tmp_path / "case"))
    assert outcome.word == "too large"
