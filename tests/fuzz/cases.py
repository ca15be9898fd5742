"""What a case is, what may come of it, and what counts as a find."""

from __future__ import annotations

import os
import shutil
import time
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from snac.errors import SnacError

SECONDS, MEMORY = (
    5.0,
    256 << 20,
)  # what a case may take whatever its size; the kernels' first use, pages of libraries
ROOT = Path(__file__).resolve().parent.parent.parent


class BrokenPromiseError(Exception):
    """Something that must hold of every file does not."""


def promise(holds: bool, what: str) -> None:
    """Checks that something holds.

    Raises:
        BrokenPromiseError: it does not.
    """
    if not holds:
        raise BrokenPromiseError(what)


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        files: bytes by their names in a folder; the names may have folders.
        change: what was done to which original, for people to read.
        origin: number of the original among those of its kind.
        repaired: whether checksums were made to fit the change.
    """

    files: Mapping[str, bytes]
    change: str
    origin: int = 0
    repaired: bool = False

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))


class Kind(Protocol):
    """A kind of file to fuzz.

    Attributes:
        name: on the command line.
        seconds: of the processor that a byte of input may cost, beside `SECONDS`.
        memory: bytes that a byte of input may cost, beside `MEMORY`.
    """

    name: str
    seconds: float
    memory: float

    def case(self, rng: Random) -> Case:
        """Makes a case; of an equal generator always the same."""

    def run(self, case: Case, folder: Path, rng: Random) -> str:
        """Puts a case through the program; returns in a word what came of it.

        Raises:
            SnacError: the program refused the file, as it may.
            BrokenPromiseError: something does not hold that must.
        """


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        word: of the outcome, such as the name of an error.
        find: what is wrong, None if nothing is; the first line tells equal finds apart from others.
        seconds: of the processor.
        bytes: of memory that the case took at its most, 0 where the system does not tell.
    """

    word: str
    find: str | None
    seconds: float
    bytes: int


def make(kind: Kind, seed: int, number: int) -> tuple[Case, Random]:
    """The case of a number, and the generator as making it left it."""
    rng = Random(f"{seed} {kind.name} {number}")
    return kind.case(rng), rng


def attempt(kind: Kind, case: Case, rng: Random, folder: Path) -> Outcome:
    """Puts a case through the program, in this process.

    Args:
        kind: of the case.
        case: that.
        rng: what `make` gave.
        folder: where the files of the case are laid out.
    """
    reset = _reset_peak()
    before, began = _memory("VmRSS"), time.process_time()
    find = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers that overflow in models of wild weights
            word = kind.run(case, folder, rng)
    except SnacError as error:
        word = type(error).__name__
        find = _unfit_message(error)
    except BrokenPromiseError as error:
        word, find = "broken promise", f"{error}\n{traceback.format_exc()}"
    except Exception as error:
        word, find = "undocumented", f"{_place(error)}\n{traceback.format_exc()}"
    seconds = time.process_time() - began
    taken = _memory("VmHWM") - before if reset else 0
    if find is None and seconds > SECONDS + kind.seconds * case.size:
        word, find = "too slow", f"too slow: {seconds:.1f} s for {case.size} bytes"
    if find is None and taken > MEMORY + kind.memory * case.size:
        word, find = "too large", f"too large: {taken >> 20} MiB for {case.size} bytes"
    return Outcome(word, find, seconds, taken)


def lay_out(case: Case, folder: Path) -> Path:
    """Writes the files of a case to a folder, removes all else, and returns the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    folder.mkdir(exist_ok=True)
    return folder


def _unfit_message(error: SnacError) -> str | None:
    """What is wrong with a message: it must be one line that can be shown."""
    text = str(error)
    if text.strip() and "\n" not in text:
        return None
    return f"message of {type(error).__name__} is not one line\n{text!r}\n{traceback.format_exc()}"


def _place(error: BaseException) -> str:
    """The error's class, and where in the program it arose."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(str(ROOT))]
    at = [f"{os.path.relpath(frame.filename, ROOT)}:{frame.name}" for frame in ours[-2:]]
    return f"{type(error).__name__} in {' > '.join(at)}"


def _reset_peak() -> bool:
    """Makes Linux forget how much memory the process had at its most."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _memory(field: str) -> int:
    """A number of bytes from the process's status, 0 where there is none."""
    try:
        with open("/proc/self/status") as file:
            found = next((line for line in file if line.startswith(field)), "x 0")
    except OSError:
        return 0
    return int(found.split()[1]) << 10
