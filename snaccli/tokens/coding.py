"""Recordings to tokens and back: audio and ``.snac`` files at one end, tokens at the other."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import snaccli.codec as codec_package
from snaccli.audio import AudioWriter, downmix, open_audio
from snaccli.codec import Codec, ModelPool, dumps, loads
from snaccli.errors import ContainerError, LevelsError
from snaccli.io.files import open_input
from snaccli.progress import Listener, rising
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
    models: ModelPool,
    *,
    levels: int | None = None,
    path: str = "",
    progress: Listener,
) -> Recording:
    """The tokens of a ``.snac`` file.

    Raises:
        ContainerError: the file is damaged.
        ModelError: its model cannot be had.
        ModelMismatchError: the model is not the one it was made with.
        UsageError: it has not as many levels.
    """
    with open_input(source, error=ContainerError) as file:
        coded = loads(file, path=source)
    used = coded.levels(levels)
    codec = models.for_file(coded.header.model, coded.header.fingerprint.hex())
    found = coded.decode(codec, used, progress=rising(progress))
    return Recording(found.codes, codec.name, codec.fingerprint, codec.rate, found.rate, found.samples, path)


def from_audio(
    source: str | Path,
    models: ModelPool,
    *,
    channels: Literal["mono", "keep"] = "mono",
    levels: int | None = None,
    path: str = "",
    progress: Listener,
) -> Recording:
    """The tokens of an audio file.

    Raises:
        AudioError: it cannot be read.
        ModelError: the model cannot be had.
        UsageError: the model has not as many levels.
    """
    with open_audio(source) as reader:
        codec = models.for_audio()
        mono = channels == "mono" and reader.channels > 1
        where = f"the model {codec.name!r}"
        if levels is not None and not 1 <= levels <= len(codec.strides):
            raise LevelsError(levels, len(codec.strides), where)
        blocks = reader.blocks()
        found = codec.encode(
            downmix(blocks) if mono else blocks,
            reader.rate,
            1 if mono else reader.channels,
            expected=reader.expected_frames,
            progress=rising(progress),
        ).coarsest(levels, where)
    return Recording(
        found.codes,
        found.model,
        found.fingerprint,
        found.model_rate,
        found.rate,
        found.samples,
        path,
        reader.channels if mono else None,
    )


def to_snac(recording: Recording, codec: Codec, *, progress: Listener = None) -> bytes:
    """The ``.snac`` file of a recording: the very bytes it was read from, if it was.

    Raises:
        ContainerError: a value is beyond what the format holds.
    """
    return dumps(_coded(recording), codec.codebooks, progress=rising(progress))


def _coded(recording: Recording) -> codec_package.Recording:
    return codec_package.Recording(
        recording.codes,
        recording.model,
        recording.fingerprint,
        recording.model_rate,
        recording.rate,
        recording.samples,
    )


def to_audio(
    recording: Recording,
    codec: Codec,
    output: str | Path,
    *,
    audio_format: str | None = None,
    source: str | Path | None = None,
    overwrite: bool = False,
    progress: Listener = None,
) -> None:
    """Decodes a recording to an audio file of its rate and length; as ``snac decode`` would.

    Raises:
        OutputError: the output cannot be written.
    """
    channels = recording.codes.channels
    with AudioWriter(
        output,
        recording.rate,
        channels,
        frames=recording.samples,
        audio_format=audio_format,
        source=source,
        overwrite=overwrite,
    ) as writer:
        for block in codec.decode(_coded(recording), progress=rising(progress)):
            writer.write(block)
