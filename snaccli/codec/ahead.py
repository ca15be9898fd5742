"""One stage of the way at work while the next one is busy: an iterable taken from by a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_WAIT_SECONDS = 0.2  # a wait without a limit cannot be interrupted from the keyboard on Windows


@dataclass(frozen=True)
class _End(Generic[T]):
    """What came after the last item: nothing, or an error."""

    error: BaseException | None = None


def ahead(items: Iterable[T], count: int = 2) -> Generator[T, None, None]:
    """Yields the items of an iterable, which a thread takes from it up to ``count`` ahead.

    An error of the iterable is raised where its item would have come. At the end, also an early one, the
    thread has ended; if the iterable is a generator, it was closed.
    """
    ready: queue.Queue[T | _End[T]] = queue.Queue(count)
    stop = threading.Event()

    def offer(item: T | _End[T]) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=_WAIT_SECONDS)
            except queue.Full:
                continue

    def run() -> None:
        end: _End[T] = _End()
        try:
            for item in items:
                offer(item)
                if stop.is_set():
                    break
        except BaseException as error:
            end = _End(error)
        close = getattr(items, "close", None)
        if close is not None:
            close()
        offer(end)

    thread = threading.Thread(target=run, name="snac-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := _taken(ready), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join()


def _taken(ready: queue.Queue[T | _End[T]]) -> T | _End[T]:
    while True:
        try:
            return ready.get(timeout=_WAIT_SECONDS)
        except queue.Empty:
            continue
