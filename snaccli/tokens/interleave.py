"""The levels of a recording as one sequence of ids, in the depth-first order of speech language models.

A *frame* here is one token of the coarsest level with all finer tokens that it spans. Within a frame, and so
in the whole sequence, tokens stand in the order of the time at which they begin; those that begin together
stand coarse to fine. For strides that divide one another this is the depth-first walk through the tree that
the levels form. docs/tokens.md has the figure and the formula. Knows no torch unless it is given tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from snaccli.codes import MAX_CODEBOOK_SIZE, MIN_CODEBOOK_SIZE
from snaccli.errors import FileError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

__all__ = [
    "MAX_ID",
    "Interleaving",
    "RaggedLevelsError",
    "TokenError",
    "TokenFileError",
    "TokenRangeError",
    "flatten",
    "unflatten",
]

Array = TypeVar("Array", "npt.NDArray[Any]", "Tensor")

MAX_ID = (1 << 31) - 1  # the largest id: they are kept in 32 bits with a sign


class TokenError(FileError):
    """Tokens that are not a recording's. Base of the named errors."""

    joint = ": "


class TokenFileError(TokenError):
    """A file of tokens that is none, or says something impossible of them."""


class RaggedLevelsError(TokenError):
    """The levels have not the lengths that belong together.

    Attributes:
        level: the first level that does not fit, counted from 0, the coarsest.
        length: tokens it has.
        expected: tokens it should have.
    """

    def __init__(self, message: str, level: int, length: int, expected: int) -> None:
        super().__init__(message)
        self.level, self.length, self.expected = level, length, expected


class TokenRangeError(TokenError):
    """A code outside its codebook, or an id outside the range of its position.

    Attributes:
        position: index along the level, or along the interleaved sequence, from 0.
        value: what stands there.
        level: the code's level, from 0, the coarsest.
    """

    def __init__(self, message: str, position: int, value: int, level: int) -> None:
        super().__init__(message)
        self.position, self.value, self.level = position, value, level


