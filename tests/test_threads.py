"""A call of the library leaves the threads of the host's libraries as they were, whatever overlaps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from snac.products import LIBRARY, one_thread_each
from snaccli import entropy
from tests.test_prior import some_prior
from tests.token_grids import walk

from .test_engine import ENGINE, THREADED, audio_of, decoded, encoded


def of_blas() -> set[int]:
    """Threads of NumPy's BLAS; torch brings one of its own, which the engine does not use."""
    return {
        each["num_threads"]
        for each in threadpool_info()
        if each["user_api"] == "blas" and "numpy" in each["filepath"]
    }


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Torch and NumPy with two threads, on a single processor, too."""
    if LIBRARY.set_threads is None:
        pytest.skip("the threads of this BLAS cannot be set")
    before, blas = torch.get_num_threads(), max(of_blas())
    torch.set_num_threads(2)
    in_a_thread(lambda: threadpool_limits(2, user_api="blas"))
    yield
    torch.set_num_threads(before)
    in_a_thread(lambda: threadpool_limits(blas, user_api="blas"))


def test_products_use_one_thread_within_and_as_many_as_before_after() -> None:
    assert of_blas() == {2}
    with one_thread_each():
        assert of_blas() == {1}
        assert torch.get_num_threads() == 2
    assert of_blas() == {2}


def test_the_last_of_several_blocks_puts_the_threads_back() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with one_thread_each():
            entered.set()
            leave.wait(300)

    thread = threading.Thread(target=other)
    with one_thread_each():
        thread.start()
        assert entered.wait(300)
    assert of_blas() == {1}
    leave.set()
    thread.join()
    assert of_blas() == {2}


def test_overlapping_calls_leave_every_thread_as_it_was() -> None:
    """The call that begins first ends last, in another thread of the host than the other."""
    blocks, codes = threading.Event(), encoded(ENGINE["spectral"], [audio_of(900)])
    seen: dict[str, tuple[int, set[int]]] = {}

    def slow() -> Iterator[np.ndarray]:
        yield audio_of(700)
        assert blocks.wait(300)
        yield audio_of(700)

    def first() -> None:
        encoded(THREADED["spectral"], slow())  # type: ignore[arg-type]
        seen["first"] = torch.get_num_threads(), of_blas()

    def second() -> None:
        decoded(THREADED["spectral"], codes)
        seen["second"] = torch.get_num_threads(), of_blas()

    one, other = threading.Thread(target=first), threading.Thread(target=second)
    one.start()
    other.start()
    other.join()
    blocks.set()
    one.join()
    assert seen == {"first": (2, {2}), "second": (2, {2})}
    assert (torch.get_num_threads(), of_blas()) == (2, {2})


def test_a_stream_left_open_and_a_decoding_left_half_way_hold_nothing() -> None:
    codes = encoded(ENGINE["spectral"], [audio_of(9000)])
    stream = ENGINE["spectral"].decoder_stream()
    stream.push(codes)
    assert of_blas() == {2}
    blocks = ENGINE["spectral"].decode(codes)
    next(blocks)
    assert of_blas() == {2}


def test_the_coder_of_tokens_uses_one_thread_a_product() -> None:
    codes, codebooks = walk(40, (2, 1), 30)
    prior = some_prior((2, 1), 30)
    seen: list[set[int]] = []
    streams = entropy.encode(codes, codebooks, prior=prior, progress=lambda _: seen.append(of_blas()))
    assert seen
    assert set.union(*seen) == {1}
    assert of_blas() == {2}
    seen.clear()
    entropy.decode(
        streams,
        strides=codes.strides,
        channels=1,
        frames=codes.frames,
        codebook_size=30,
        codebooks=codebooks,
        prior=prior,
        progress=lambda _: seen.append(of_blas()),
    )
    assert set.union(*seen) == {1}
    assert of_blas() == {2}
