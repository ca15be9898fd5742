"""What the program does to its own process, once: nowhere else is anything of the process changed.

The library changes nothing of the process that it is used in; a program of its own may. So :func:`tune` acts
only where the command line is the whole process (:attr:`snaccli.cli.ui.console.Console.owns_process`), not
where a test or another program calls it as a function.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import sys
import threading
import warnings
from types import FrameType

from snaccli.cli.ui.console import Console

__all__ = ["Fate", "flush", "start", "tune"]

_M_ARENA_MAX = -8  # of malloc.h


_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Those that ask a program to end, as far as this system has them."""


def start(console: Console) -> Fate:
    """Takes possession of the process for the command line, before it reads its arguments.

    A signal that asks the program to end lets it clean up as an interrupt does. Warnings of libraries, which
    are for programmers, are shown with ``--debug`` or ``python -W`` only.

    Returns what ends the process when all is done.
    """
    console.owns_process = True
    fate = Fate()
    for number in _SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else _terminate)
    if not sys.warnoptions and "--debug" not in sys.argv:
        warnings.simplefilter("ignore")
    return fate


class Fate:
    """How the process ends: by its exit status, or by the signal that asked it to.

    A shell that runs a loop stops it only if a program died of the interrupt: one that exits, with whatever
    status, is taken to have used the interrupt for something of its own.
    """

    def __init__(self) -> None:
        self._number = 0
        # Registered before a command is imported, and so called after what libraries clean up at exit.
        atexit.register(self._meet)

    def settle(self, status: int) -> int:
        """Takes the exit status of the run and returns it; from now on a signal ends the process at once."""
        if os.name != "nt":
            for number in _SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
            self._number = next((number for number in _SIGNALS if status == 128 + number), 0)
        return status

    def _meet(self) -> None:
        if self._number:
            os.kill(os.getpid(), self._number)


class _Terminated(KeyboardInterrupt):
    """Another signal than that of an interrupt asks the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__("terminated")
        self.status = 128 + number


def _terminate(number: int, _: FrameType | None) -> None:
    raise _Terminated(number)


def flush(console: Console) -> None:
    """Writes what is left for the standard streams, before the process ends."""
    try:
        for stream in (sys.stdout, console.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        # The reader has gone away. What is left must not be written again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def tune(console: Console) -> None:
    """Prepares the process for coding; called by a command that codes, before NumPy is imported."""
    if console.owns_process:
        _tune(console)


@functools.cache
def _tune(console: Console) -> None:
    one_thread_for_products()
    one_heap()
    if not console.debug:
        quiet_libraries(console)
    tell_of_compiling(console)


def one_thread_for_products() -> None:
    """Has NumPy's matrix products use the calling thread alone, unless the environment decides that.

    The engine computes pieces of a recording side by side, each in a thread of its own. BLAS reads this when
    NumPy is imported. Commands that train do not call it: on some systems torch uses the same library.
    """
    for name in ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(name, "1")


def one_heap() -> None:
    """Has all threads take memory from one heap, unless ``MALLOC_ARENA_MAX`` decides that.

    glibc gives threads heaps of their own, each of which keeps what a thread once took for its pieces:
    measured, 760 MB and growing after five minutes of audio, against 670 MB that stay, in less time. With
    another C library nothing is done.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        _mallopt(_M_ARENA_MAX, 1)


def _mallopt(parameter: int, value: int) -> None:
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(parameter, value)


def quiet_libraries(console: Console) -> None:
    """Leaves standard error to this program: what C libraries print there by themselves is dropped.

    libsndfile's MP3 decoder, mpg123, prints warnings about tags and damaged frames on descriptor 2 and has no
    switch that libsndfile passes on. The program's own lines go to a copy of the descriptor. With ``--debug``
    nothing is dropped.
    """
    if console.stderr is not sys.stderr or sys.stderr is None:
        return
    try:
        if sys.stderr.fileno() != 2:
            return
        sys.stderr.flush()
        own = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
    except (OSError, ValueError):  # closed, or not a file: nothing to keep clean
        return
    console.stderr = sys.stderr = own


def tell_of_compiling(console: Console) -> None:
    """Says on one line why the first run on a machine takes longer, when it does."""
    from snac import jit

    lock = threading.Lock()
    told = False

    def observe(name: str, seconds: float | None) -> None:
        nonlocal told
        with lock:
            if not told:
                told = True
                console.note(
                    "first run on this machine: compiling for its processor, some seven seconds, this once"
                )

    jit.observe(observe)
