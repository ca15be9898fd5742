"""Threads of the libraries that compute, where pieces of the signal are computed side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

_lock = threading.Lock()
_within = 0  # blocks under way, and what the first of them changed
_torch_threads = 1
_products: _OneThreadForProducts | None = None


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Lets torch and NumPy use one thread for each thread of Python; at the end as many as before.

    The numbers belong to the whole process: of several blocks at once the last to end puts them back. What
    runs beside such a block is limited with it. A limit that the caller has set for NumPy by threadpoolctl
    stays.
    """
    global _within, _torch_threads, _products
    with _lock:
        if not _within:
            _torch_threads = torch.get_num_threads()
            _products = _OneThreadForProducts()
        _within += 1
        torch.set_num_threads(1)  # every time: OpenMP keeps the number for each thread by itself
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if not _within and _products is not None:
                torch.set_num_threads(_torch_threads)
                _products.end()


class _OneThreadForProducts:
    """Holds NumPy's BLAS at one thread until its end.

    threadpoolctl lets nobody but the thread that set a limit take it back, and the last block need not end in
    the thread in which the first began: so the limit has a thread of its own.
    """

    def __init__(self) -> None:
        self._held, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, name="snac-blas-limit", daemon=True)
        self._thread.start()
        self._held.wait()

    def _hold(self) -> None:
        try:
            with threadpool_limits(1, user_api="blas"):
                self._held.set()
                self._over.wait()
        finally:
            self._held.set()  # an error must not keep the other thread waiting

    def end(self) -> None:
        self._over.set()
        self._thread.join()
