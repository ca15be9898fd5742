"""A ``.snac`` file to audio."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from snac.hub.registry import MODELS
from snaccli import container, entropy
from snaccli.audio import AudioWriter, resample, resample_start, resampled_length
from snaccli.codec.encoding import beside
from snaccli.codec.model import Codec, cut
from snaccli.codec.progress import CODING_SHARE, Progress, Report
from snaccli.codes import CodedStream, Codes
from snaccli.errors import ContainerError, LevelsError, UnknownModelError, UsageError, WeightsMismatchError
from snaccli.io.files import check_output, open_input, shown


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode: see the keywords of ``decode_file``; ``seed`` None leaves the noise out."""

    model: str | Codec | None = None
    rate: Literal["original", "model"] = "original"
    levels: int | None = None
    salvage: bool = False
    start: float = 0.0
    duration: float | None = None
    seed: int | None = 0
    any_weights: bool = False
    device: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class DecodeResult:
    """What ``decode_file`` did: names, Hz, samples a channel, seconds; ``levels`` of codes used."""

    source: str
    output: str
    model: str
    sample_rate: int
    channels: int
    samples: int
    duration_s: float
    levels: int
    note: str
    seconds: float


@dataclass(frozen=True)
class Coded:
    """A ``.snac`` file as it was read, and what of it is wanted; no model was needed so far.

    Attributes:
        header: what the file says of its recording.
        streams: coded tokens of the ``levels`` coarsest levels.
        levels: of codes to use.
        damage: what is wrong with the file, None if it is whole.
        rate: of the samples wanted, Hz.
        first: sample wanted first, at that rate.
        samples: wanted, a channel.
    """

    header: container.Header
    streams: list[CodedStream]
    levels: int
    damage: container.Damage | None
    rate: int
    first: int
    samples: int


@dataclass(frozen=True)
class Decoding:
    """A decoding under way.

    Attributes:
        codec: the model that decodes.
        note: what a user should know of the file, or empty.
        blocks: float32 arrays (n, channels), computed as they are taken.
    """

    codec: Codec
    note: str
    blocks: Generator[np.ndarray, None, None]


