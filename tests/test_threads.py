"""The libraries' own threads while pieces are computed side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np  # noqa: F401  its BLAS must be loaded to be limited
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from snac.engine.threads import one_thread_each


def of_blas() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Torch and NumPy with two threads, on a single processor, too."""
    before, blas = torch.get_num_threads(), max(of_blas())
    torch.set_num_threads(2)
    in_a_thread(lambda: threadpool_limits(2, user_api="blas"))
    yield
    torch.set_num_threads(before)
    in_a_thread(lambda: threadpool_limits(blas, user_api="blas"))


def test_libraries_use_one_thread_within_and_as_many_as_before_after() -> None:
    assert of_blas() == {2}
    with one_thread_each():
        assert (torch.get_num_threads(), of_blas()) == (1, {1})
    assert (torch.get_num_threads(), of_blas()) == (2, {2})


def test_the_last_of_several_blocks_puts_the_threads_back() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with one_thread_each():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with one_thread_each():
        thread.start()
        assert entered.wait(10)
    assert of_blas() == {1}
    leave.set()
    thread.join()
    assert of_blas() == {2}
