"""What a launcher (accelerate, torchrun, mpirun) tells each of the processes it starts. Knows no torch."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping

from snaccli.errors import ExitStatus

_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_PATIENCE = 10.0  # seconds


def process_count(environ: Mapping[str, str] = os.environ) -> int:
    """How many processes share the work; 1 where nothing is said."""
    return _first_of(_COUNTS, environ, 1)


@contextlib.contextmanager
def main_speaks(environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Leaves it to the main process to tell why all of them end, so that it is told once.

    Mostly all fail by the same cause, as a wrong configuration or a signal, and a launcher ends the others
    when one has failed. So any but the main process waits for that, and raises its own error only if nobody
    comes.

    Raises:
        SystemExit: in place of an interrupt, in any but the main process.
    """
    if process_count(environ) == 1 or _first_of(_RANKS, environ, 0) == 0:
        yield
        return
    try:
        try:
            yield
        except Exception:
            time.sleep(_PATIENCE)
            raise
    except KeyboardInterrupt as interrupt:
        raise SystemExit(int(getattr(interrupt, "status", ExitStatus.INTERRUPTED))) from None


def _first_of(names: tuple[str, ...], environ: Mapping[str, str], default: int) -> int:
    values = (environ.get(name, "") for name in names)
    return next((int(value) for value in values if value.isdigit()), default)
