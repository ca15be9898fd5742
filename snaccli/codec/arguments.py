"""What callers of the library give: checked once, where it comes in, and put into plain types.

NumPy's numbers are taken as Python's. What cannot be is told in a line with the parameter's name.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
from contextlib import suppress
from typing import Any, cast

import numpy as np

from snaccli.audio import FULL_SCALE_LIMIT, MAX_RATE
from snaccli.errors import AudioError, ParameterError

__all__ = ["checked_block", "checked_rate", "number", "path_of", "whole"]


def whole(parameter: str, value: object, low: int, high: int) -> int:
    """Returns a whole number.

    Raises:
        ParameterError: it is none from ``low`` to ``high``.
    """
    with suppress(TypeError):
        found = operator.index(cast(Any, value))
        if low <= found <= high and not isinstance(value, bool):
            return found
    raise ParameterError(parameter, repr(value), f"give a whole number from {low:,} to {high:,}")


def number(parameter: str, value: object, unit: str) -> float:
    """Returns a number of 0 or more.

    Raises:
        ParameterError: it is none, or not finite.
    """
    with suppress(OverflowError):
        if not isinstance(value, bool) and isinstance(value, numbers.Real):
            found = float(value)
            if 0 <= found < math.inf:
                return found
    raise ParameterError(parameter, repr(value), f"give 0 or more {unit}")


def path_of(parameter: str, value: object) -> str:
    """Returns a path as text, ``-`` for a standard stream.

    Raises:
        ParameterError: it is no path.
    """
    with suppress(TypeError):
        return os.fsdecode(cast(Any, value))
    kind = type(value).__name__
    raise ParameterError(parameter, f"a {kind}", "give a path, or '-' for a standard stream")


def checked_rate(rate: object) -> int:
    """Returns a sample rate in Hz.

    Raises:
        AudioError: it is none.
    """
    with suppress(TypeError):
        found = operator.index(cast(Any, rate))
        if 1 <= found <= MAX_RATE and not isinstance(rate, bool):
            return found
    raise AudioError(f"a rate of {rate!r} Hz is not a whole number in 1..{MAX_RATE}")


def checked_block(block: object, channels: int) -> np.ndarray:
    """Returns samples as contiguous float32 (n, channels).

    Raises:
        AudioError: they are no array (n, channels) of floats, hold NaN, or are far beyond full scale.
    """
    if not isinstance(block, np.ndarray):
        raise AudioError(f"a block of samples is a {type(block).__name__}; give arrays (n, {channels})")
    if block.ndim != 2 or block.shape[1] != channels or not np.issubdtype(block.dtype, np.floating):
        raise AudioError(f"a block of samples is {block.dtype} {block.shape}; give floats (n, {channels})")
    with np.errstate(over="ignore"):
        block = np.ascontiguousarray(block, dtype=np.float32)
        flat = block.reshape(-1)
        energy = float(np.dot(flat, flat))  # one quick pass in the good case; of NaN it is NaN
    if energy <= FULL_SCALE_LIMIT**2 or bool((np.abs(flat) <= FULL_SCALE_LIMIT).all()):
        return block
    if not np.isfinite(flat).all():
        raise AudioError("samples hold NaN or infinite values; mend them first")
    raise AudioError(f"samples reach {np.abs(flat).max():.3g}, far beyond full scale (1): scale them down")