def decode_file(
    source: str | Path,
    output: str | Path | None = None,
    *,
    model: str | Codec | None = None,
    rate: Literal["original", "model"] = "original",
    levels: int | None = None,
    salvage: bool = False,
    start: float = 0.0,
    duration: float | None = None,
    seed: int = 0,
    noise: bool = True,
    any_weights: bool = False,
    audio_format: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DecodeResult:
    """Decodes a ``.snac`` file to an audio file.

    Args:
        source: a ``.snac`` file, ``-`` for standard input.
        output: ``-`` for standard output; by default beside the source, as WAV.
        model: the model to decode with; by default the one the file names, if that is one of the known ones.
        rate: ``original`` gives the recording's rate and exact length back, ``model`` keeps the model's rate.
        levels: use so many of the coarsest levels only.
        salvage: decode what is intact of a damaged file.
        start: first second wanted.
        duration: seconds wanted; by default to the end.
        seed: of the decoder's noise.
        noise: False leaves the noise out.
        any_weights: decode although the weights differ from those the file was made with.
        audio_format: an ending such as ``flac`` that overrides the output's own.
        device: where a model that is loaded here computes, see ``Codec.load``.
        threads: of it, likewise.
        overwrite: whether an existing output may be replaced.
        progress: called with the fraction done, 0 to 1.

    Raises:
        SnacError: a named subclass for whatever the user can mend; no output is left behind.
    """
    started = time.perf_counter()
    if output is None:
        output = beside(source, "." + (audio_format or "wav").lstrip("."))
    check_output(output, source=source, overwrite=overwrite)
    noise_seed = seed if noise else None
    options = DecodeOptions(
        model, rate, levels, salvage, start, duration, noise_seed, any_weights, device, threads
    )
    coded = read_coded(source, options)
    channels = coded.header.channels
    writer = AudioWriter(  # refuses what its format cannot hold, before a model is loaded
        output,
        coded.rate,
        channels,
        frames=coded.samples,
        audio_format=audio_format,
        source=source,
        overwrite=overwrite,
    )
    report = Report(progress)
    decoding = start_decoding(coded, options, report)
    with writer, closing(decoding.blocks):
        for block in report.blocks(decoding.blocks, coded.samples, CODING_SHARE, 1.0):
            writer.write(block)
    report(1.0)
    return DecodeResult(
        source=str(source),
        output=str(output),
        model=decoding.codec.name,
        sample_rate=coded.rate,
        channels=channels,
        samples=coded.samples,
        duration_s=coded.samples / coded.rate,
        levels=coded.levels,
        note=decoding.note,
        seconds=time.perf_counter() - started,
    )


def read_coded(source: str | Path, options: DecodeOptions) -> Coded:
    """Reads a ``.snac`` file and checks what can be checked without its model.

    Raises:
        SnacError: a named subclass: the file is damaged, or has not what the options ask for.
    """
    with open_input(source, error=ContainerError) as file:
        layout, streams, damage = container.unpack(file, salvage=options.salvage)
    header = layout.header
    used = _levels(options.levels, header.levels, len(streams) // header.channels)
    rate, length = header.sample_rate, header.samples
    if options.rate == "model":
        rate = header.model_rate
        length = resampled_length(header.samples, header.sample_rate, header.model_rate)
    first, count = _span(options.start, options.duration, rate, length, shown(source))
    return Coded(header, streams[: used * header.channels], used, damage, rate, first, count)


def start_decoding(coded: Coded, options: DecodeOptions, report: Report | None = None) -> Decoding:
    """Decodes the tokens of a file; its audio is computed as the result's blocks are taken.

    Raises:
        SnacError: a named subclass: the model is not there or not the file's, the tokens are invalid.
    """
    header, codec = coded.header, options.model
    if not isinstance(codec, Codec):
        name = codec or _named_model(header.model)
        codec = Codec.load(name, device=options.device, threads=options.threads)
    note = _check_weights(codec, header, options.any_weights)
    _check_length(codec, header)
    progress = None if report is None else report.part(0.0, CODING_SHARE)
    codes = decode_streams(header, coded.streams, codec, progress)
    begin, skip = resample_start(coded.first, codec.rate, coded.rate)
    # The resampler reaches beyond the last wanted sample, too: 128 periods of the lower rate will do.
    beyond = 128 * max(1, -(-codec.rate // coded.rate))
    end = resampled_length(coded.first + coded.samples, coded.rate, codec.rate) + beyond
    decoded = codec.decode(codes, seed=options.seed, start=begin, stop=end)
    resampled = resample(decoded, codec.rate, coded.rate, header.channels)
    notes = "; ".join(text for text in (str(coded.damage or ""), note) if text)
    return Decoding(codec, notes, cut(resampled, skip, coded.samples, header.channels))


def decode_streams(
    header: container.Header, streams: Sequence[CodedStream], codec: Codec, progress: Progress | None
) -> Codes:
    """The tokens of a file, or of its coarsest levels.

    Raises:
        StreamInvalidError: a stream is none that an encoder wrote.
    """
    return entropy.decode(
        streams,
        strides=header.strides,
        channels=header.channels,
        frames=header.frames,
        codebook_size=header.codebook_size,
        codebooks=codec.codebooks,
        progress=progress,
    )


def _levels(wanted: int | None, in_file: int, intact: int) -> int:
    if wanted is None:
        return intact
    if not 1 <= wanted <= in_file:
        raise LevelsError(wanted, in_file)
    return min(wanted, intact)


def _span(start: float, duration: float | None, rate: int, length: int, name: str) -> tuple[int, int]:
    """First sample and number of samples of a part of a recording."""
    if not math.isfinite(start) or start < 0:
        raise UsageError(f"a start of {start} s is not within a recording; give 0 or more seconds")
    if duration is not None and (not math.isfinite(duration) or duration < 0):
        raise UsageError(f"a duration of {duration} s is not a length; give 0 or more seconds")
    first = round(start * rate)
    if first > length:
        raise UsageError(f"{name} ends at {length / rate:.3f} s; a start of {start:g} s lies beyond")
    return first, length - first if duration is None else min(round(duration * rate), length - first)


def _named_model(name: str) -> str:
    """The model a file names, if it may be loaded without being asked for.

    A stranger's file must not choose what is downloaded or which folder is read: only the known models are.

    Raises:
        ModelError: the name is not that of a known model.
    """
    if name not in MODELS:
        raise UnknownModelError(name)
    return name


def _check_weights(codec: Codec, header: container.Header, any_weights: bool) -> str:
    """Compares fingerprints; returns a note if they differ and that was allowed."""
    found = header.fingerprint.hex()
    if found == codec.fingerprint:
        return ""
    if not any_weights:
        raise WeightsMismatchError(header.model, found, codec.name, codec.fingerprint)
    return f"decoded with other weights ({codec.fingerprint} instead of {found})"


def _check_length(codec: Codec, header: container.Header) -> None:
    """A file's claimed length must be that of its codes: it decides how much is written."""
    at_model = resampled_length(header.samples, header.sample_rate, header.model_rate)
    if header.model_rate != codec.rate or codec.config.frames_for(at_model) != header.frames:
        raise ContainerError(
            f"the file claims {header.samples} samples at {header.sample_rate} Hz in {header.frames} frames, "
            f"which do not belong together with the model {codec.name!r}; get the file again"
        )
