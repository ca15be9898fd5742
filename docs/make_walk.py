"""Counts the walk of ``snac encode`` and ``snac decode``: python docs/make_walk.py [--model NAME] [--list]

Prints the table of docs/architecture.md: how many different functions of ``snac`` and ``snaccli`` the main
thread calls from the shell to the bytes, by the part of the program that they belong to. A function that
calls others of the program is a hop of the walk; one that calls none only helps its caller, and is counted
apart. With ``--list`` the functions are named in the order of their first call, helpers in brackets.
Properties, functions without a name of their own (lambdas, the insides of comprehensions, what dataclasses
generate), destructors and what runs while a module is imported are not counted.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORDING = ROOT / "examples" / "audio" / "speech-en.flac"
PARTS = {
    "command line": ("snaccli.__main__", "snaccli.cli"),
    "files, workers, progress": ("snaccli.io", "snaccli.workers", "snaccli.progress", "snac.files"),
    "audio": ("snaccli.audio",),
    "codec": ("snaccli.codec", "snaccli.codes", "snaccli.errors"),
    "model's files": ("snac.hub", "snac.config"),
    "engine": ("snac.engine", "snac.spectrum", "snac.jit", "snac.noise", "snac.nn", "snac.errors"),
    "entropy coding": ("snaccli.entropy",),
    "container": ("snaccli.container",),
}
PHASES = {
    "the model: found, read, checked, built": ("snaccli.codec.pool.ModelPool.get",),
    "the recording: from bytes to bytes": (
        "snaccli.codec.api.encode_file",
        "snaccli.codec.api.decode_file",
    ),
    "the command: words, plan, bars, summary": ("snaccli.cli.app.run",),
}
ONCE = {
    "input opened": "snaccli.io.files.open_input",
    "header of a `.snac` file parsed": "snaccli.container.read_header",
    "model looked for": "snac.hub.locate.locate",
    "weights hashed": "snac.hub.state.fingerprint",
    "engine built": "snac.engine.build.build_engine",
}


class Walk:
    """The functions that the main thread calls while a command runs.

    Attributes:
        functions: each once, as ``module.name``, in the order of their first call.
        hops: those that call other functions of the program.
        calls: how often each was called.
        phases: of each function the part of the walk in which it was called first, a key of ``PHASES``.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        from snaccli.cli.app import run

        self._names: dict[CodeType, str] = {}
        self._calling: set[CodeType] = set()
        self.calls: Counter[str] = Counter()
        self.phases: dict[str, str] = {}
        sys.setprofile(self._note)
        try:
            status = run(arguments)
        finally:
            sys.setprofile(None)
        if status != 0:
            raise SystemExit(f"snac {' '.join(arguments)} ended with status {status}")
        self.functions = list(self._names.values())
        self.hops = [name for code, name in self._names.items() if code in self._calling]

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not _counts(frame):
            return
        name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
        self._names.setdefault(frame.f_code, f"{frame.f_globals['__name__']}.{name}")
        own = self._names[frame.f_code]
        self.calls[own] += 1
        if own not in self.phases:
            self.phases[own] = self._phase(frame)
        above = frame.f_back
        while above is not None and above.f_code not in self._names:
            above = above.f_back
        if above is not None and above.f_code is not frame.f_code:
            self._calling.add(above.f_code)

    def _phase(self, frame: FrameType | None) -> str:
        """The innermost phase that a frame is in."""
        while frame is not None:
            for phase, functions in PHASES.items():
                if self._names.get(frame.f_code) in functions:
                    return phase
            frame = frame.f_back
        return "the command: words, plan, bars, summary"


def _counts(frame: FrameType) -> bool:
    """Whether the frame is that of a named function of the program, called outside any import."""
    code = frame.f_code
    if not _ours(frame) or "<" in code.co_name or not code.co_flags & inspect.CO_OPTIMIZED:
        return False
    if not code.co_filename.endswith(".py") or code.co_name == "__del__" or _is_property(frame):
        return False
    above = frame.f_back
    while above is not None:
        if above.f_code.co_name == "<module>" and _ours(above):
            return False
        above = above.f_back
    return True


def _is_property(frame: FrameType) -> bool:
    owner = type(frame.f_locals.get("self"))
    found = inspect.getattr_static(owner, frame.f_code.co_name, None)
    return isinstance(found, property | functools.cached_property)


def _ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).split(".")[0] in ("snac", "snaccli")


def table(walks: dict[str, Walk], rows_of: Sequence[str]) -> str:
    """Returns the counts as a table: a row for each phase or part, two columns for each command."""
    titles = [f"`snac {name}`: {what}" for name in walks for what in ("hops", "helpers")]
    rows = [f"| | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
    for part in [*rows_of, "all"]:
        counts = []
        for found in walks.values():
            wanted = [name for name in found.functions if part in ("all", part_of(name), found.phases[name])]
            hops = sum(name in found.hops for name in wanted)
            counts += [hops, len(wanted) - hops]
        if any(counts):
            rows.append(f"| {part} | {' | '.join(map(str, counts))} |")
    return "\n".join(rows)


def once(walks: dict[str, Walk]) -> str:
    """Returns a table of how often what should be done once is done."""
    rows = [f"| times | {' | '.join(f'`snac {name}`' for name in walks)} |", f"|---|{'---:|' * len(walks)}"]
    for what, function in ONCE.items():
        rows.append(f"| {what} | {' | '.join(str(found.calls[function]) for found in walks.values())} |")
    return "\n".join(rows)


def part_of(name: str) -> str:
    """Returns the part of the program that a function belongs to."""
    return next((part for part, homes in PARTS.items() if name.startswith(homes)), "other")


def main() -> int:
    """Prints the table, or with --list the functions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini", help="the model to walk with")
    parser.add_argument("--list", action="store_true", help="name the functions in the order of their calls")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        coded, decoded = os.path.join(folder, "a.snac"), os.path.join(folder, "a.wav")
        walks = {
            "encode": Walk(["encode", "-q", str(RECORDING), "-o", coded, "-m", chosen.model]),
            "decode": Walk(["decode", "-q", coded, "-o", decoded, "-m", chosen.model]),
        }
    if chosen.list:
        for name, found in walks.items():
            print(f"snac {name}:")
            for function in found.functions:
                number = found.hops.index(function) + 1 if function in found.hops else ""
                print(f"{number:4}  {function if number else f'({function})'}")
    print(table(walks, [*PHASES]), table(walks, [*PARTS, "other"]), once(walks), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
