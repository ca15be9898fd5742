"""What a launcher and signals tell a process: how many there are, and that it should stop. Knows no torch."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from types import FrameType

_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_PATIENCE = 10.0  # seconds
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def process_count(environ: Mapping[str, str] = os.environ) -> int:
    """How many processes share the work; 1 where nothing is said."""
    return _first_of(_COUNTS, environ, 1)


def is_main(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the process that writes and speaks."""
    return process_count(environ) == 1 or _first_of(_RANKS, environ, 0) == 0


@contextlib.contextmanager
def main_speaks(environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Leaves it to the main process to tell why all of them end, so that it is told once.

    Mostly all fail by the same cause, as a wrong configuration or a signal, and a launcher ends the others
    when one has failed. So any but the main process waits for that, and raises its own error only if nobody
    comes. Of being interrupted it does not speak at all (``Console.ended_by``).
    """
    try:
        yield
    except Exception:
        if not is_main(environ):
            time.sleep(_PATIENCE)
        raise


def _first_of(names: tuple[str, ...], environ: Mapping[str, str], default: int) -> int:
    values = (environ.get(name, "") for name in names)
    return next((int(value) for value in values if value.isdigit()), default)


class StopRequest:
    """Whether the run was asked to end.

    Attributes:
        number: of the signal; 0 while there was none.
    """

    number = 0

    def __bool__(self) -> bool:
        return self.number != 0


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block, the first ctrl-C (or SIGTERM, SIGHUP) sets the request; a second one ends at once."""
    request = StopRequest()
    former: dict[int, object] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        request.number = number
        restore()

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    if threading.current_thread() is threading.main_thread():
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                former[number] = signal.getsignal(number)
                signal.signal(number, handle)
    try:
        yield request
    finally:
        restore()
