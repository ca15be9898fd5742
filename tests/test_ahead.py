"""Reading ahead: the same items, in order; errors and ends where they belong; no thread left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from snaccli.workers import read_ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "snac-ahead"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_every_item_in_order(count: int) -> None:
    assert list(read_ahead(iter(range(count)))) == list(range(count))
    assert threads() == []


def test_the_next_items_are_made_meanwhile_but_no_more_than_allowed() -> None:
    made: list[int] = []
    third = threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 3:
                third.set()
            yield number

    taken = read_ahead(items(), 2)
    assert next(taken) == 0
    assert third.wait(300), "two lie ready, one is held out"
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]
    assert list(taken) == list(range(1, 100))


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_comes_after_the_items_before_it(kind: type[BaseException]) -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise kind("broken")

    taken = read_ahead(items())
    assert [next(taken), next(taken)] == [1, 2]
    with pytest.raises(kind, match="broken"):
        next(taken)
    assert threads() == []


def test_an_interrupt_while_the_thread_starts_leaves_none_running(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def interrupted(self: threading.Thread) -> None:
        start(self)
        if self.name == "snac-ahead":
            raise KeyboardInterrupt

    def items() -> Iterator[int]:
        for number in range(1000):
            time.sleep(0.001)
            yield number

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(read_ahead(items()))
    assert threads() == []


def test_a_thread_that_cannot_be_started_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited for"))
    with pytest.raises(RuntimeError, match="can't start"):
        next(read_ahead(iter([1])))


def test_an_early_end_closes_what_was_taken_from() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    taken = read_ahead(items())
    assert next(taken) == 0
    taken.close()
    assert closed.is_set()
    assert threads() == []
