"""A stop at the next step instead of in the middle of one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


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
