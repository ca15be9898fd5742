"""One recording as tokens, and what a file of tokens says of it. Knows no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snaccli.audio import resampled_length
from snaccli.codec.recording import Recording
from snaccli.codes import (
    FINGERPRINT_BYTES,
    MAX_CHANNELS,
    MAX_CODEBOOK_SIZE,
    MAX_COUNT,
    MAX_LEVELS,
    MAX_RATE,
    MAX_STRIDE,
    MIN_CODEBOOK_SIZE,
    Codes,
)
from snaccli.errors import ModelMismatchError, Remedy, UsageError, WeightsMismatchError
from snaccli.tokens.interleave import (
    MAX_ID,
    Interleaving,
    RaggedLevelsError,
    TokenFileError,
    TokenRangeError,
    flatten,
    unflatten,
)

if TYPE_CHECKING:
    from snaccli.codec import Codec

__all__ = [
    "FACTS",
    "MAX_CHANNELS",
    "MAX_LEVELS",
    "MAX_TOKENS",
    "PLAIN",
    "Draft",
    "Form",
    "NamedRecording",
    "checked_facts",
]

MAX_TOKENS = 1 << 24  # of a recording: a day of audio or so
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NamedRecording(Recording):
    """A recording under the name that it has in a file of tokens.

    Attributes:
        path: a relative path with ``/``, or a file's name.
        mixed_from: channels of the audio that were mixed down to one; None where none were.
    """

    path: str = ""
    mixed_from: int | None = None

    @classmethod
    def of(cls, recording: Recording, path: str, mixed_from: int | None = None) -> NamedRecording:
        """Gives a recording its name."""
        values = {field.name: getattr(recording, field.name) for field in fields(Recording)}
        return cls(**values, path=path, mixed_from=mixed_from)


@dataclass(frozen=True)
class Form:
    """How tokens are laid out in a file.

    Attributes:
        interleaved: one sequence a channel, instead of one a level.
        offsets: see :class:`Interleaving`; of interleaved tokens only.
        start_id: likewise.
    """

    interleaved: bool = False
    offsets: bool = False
    start_id: int = 0

    def order(self, strides: Sequence[int], codebook_size: int) -> Interleaving:
        """Returns the interleaving of levels of these strides.

        Raises:
            UsageError: the ids would be too large.
        """
        try:
            return Interleaving(tuple(strides), codebook_size, self.offsets, self.start_id)
        except ValueError as problem:
            raise UsageError(str(problem), remedy=Remedy.SMALLER_IDS) from problem

    def sequences(self, codes: Codes) -> list[Ids]:
        """Returns the arrays to be written: (channels, tokens), one a level, or one in all.

        Raises:
            UsageError: the ids would be too large.
        """
        levels = [level.astype(np.int64) for level in codes.levels]
        if not self.interleaved:
            return levels
        return [flatten(levels, self.order(codes.strides, codes.codebook_size))]


PLAIN = Form()
"""One sequence a level."""


@dataclass(frozen=True)
class Draft:
    """What a file says of its tokens: anything but the tokens may be left to the model.

    Attributes:
        sequences: as ``Form.sequences`` gives them.
        interleaved: what they are.
        facts: what the file says besides, checked one by one: ``path``, ``model``, ``fingerprint``, ``rate``,
            ``samples``, ``model_rate``, ``strides``, ``codebook_size``, ``offsets``, ``start_id``.
    """

    sequences: list[Ids]
    interleaved: bool
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Ids], facts: dict[str, Any]) -> Draft:
        """Returns the draft that a file with a name for each array holds.

        Args:
            arrays: ``ids``, or ``level_0``, ``level_1`` and on, (channels, tokens) each.
            facts: see the class.

        Raises:
            TokenFileError: there are no such arrays, or they have unequal numbers of channels.
        """
        if "ids" in arrays:
            return cls([arrays["ids"]], True, facts)
        levels = [arrays[f"level_{n}"] for n in range(MAX_LEVELS) if f"level_{n}" in arrays]
        if not levels or f"level_{len(levels) - 1}" not in arrays:
            raise TokenFileError("has neither 'ids' nor 'level_0' and on", remedy=Remedy.TOKEN_FILE)
        if len({len(level) for level in levels}) > 1:
            raise TokenFileError(
                f"the levels have {[len(level) for level in levels]} channels; they must be equal"
            )
        return cls(levels, False, facts)

    def arrays(self) -> dict[str, Ids]:
        """The tokens by the names that files have for them, as ``of_arrays`` takes them.

        ``ids`` is int32 (``MAX_ID`` fits), a level uint16.
        """
        kind = np.int32 if self.interleaved else np.uint16
        return {name: row.astype(kind) for name, row in zip(self.columns, self.sequences, strict=True)}

    @property
    def columns(self) -> list[str]:
        """The names of ``arrays``."""
        return ["ids"] if self.interleaved else [f"level_{n}" for n in range(len(self.sequences))]

    @property
    def tokens(self) -> int:
        """Tokens, or ids, of all levels and channels."""
        return sum(sequence.size for sequence in self.sequences)

    def complete(self, codec: Codec, form: Form) -> NamedRecording:
        """Checks the draft against its model, and fills in what it does not say.

        Args:
            codec: the model.
            form: how ids were made, where the file does not say so.

        Raises:
            ModelMismatchError: the tokens are of another model.
            RaggedLevelsError, TokenRangeError: see the classes.
            TokenFileError: the file contradicts itself.
        """
        strides = self._check_model(codec)
        if self.interleaved:
            levels = self._unflattened(strides, codec.codebook_size, form)
        else:
            levels = self.sequences
            _check_codes(levels, codec.codebook_size)
        frames = _frames(levels, strides)
        codes = Codes(tuple(level.astype(np.uint16) for level in levels), strides, codec.codebook_size)
        rate = self.facts.get("rate", codec.rate)
        samples = self.facts.get("samples", frames * codec.hop_length * rate // codec.rate)
        at_model = resampled_length(samples, rate, codec.rate)
        if codec.config.frames_for(at_model) != frames:
            raise TokenFileError(_length_problem(codec, frames, samples, rate, "samples" in self.facts))
        path = self.facts.get("path", "")
        return NamedRecording(codes, codec.name, codec.fingerprint, codec.rate, rate, samples, path)

    def _check_model(self, codec: Codec) -> tuple[int, ...]:
        """Returns the strides of the levels that are there; checks that the model has them."""
        found = self.facts.get("fingerprint", codec.fingerprint)
        if found != codec.fingerprint:
            raise WeightsMismatchError(
                self.facts.get("model"),
                found,
                codec.name,
                codec.fingerprint,
                remedy=Remedy.OTHER_MODEL,
            )
        count = len(codec.strides) if self.interleaved else len(self.sequences)
        strides = self.facts.get("strides", codec.strides[:count])
        size = self.facts.get("codebook_size", codec.codebook_size)
        rate = self.facts.get("model_rate", codec.rate)
        if strides != codec.strides[: len(strides)] or (size, rate) != (codec.codebook_size, codec.rate):
            raise ModelMismatchError(
                f"tokens of strides {list(strides)}, {size} codewords and {rate} Hz are not of the model "
                f"{codec.name!r} ({list(codec.strides)}, {codec.codebook_size}, {codec.rate})",
                remedy=Remedy.OTHER_MODEL,
            )
        if not self.interleaved and count != len(strides):
            raise ModelMismatchError(
                f"{count} levels of tokens do not fit the strides {list(strides)} of the model "
                f"{codec.name!r}",
                remedy=Remedy.OTHER_MODEL,
            )
        return tuple(strides)

    def _unflattened(self, strides: tuple[int, ...], size: int, form: Form) -> list[Ids]:
        offsets = self.facts.get("offsets", form.offsets)
        start = self.facts.get("start_id", form.start_id)
        try:
            order = Interleaving(strides, size, offsets, start)
        except ValueError as problem:
            raise TokenFileError(f"{problem}: check offsets and start_id") from problem
        levels = unflatten(self.sequences[0], order)
        tokens = self.sequences[0].shape[-1]
        if rest := tokens % order.frame_length:
            level = order.positions[rest][0]
            length = levels[level].shape[-1]
            raise RaggedLevelsError(
                f"the sequence ends within a frame, at position {tokens}: its last frame has {rest} of "
                f"{order.frame_length} tokens; leave them out, or add the rest",
                level,
                length,
                length + 1,
            )
        return levels


def _frames(levels: Sequence[Ids], strides: Sequence[int]) -> int:
    frames = int(levels[0].shape[-1]) * strides[0]
    for number, (level, stride) in enumerate(zip(levels, strides, strict=True)):
        if level.shape[-1] * stride != frames:
            raise RaggedLevelsError(
                f"level {number} ends at position {level.shape[-1]}: at strides {list(strides)} it has "
                f"{frames // stride} tokens beside {levels[0].shape[-1]} of level 0",
                number,
                level.shape[-1],
                frames // stride,
            )
    return frames


def _check_codes(levels: Sequence[Ids], size: int) -> None:
    for number, level in enumerate(levels):
        channels, places = np.nonzero((level < 0) | (level >= size))
        if len(places):
            first = int(places.argmin())
            position, value = int(places[first]), int(level[channels[first], places[first]])
            raise TokenRangeError(
                f"level {number}, position {position}: code {value} is not in 0..{size - 1}",
                position,
                value,
                number,
            )


def _length_problem(codec: Codec, frames: int, samples: int, rate: int, said: bool) -> str:
    unit = codec.config.frame_alignment
    if not said and frames % unit:
        coarsest = codec.strides[0]
        return (
            f"{frames // coarsest} frames of tokens are no multiple of the {unit // coarsest} that the "
            f"attention of the model {codec.name!r} takes; add some, or leave {frames % unit // coarsest} out"
        )
    return (
        f"{samples} samples at {rate} Hz are not {frames} latent frames of the model {codec.name!r}; "
        "correct rate and samples, or leave them out"
    )


def checked_facts(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the known facts among ``values``, each of the right type and range; others are left out.

    Raises:
        TokenFileError: one is not.
    """
    facts: dict[str, Any] = {}
    for name, (low, high) in _RANGES.items():
        if values.get(name) is not None:
            facts[name] = _whole(name, values[name], low, high)
    for name, most in _TEXTS.items():
        if values.get(name) is not None:
            if not isinstance(values[name], str) or not 1 <= len(values[name]) <= most:
                raise TokenFileError(f"{name!r} is not a text of 1 to {most} characters")
            facts[name] = values[name]
    if "fingerprint" in facts and not _FINGERPRINT.fullmatch(facts["fingerprint"]):
        raise TokenFileError(f"'fingerprint' is not one of {2 * FINGERPRINT_BYTES} hexadecimal digits")
    if values.get("offsets") is not None:
        if not isinstance(values["offsets"], bool):
            raise TokenFileError("'offsets' is neither true nor false")
        facts["offsets"] = values["offsets"]
    if values.get("strides") is not None:
        strides = values["strides"]
        if not isinstance(strides, list) or not 1 <= len(strides) <= MAX_LEVELS:
            raise TokenFileError(f"'strides' is not a list of 1 to {MAX_LEVELS} whole numbers")
        facts["strides"] = tuple(_whole("strides", stride, 1, MAX_STRIDE) for stride in strides)
    return facts


_RANGES = {
    "rate": (1, MAX_RATE),
    "samples": (0, MAX_COUNT),
    "model_rate": (1, MAX_RATE),
    "codebook_size": (MIN_CODEBOOK_SIZE, MAX_CODEBOOK_SIZE),
    "start_id": (0, MAX_ID),
}
_TEXTS = {"path": 4096, "model": 128, "fingerprint": 2 * FINGERPRINT_BYTES}
_FINGERPRINT = re.compile(f"[0-9a-f]{{{2 * FINGERPRINT_BYTES}}}")
FACTS = (*_TEXTS, *_RANGES, "offsets", "strides")
"""Names of what a file may say besides its tokens."""


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise TokenFileError(f"{name!r} is not a whole number from {low} to {high}")
    return value