@dataclass(frozen=True)
class Interleaving:
    """How levels become one sequence, and codes ids.

    Attributes:
        strides: latent frames a token of each level, coarse to fine, such as ``(4, 2, 1)``; each divides the
            first.
        codebook_size: codewords of every level.
        offsets: whether each position of a frame has a range of ids of its own.
        start_id: the smallest id; 0 or more.

    Raises:
        ValueError: the values are out of range, or ids would not fit 31 bits.
    """

    strides: tuple[int, ...]
    codebook_size: int
    offsets: bool = False
    start_id: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", tuple(self.strides))
        if not self.strides or any(stride < 1 or self.strides[0] % stride for stride in self.strides):
            raise ValueError(f"strides {list(self.strides)} must be positive and divide the first one")
        if not MIN_CODEBOOK_SIZE <= self.codebook_size <= MAX_CODEBOOK_SIZE:
            raise ValueError(f"codebook size {self.codebook_size} is not in 2..65536")
        if self.start_id < 0 or self.ids.stop - 1 > MAX_ID:
            raise ValueError(f"ids from {self.start_id} on are not in 0..{MAX_ID}")

    @property
    def per_level(self) -> tuple[int, ...]:
        """Tokens of each level in a frame, such as (1, 2, 4)."""
        return tuple(self.strides[0] // stride for stride in self.strides)

    @property
    def frame_length(self) -> int:
        """Tokens of a frame, such as 7."""
        return sum(self.per_level)

    @cached_property
    def positions(self) -> tuple[tuple[int, int], ...]:
        """Level of each position of a frame, and which of the frame's tokens of that level stands there."""
        begins = [
            (index * stride, level, index)
            for level, stride in enumerate(self.strides)
            for index in range(self.strides[0] // stride)
        ]
        return tuple((level, index) for _, level, index in sorted(begins))

    @property
    def ids(self) -> range:
        """All ids there can be."""
        ranges = self.frame_length if self.offsets else 1
        return range(self.start_id, self.start_id + ranges * self.codebook_size)

    def lengths(self, tokens: int) -> tuple[int, ...]:
        """Returns how many of the first ``tokens`` of a sequence are of each level."""
        frames, rest = divmod(tokens, self.frame_length)
        tail = [level for level, _ in self.positions[:rest]]
        return tuple(frames * count + tail.count(level) for level, count in enumerate(self.per_level))

    def first_ids(self) -> npt.NDArray[np.int64]:
        """Returns the id of code 0 at each position of a frame."""
        step = self.codebook_size if self.offsets else 0
        return self.start_id + step * np.arange(self.frame_length, dtype=np.int64)


def flatten(levels: Sequence[Array], order: Interleaving) -> Array:
    """Puts the codes of all levels into one sequence of ids.

    Args:
        levels: integer arrays or tensors, coarse to fine, of shape (..., tokens) each; all arrays or all
            tensors of one device, with the same leading dimensions. They may end within a frame, after any
            token of the sequence.
        order: the strides, and how ids are made.

    Returns:
        int64 of the same kind, (..., total tokens).

    Raises:
        RaggedLevelsError: the levels are not so long that they end together.
        TokenRangeError: a code is outside the codebook.
        TokenError: the levels are not integers, or too many or too few.
    """
    if len(levels) != len(order.strides):
        raise TokenError(f"there are {len(levels)} levels for the {len(order.strides)} strides")
    library, arrays = _library(levels)
    _check_levels(arrays, order)
    total = sum(array.shape[-1] for array in arrays)
    frames = -(-total // order.frame_length)
    columns = []  # of each level: (..., frames, tokens a frame)
    for array, count in zip(arrays, order.per_level, strict=True):
        padded = library.pad(array, frames * count - array.shape[-1])
        columns.append(padded.reshape(*array.shape[:-1], frames, count))
    first = np.concatenate([[0], np.cumsum(order.per_level)])
    places = [int(first[level]) + index for level, index in order.positions]
    ids = library.join(columns)[..., places] + library.like(order.first_ids(), arrays[0])
    flat = ids.reshape(*arrays[0].shape[:-1], frames * order.frame_length)
    return flat[..., :total]  # type: ignore[no-any-return]


def unflatten(ids: Array, order: Interleaving) -> list[Array]:
    """Undoes :func:`flatten`.

    Args:
        ids: integer array or tensor (..., tokens); the sequence may end within a frame.
        order: as for ``flatten``.

    Returns:
        int64 of the same kind, one a level, coarse to fine: (..., tokens of the level), codes from 0 to
        ``codebook_size - 1``. Whole frames give lengths that fit the strides.

    Raises:
        TokenRangeError: an id is outside the range of its position.
        TokenError: the ids are not integers.
    """
    library, (array,) = _library([ids])
    total, lead = array.shape[-1], array.shape[:-1]
    frames = -(-total // order.frame_length)
    padded = library.pad(array, frames * order.frame_length - total)
    codes = padded.reshape(*lead, frames, order.frame_length) - library.like(order.first_ids(), array)
    _check_ids(array, codes.reshape(*lead, frames * order.frame_length)[..., :total], order)
    levels = []
    for level, length in enumerate(order.lengths(total)):
        places = [place for place, (own, _) in enumerate(order.positions) if own == level]
        levels.append(codes[..., places].reshape(*lead, frames * len(places))[..., :length])
    return levels


def _check_levels(arrays: Sequence[Any], order: Interleaving) -> None:
    lengths = tuple(array.shape[-1] for array in arrays)
    expected = order.lengths(sum(lengths))
    for level, (array, length, wanted) in enumerate(zip(arrays, lengths, expected, strict=True)):
        if array.shape[:-1] != arrays[0].shape[:-1]:
            raise TokenError(
                f"level {level} has shape {tuple(array.shape)}, level 0 {tuple(arrays[0].shape)}"
            )
        if length != wanted:
            raise RaggedLevelsError(
                f"levels of {list(lengths)} tokens do not end together at strides {list(order.strides)}: "
                f"of so many tokens level {level} has {wanted}, not {length}",
                level,
                length,
                wanted,
            )
    for level, array in enumerate(arrays):
        bad = (array < 0) | (array >= order.codebook_size)
        if bool(bad.any()):
            position, value = _first(bad, array)
            raise TokenRangeError(
                f"level {level}, position {position}: code {value} is not in 0..{order.codebook_size - 1}",
                position,
                value,
                level,
            )


def _check_ids(ids: Any, codes: Any, order: Interleaving) -> None:
    bad = (codes < 0) | (codes >= order.codebook_size)
    if bool(bad.any()):
        position, value = _first(bad, ids)
        frame, place = divmod(position, order.frame_length)
        level, first = order.positions[place][0], int(order.first_ids()[place])
        raise TokenRangeError(
            f"position {position} (token {place} of frame {frame}, level {level}): id {value} is not in "
            f"{first}..{first + order.codebook_size - 1}",
            position,
            value,
            level,
        )


def _first(bad: Any, values: Any) -> tuple[int, int]:
    """Returns position along the last dimension, and value, of the first bad one there."""
    rows, columns = bad.reshape(-1, bad.shape[-1]), values.reshape(-1, values.shape[-1])
    position = int((rows.sum(0) > 0).nonzero()[0].min())
    row = int(rows[:, position].nonzero()[0].min())
    return position, int(columns[row, position])


class _Numpy:
    """What the two functions need of NumPy."""

    def array(self, value: Any) -> Any:
        array = np.asarray(value)
        if array.ndim == 0 or (array.dtype.kind not in "iu" and array.size):
            raise TokenError(f"tokens must be a sequence of integers, not {array.dtype} {array.shape}")
        return array.astype(np.int64)

    def pad(self, array: Any, count: int) -> Any:
        return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, count)])

    def join(self, arrays: list[Any]) -> Any:
        return np.concatenate(arrays, axis=-1)

    def like(self, array: npt.NDArray[np.int64], other: Any) -> Any:
        return array


class _Torch:
    """The same of torch, which is imported already where its tensors are."""

    def array(self, value: Any) -> Any:
        import torch

        if not isinstance(value, torch.Tensor):
            raise TokenError("levels must be all arrays or all tensors")
        if value.ndim == 0 or (value.is_floating_point() and value.numel()) or value.dtype == torch.bool:
            raise TokenError(f"tokens must be a sequence of integers, not {value.dtype} {tuple(value.shape)}")
        return value.to(torch.int64)

    def pad(self, array: Any, count: int) -> Any:
        from torch.nn.functional import pad

        return pad(array, (0, count))

    def join(self, arrays: list[Any]) -> Any:
        import torch

        return torch.cat(arrays, dim=-1)

    def like(self, array: npt.NDArray[np.int64], other: Any) -> Any:
        import torch

        return torch.from_numpy(array).to(other.device)


def _library(values: Sequence[Any]) -> tuple[_Numpy | _Torch, list[Any]]:
    """Returns the library of the values, and the values as int64 of it."""
    torch = sys.modules.get("torch")  # who has tensors has imported it
    tensors = torch is not None and any(isinstance(value, torch.Tensor) for value in values)
    library = _Torch() if tensors else _Numpy()
    return library, [library.array(value) for value in values]
