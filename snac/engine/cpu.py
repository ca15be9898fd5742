"""What the stages on a CPU have in common: their weights, their memory, and that a kernel computes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from snac.engine.chain import Stage
from snac.jit import Kernel
from snac.products import LIBRARY

_LEAST = 1 << 10  # values; smaller blocks are made of this size
_SPARE = 32  # rows of an array that its block has room for beside its own


class Weights:
    """The arrays of a checkpoint as the stages take them, widened as they are asked for.

    Args:
        arrays: of a state dict, by name.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> np.ndarray:
        """An array, float32 and C-contiguous; a weight norm (over the first axis) is computed."""
        if name in self._arrays:
            return np.ascontiguousarray(self._arrays[name], dtype=np.float32)
        layer = name.removesuffix("weight")
        length, direction = (
            np.asarray(self._arrays[f"{layer}parametrizations.weight.original{number}"], dtype=np.float32)
            for number in (0, 1)
        )
        axes = tuple(range(1, direction.ndim))
        norm = np.sqrt(np.square(direction).sum(axis=axes, keepdims=True))
        return np.ascontiguousarray(direction * (length / norm))


class Arena:
    """Arrays, times by channels, in blocks of memory that are used again: a chain's workspace.

    Pages fresh from the system cost as much as many a computation on them. A block comes back by itself when
    the last array that lies in it is gone, whoever held that. Safe to share between threads.
    """

    together = False

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = {}

    def take(self, *shape: int, dtype: type[np.generic] = np.float32) -> np.ndarray:
        """See ``Workspace.take``: C-contiguous, of values of at most four bytes."""
        count = max(_LEAST, math.prod(shape) + _SPARE * math.prod(shape[1:]))
        # Four sizes of blocks between one power of two and the next.
        quarter = 1 << max(0, (count - 1).bit_length() - 3)
        size = -(-count // quarter) * quarter
        free = self._free.setdefault(size, [])
        try:
            block = free.pop()
        except IndexError:
            block = np.empty(size, dtype=np.float32)
        address = block.__array_interface__["data"]
        interface = {"version": 3, "typestr": np.dtype(dtype).str, "shape": shape, "data": address}
        return np.asarray(_Lease(block, free, interface))

    def length(self, array: np.ndarray) -> int:
        """See ``Workspace.length``."""
        return len(array)

    def part(self, array: np.ndarray, low: int, high: int) -> np.ndarray:
        """See ``Workspace.part``."""
        return array[low:high]

    def joined(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """See ``Workspace.joined``."""
        out = self.take(sum(map(len, parts)), *parts[0].shape[1:])
        return np.concatenate(parts, out=out)

    def zeros(self, like: np.ndarray, length: int) -> np.ndarray:
        """See ``Workspace.zeros``."""
        return np.zeros((length, *like.shape[1:]), dtype=np.float32)

    def extended(self, array: np.ndarray, length: int) -> np.ndarray:
        """See ``Workspace.extended``: without copying where the array's block has room."""
        base: Any = array.base
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, _Lease) and array.flags.c_contiguous:
            begin = array.ctypes.data - base.block.ctypes.data
            if begin + array.nbytes + length * array.strides[0] <= base.block.nbytes:
                shape = (len(array) + length, *array.shape[1:])
                longer = np.lib.stride_tricks.as_strided(array, shape)
                longer[len(array) :] = 0
                return longer
        return np.concatenate((array, np.zeros((length, *array.shape[1:]), dtype=array.dtype)))

    def inward(self, signal: np.ndarray) -> list[np.ndarray]:
        """See ``Workspace.inward``."""
        return [np.ascontiguousarray(channel) for channel in signal]

    def outward(self, lanes: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        """See ``Workspace.outward``."""
        parts = [np.concatenate(lane) for lane in lanes]
        return parts[0][None] if len(parts) == 1 else np.stack(parts)


@dataclass(eq=False)
class _Lease:
    """A block in use: NumPy keeps it as long as an array or a view of one lies in it."""

    block: np.ndarray
    free: list[np.ndarray]
    __array_interface__: dict[str, Any]

    def __del__(self) -> None:
        self.free.append(self.block)


@dataclass(eq=False)
class Layer(Stage):
    """A stage that one kernel computes: nothing but data.

    Args:
        arena: for what the kernel needs beside its outputs.
        kernel: of ``held``, ``x``, the weights, the routine of the products, the scratch arrays and ``out``.
        weights: in the order of its parameters.
        scratch: shapes of the arrays that it overwrites; a length of 0 stands for that of the signal.
        channels, values, window, history, tail: see ``Stage``.
    """

    arena: Arena
    kernel: Kernel
    weights: tuple[Any, ...]
    scratch: tuple[tuple[int, int], ...]
    channels: int
    values: int
    window: int = 1
    history: int = 0
    tail: int = 0

    def run(
        self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: np.ndarray | None
    ) -> np.ndarray:
        """See ``Stage.run``."""
        assert out is not None
        scratch = [self.arena.take(rows or len(held) + len(x), width) for rows, width in self.scratch]
        self.kernel(held, x, *self.weights, LIBRARY.routine, *scratch, out)
        return out
