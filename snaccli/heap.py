"""The memory that the C library keeps, and how to have it keep less where that is glibc.

With another C library nothing is done here.
"""

from __future__ import annotations

import sys
from contextlib import suppress

__all__ = ["trim"]


def trim() -> None:
    """Return what lies free between what is in use to the system."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):  # another C library
            getattr(ctypes.CDLL(None), name)(*arguments)
