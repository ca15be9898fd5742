"""Keeping a C library from printing on standard error."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator

__all__ = ["quiet_mpg123"]

# How mpg123, libsndfile's MP3 decoder, words what it prints; it offers no switch that libsndfile passes on.
_CHATTER = re.compile(rb"libmpg123[/\\]|^\s*(Note|NOTE|Warning|WARNING|note|warning): |^[ \t]*\n?$")
_LOCK = threading.RLock()


@contextlib.contextmanager
def quiet_mpg123() -> Iterator[None]:
    """Drop what mpg123 prints on descriptor 2 within the block.

    The descriptor belongs to the whole process, so what other threads print meanwhile is passed on
    afterwards. On Windows the library writes past this redirection; what it prints there is harmless.
    """
    with _LOCK, contextlib.ExitStack() as stack:
        try:
            real = os.dup(2)
            stack.callback(os.close, real)
            caught = stack.enter_context(tempfile.TemporaryFile())
            os.dup2(caught.fileno(), 2)
        except OSError:  # no standard error, so nothing to keep clean
            yield
            return
        try:
            yield
        finally:
            os.dup2(real, 2)
            caught.seek(0)
            # Not splitlines: a progress bar that is drawn meanwhile begins with a carriage return.
            for line in re.findall(rb"[^\n]*\n|[^\n]+", caught.read()):
                if not _CHATTER.search(line):
                    os.write(2, line)
