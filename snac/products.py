"""Matrix products: the one place that knows which library computes them, and with how many threads.

Kernels call the ``cblas_sgemm`` of the BLAS that NumPy itself has loaded: OpenBLAS in NumPy's wheels, Apple's
Accelerate on newer macOS. Where neither is found, a plain compiled loop computes.

The engine computes pieces side by side with threads of its own, so each product must use one thread. The
number of OpenBLAS's threads belongs to the whole process: it is lowered while a push of an engine, or the
coder of tokens, is at work and put back by the last of several at once, whichever thread that is.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np


class Library(NamedTuple):
    """A BLAS.

    Attributes:
        routine: what ``snac.jit.multiply_by`` takes: the address of cblas_sgemm, negative where its integers
            have 32 bits; 0 where there is none.
        threads: how many threads it uses; None where that cannot be asked and set.
        set_threads: sets it.
    """

    routine: int
    threads: Callable[[], int] | None = None
    set_threads: Callable[[int], Any] | None = None


def _found() -> Library:
    package = Path(np.__file__).parent
    folders = package.parent / "numpy.libs", package / ".dylibs"
    paths = [path for folder in folders for path in sorted(folder.glob("*openblas64*"))]
    for path, prefix in itertools.product(paths, ("scipy_", "")):
        with suppress(OSError, AttributeError):
            blas = ctypes.CDLL(str(path))
            address = ctypes.cast(blas[f"{prefix}cblas_sgemm64_"], ctypes.c_void_p).value or 0
            threads, set_threads = (
                blas[f"{prefix}openblas_{verb}_num_threads64_"] for verb in ("get", "set")
            )
            return Library(address, threads, set_threads)
    if sys.platform == "darwin":
        with suppress(OSError, AttributeError):
            blas = ctypes.CDLL("/System/Library/Frameworks/Accelerate.framework/Accelerate")
            return Library(-(ctypes.cast(blas.cblas_sgemm, ctypes.c_void_p).value or 0))
    return Library(0)


LIBRARY: Final = _found()
"""The BLAS that computes products."""


class ProcessSetting:
    """A setting of the whole process, changed while anyone is within: a context manager.

    It is as before when the last of the threads within has left.

    Args:
        read: tells what it is.
        write: sets it.
        value: that it has meanwhile.
    """

    def __init__(self, read: Callable[[], Any], write: Callable[[Any], Any], value: Any) -> None:
        self._read, self._write, self._value = read, write, value
        self._lock, self._within, self._before = threading.Lock(), 0, value

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._before = self._read()
                if self._before != self._value:
                    self._write(self._value)
            self._within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within and self._before != self._value:
                self._write(self._before)


_one_thread: AbstractContextManager[None] = nullcontext()
if LIBRARY.threads is not None and LIBRARY.set_threads is not None:
    _one_thread = ProcessSetting(LIBRARY.threads, LIBRARY.set_threads, 1)


def one_thread_each() -> AbstractContextManager[None]:
    """Within it each product uses one thread; after the last of several such as many as before."""
    return _one_thread
