"""How the parts of the kernel are compiled.

Importing this imports numba, which takes a while: see compiled.py for when that pays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

__all__ = ["OPTIONS", "F", "I", "L", "S", "U", "V", "compiled", "inlined", "interpreted", "jit"]

# What a number is made of where it must have a width.
F, S = np.float64, np.float32
I, L = np.int32, np.int64  # noqa: E741
U, V = np.uint32, np.uint64

Function = TypeVar("Function", bound=Callable[..., Any])

jit: Any = numba.njit  # numba's types, where it has some, do not cover its options
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}


def compiled(function: Function) -> Function:
    """Compile a function as a part of others, without what Python calls it by: that takes long."""
    return cast(Function, jit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)(function))


def inlined(function: Function) -> Function:
    """Put a function's text where it is called."""
    return cast(Function, jit(inline="always")(function))


def interpreted() -> bool:
    """Whether numba has been told not to compile."""
    return bool(getattr(numba.config, "DISABLE_JIT", False))
