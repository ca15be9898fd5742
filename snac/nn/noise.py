"""The noise of the decoder's blocks as tensors: torch's own, or that of ``snac.noise``."""

from __future__ import annotations

import math
from typing import Final, Protocol

import torch
from torch import Tensor

from snac import noise

_MASK = 0xFFFFFFFF


class NoiseStream(Protocol):
    """Where noise blocks draw their noise from."""

    def draw(self, layer: int, length: int, like: Tensor) -> Tensor:
        """Standard normal noise for a signal from its first sample on.

        Args:
            layer: number of the noise block within its decoder.
            length: samples.
            like: the signal (B, C, length).

        Returns:
            (B, 1, length) or (1, 1, length), of the device and type of ``like``.
        """


class FreshNoise:
    """Noise of torch's own generator, as training and the published package have it."""

    def draw(self, layer: int, length: int, like: Tensor) -> Tensor:
        """See :class:`NoiseStream`."""
        return torch.randn((like.shape[0], 1, length), device=like.device, dtype=like.dtype)


class SeededNoise:
    """Noise that depends on a seed, the layer and the position alone, the same as the engine's.

    Args:
        seed: any integer; only its low 64 bits count.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def draw(self, layer: int, length: int, like: Tensor) -> Tensor:
        """See :class:`NoiseStream`."""
        return gaussian(self._seed, layer, 0, length, like)


FRESH: Final[NoiseStream] = FreshNoise()


def gaussian(seed: int, layer: int, first: int, length: int, like: Tensor) -> Tensor:
    """The values of ``snac.noise.Noise.seeded(seed)`` for the positions from ``first`` on.

    On a CPU they are computed there; elsewhere on the device itself, with the same bits of the hash and float
    rounding of the device.

    Args:
        seed: any integer; only its low 64 bits count.
        layer: number of the noise block within its decoder.
        first: absolute index of a sample at the layer's rate, 0 or greater.
        length: how many values.
        like: says the device and the type.

    Returns:
        (1, 1, length).
    """
    if like.device.type == "cpu":
        drawn = torch.from_numpy(noise.Noise.seeded(seed).draw(layer, first, length))
    else:
        drawn = _gaussian_on_device(seed, layer, first, length, like.device)
    return drawn.to(device=like.device, dtype=like.dtype)[None, None]


def _gaussian_on_device(seed: int, layer: int, first: int, length: int, device: torch.device) -> Tensor:
    key = _mix_int((seed & _MASK) ^ 0x9E3779B9)
    key = _mix_int(key ^ ((seed >> 32) & _MASK))
    key = _mix_int(key ^ (layer & _MASK))
    places = torch.arange(first, first + length, device=device)
    state = _mix((places & _MASK) ^ _mix((places >> 32) ^ key))
    # 23 bits plus a half are exact in float32, and never 0: the logarithm stays finite.
    uniform = ((_mix(state ^ 0x3C6EF372) >> 9).to(torch.float32) + 0.5) * 2.0**-23
    angle = (_mix(state ^ 0xDAA66D2B) >> 8).to(torch.float32) * (2.0 * math.pi * 2.0**-24)
    return torch.sqrt(-2.0 * torch.log(uniform)) * torch.cos(angle)


def _mix(x: Tensor) -> Tensor:
    """The bijection of ``snac.noise`` on 32-bit integers that are held in int64."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)
