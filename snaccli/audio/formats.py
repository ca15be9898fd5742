"""The audio formats: the file extensions of recordings, and what each that can be written can hold."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from snaccli.errors import OutputError, Remedy
from snaccli.io.files import is_stdio, shown

__all__ = ["AudioFormat", "is_audio_name", "named_format", "output_format", "writable_formats"]

_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_4_GIB = (1 << 32) - (1 << 16)  # bytes of samples in formats that count them in 32 bits; room for the header


_LIBSNDFILE = "wav wave flac ogg oga opus mp3 aif aiff aifc caf au snd w64 rf64 voc sph"
_FFMPEG = "m4a m4b aac mp4 m4v mka mkv mov webm wma wmv avi amr 3gp ac3 eac3 dts wv ape mp2 spx gsm"
_EXTENSIONS = frozenset(f".{extension}" for extension in f"{_LIBSNDFILE} {_FFMPEG}".split())


def is_audio_name(name: str) -> bool:
    """Returns whether a file of this name is worth opening as a recording: by its extension, in any case."""
    return os.path.splitext(name)[1].lower() in _EXTENSIONS


@dataclass(frozen=True)
class AudioFormat:
    """One kind of audio file; names are libsndfile's."""

    extension: str
    container: str
    encoding: str
    channels: int = 16  # most
    rates: tuple[int, ...] = ()  # the only ones in Hz; empty: any up to `highest`
    highest: int = 768_000
    most_bytes: int | None = None  # of samples
    may_be_empty: bool = True  # whether libsndfile writes a file of no samples that can be read again


_FORMATS = {
    kind.extension: kind
    for kind in (
        AudioFormat("wav", "WAV", "PCM_16", most_bytes=_4_GIB),
        AudioFormat("flac", "FLAC", "PCM_16", channels=8, highest=655_350, may_be_empty=False),
        AudioFormat("ogg", "OGG", "VORBIS", highest=200_000),  # beyond, libsndfile 1.2.2 crashes
        AudioFormat("oga", "OGG", "VORBIS", highest=200_000),
        AudioFormat("opus", "OGG", "OPUS", rates=_OPUS_RATES, may_be_empty=False),
        AudioFormat("mp3", "MP3", "MPEG_LAYER_III", channels=2, rates=_MP3_RATES, may_be_empty=False),
        AudioFormat("aiff", "AIFF", "PCM_16", most_bytes=_4_GIB),
        AudioFormat("aif", "AIFF", "PCM_16", most_bytes=_4_GIB),
        AudioFormat("caf", "CAF", "PCM_16"),
        AudioFormat("au", "AU", "PCM_16", most_bytes=_4_GIB),
        AudioFormat("w64", "W64", "PCM_16"),
        AudioFormat("rf64", "RF64", "PCM_16"),
    )
}


def writable_formats() -> tuple[str, ...]:
    """Returns the extensions of what can be written here (no MP3 with libsndfile before 1.1), dotless."""
    import soundfile  # here, because a listing of files needs the names alone

    there = soundfile.available_formats()
    return tuple(
        extension
        for extension, kind in _FORMATS.items()
        if kind.container in there and kind.encoding in soundfile.available_subtypes(kind.container)
    )


def named_format(output: str | Path, audio_format: str | None = None) -> AudioFormat:
    """Returns the format to write `output` in: by `audio_format`, else by the output's extension, else WAV.

    Raises:
        OutputError: no such format can be written here.
    """
    wanted = audio_format or ("" if is_stdio(output) else Path(output).suffix)
    extension = wanted.lower().removeprefix(".") or "wav"
    names = writable_formats()
    if extension not in names:
        raise OutputError(f"cannot write audio as {shown(extension)}: choose one of {', '.join(names)}")
    return _FORMATS[extension]


def output_format(
    output: str | Path, rate: int, channels: int, audio_format: str | None = None
) -> AudioFormat:
    """As `named_format`, for samples of this rate and number of channels.

    Args:
        output: path, or ``-``.
        rate: in Hz.
        channels: 1 or more.
        audio_format: an extension such as ``flac``, or None.

    Raises:
        OutputError: no such format can be written here, or it cannot hold this rate or number of channels.
    """
    kind = named_format(output, audio_format)
    extension = kind.extension
    if channels > kind.channels:
        raise OutputError(
            f"{extension} holds at most {kind.channels} channels, not {channels}: choose another such as wav"
        )
    if kind.rates and rate not in kind.rates:
        raise OutputError(
            f"{extension} cannot hold {rate} Hz, only {', '.join(map(str, kind.rates))}",
            remedy=Remedy.OTHER_FORMAT_OR_RATE,
        )
    # FLAC's frame header counts rates above 65535 Hz in tens.
    if rate > kind.highest or (kind.container == "FLAC" and rate > 65_535 and rate % 10):
        raise OutputError(f"{extension} cannot hold {rate} Hz", remedy=Remedy.OTHER_FORMAT_OR_RATE)
    return kind
