"""A recording as tokens, and a ``.snac`` file as its bytes: the noun of the library and its two forms.

    Recording  -- dumps -->  bytes of a file
    a file     -- loads -->  CodedRecording  -- decode, with the model's codebooks -->  Recording

Knows no torch and no audio file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from snaccli import container, entropy
from snaccli.audio import resampled_length
from snaccli.codec.arguments import number, whole
from snaccli.codes import CodedStream, Coder, Codes
from snaccli.errors import (
    ContainerError,
    LevelsError,
    ModelMismatchError,
    ParameterError,
    Path,
    PriorError,
    Remedy,
    UsageError,
    WeightsMismatchError,
    about,
)
from snaccli.progress import SILENT, Progress

if TYPE_CHECKING:
    from snaccli.codec.codec import Codec

__all__ = ["WHOLE", "CodedRecording", "Recording", "Span", "dumps", "loads"]


@dataclass(frozen=True)
class Span:
    """A part of a recording.

    Attributes:
        start: first second wanted, 0 or more.
        duration: seconds wanted, 0 or more; None for all that follow.

    Raises:
        ParameterError: one of them is negative or not finite.
    """

    start: float = 0.0
    duration: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", number("start", self.start, "seconds"))
        if self.duration is not None:
            object.__setattr__(self, "duration", number("duration", self.duration, "seconds"))

    def within(self, length: int, rate: int) -> tuple[int, int]:
        """Returns the first sample and the number of samples of this part.

        Args:
            length: samples of the whole.
            rate: of them, Hz.

        Raises:
            UsageError: the part begins beyond the end.
        """
        first = round(self.start * rate)
        if first > length:
            raise UsageError(
                f"the recording ends at {length / rate:.3f} s; a start of {self.start:g} s lies beyond"
            )
        rest = length - first
        return first, rest if self.duration is None else min(round(self.duration * rate), rest)


WHOLE = Span()
"""All of a recording."""


@dataclass(frozen=True)
class Recording:
    """The tokens of a recording, and what turning them into sound takes.

    Attributes:
        codes: the tokens of all levels or of the coarsest ones.
        model: name of the model that made them.
        fingerprint: 16 hex digits of its weights.
        model_rate: Hz of the audio that the model codes.
        rate: Hz of the recording.
        samples: of the recording, a channel.
    """

    codes: Codes
    model: str
    fingerprint: str
    model_rate: int
    rate: int
    samples: int

    @property
    def channels(self) -> int:
        """Channels, each coded by itself."""
        return self.codes.channels

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return self.samples / self.rate

    def coarsest(self, levels: int | None, where: str = "the recording") -> Recording:
        """Returns the same recording with so many of its coarsest levels; None for all.

        Args:
            levels: 1 to all that there are, or None.
            where: what has the levels, for the message.

        Raises:
            LevelsError: there are not as many.
        """
        available = len(self.codes.levels)
        if levels is None:
            return self
        levels = _levels(levels, available, where)
        return replace(self, codes=self.codes.coarsest(levels))


def _levels(wanted: object, available: int, where: str) -> int:
    try:
        return whole("levels", wanted, 1, available)
    except ParameterError as error:
        raise LevelsError(wanted, available, where) from error


def dumps(
    recording: Recording,
    codebooks: Sequence[np.ndarray],
    *,
    prior: entropy.Prior | None = None,
    threads: int = 1,
    progress: Progress = SILENT,
) -> bytes:
    """Returns the bytes of a ``.snac`` file.

    Args:
        recording: what it shall hold.
        codebooks: of the model, float32 (codewords, dimension) a level.
        prior: learned for the model; the file names it if that makes a stream smaller.
        threads: that may code side by side.
        progress: of the entropy coding.

    Raises:
        ContainerError: a value is beyond what the format holds.
        PriorError: the prior is of other weights.
    """
    codes = recording.codes
    if prior is not None and prior.model_fingerprint != recording.fingerprint:
        raise PriorError(
            f"the prior is for weights of fingerprint {prior.model_fingerprint}, not {recording.fingerprint}",
            remedy=Remedy.OTHER_PRIOR,
        )
    streams = entropy.encode(codes, codebooks, prior=prior, threads=threads, progress=progress)
    named = prior is not None and any(stream.coder == Coder.PRIOR for stream in streams)
    try:
        header = container.Header(
            model=recording.model,
            fingerprint=bytes.fromhex(recording.fingerprint),
            sample_rate=recording.rate,
            model_rate=recording.model_rate,
            channels=codes.channels,
            samples=recording.samples,
            frames=codes.frames,
            codebook_size=codes.codebook_size,
            strides=codes.strides,
            prior=bytes.fromhex(prior.fingerprint) if prior is not None and named else None,
        )
    except ValueError as problem:
        raise ContainerError(f"the recording cannot be a .snac file: {problem}") from problem
    return container.pack(header, streams)


def loads(file: BinaryIO, *, salvage: bool = False, path: Path | None = None) -> CodedRecording:
    """Reads a ``.snac`` file from its beginning to its end, once; no model is needed for that.

    Args:
        file: a binary file or a pipe.
        salvage: take what is intact of a damaged file.
        path: of the file, for messages.

    Raises:
        ContainerError: a named subclass for each kind of damage.
    """
    with about(path):
        layout, streams, damage = container.unpack(file, salvage=salvage)
    return CodedRecording(layout.header, tuple(streams), damage, None if path is None else str(path))


@dataclass(frozen=True)
class CodedRecording:
    """A ``.snac`` file that has been read, its tokens still coded.

    Attributes:
        header: what the file says of its recording.
        streams: the coded tokens of the levels that are intact, coarse to fine, channel by channel.
        damage: what is wrong with the file, None if it is whole.
        path: of the file, None where it has none.
    """

    header: container.Header
    streams: tuple[CodedStream, ...]
    damage: container.Damage | None = None
    path: str | None = None

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return self.header.samples / self.header.sample_rate

    def levels(self, wanted: int | None = None) -> int:
        """Returns how many of the coarsest levels to use: `wanted`, or those that are intact if fewer.

        Raises:
            LevelsError: the file never had so many.
        """
        available, intact = self.header.levels, len(self.streams) // self.header.channels
        if wanted is None:
            return intact
        return min(_levels(wanted, available, "the file"), intact)

    def decode(
        self,
        codec: Codec,
        levels: int | None = None,
        *,
        any_weights: bool = False,
        progress: Progress = SILENT,
    ) -> Recording:
        """Returns the recording, its tokens decoded.

        Args:
            codec: the model that the file was made with.
            levels: use so many of the coarsest levels only.
            any_weights: take a model with other weights, as long as its codebooks are of the same shape.
            progress: of the entropy decoding.

        Raises:
            WeightsMismatchError: the model has other weights.
            PriorError: the file needs a learned prior that the model has not got.
            ModelMismatchError: its codebooks are of other strides or sizes.
            ContainerError: the file claims a length that is not that of its tokens, or a stream is invalid.
            LevelsError: there are not as many levels.
        """
        header, used = self.header, self.levels(levels)
        with about(self.path):
            self._check_model(codec, any_weights)
            streams = self.streams[: used * header.channels]
            codes = entropy.decode(
                streams,
                strides=header.strides,
                channels=header.channels,
                frames=header.frames,
                codebook_size=header.codebook_size,
                codebooks=codec.codebooks,
                prior=self._prior(codec, streams),
                threads=codec.threads,
                progress=progress,
            )
        return Recording(
            codes,
            header.model,
            header.fingerprint.hex(),
            header.model_rate,
            header.sample_rate,
            header.samples,
        )

    def _prior(self, codec: Codec, streams: Sequence[CodedStream]) -> entropy.Prior | None:
        """Returns the prior that these streams need, None if they need none."""
        if self.header.prior is None or not any(stream.coder == Coder.PRIOR for stream in streams):
            return None
        wanted, prior = self.header.prior.hex(), codec.prior
        if prior is None or prior.fingerprint != wanted:
            found = "there is none" if prior is None else f"the one at hand is {prior.fingerprint}"
            raise PriorError(
                f"the file needs the learned prior {wanted} of the model {self.header.model!r}, {found}",
                remedy=Remedy.NAME_PRIOR,
            )
        return prior

    def _check_model(self, codec: Codec, any_weights: bool) -> None:
        header, config = self.header, codec.config
        found = header.fingerprint.hex()
        if found != codec.fingerprint and not any_weights:
            raise WeightsMismatchError(header.model, found, codec.name, codec.fingerprint)
        own = (config.vq_strides[: header.levels], config.codebook_size)
        if (header.strides, header.codebook_size) != own:
            raise ModelMismatchError(
                f"the file has strides {list(header.strides)} and {header.codebook_size} codewords a level, "
                f"the model {codec.name!r} has {list(config.vq_strides)} and {config.codebook_size}",
                remedy=Remedy.OTHER_MODEL,
            )
        # A claimed length must be that of the codes: it decides how much is written.
        length = resampled_length(header.samples, header.sample_rate, codec.rate)
        if header.model_rate != codec.rate or config.frames_for(length) != header.frames:
            raise ContainerError(
                f"the file claims {header.samples} samples at {header.sample_rate} Hz in {header.frames} "
                f"frames, which do not belong together with the model {codec.name!r}; get the file again"
            )
