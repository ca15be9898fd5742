"""The residual quantiser for inference: latents to codes and back, in the published order of operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from snac.config import ModelConfig
from snac.engine.chain import Stage
from snac.engine.cpu import Weights

_SMALLEST_NORM = 1e-12  # of a vector that is normalised


class Level(NamedTuple):
    """A codebook with its projections.

    Attributes:
        stride: frames of a token.
        inner, inner_bias: (C, D) and (D), from latents to the codebook's space.
        outer, outer_bias: (D, C) and (C), back.
        codebook: (N, D).
        directions: (D, N), its vectors divided by their lengths.
        squares: (1, N), the squared lengths of these.
    """

    stride: int
    inner: np.ndarray
    inner_bias: np.ndarray
    outer: np.ndarray
    outer_bias: np.ndarray
    codebook: np.ndarray
    directions: np.ndarray
    squares: np.ndarray

    def project(self, latents: np.ndarray) -> np.ndarray:
        """Latents (T, C) in the codebook's space, one point a token: (T / stride, D)."""
        if self.stride > 1:
            latents = latents.reshape(-1, self.stride, latents.shape[1]).mean(axis=1)
        return np.asarray(latents @ self.inner + self.inner_bias)

    def indices(self, points: np.ndarray) -> np.ndarray:
        """The codewords nearest in angle to points (T, D) of the codebook's space: (T,)."""
        lengths = np.linalg.norm(points, axis=1, keepdims=True)
        directions = points / np.maximum(lengths, np.float32(_SMALLEST_NORM))
        # Kept in the published order of operations, so that near ties fall the same way.
        distances = 2 * directions @ self.directions
        np.subtract(np.square(directions).sum(axis=1, keepdims=True), distances, out=distances)
        distances += self.squares
        return np.asarray(distances.argmin(axis=1))

    def latents(self, indices: np.ndarray, first: int, last: int) -> np.ndarray:
        """What codes (n,) stand for: (last - first, C), of the frames from ``first`` on after their first."""
        found = self.codebook[indices] @ self.outer + self.outer_bias
        return np.asarray(np.repeat(found, self.stride, axis=0)[first:last])


class Quantiser(Stage):
    """Latents (n, C) to codes: a row of all tokens in the span of one coarsest token, coarse to fine.

    Attributes:
        parts: the codebooks with their projections, coarse to fine.
        codebooks: float32 (codebook size, dimension) a level.
    """

    dtype = np.uint16

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self.strides = config.vq_strides
        parts = []
        for number, stride in enumerate(self.strides):
            at = f"quantizer.quantizers.{number}"
            codebook = weights[f"{at}.codebook.weight"]
            lengths = np.linalg.norm(codebook, axis=1, keepdims=True)
            directions = codebook / np.maximum(lengths, np.float32(_SMALLEST_NORM))
            inner, outer = (weights[f"{at}.{name}.weight"][:, :, 0] for name in ("in_proj", "out_proj"))
            parts.append(
                Level(
                    stride,
                    np.ascontiguousarray(inner.T), weights[f"{at}.in_proj.bias"],
                    np.ascontiguousarray(outer.T), weights[f"{at}.out_proj.bias"],
                    codebook, np.ascontiguousarray(directions.T), np.square(directions).sum(axis=1)[None],
                )
            )  # fmt: skip
        self.parts = tuple(parts)
        self.codebooks = tuple(level.codebook for level in self.parts)
        self.window = self.step = self.strides[0]
        self.channels = sum(self.strides[0] // stride for stride in self.strides)
        self.values = config.codebook_size // self.strides[-1] // 4

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``: (steps, tokens of a row)."""
        residual = np.concatenate((held, x))[: steps * self.step]
        place = 0
        for level in self.parts:
            tokens, indices = self.step // level.stride, level.indices(level.project(residual))
            residual -= level.latents(indices, 0, len(residual))
            out[:, place : place + tokens] = indices.reshape(steps, tokens)
            place += tokens
        return np.asarray(out)

    def levels(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """The codes of each level, uint16 (channels, tokens), from rows (channels, n, tokens of a row)."""
        ends = np.cumsum([self.strides[0] // stride for stride in self.strides])
        levels = np.split(rows.astype(np.uint16, copy=False), ends[:-1], axis=2)
        return tuple(level.reshape(len(rows), -1) for level in levels)

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

    def points(self, codes: Sequence[np.ndarray], first: int, last: int) -> np.ndarray:
        """What the latents are a linear map of: (last - first, P), each level's codeword and a 1 after it.

        Of levels that are not there all is 0. See :meth:`latents` for the arguments, :meth:`over_points` for
        the map.
        """
        width = self.codebooks[0].shape[1] + 1
        points = np.zeros((last - first, len(self.parts), width), dtype=np.float32)
        for number, (level, code) in enumerate(zip(self.parts, codes, strict=False)):
            low, high = first // level.stride, -(-last // level.stride)
            held = np.repeat(level.codebook[code[low:high]], level.stride, axis=0)
            points[:, number, :-1] = held[first - low * level.stride :][: last - first]
            points[:, number, -1] = 1
        return points.reshape(last - first, -1)

    def over_points(self, weight: np.ndarray) -> np.ndarray:
        """Turns the weight of a convolution of latents, (C', C, taps), into one of :meth:`points`."""
        outward = [np.concatenate((level.outer, level.outer_bias[None])) for level in self.parts]
        return np.ascontiguousarray(np.einsum("pc,dct->dpt", np.concatenate(outward), weight))
