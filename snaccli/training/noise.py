"""The randomness of training: drawn from seed, step and place alone, never from a global state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from snac.noise import NoiseSource


def generator(*place: int) -> torch.Generator:
    """A generator of the CPU for one place in a run: equal numbers, equal draws."""
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@dataclass(frozen=True)
class StepNoise(NoiseSource):
    """Fresh noise of one step, a stream an item: it stays the same however the batch is divided.

    Attributes:
        step: of the run.
        first_item: number in the whole batch of the first item here.
    """

    step: int = 0
    first_item: int = 0

    def draw(self, layer: int, upsampling: int, length: int, like: Tensor) -> Tensor:
        """Standard normal noise (B, 1, length) for a layer whose signal is ``like`` (B, C, T)."""
        items = range(self.first_item, self.first_item + like.shape[0])
        drawn = [
            torch.randn(1, length, generator=generator(self.seed, self.step, item, layer)) for item in items
        ]
        return torch.stack(drawn).to(like)
