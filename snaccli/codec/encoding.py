"""A recording to a ``.snac`` file."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from snaccli import container, entropy
from snaccli.audio import downmix, open_audio
from snaccli.codec.model import Codec
from snaccli.codec.progress import CODING_SHARE, Progress, Report
from snaccli.codes import Codes
from snaccli.io.files import check_output, is_stdio, open_output
from snaccli.workers import read_ahead


@dataclass(frozen=True)
class EncodeResult:
    """What ``encode_file`` did: names, Hz, samples a channel, seconds, bytes, bits a second."""

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


def encode_file(
    source: str | Path,
    output: str | Path | None = None,
    *,
    model: str | Codec = "mini",
    channels: Literal["mono", "keep"] = "mono",
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EncodeResult:
    """Encodes a recording.

    Args:
        source: an audio file, ``-`` for standard input.
        output: ``-`` for standard output; by default beside the source with the ending ``.snac``.
        model: a name, Hub repository or folder, or a loaded codec.
        channels: ``mono`` mixes down, ``keep`` codes each channel by itself.
        device: where a model that is loaded here computes, see ``Codec.load``.
        threads: of it, likewise.
        overwrite: whether an existing output may be replaced.
        progress: called with the fraction done, 0 to 1.

    Raises:
        SnacError: a named subclass for whatever the user can mend; no output is left behind.
    """
    started = time.perf_counter()
    output = beside(source, ".snac") if output is None else output
    check_output(output, source=source, overwrite=overwrite)
    with open_audio(source) as reader, closing(read_ahead(reader.blocks())) as read:
        codec = model if isinstance(model, Codec) else Codec.load(model, device=device, threads=threads)
        mono = channels == "mono" and reader.channels > 1
        coded = 1 if mono else reader.channels
        report = Report(progress)
        blocks = report.blocks(read, reader.expected_frames, 0.0, 1 - CODING_SHARE)
        data, samples = encode_samples(
            codec, downmix(blocks) if mono else blocks, reader.rate, coded, report=report
        )
        notes = [f"{_channel_word(reader.channels)} downmixed to mono"] if mono else []
        notes += reader.notes
    with open_output(output, source=source, overwrite=overwrite) as file:
        file.write(data)
    report(1.0)
    duration = samples / reader.rate
    return EncodeResult(
        source=str(source),
        output=str(output),
        model=codec.name,
        fingerprint=codec.fingerprint,
        sample_rate=reader.rate,
        source_channels=reader.channels,
        channels=coded,
        samples=samples,
        duration_s=duration,
        bytes=len(data),
        bitrate_bps=8 * len(data) / duration if duration else 0.0,
        seconds=time.perf_counter() - started,
        note="; ".join(notes),
    )


def header_of(codec: Codec, codes: Codes, rate: int, samples: int) -> container.Header:
    """The header of a file.

    Args:
        codec: the model of the codes.
        codes: what the file will hold.
        rate: of the recording, Hz.
        samples: of it, a channel.

    Raises:
        ValueError: a value is beyond what the format holds.
    """
    return container.Header(
        model=codec.name,
        fingerprint=bytes.fromhex(codec.fingerprint),
        sample_rate=rate,
        model_rate=codec.rate,
        channels=codes.channels,
        samples=samples,
        frames=codes.frames,
        codebook_size=codes.codebook_size,
        strides=codes.strides,
    )


def encode_samples(
    codec: Codec, blocks: Iterable[np.ndarray], rate: int, channels: int, *, report: Report | None = None
) -> tuple[bytes, int]:
    """Samples to the bytes of a ``.snac`` file.

    Args:
        codec: the model.
        blocks: float32 arrays (n, channels), nominally -1 to 1.
        rate: of the blocks, Hz.
        channels: of every block, each coded by itself.
        report: gets the progress of the entropy coding.

    Returns:
        the file, and the number of samples a channel that went in.
    """
    codes, samples = codec.encode(blocks, rate, channels)
    header = header_of(codec, codes, rate, samples)
    progress = None if report is None else report.part(1 - CODING_SHARE, 1.0)
    return container.pack(header, entropy.encode(codes, codec.codebooks, progress=progress)), samples


def beside(source: str | Path, ending: str) -> str | Path:
    """The output beside a source, with another ending; a stream for a stream."""
    return source if is_stdio(source) else Path(source).with_suffix(ending)


def _channel_word(channels: int) -> str:
    return "stereo" if channels == 2 else f"{channels} channels"
