"""The stages put together: a recording to a ``.snac`` file, and back.

    audio blocks -> downmix, resample -> tiles -> codes -> coded streams -> container -> file

and the same way back. The recording is never held as a whole; its codes, two bytes each, are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from snac.hub import locate
from snac.registry import MODELS
from snac.snac import SNAC
from snac.tiles import decode_tiles, encode_tiles

from . import container, entropy
from .audio import (
    AudioWriter,
    downmix,
    fit,
    open_audio,
    resample,
    resample_start,
    resampled_length,
)
from .codes import Codes
from .errors import ContainerError, ModelError, ModelMismatchError, UsageError
from .files import check_output, is_stdio, open_input, open_output, shown

Progress = Callable[[float], None]

_CODING_SHARE = 0.1  # of the progress: entropy coding, next to the model's work


class Codec:
    """A model ready to code: folded, on its device.

    Safe to share between threads.

    Attributes:
        name: what files call the model.
        fingerprint: 16 hex digits of its weights.
        rate: of the audio it codes, Hz.
        hop_length: samples a latent frame.
        strides: latent frames a token of each level, coarse to fine.
        codebook_size: codewords a level.
        device: where it computes, ``cpu``, ``cuda`` or ``mps``.
        threads: of torch on the CPU.
    """

    def __init__(self, model: SNAC, name: str, *, device: str = "cpu") -> None:
        self.name = name
        self.fingerprint = model.fingerprint()
        self.config = model.config
        self.rate = model.config.sampling_rate
        self.hop_length = model.config.hop_length
        self.strides = model.config.vq_strides
        self.codebook_size = model.config.codebook_size
        self.device = device
        self.threads = torch.get_num_threads()
        self.codebooks = [
            level.codebook.weight.detach().numpy().copy()  # type: ignore[union-attr]
            for level in model.quantizer.quantizers
        ]
        self.model = model.fold().to(device)

    @classmethod
    def load(cls, model: str = "mini", *, device: str = "auto", threads: int | None = None) -> Codec:
        """Loads a model by name, Hub repository or folder (see ``SNAC.from_pretrained``).

        Args:
            model: which one.
            device: ``auto`` takes CUDA, else MPS, else the CPU.
            threads: of torch on the CPU, for the whole process; None for torch's choice.

        Raises:
            ModelError: the model cannot be had or is damaged.
            UsageError: there is no such device here.
        """
        chosen = _device(device)
        if threads is not None:
            torch.set_num_threads(max(1, threads))
        files = locate(model)
        return cls(SNAC.from_pretrained(model), files.name, device=chosen)

    def encode(self, blocks: Iterable[np.ndarray], rate: int, channels: int) -> tuple[Codes, int]:
        """Audio to codes; each channel is coded by itself.

        Args:
            blocks: float32 arrays (n, channels), nominally -1 to 1.
            rate: of the blocks, Hz.
            channels: of every block.

        Returns:
            the codes, and the number of samples a channel that went in.
        """
        count = 0

        def counted() -> Iterator[np.ndarray]:
            nonlocal count
            for block in blocks:
                count += len(block)
                yield block

        resampled = resample(counted(), rate, self.rate, channels)
        tensors = (torch.from_numpy(np.ascontiguousarray(block.T)) for block in resampled)
        tiles: list[list[np.ndarray]] = [[] for _ in self.strides]
        for codes in encode_tiles(self.model, tensors, channels):
            for level, code in zip(tiles, codes, strict=True):
                level.append(code.numpy().astype(np.uint16))
        empty = np.zeros((channels, 0), dtype=np.uint16)
        levels = tuple(np.concatenate([empty, *level], axis=1) for level in tiles)
        return Codes(levels, self.strides, self.codebook_size), count

    def decode(
        self, codes: Codes, *, seed: int | None = 0, start: int = 0, stop: int | None = None
    ) -> Iterator[np.ndarray]:
        """Codes to audio at the model's rate.

        Args:
            codes: all levels of this model or the coarsest ones.
            seed: of the decoder's noise, None for none.
            start: first sample wanted.
            stop: sample to stop before; by default the end of the codes.

        Yields:
            float32 arrays (n, channels), in -1 to 1.

        Raises:
            ModelMismatchError: the codes are of another kind of model.
        """
        if codes.strides != self.strides[: len(codes.strides)] or codes.codebook_size > self.codebook_size:
            raise ModelMismatchError(
                f"codes of strides {list(codes.strides)} and {codes.codebook_size} codewords are not of the "
                f"model {self.name} ({list(self.strides)}, {self.codebook_size}); name their own model with -m"
            )
        total = codes.frames * self.hop_length
        stop = total if stop is None else min(stop, total)
        first = start // self.hop_length
        levels = [torch.from_numpy(level.astype(np.int32)) for level in codes.levels]
        tiles = decode_tiles(self.model, levels, start=first, stop=-(-stop // self.hop_length), seed=seed)
        blocks = (_block(tile) for tile in tiles)
        yield from _cut(blocks, start - first * self.hop_length, stop - start, codes.channels)


def _block(tile: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tile.numpy().T)


def _device(wanted: str) -> str:
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if wanted == "auto":
        return next(name for name, present in available.items() if present())
    if wanted not in available or not available[wanted]():
        raise UsageError(f"device {wanted!r} is not available here; use cpu or auto")
    return wanted


def _cut(blocks: Iterable[np.ndarray], skip: int, frames: int, channels: int) -> Iterator[np.ndarray]:
    """``frames`` samples of a stream, after the first ``skip``."""

    def rest() -> Iterator[np.ndarray]:
        left = skip
        for block in blocks:
            yield block[left:]
            left = max(0, left - len(block))

    return fit(rest(), frames, channels)


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


def encode_file(
    source: str | Path,
    output: str | Path | None = None,
    *,
    model: str | Codec = "mini",
    channels: Literal["mono", "keep"] = "mono",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EncodeResult:
    """Encodes a recording.

    Args:
        source: an audio file, ``-`` for standard input.
        output: ``-`` for standard output; by default beside the source with the ending ``.snac``.
        model: a name, Hub repository or folder, or a loaded codec.
        channels: ``mono`` mixes down, ``keep`` codes each channel by itself.
        overwrite: whether an existing output may be replaced.
        progress: called with the fraction done, 0 to 1.

    Raises:
        SnacError: a named subclass for whatever the user can mend; no output is left behind.
    """
    started = time.perf_counter()
    report = _Report(progress)
    output = _beside(source, ".snac") if output is None else output
    check_output(output, source=source, overwrite=overwrite)
    codec = model if isinstance(model, Codec) else Codec.load(model)
    with open_audio(source) as reader:
        mono = channels == "mono"
        coded = 1 if mono else reader.channels
        blocks = report.blocks(reader.blocks(), reader.expected_frames, 0.0, 1 - _CODING_SHARE)
        codes, samples = codec.encode(downmix(blocks) if mono else blocks, reader.rate, coded)
        notes = list(reader.notes)
    if mono and reader.channels > 1:
        notes.insert(0, f"{_channel_word(reader.channels)} downmixed to mono")
    header = container.Header(
        model=codec.name,
        fingerprint=bytes.fromhex(codec.fingerprint),
        sample_rate=reader.rate,
        model_rate=codec.rate,
        channels=coded,
        samples=samples,
        frames=codes.frames,
        codebook_size=codes.codebook_size,
        strides=codes.strides,
    )
    streams = entropy.encode(codes, codec.codebooks, progress=report.part(1 - _CODING_SHARE, 1.0))
    data = container.pack(header, streams)
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
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DecodeResult:
    """Decodes a ``.snac`` file.

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
        overwrite: whether an existing output may be replaced.
        progress: called with the fraction done, 0 to 1.

    Raises:
        SnacError: a named subclass for whatever the user can mend; no output is left behind.
    """
    started = time.perf_counter()
    report = _Report(progress)
    if output is None:
        output = _beside(source, "." + (audio_format or "wav").lstrip("."))
    check_output(output, source=source, overwrite=overwrite)
    with open_input(source, error=ContainerError) as file:
        layout, streams, damage = container.unpack(file, salvage=salvage)
    header = layout.header
    used = _levels(levels, header.levels, len(streams) // header.channels)
    out_rate = header.sample_rate if rate == "original" else header.model_rate
    length = header.samples
    if rate == "model":
        length = resampled_length(header.samples, header.sample_rate, header.model_rate)
    first, count = _span(start, duration, out_rate, length, shown(source))
    codec = model if isinstance(model, Codec) else Codec.load(model or _named_model(header.model))
    note = _check_weights(codec, header, any_weights)
    _check_length(codec, header)
    codes = entropy.decode(
        streams[: used * header.channels],
        strides=header.strides,
        channels=header.channels,
        frames=header.frames,
        codebook_size=header.codebook_size,
        codebooks=codec.codebooks,
        progress=report.part(0.0, _CODING_SHARE),
    )
    begin, skip = resample_start(first, codec.rate, out_rate)
    # The resampler reaches beyond the last wanted sample, too: 128 periods of the lower rate will do.
    beyond = 128 * max(1, -(-codec.rate // out_rate))
    end = resampled_length(first + count, out_rate, codec.rate) + beyond
    decoded = codec.decode(codes, seed=seed if noise else None, start=begin, stop=end)
    samples = _cut(resample(decoded, codec.rate, out_rate, header.channels), skip, count, header.channels)
    with AudioWriter(
        output,
        out_rate,
        header.channels,
        frames=count,
        audio_format=audio_format,
        source=source,
        overwrite=overwrite,
    ) as writer:
        for block in report.blocks(samples, count, _CODING_SHARE, 1.0):
            writer.write(block)
    report(1.0)
    return DecodeResult(
        source=str(source),
        output=str(output),
        model=codec.name,
        sample_rate=out_rate,
        channels=header.channels,
        samples=count,
        duration_s=count / out_rate,
        levels=used,
        note="; ".join(text for text in (str(damage) if damage else "", note) if text),
        seconds=time.perf_counter() - started,
    )


def _beside(source: str | Path, ending: str) -> str | Path:
    return source if is_stdio(source) else Path(source).with_suffix(ending)


def _levels(wanted: int | None, in_file: int, intact: int) -> int:
    if wanted is None:
        return intact
    if not 1 <= wanted <= in_file:
        raise UsageError(f"--levels {wanted}: the file has {in_file} levels; choose 1 to {in_file}")
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
        raise ModelError(f"the file was made with the model {name!r}; name it, or its folder, with -m")
    return name


def _check_weights(codec: Codec, header: container.Header, any_weights: bool) -> str:
    """Compares fingerprints; returns a note if they differ and that was allowed."""
    found = header.fingerprint.hex()
    if found == codec.fingerprint:
        return ""
    if not any_weights:
        raise ModelMismatchError(
            f"the file was made with {header.model!r} of fingerprint {found}, the model {codec.name!r} here has "
            f"{codec.fingerprint}; name the right model with -m, or force it with --any-weights"
        )
    return f"decoded with other weights ({codec.fingerprint} instead of {found})"


def _check_length(codec: Codec, header: container.Header) -> None:
    """A file's claimed length must be that of its codes: it decides how much is written."""
    at_model = resampled_length(header.samples, header.sample_rate, header.model_rate)
    frames = -(-at_model // codec.config.pad_multiple) * codec.config.frame_alignment
    if header.model_rate != codec.rate or frames != header.frames:
        raise ContainerError(
            f"the file claims {header.samples} samples at {header.sample_rate} Hz in {header.frames} frames, "
            f"which do not belong together with the model {codec.name!r}; get the file again"
        )


def _channel_word(channels: int) -> str:
    return "stereo" if channels == 2 else f"{channels} channels"


class _Report:
    """Fractions of the whole from progress of its parts; never goes back."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._last = 0.0

    def __call__(self, fraction: float) -> None:
        if self._progress is not None and fraction > self._last:
            self._last = min(fraction, 1.0)
            self._progress(self._last)

    def part(self, low: float, high: float) -> Progress:
        """A callback whose 0 to 1 is ``low`` to ``high`` of the whole."""
        return lambda fraction: self(low + (high - low) * fraction)

    def blocks(
        self, blocks: Iterable[np.ndarray], expected: int | None, low: float, high: float
    ) -> Iterator[np.ndarray]:
        """Passes blocks on, reporting how many of ``expected`` samples have gone by."""
        advance, done = self.part(low, high), 0
        for block in blocks:
            yield block
            done += len(block)
            if expected:
                advance(min(done / expected, 1.0))
