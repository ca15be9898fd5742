"""What is known of a token before it is coded: docs/format.md, section 6.3."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snaccli.codes import Tokens
from snaccli.entropy.directions import Points

Integers = npt.NDArray[np.int64]

MAX_PHASES = 16
EARLIER = 2  # tokens of the same level that a context holds


@dataclass(frozen=True)
class Parent:
    """The coarser level next to the one that is coded, of the same channel.

    Attributes:
        tokens: uint16 (n,).
        points: its codewords (size, dim).
        stride: latent frames per token.
    """

    tokens: Tokens
    points: Points
    stride: int

    def features(self, positions: Integers) -> Integers:
        """Return tokens' points, and the slopes across them by the root of a half (n, 2 * dim)."""
        left = self._points(positions - 1)
        right = self._points(positions + 1)
        return np.concatenate([self._points(positions), (right - left) * 181 >> 8], axis=1)

    def _points(self, positions: Integers) -> Points:
        """Return the points of tokens (n, dim), 0 beyond the first and the last."""
        there = (positions >= 0) & (positions < self.tokens.size)
        found: Points = self.points[self.tokens[np.where(there, positions, 0)]]
        return found * there[:, None]


@dataclass(frozen=True)
class Context:
    """Where the features of one stream's tokens come from.

    The features are the points of the two tokens before, of the coarser token above and of the slope
    across it, and a constant; what is not there counts as the point 0.

    Attributes:
        points: the level's codewords (size, dim).
        stride: latent frames per token.
        parent: the coarser level, None at the coarsest.
    """

    points: Points
    stride: int
    parent: Parent | None

    @property
    def phases(self) -> int:
        """Tokens under one of the coarser level, 1 if that is no number from 1 to 16."""
        ratio, rest = divmod(self.parent.stride if self.parent else 1, self.stride)
        return ratio if not rest and 1 <= ratio <= MAX_PHASES else 1

    @property
    def own(self) -> int:
        """Features that are points of this level; they come first."""
        return EARLIER * int(self.points.shape[1])

    @property
    def size(self) -> int:
        """Features in all, the constant one included."""
        return self.own + (2 * self.parent.points.shape[1] if self.parent else 0) + 1

    def above(self, start: int, count: int) -> Integers:
        """Return the features from the coarser level of ``count`` tokens (count, 2 * its dim)."""
        if self.parent is None:
            return np.zeros((count, 0), dtype=np.int64)
        return self.parent.features(np.arange(start, start + count) * self.stride // self.parent.stride)
