"""What programs call: recordings from file to file, and from arrays to files and back.

Each function is a short walk along the same road; an input is opened once, so that it may be a pipe.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from snac.hub.registry import DEFAULT_MODEL
from snac.noise import Noise
from snaccli.audio import MAX_CHANNELS, AudioWriter, open_audio, resampled_length
from snaccli.codec.arguments import checked_block, checked_rate, number, path_of, whole
from snaccli.codec.codec import Codec, WantedPrior
from snaccli.codec.pool import ModelPool
from snaccli.codec.recording import CodedRecording, Recording, Span, dumps, loads
from snaccli.errors import AudioError, ContainerError, ParameterError
from snaccli.io.files import check_output, is_stdio, open_input, open_output
from snaccli.progress import SILENT, Listener, Progress, part, rising
from snaccli.workers import read_ahead

__all__ = ["DecodeResult", "EncodeResult", "Model", "decode_file", "encode_file", "read", "save", "write"]

Model = str | Path | Codec | ModelPool
"""A model by its name, folder or Hub repository; a loaded one; or a pool, with its choice of one."""

_CODING_SHARE = 0.1  # of the progress: entropy coding, next to the model's work


@dataclass(frozen=True)
class EncodeResult:
    """What `encode_file` did.

    Attributes:
        source, output: the files, as they were named.
        model: name of the model.
        fingerprint: 16 hex digits of its weights.
        sample_rate: of the recording, Hz.
        source_channels: of the recording.
        channels: that were coded.
        samples: a channel.
        duration_s: of the recording, seconds.
        bytes: of the output.
        bitrate_bps: bits a second of the recording.
        seconds: that the work took, loading the model included where it was loaded for it.
        note: what a user should know of the recording, or empty.
    """

    source: str
    output: str
    model: str
    fingerprint: str
    sample_rate: int
    source_channels: int
    channels: int
    samples: int
    duration_s: float
    bytes: int
    bitrate_bps: float
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class DecodeResult:
    """What `decode_file` did.

    Attributes:
        source, output: the files, as they were named.
        model: name of the model.
        sample_rate: of the output, Hz.
        channels: of the output.
        samples: a channel.
        duration_s: of the output, seconds.
        levels: of codes that were used, from the coarsest.
        note: what a user should know of the file, or empty.
        seconds: that the work took, loading the model included where it was loaded for it.
    """

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


def encode_file(
    source: str | Path,
    output: str | Path | None = None,
    *,
    model: Model = DEFAULT_MODEL,
    channels: Literal["mono", "keep"] = "mono",
    device: str = "auto",
    threads: int | None = None,
    prior: WantedPrior = True,
    rate_distortion: float = 0.0,
    overwrite: bool = False,
    progress: Listener = None,
) -> EncodeResult:
    """Encodes a recording.

    Args:
        source: an audio file or a pipe, ``-`` for standard input.
        output: ``-`` for standard output; by default beside the source with the extension ``.snac``.
        model: see `Model`.
        channels: ``mono`` mixes down, ``keep`` codes each channel by itself.
        device, threads, prior: of a model that is loaded here, see `Codec.load`.
        rate_distortion: what a bit costs, for smaller files of a little less quality; see `Codec.encode`.
        overwrite: whether an existing output may be replaced.
        progress: see `snaccli.progress`.

    Raises:
        SnacError: a named subclass for whatever the user can mend; no output is left behind.
    """
    began = time.perf_counter()
    number("rate_distortion", rate_distortion, "as the price of a bit")
    source = path_of("source", source)
    output = _beside(source, ".snac") if output is None else path_of("output", output)
    check_output(output, source=source, overwrite=overwrite)
    told = rising(progress)
    with open_audio(source) as reader:
        told.started(reader.info.duration_s)
        blocks, count = reader.mixed(channels)
        codec = _pool(model, device, threads, prior).get()
        with closing(read_ahead(blocks)) as ahead:
            recording = codec.encode(
                ahead,
                reader.rate,
                count,
                expected=reader.expected_frames,
                rate_distortion=rate_distortion,
                progress=part(told, 0.0, 1 - _CODING_SHARE),
            )
    share = part(told, 1 - _CODING_SHARE, 1.0)
    size = save(recording, codec, output, source=source, overwrite=overwrite, progress=share)
    told(1.0)
    duration = recording.duration_s
    return EncodeResult(
        source=os.fspath(source),
        output=os.fspath(output),
        model=codec.name,
        fingerprint=codec.fingerprint,
        sample_rate=reader.rate,
        source_channels=reader.channels,
        channels=recording.channels,
        samples=recording.samples,
        duration_s=duration,
        bytes=size,
        bitrate_bps=8 * size / duration if duration else 0.0,
        seconds=time.perf_counter() - began,
        note="; ".join(reader.notes),
    )


def decode_file(
    source: str | Path,
    output: str | Path | None = None,
    *,
    model: Model | None = None,
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
    prior: WantedPrior = True,
    overwrite: bool = False,
    progress: Listener = None,
) -> DecodeResult:
    """Decodes a ``.snac`` file to an audio file.

    Args:
        source: a ``.snac`` file or a pipe, ``-`` for standard input.
        output: ``-`` for standard output; by default beside the source, as WAV.
        model: see `Model`; by default the one the file names, if that is one of the known ones.
        rate: ``original`` gives the recording's rate and exact length back, ``model`` keeps the model's rate.
        levels: use so many of the coarsest levels only.
        salvage: decode what is intact of a damaged file.
        start: first second wanted.
        duration: seconds wanted; by default to the end.
        seed: of the decoder's noise.
        noise: False leaves the noise out.
        any_weights: decode although the weights differ from those the file was made with.
        audio_format: an extension such as ``flac`` that overrides the output's own.
        device, threads, prior: of a model that is loaded here, see `Codec.load`.
        overwrite: whether an existing output may be replaced.
        progress: see `snaccli.progress`.

    Raises:
        SnacError: a named subclass for whatever the user can mend; no output is left behind.
    """
    began = time.perf_counter()
    if rate not in ("original", "model"):
        raise ParameterError("rate", repr(rate), "choose 'original' or 'model'")
    seed = whole("seed", seed, -(1 << 63), (1 << 64) - 1)
    if not isinstance(audio_format, str | None):
        raise ParameterError("audio_format", repr(audio_format), "give an extension such as 'flac'")
    source, extension = path_of("source", source), (audio_format or "wav").lstrip(".")
    output = _beside(source, f".{extension}") if output is None else path_of("output", output)
    span, told = Span(start, duration), rising(progress)
    check_output(output, source=source, overwrite=overwrite)
    with open_input(source, error=ContainerError) as file:
        coded = loads(file, salvage=salvage, path=source)
    header, used = coded.header, coded.levels(levels)
    out_rate = header.model_rate if rate == "model" else header.sample_rate
    _, samples = span.within(resampled_length(header.samples, header.sample_rate, out_rate), out_rate)
    told.started(samples / out_rate)
    writer = AudioWriter(  # refuses what its format cannot hold, before a model is loaded
        output,
        out_rate,
        header.channels,
        frames=samples,
        audio_format=audio_format,
        source=source,
        overwrite=overwrite,
    )
    codec = _pool(model, device, threads, prior).for_file(header.model, header.fingerprint.hex())
    recording = coded.decode(codec, used, any_weights=any_weights, progress=part(told, 0.0, _CODING_SHARE))
    blocks = codec.decode(
        recording,
        rate=out_rate,
        span=span,
        noise=Noise.seeded(seed) if noise else Noise.none(),
        progress=part(told, _CODING_SHARE, 1.0),
    )
    with writer, closing(blocks):
        for block in blocks:
            writer.write(block)
    told(1.0)
    return DecodeResult(
        source=os.fspath(source),
        output=os.fspath(output),
        model=codec.name,
        sample_rate=out_rate,
        channels=recording.channels,
        samples=samples,
        duration_s=samples / out_rate,
        levels=used,
        note=_note(coded, codec),
        seconds=time.perf_counter() - began,
    )


def read(path: str | Path, *, model: Model | None = None) -> tuple[npt.NDArray[np.float32], int]:
    """Decodes a whole ``.snac`` file.

    Args:
        path: of the file, or of a pipe.
        model: see `Model`; by default the one the file names, if that is one of the known ones.

    Returns:
        samples, float32, nominally -1 to 1, of shape (n,) for one channel and (n, channels) for more, and
        their rate in Hz: those of the recording that was encoded.

    Raises:
        SnacError: a named subclass: the file or the model cannot be used.
    """
    path = path_of("path", path)
    with open_input(path, error=ContainerError) as file:
        coded = loads(file, path=path)
    header = coded.header
    codec = _pool(model).for_file(header.model, header.fingerprint.hex())
    recording = coded.decode(codec)
    blocks = codec.decode(recording)
    samples = np.concatenate([np.zeros((0, recording.channels), np.float32), *blocks])
    return samples[:, 0] if recording.channels == 1 else samples, recording.rate


def write(
    path: str | Path,
    samples: npt.ArrayLike,
    rate: int,
    *,
    model: Model = DEFAULT_MODEL,
    overwrite: bool = True,
) -> int:
    """Encodes samples to a ``.snac`` file.

    Args:
        path: of the file, replaced if it exists (unless `overwrite` is False), whole or not at all.
        samples: floats, nominally -1 to 1, of shape (n,) or (n, channels); each channel is coded by itself.
            Integers are refused: their full scale is not known here.
        rate: in Hz, 1 to 768,000.
        model: see `Model`.
        overwrite: whether an existing file may be replaced.

    Returns:
        the size of the file in bytes.

    Raises:
        AudioError: the samples are not such an array, or hold NaN or infinite values.
        SnacError: a named subclass: the model cannot be used, or the file cannot be written.
    """
    path, array, rate = path_of("path", path), _checked_samples(samples), checked_rate(rate)
    check_output(path, overwrite=overwrite)
    codec = _pool(model).get()
    recording = codec.encode([array], rate, array.shape[1])
    return save(recording, codec, path, overwrite=overwrite)


def save(
    recording: Recording,
    codec: Codec,
    output: str | Path,
    *,
    source: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> int:
    """Writes a recording to a ``.snac`` file.

    Args:
        recording: of this model.
        codec: the model.
        output: ``-`` for standard output.
        source: that it was made from, which the output must not be.
        overwrite: whether an existing file may be replaced.
        progress: of the entropy coding.

    Returns:
        the size of the file in bytes.

    Raises:
        OutputError: the file cannot be written.
        PriorError: the model's prior cannot be read.
    """
    data = dumps(recording, codec.codebooks, prior=codec.prior, threads=codec.threads, progress=progress)
    with open_output(output, source=source, overwrite=overwrite) as file:
        file.write(data)
    return len(data)


def _checked_samples(samples: npt.ArrayLike) -> np.ndarray:
    """Returns samples as float32 (n, channels)."""
    try:
        array = np.asarray(samples)
    except (ValueError, TypeError, RuntimeError) as error:  # torch's own, of what it does not hand over
        raise AudioError(
            "samples are no array, or rows of several lengths; give (n,) or (n, channels)"
        ) from error
    if not np.issubdtype(array.dtype, np.floating) or array.ndim not in (1, 2):
        raise AudioError(f"samples are {array.dtype} {array.shape}; give floats (n,) or (n, channels)")
    table = array[:, None] if array.ndim == 1 else array
    if not 1 <= table.shape[1] <= MAX_CHANNELS:
        turned = "; transpose them" if 1 <= table.shape[0] <= MAX_CHANNELS else ""
        raise AudioError(
            f"samples of shape {array.shape} have {table.shape[1]} channels, not 1 to {MAX_CHANNELS}: give "
            f"(n,) or (n, channels){turned}"
        )
    return checked_block(table, table.shape[1])


def _pool(
    model: Model | None, device: str = "auto", threads: int | None = None, prior: WantedPrior = True
) -> ModelPool:
    if isinstance(model, ModelPool):
        return model
    return ModelPool(model, device=device, threads=threads, prior=prior)


def _note(coded: CodedRecording, codec: Codec) -> str:
    """Returns what a user should know of a file that was decoded all the same."""
    notes = [] if coded.damage is None else [str(coded.damage)]
    found = coded.header.fingerprint.hex()
    if found != codec.fingerprint:
        notes.append(f"decoded with other weights ({codec.fingerprint} instead of {found})")
    return "; ".join(notes)


def _beside(source: str | Path, extension: str) -> str | Path:
    """Returns the output beside a source, with another extension; a stream for a stream."""
    return source if is_stdio(source) else Path(source).with_suffix(extension)
