"""The noise of the decoder: of a seed, or none.

The decoder's noise blocks multiply their signal by Gaussian noise. Drawn from a global generator it would
change with every run, piece and thread. The noise of a seed is instead a hash of where each value stands: it
depends on the seed, the layer and the absolute position only, so that the same file gives the same sound
however it is decoded. Knows no torch; ``snac.nn.layers`` has the same for tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

MASK = 0xFFFFFFFF
"""Of the 32 bits that are hashed."""


@dataclass(frozen=True)
class Noise:
    """Which noise a decoder adds. Make one by :meth:`seeded` or :meth:`none`.

    Attributes:
        kind: which of the two.
        seed: of the hash; any integer, of which the low 64 bits count.
    """

    kind: Literal["seeded", "none"]
    seed: int = 0

    @classmethod
    def seeded(cls, seed: int) -> Noise:
        """Noise that is always the same for a seed."""
        return cls("seeded", seed)

    @classmethod
    def none(cls) -> Noise:
        """No noise."""
        return cls("none")

    def draw(self, layer: int, first: int, length: int) -> np.ndarray:
        """Noise for the positions from ``first`` on, float32 of shape (length,).

        Args:
            layer: number of the noise block within its decoder; each has noise of its own.
            first: absolute index of a sample at the layer's rate.
            length: how many values.
        """
        if self.kind == "none":
            return np.zeros(length, dtype=np.float32)
        return gaussian(self.seed, layer, np.arange(first, first + length, dtype=np.uint64))


def noise_key(seed: int, layer: int) -> int:
    """What seed and layer contribute to the hash of a position: 32 bits."""
    key = _mix_int((seed & MASK) ^ 0x9E3779B9)
    key = _mix_int(key ^ ((seed >> 32) & MASK))
    return _mix_int(key ^ (layer & MASK))


def gaussian(seed: int, layer: int, positions: np.ndarray) -> np.ndarray:
    """Standard normal values, one for each position.

    Args:
        seed: any integer; only its low 64 bits count.
        layer: which noise block asks; layers give independent streams.
        positions: integers of any shape, absolute sample indices at the layer's rate, 0 or greater.

    Returns:
        float32 of the shape of ``positions``, by the Box-Muller transform (Box and Muller 1958) of two hashed
        uniform values of 23 and 24 bits: magnitudes stay below 5.8.
    """
    key = noise_key(seed, layer)
    places = positions.astype(np.uint64)
    state = _mix((places >> np.uint64(32)).astype(np.uint32) ^ np.uint32(key))
    state = _mix(places.astype(np.uint32) ^ state)
    first = _mix(state ^ np.uint32(0x3C6EF372))
    second = _mix(state ^ np.uint32(0xDAA66D2B))
    # 23 bits plus a half are exact in float32, and never 0: the logarithm stays finite.
    uniform = ((first >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)
    angle = (second >> np.uint32(8)).astype(np.float32) * np.float32(2.0 * math.pi * 2.0**-24)
    drawn: np.ndarray = np.sqrt(np.float32(-2) * np.log(uniform)) * np.cos(angle)
    return drawn


def _mix(x: np.ndarray) -> np.ndarray:
    """A bijection of 32-bit integers whose output bits each depend on all input bits.

    The constants are those of Chris Wellons' "lowbias32" (hash-prospector, public domain).
    """
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    mixed: np.ndarray = x ^ (x >> np.uint32(16))
    return mixed


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK
    return x ^ (x >> 16)
