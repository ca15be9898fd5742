"""The tokens that a prior is learned from, and what its networks see of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from snaccli.codes import Codes
from snaccli.entropy import mixing
from snaccli.entropy.prior import COARSER, REACH
from snaccli.errors import PriorError

__all__ = ["Corpus", "Means"]

_PADDING = 8  # missing tokens of the coarsest level around each recording
_AT_ONCE = 1 << 20  # tokens that are added up in one go


class Corpus:
    """The tokens of many recordings, level by level, with missing tokens (number K) around each recording.

    Args:
        grids: of one model.

    Attributes:
        levels: int64, all tokens of each level. Frames are counted through: token t of a level begins at
            frame t times its stride.
        places: of the tokens of each level that are not missing.
        starts: first frame of each recording.
        spans: (recordings, 2) of each level: its first token, and the one after its last.
    """

    def __init__(self, grids: Sequence[Codes]) -> None:
        self.strides, self.size = grids[0].strides, grids[0].codebook_size
        if any((grid.strides, grid.codebook_size) != (self.strides, self.size) for grid in grids):
            raise PriorError("the recordings are of several kinds of tokens; take those of one model")
        # All recordings begin at multiples of all strides.
        unit = math.lcm(*self.strides)
        space = -(-_PADDING * max(self.strides) // unit) * unit
        parts: list[list[np.ndarray]] = [[] for _ in self.strides]
        spans: list[list[tuple[int, int]]] = [[] for _ in self.strides]
        starts, start = [], space
        for grid in grids:
            filled = -(-grid.frames // unit) * unit
            for channel in range(grid.channels):
                for level, stride in enumerate(self.strides):
                    tokens = grid.levels[level][channel]
                    row = np.full((space + filled + space) // stride, self.size, dtype=np.int64)
                    row[space // stride : space // stride + tokens.size] = tokens
                    parts[level].append(row)
                    spans[level].append((start // stride, start // stride + tokens.size))
                starts.append(start)
                start += filled + 2 * space
        self.levels = [np.concatenate(own) for own in parts]
        self.places = [np.flatnonzero(level < self.size) for level in self.levels]
        self.starts, self.spans = np.array(starts), [np.array(own) for own in spans]

    def context(self, level: int, places: np.ndarray) -> np.ndarray:
        """The tokens that a level's network sees at places (n,): (n, inputs)."""
        seen = [self.levels[level][places - lag] for lag in range(1, mixing.LAGS + 1)]
        frames = places * self.strides[level]
        for coarser in range(max(0, level - COARSER), level):
            above = frames // self.strides[coarser]
            seen += [self.levels[coarser][above + offset] for offset in REACH]
        return np.stack(seen, axis=1)


class Means:
    """Means of embeddings over windows of a corpus (docs/format.md, 8.2), from sums that run through it.

    Args:
        corpus: of tokens.
        tables: int8 (levels, K + 1, E), the embeddings, zeros last.
        scale: of these.
        windows: latent frames.
    """

    def __init__(
        self, corpus: Corpus, tables: npt.NDArray[np.int8], scale: float, windows: Sequence[int]
    ) -> None:
        self._corpus, self._windows, self.scale = corpus, windows, scale
        self._sums = [_running(*pair) for pair in zip(corpus.levels, tables, strict=True)] if windows else []

    def at(self, level: int, places: np.ndarray) -> npt.NDArray[np.float32]:
        """What a level's network sees at places (n,): (n, means * E), without the scale."""
        corpus, found = self._corpus, [np.zeros((len(places), 0), np.float32)]
        frames = places * corpus.strides[level]
        which = np.searchsorted(corpus.starts, frames, side="right") - 1
        for k in [level, *range(max(0, level - COARSER), level)] if self._windows else []:
            stride, sums = corpus.strides[k], self._sums[k]
            first, last = corpus.spans[k][which].T
            stops = places if k == level else frames // stride + REACH[-1] + 1
            highs = np.minimum(stops, last)
            for window in self._windows:
                lows = np.minimum(np.maximum(stops - max(1, window // stride), first), highs)
                # Running sums may have wrapped around; their difference is right all the same.
                counts = np.maximum(highs - lows, 1)[:, None]
                found.append((sums[highs] - sums[lows]) / (self.scale * counts))
        return np.concatenate(found, axis=1, dtype=np.float32)


def _running(tokens: np.ndarray, table: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    """Sums of the embeddings of all tokens before each place, modulo 2^32."""
    sums = np.zeros((len(tokens) + 1, table.shape[1]), dtype=np.int32)
    for start in range(0, len(tokens), _AT_ONCE):
        part = sums[start + 1 : start + 1 + _AT_ONCE]
        np.cumsum(table[tokens[start : start + _AT_ONCE]], axis=0, dtype=np.int32, out=part)
        part += sums[start]
    return sums
