"""Memory that is used again: pages fresh from the system cost as much as many a computation on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_LEAST = 1 << 10  # values; smaller blocks are made of this size


class Arena:
    """Float32 arrays, times by channels, in blocks of memory that are used again.

    A block comes back by itself when the last array that lies in it is gone, whoever held that. Safe to share
    between threads.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = {}

    def take(self, *shape: int) -> np.ndarray:
        """A C-contiguous array whose values are undefined."""
        size = _size(math.prod(shape))
        free = self._free.setdefault(size, [])
        try:
            block = free.pop()
        except IndexError:
            block = np.empty(size, dtype=np.float32)
        return np.asarray(_Lease(block, free, shape))

    def length(self, array: np.ndarray) -> int:
        """How many times an array spans."""
        return len(array)

    def part(self, array: np.ndarray, low: int, high: int) -> np.ndarray:
        """The times from ``low`` to ``high``, in the same memory."""
        return array[low:high]

    def joined(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """An array of its own of some arrays, one after the other in time."""
        out = self.take(sum(map(len, parts)), *parts[0].shape[1:])
        at = 0
        for part in parts:
            out[at : at + len(part)] = part
            at += len(part)
        return out

    def zeros(self, like: np.ndarray, length: int) -> np.ndarray:
        """Zeros of the shape of ``like`` but for its length."""
        out = self.take(length, *like.shape[1:])
        out.fill(0)
        return out


class _Lease:
    """A block in use: NumPy keeps it as long as an array or a view of one lies in it."""

    def __init__(self, block: np.ndarray, free: list[np.ndarray], shape: tuple[int, ...]) -> None:
        self._block, self._free = block, free
        self.__array_interface__: dict[str, Any] = {
            "version": 3, "typestr": block.dtype.str, "shape": shape, "data": (_address(block), False),
        }  # fmt: skip

    def __del__(self) -> None:
        self._free.append(self._block)


def _address(block: np.ndarray) -> int:
    address: int = block.__array_interface__["data"][0]
    return address


def _size(count: int) -> int:
    """The size of a block for so many values: four sizes between one power of two and the next."""
    if count <= _LEAST:
        return _LEAST
    quarter = 1 << max(0, (count - 1).bit_length() - 3)
    return -(-count // quarter) * quarter
