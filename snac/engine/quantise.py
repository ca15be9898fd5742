"""The residual quantiser for inference: latents to codes and back, in the published order of operations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snac.config import ModelConfig
from snac.engine.chain import Stage
from snac.engine.weights import Weights

_SMALLEST_NORM = 1e-12  # of a vector that is normalised


class Level:
    """A codebook with its projections.

    Attributes:
        stride: latent frames a token.
        codebook: float32 (codebook size, dimension).
        inner, inner_bias: from latents to the codebook's space (C, dimension), (dimension,).
        outer, outer_bias: from there to latents (dimension, C), (C,).
    """

    def __init__(self, weights: Weights, stride: int) -> None:
        self.stride = stride
        inner, outer = weights.within("in_proj"), weights.within("out_proj")
        self.inner, self.inner_bias = np.ascontiguousarray(inner.weight()[:, :, 0].T), inner["bias"]
        self.outer, self.outer_bias = np.ascontiguousarray(outer.weight()[:, :, 0].T), outer["bias"]
        self.codebook = weights.within("codebook")["weight"]
        directions = _normalised(self.codebook)
        self.directions = np.ascontiguousarray(directions.T)
        self.squares = np.square(directions).sum(axis=1)[None]

    def project(self, latents: np.ndarray) -> np.ndarray:
        """Latents (T, C) in the codebook's space, one point a token: (T / stride, dimension)."""
        if self.stride > 1:
            latents = latents.reshape(-1, self.stride, latents.shape[1]).mean(axis=1)
        return np.asarray(latents @ self.inner + self.inner_bias)

    def indices(self, latents: np.ndarray) -> np.ndarray:
        """The codewords nearest in angle to latents (T, C): (T / stride,)."""
        directions = _normalised(self.project(latents))
        # Kept in the published order of operations, so that near ties fall the same way.
        distances = 2 * directions @ self.directions
        np.subtract(np.square(directions).sum(axis=1, keepdims=True), distances, out=distances)
        distances += self.squares
        return np.asarray(distances.argmin(axis=1))

    def latents(self, indices: np.ndarray, first: int, last: int) -> np.ndarray:
        """What codes (n,) stand for: (last - first, C), of the frames from ``first`` on after their first."""
        found = self.codebook[indices] @ self.outer + self.outer_bias
        if self.stride > 1:
            found = np.repeat(found, self.stride, axis=0)
        return np.asarray(found[first:last])


def _normalised(vectors: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.maximum(length, np.float32(_SMALLEST_NORM)))


class Quantiser(Stage):
    """Latents (n, C) to codes: a row of all tokens in the span of one coarsest token, coarse to fine.

    Attributes:
        parts: the codebooks with their projections, coarse to fine.
        codebooks: float32 (codebook size, dimension) a level.
    """

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self.strides = config.vq_strides
        self.parts = tuple(
            Level(weights.within("quantizer", "quantizers", number), stride)
            for number, stride in enumerate(self.strides)
        )
        self.codebooks = tuple(level.codebook for level in self.parts)
        self.window = self.step = self.strides[0]
        self.values = config.codebook_size // self.strides[-1] // 4

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``: (steps, tokens of a row)."""
        residual = np.concatenate((held, x))[: steps * self.step]
        found = []
        for level in self.parts:
            indices = level.indices(residual)
            residual -= level.latents(indices, 0, len(residual))
            found.append(indices.reshape(steps, -1))
        return np.concatenate(found, axis=1).astype(np.uint16)

    def levels(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """The codes of each level (n,) from rows as :meth:`run` gives them."""
        ends = np.cumsum([self.strides[0] // stride for stride in self.strides])
        return tuple(part.reshape(-1) for part in np.split(rows, ends[:-1], axis=1))

    def latents(self, codes: Sequence[np.ndarray], first: int, last: int) -> np.ndarray:
        """Latents (last - first, C) of the coarsest one or more levels.

        Args:
            codes: (n,) a level, which cover the frames from some multiple of the first stride on.
            first: frame wanted first, counted from there.
            last: frame to stop before.
        """
        total: np.ndarray | None = None
        for level, code in zip(self.parts, codes, strict=False):
            low, high = first // level.stride, -(-last // level.stride)
            base = low * level.stride
            found = level.latents(code[low:high], first - base, last - base)
            total = found if total is None else total + found
        assert total is not None
        return np.ascontiguousarray(total)
