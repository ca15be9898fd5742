"""Opening an input that may be standard input."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import BinaryIO

from snaccli.errors import UsageError

__all__ = ["open_input"]


@contextlib.contextmanager
def open_input(name: str) -> Iterator[BinaryIO]:
    """Open the file `name` for reading bytes; ``-`` is standard input, which is left open."""
    if name == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("standard input is a terminal; name a file, or send one into a pipe")
        yield sys.stdin.buffer
    else:
        with open(name, "rb") as file:
            yield file
