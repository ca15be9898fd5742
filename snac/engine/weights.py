"""The arrays of a checkpoint as the stages take them: found by name, widened once, weight norms folded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SNAKE_EPSILON = 1e-9  # keeps 1 / alpha finite; part of the published activation


class Weights:
    """The arrays under a prefix.

    Args:
        arrays: of a state dict, by name.
        prefix: of the names, with its dot, or empty.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], prefix: str = "") -> None:
        self._arrays, self._prefix = arrays, prefix

    def within(self, *names: object) -> Weights:
        """The arrays of a layer within this one."""
        return Weights(self._arrays, self._prefix + "".join(f"{name}." for name in names))

    def __getitem__(self, name: str) -> np.ndarray:
        """An array, float32 and C-contiguous."""
        return np.ascontiguousarray(self._arrays[self._prefix + name], dtype=np.float32)

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._arrays

    def weight(self) -> np.ndarray:
        """The weight of a convolution; a weight norm (over the first axis) is computed."""
        if "weight" in self:
            return self["weight"]
        length, direction = (self[f"parametrizations.weight.original{number}"] for number in (0, 1))
        axes = tuple(range(1, direction.ndim))
        norm = np.sqrt(np.square(direction).sum(axis=axes, keepdims=True))
        return np.ascontiguousarray(direction * (length / norm))

    def snake(self) -> np.ndarray:
        """Rates and scales (2, C) of a snake activation, see ``snac.engine.kernels``."""
        alpha = self["alpha"].reshape(-1).astype(np.float64) + SNAKE_EPSILON
        return np.stack((alpha / np.pi, 1 / alpha)).astype(np.float32)
