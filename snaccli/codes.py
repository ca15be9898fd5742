"""The token grid of one recording, and the limits and numbers of the format that others than it need.

A grid is what the model's quantiser gives and what a ``.snac`` file carries. A recording is cut into latent
*frames*. Level ``l`` holds one token for every ``strides[l]`` frames, so a coarse level ticks slowly and a
fine one fast. Imports neither torch nor NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:  # not at run time, so that reading a file's header starts without numpy
    import numpy as np
    import numpy.typing as npt

Tokens: TypeAlias = "npt.NDArray[np.uint16]"

MIN_CODEBOOK_SIZE = 2
MAX_CODEBOOK_SIZE = 65_536
MAX_LEVELS = 16
MAX_CHANNELS = 16
MAX_RATE = 768_000  # Hz
MAX_STRIDE = 65_535  # frames
MAX_COUNT = (1 << 48) - 1  # samples, frames and payload bytes: ten years of audio at 768 kHz
FINGERPRINT_BYTES = 8
# A modelled token may not be certain: the coders leave it at least 8/85 bit, so that bytes bound tokens.
TOKENS_PER_BYTE = 85


class Coder(IntEnum):
    """The numbers of the coders in the file."""

    RAW = 0
    ADAPTIVE = 1
    PRIOR = 2


def token_bits(codebook_size: int) -> int:
    """Returns the bits of one packed token: the base-2 logarithm of the codebook size, rounded up."""
    return (codebook_size - 1).bit_length()


def packed_size(tokens: int, bits: int) -> int:
    """Returns the bytes that ``tokens`` packed tokens of so many bits take."""
    return (tokens * bits + 7) // 8


class CodedStream(NamedTuple):
    """The coded tokens of one level and channel: which coder made the bytes, and the bytes."""

    coder: int
    payload: bytes


@dataclass(frozen=True)
class Codes:
    """The tokens of one recording, coarse to fine.

    Attributes:
        levels: one array a level, uint16 (channels, tokens), values below ``codebook_size``; level ``l``
            has ``frames // strides[l]`` tokens, and every stride divides ``frames``.
        strides: latent frames per token of each level, coarse to fine, e.g. ``(8, 4, 2, 1)``.
        codebook_size: codewords of every level's codebook, 2 to 65536.

    Raises:
        ValueError: the arrays do not fit together.
    """

    levels: tuple[Tokens, ...]
    strides: tuple[int, ...]
    codebook_size: int

    def __post_init__(self) -> None:
        if not self.levels or len(self.levels) != len(self.strides):
            raise ValueError(f"{len(self.levels)} levels of tokens for {len(self.strides)} strides")
        if not MIN_CODEBOOK_SIZE <= self.codebook_size <= MAX_CODEBOOK_SIZE:
            raise ValueError(f"codebook size {self.codebook_size} is not in 2..65536")
        views = []
        for number, (tokens, stride) in enumerate(zip(self.levels, self.strides, strict=True)):
            if tokens.ndim != 2 or tokens.dtype != "uint16":
                raise ValueError(f"level {number} is not a uint16 array (channels, tokens)")
            if stride < 1 or tokens.shape != (self.channels, self.frames // stride):
                raise ValueError(f"level {number} has shape {tokens.shape} at stride {stride}")
            if self.frames % stride:
                raise ValueError(f"stride {stride} does not divide {self.frames} frames")
            if tokens.size and int(tokens.max()) >= self.codebook_size:
                raise ValueError(f"level {number} has a token beyond the codebook of {self.codebook_size}")
            views.append(tokens.view())
            views[-1].flags.writeable = False
        object.__setattr__(self, "levels", tuple(views))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codes) and self._contents == other._contents

    def __hash__(self) -> int:
        return hash(self._contents)

    @property
    def _contents(self) -> tuple[object, ...]:
        tokens = tuple((level.shape, level.tobytes()) for level in self.levels)
        return self.strides, self.codebook_size, tokens

    @property
    def channels(self) -> int:
        """Audio channels, each coded by itself."""
        return int(self.levels[0].shape[0])

    @property
    def frames(self) -> int:
        """Latent frames per channel."""
        return int(self.levels[0].shape[1]) * self.strides[0]

    @property
    def tokens(self) -> int:
        """Tokens of all levels and channels."""
        return sum(level.size for level in self.levels)

    def coarsest(self, levels: int) -> Codes:
        """Returns the ``levels`` coarsest levels alone (1 to all of them).

        Raises:
            ValueError: there are not as many levels.
        """
        if not 1 <= levels <= len(self.levels):
            raise ValueError(f"cannot take {levels} of {len(self.levels)} levels")
        return Codes(self.levels[:levels], self.strides[:levels], self.codebook_size)
