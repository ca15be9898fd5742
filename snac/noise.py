"""Gaussian noise that depends on a seed, a layer and an absolute position only.

The decoder's noise blocks multiply their signal by noise. Drawn from torch's global generator it would
change with every run, tile and thread; here each value is a hash of where it stands, so that the same
file gives the same sound however it is decoded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit integers (held in int64) whose output bits each depend on all input bits.

    The constants are those of Chris Wellons' "lowbias32" (hash-prospector, public domain).
    """
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def gaussian(seed: int, layer: int, positions: Tensor) -> Tensor:
    """Standard normal values, one for each position.

    Args:
        seed: any integer; only its low 64 bits count.
        layer: which noise block asks; layers give independent streams.
        positions: int64 tensor of any shape, absolute sample indices at the layer's rate, 0 or greater.

    Returns:
        float32 tensor of the shape of ``positions``, by the Box-Muller transform (Box and Muller 1958)
        of two hashed uniform values of 23 and 24 bits: magnitudes stay below 5.8.
    """
    key = _mix_int((seed & _MASK) ^ 0x9E3779B9)
    key = _mix_int(key ^ ((seed >> 32) & _MASK))
    key = _mix_int(key ^ (layer & _MASK))
    state = _mix((positions >> 32) ^ key)
    state = _mix((positions & _MASK) ^ state)
    first = _mix(state ^ 0x3C6EF372)
    second = _mix(state ^ 0xDAA66D2B)
    # 23 bits plus a half are exact in float32, and never 0: the logarithm stays finite.
    uniform = ((first >> 9).to(torch.float32) + 0.5) * 2.0**-23
    angle = (second >> 8).to(torch.float32) * (2.0 * math.pi * 2.0**-24)
    return torch.sqrt(-2.0 * torch.log(uniform)) * torch.cos(angle)


@dataclass(frozen=True)
class NoiseSource:
    """Where the noise of one decoder call comes from.

    Attributes:
        seed: of the hash.
        first_frame: absolute index of the first latent frame; a fraction where the signal begins within a
            frame.
    """

    seed: int
    first_frame: int | Fraction = 0

    def draw(self, layer: int, upsampling: int, length: int, like: Tensor) -> Tensor:
        """Noise for a layer whose signal has ``upsampling`` samples a latent frame.

        Returns:
            (1, 1, length), of the device and dtype of ``like``.
        """
        first = int(self.first_frame * upsampling)
        positions = torch.arange(first, first + length, device=like.device)
        return gaussian(self.seed, layer, positions).to(like.dtype)[None, None]
