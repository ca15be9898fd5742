"""``python -m tests.fuzz``: from the repository's root; returns 1 if there are finds."""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from pathlib import Path

from tests.fuzz.cases import attempt, lay_out, make
from tests.fuzz.kinds import NAMES, kind_of
from tests.fuzz.watch import Tally, fuzz


def main() -> int:
    """Parses the arguments, fuzzes, reports."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kind", action="append", choices=NAMES, help="may be given several times; all by default"
    )
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case")
    parser.add_argument("--cases", type=int, metavar="N", help="most cases of each kind")
    parser.add_argument(
        "--case", type=int, metavar="N", help="this one alone, in this process, with its traceback"
    )
    parser.add_argument(
        "--keep", type=Path, default=Path(tempfile.gettempdir(), "snac-fuzz"), metavar="FOLDER"
    )
    given = parser.parse_args()
    kinds = given.kind or list(NAMES)
    if given.case is not None:
        return one(kinds[0], given.seed, given.case, given.keep)
    tallies = []
    for name in kinds:
        seconds = 60 * given.minutes / len(kinds)
        make_kind = functools.partial(kind_of, name)
        tallies.append(fuzz(make_kind, name, given.seed, given.first, seconds, given.cases, given.keep))
        report(tallies[-1], given.seed, given.keep)
    cases, found = sum(t.cases for t in tallies), sum(len(t.finds) for t in tallies)
    print(f"{cases} cases in all, seed {given.seed}, {found} finds")
    return int(found > 0)


def one(name: str, seed: int, number: int, keep: Path) -> int:
    """Runs one case here; its input stays in a folder."""
    with tempfile.TemporaryDirectory(prefix="snac-fuzz-") as folder:
        kind = kind_of(name, Path(folder))
        case, rng = make(kind, seed, number)
        place = keep / f"{name}-{number}"
        outcome = attempt(kind, case, rng, lay_out(case, place))
    print(f"{place}: {case.change}, {case.size} bytes: {outcome.word}, {outcome.seconds:.2f} s, ", end="")
    print(f"{outcome.bytes >> 20} MiB\n{outcome.find or ''}")
    return int(outcome.find is not None)


def report(tally: Tally, seed: int, keep: Path) -> None:
    """Prints what came of the cases of a kind."""
    rate = tally.cases / max(tally.seconds, 1e-9)
    print(f"{tally.name}: {tally.cases} cases, {rate:.0f} a second; ", end="")
    print(f"the slowest took {tally.slowest:.2f} s, the largest {tally.largest >> 20} MiB")
    for word, count in tally.words.most_common():
        print(f"  {count:8} {word}")
    for find in tally.finds.values():
        print(f"  FIND {find.times} x {find.title}")
        print(f"       --kind {find.kind} --seed {seed} --case {find.number}; its input is in {keep}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
