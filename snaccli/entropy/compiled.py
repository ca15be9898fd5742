"""The adaptive coder of kernel.py, and when it is used.

It takes a tenth or less of the plain coder's time a token, but importing numba takes as long as the plain
one does for a few thousand tokens, and compiling, once a machine, for some ten thousands. So the plain coder
serves until as many tokens have come up in this process.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from snaccli.codes import Tokens
from snaccli.entropy import model, state
from snaccli.entropy.context import Context, Integers
from snaccli.entropy.directions import LIMIT, Points
from snaccli.entropy.plain import PlainCoder
from snaccli.entropy.rangecoder import undecodable
from snaccli.entropy.state import Code

IMPORTING = 4_000  # tokens of the plain coder that take as long as importing numba
COMPILING = 60_000  # and as long as compiling

_lock = threading.Lock()
_seen = 0  # tokens that came up in this process


class TokenCoder(Protocol):
    """Codes one stream, block after block; the same bytes whichever coder it is."""

    block: int

    def __init__(self, context: Context, payload: bytes = b"") -> None: ...

    def intervals(self, tokens: Tokens) -> Integers:
        """Return what lies below each of the next tokens (n,) and its frequency, of 2^24 in all (n, 2)."""
        ...

    def tokens(self, count: int) -> Tokens:
        """Decode the next tokens, uint16 (count,)."""
        ...


class CompiledCoder:
    """As ``PlainCoder``, compiled.

    Args:
        context: of the stream's tokens; its points must be within ``fits``.
        payload: its coded bytes if it is decoded.
        code: the compiled function, by default the one that is known to work.

    Raises:
        RuntimeError: there is none here.
    """

    block = 1024  # tokens between two looks at the progress

    def __init__(self, context: Context, payload: bytes = b"", code: Code | None = None) -> None:
        self._context = context
        working = code or _working()
        if working is None:
            raise RuntimeError("numba cannot be used here")
        self._code = working
        self._constants = state.constants()
        self._state = state.beginning(context)
        self._payload = np.frombuffer(bytearray(payload.ljust(8, b"\0")), dtype=np.uint8)
        offset = int.from_bytes(self._payload[:8].tobytes(), "big")
        self._reader = np.array([(1 << 64) - 1, offset, 8], dtype=np.uint64)
        self._done = 0

    def intervals(self, tokens: Tokens) -> Integers:
        """Return what lies below each of the next tokens (n,) and its frequency, of 2^24 in all (n, 2)."""
        found = np.zeros((tokens.size, 2), dtype=np.int64)
        self._run(tokens.astype(np.uint16), found, reading=False)
        return found

    def tokens(self, count: int) -> Tokens:
        """Decode the next tokens, uint16 (count,).

        Raises:
            StreamInvalidError: no encoder wrote these bytes.
        """
        found = np.zeros(count, dtype=np.uint16)
        if self._run(found, np.zeros((0, 2), dtype=np.int64), reading=True) < count:
            raise undecodable()
        return found

    def _run(self, tokens: Tokens, intervals: Integers, *, reading: bool) -> int:
        """Code the next tokens; return how many could be."""
        above = self._context.above(self._done, tokens.size)
        start, self._done = self._done, self._done + tokens.size
        return self._code(
            self._state,
            self._constants,
            start,
            above,
            tokens,
            intervals,
            self._payload,
            self._reader,
            reading,
        )


def choose(tokens: int, space: Sequence[Points]) -> type[TokenCoder]:
    """Return the coder that is likely to be done first with so many tokens more.

    Args:
        tokens: that are about to be coded.
        space: the codewords of every level.
    """
    global _seen
    with _lock:
        _seen += tokens
        if _seen < IMPORTING or not all(map(fits, space)):
            return PlainCoder
        if _seen < COMPILING and not _on_disk():
            return PlainCoder
        return CompiledCoder if _working() else PlainCoder


def fits(points: Points) -> bool:
    """Whether no sum over the coordinates of such points leaves 32 bits."""
    return int(points.shape[1]) * LIMIT * max(model.TILT_LIMIT, 4 * LIMIT) < 1 << 31


@cache
def _module() -> ModuleType | None:
    """Import kernel.py, and so numba; None where that fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from snaccli.entropy import jit, kernel
        except Exception:  # numba refuses versions of numpy and Python that it does not know, in several ways
            return None
    return None if jit.interpreted() else kernel


@cache
def _working() -> Code | None:
    """Load or compile the kernel; None where that fails.

    A cache that is damaged or cannot be written is made anew or done without. What comes out is compared
    with the plain coder before it is trusted.
    """
    kernel = _module()
    if kernel is None:
        return None
    for cached, anew in ((True, False), (True, True), (False, False)):
        with warnings.catch_warnings(), suppress(Exception):
            warnings.simplefilter("ignore")
            if anew:
                _remove_cache()
            code: Code = kernel.build(cached=cached)
            if _agrees(code):
                return code
    return None


def _agrees(code: Code) -> bool:
    """Whether the compiled coder does as the plain one, over a few tokens of a small codebook."""
    points = np.arange(900).reshape(300, 3) * 37 % 401 - 200
    tokens = (np.arange(24) * 97 % 300).astype(np.uint16)
    context = Context(points, 1, None)
    found = CompiledCoder(context, code=code).intervals(tokens)
    return np.array_equal(found, PlainCoder(context).intervals(tokens))


def _cache_files() -> list[Path]:
    """Return the files of numba's cache for the kernel."""
    kernel = _module()
    if kernel is None:
        return []
    try:
        folder = kernel.build(cached=True).stats.cache_path
    except RuntimeError:  # no folder for it
        return []
    return list(Path(folder).glob("kernel._code-*.nb?"))


def _on_disk() -> bool:
    """Whether a compiled kernel is likely to be at hand."""
    return bool(_cache_files())


def _remove_cache() -> None:
    """Delete numba's cache for the kernel as far as that is possible."""
    for path in _cache_files():
        with suppress(OSError):
            path.unlink()
