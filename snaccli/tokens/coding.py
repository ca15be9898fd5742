"""Recordings to tokens and back: audio and ``.snac`` files at one end, tokens at the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from snaccli import container, entropy
from snaccli.audio import AudioWriter, downmix, open_audio, resample
from snaccli.audio import fit as fit_length
from snaccli.codec import Codec
from snaccli.codec.decoding import decode_streams
from snaccli.codec.encoding import header_of
from snaccli.codec.progress import CODING_SHARE, Progress, Report
from snaccli.errors import ContainerError, LevelsError, Remedy, WeightsMismatchError
from snaccli.io.files import open_input, shown
from snaccli.tokens.models import Models
from snaccli.tokens.recording import Recording

__all__ = ["from_audio", "from_snac", "is_snac", "to_audio", "to_snac"]

_MAGIC = b"snac"


def is_snac(source: str | Path) -> bool:
    """Whether a file begins as a ``.snac`` file does; standard input is taken for one."""
    if str(source) == "-":
        return True
    with open_input(source) as file:
        return file.read(len(_MAGIC)) == _MAGIC


def from_snac(
    source: str | Path,
    models: Models,
    *,
    levels: int | None = None,
    path: str = "",
    progress: Progress | None,
) -> Recording:
    """The tokens of a ``.snac`` file.

    Raises:
        ContainerError: the file is damaged.
        ModelError: its model cannot be had.
        ModelMismatchError: the model is not the one it was made with.
        UsageError: it has not as many levels.
    """
    with open_input(source, error=ContainerError) as file:
        layout, streams, _ = container.unpack(file)
    header = layout.header
    used = _checked_levels(levels, header.levels, shown(source))
    codec = models.named(header.model)
    found = header.fingerprint.hex()
    if found != codec.fingerprint:
        raise WeightsMismatchError(
            header.model, found, codec.name, codec.fingerprint, remedy=Remedy.OTHER_MODEL
        )
    codes = decode_streams(header, streams[: used * header.channels], codec, progress)
    return Recording(
        codes, codec.name, codec.fingerprint, codec.rate, header.sample_rate, header.samples, path
    )


def from_audio(
    source: str | Path,
    models: Models,
    *,
    channels: Literal["mono", "keep"] = "mono",
    levels: int | None = None,
    path: str = "",
    progress: Progress | None,
) -> Recording:
    """The tokens of an audio file.

    Raises:
        AudioError: it cannot be read.
        ModelError: the model cannot be had.
        UsageError: the model has not as many levels.
    """
    with open_audio(source) as reader:
        codec = models.for_audio()
        used = _checked_levels(levels, len(codec.strides), f"the model {codec.name!r}")
        mono = channels == "mono" and reader.channels > 1
        blocks: Iterator[np.ndarray] = Report(progress).blocks(
            reader.blocks(), reader.expected_frames, 0.0, 1.0
        )
        codes, samples = codec.encode(
            downmix(blocks) if mono else blocks, reader.rate, 1 if mono else reader.channels
        )
    return Recording(
        codes.coarsest(used),
        codec.name,
        codec.fingerprint,
        codec.rate,
        reader.rate,
        samples,
        path,
        reader.channels if mono else None,
    )


def _checked_levels(wanted: int | None, there: int, name: str) -> int:
    if wanted is None:
        return there
    if not 1 <= wanted <= there:
        raise LevelsError(wanted, there, name)
    return wanted


def to_snac(recording: Recording, codec: Codec, *, progress: Progress | None = None) -> bytes:
    """The ``.snac`` file of a recording: the very bytes it was read from, if it was.

    Raises:
        ContainerError: a value is beyond what the format holds.
    """
    codes = recording.codes
    try:
        header = header_of(codec, codes, recording.rate, recording.samples)
    except ValueError as problem:
        raise ContainerError(f"cannot be a .snac file: {problem}") from problem
    return container.pack(header, entropy.encode(codes, codec.codebooks, progress=progress))


def to_audio(
    recording: Recording,
    codec: Codec,
    output: str | Path,
    *,
    audio_format: str | None = None,
    source: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Decodes a recording to an audio file of its rate and length; as ``snac decode`` would.

    Raises:
        OutputError: the output cannot be written.
    """
    channels = recording.codes.channels
    report = Report(progress)
    decoded = resample(codec.decode(recording.codes), codec.rate, recording.rate, channels)
    blocks = fit_length(decoded, recording.samples, channels)
    with AudioWriter(
        output,
        recording.rate,
        channels,
        frames=recording.samples,
        audio_format=audio_format,
        source=source,
        overwrite=overwrite,
    ) as writer:
        for block in report.blocks(blocks, recording.samples, CODING_SHARE, 1.0):
            writer.write(block)
