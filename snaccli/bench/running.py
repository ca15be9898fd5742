"""Encodes and decodes each recording with each model, takes the times and compares."""

from __future__ import annotations

import logging
import math
import tempfile
import time
import wave
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from snaccli import audio, container, files
from snaccli.bench.recordings import find_recordings
from snaccli.bench.results import BenchResult, FileResult, ratio
from snaccli.errors import AudioError, SnacError, UsageError
from snaccli.measures import Comparison, Figures

if TYPE_CHECKING:
    from snaccli.codec import Codec

__all__ = ["Progress", "run"]

Block = npt.NDArray[np.float32]
Progress = Callable[[float, str], None]
"""Called with the fraction done (0 to 1, never falling) and what is under way, as ``mini: speech.wav``."""

_WARM_UP_SECONDS = 2
_LOG = logging.getLogger(__name__)


def run(
    inputs: Sequence[str | Path] = (),
    models: Sequence[str] = ("mini",),
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[BenchResult]:
    """Encode and decode every recording with every model, and measure.

    All models are loaded first, so that a wrong name costs no time. A recording that fails is recorded with
    its error and does not stop the rest.

    Args:
        inputs: see :func:`find_recordings`.
        models: names as ``snac encode -m`` takes them; repeats are dropped.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: of the CPU, None to let the codec choose.
        progress: called often, from this thread.

    Returns:
        One result a model, in the order given.

    Raises:
        UsageError: see :func:`find_recordings`, or no model was named.
        ModelError: a model cannot be found or loaded.
    """
    from snaccli.codec import Codec  # brings torch

    paths = find_recordings(inputs)
    names = list(dict.fromkeys(models))
    if not names:
        raise UsageError("no model to measure: name one with -m")
    report = progress or (lambda fraction, what: None)
    report(0.0, "loading")
    codecs = [Codec.load(name, device=device, threads=threads) for name in names]
    results = []
    steps = len(paths) * len(codecs)
    with tempfile.TemporaryDirectory(prefix="snac-bench-") as folder:
        for index, codec in enumerate(codecs):
            report(index / len(codecs), f"{codec.name}: warming up")
            _warm_up(codec, Path(folder))
            measured = []
            for number, path in enumerate(paths):
                step = index * len(paths) + number
                measured.append(
                    _measure_file(path, codec, Path(folder), _Share(report, step, steps, codec.name))
                )
            results.append(
                BenchResult(codec.name, codec.fingerprint, str(codec.device), codec.threads, tuple(measured))
            )
    report(1.0, "done")
    return results


class _Share:
    """Turns the progress of one recording's stages, each from 0 to 1, into that of the whole run."""

    def __init__(self, report: Progress, step: int, steps: int, model: str) -> None:
        self._report = report
        self._step = step
        self._steps = steps
        self._model = model

    def stage(self, path: Path, start: float, end: float) -> Callable[[float], None]:
        def tell(fraction: float) -> None:
            within = start + (end - start) * min(1.0, max(0.0, fraction))
            self._report((self._step + within) / self._steps, f"{self._model}: {path.name}")

        return tell


def _warm_up(codec: Codec, folder: Path) -> None:
    """Code two seconds of quiet noise once: first calls allocate, compile and fill caches."""
    from snaccli.codec import decode_file, encode_file

    noise = np.random.default_rng(0).normal(0.0, 1000.0, codec.rate * _WARM_UP_SECONDS).astype("<i2")
    source, coded, decoded = (
        folder / name for name in ("warm-up.wav", "warm-up.snac", "warm-up-decoded.wav")
    )
    with wave.open(str(source), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(codec.rate)
        file.writeframes(noise.tobytes())
    encode_file(source, coded, model=codec, overwrite=True)
    decode_file(coded, decoded, model=codec, overwrite=True)


def _measure_file(path: Path, codec: Codec, folder: Path, share: _Share) -> FileResult:
    coded, decoded = folder / "coded.snac", folder / "decoded.wav"
    try:
        return _encode_decode_compare(path, codec, coded, decoded, share)
    except Exception as error:  # even a defect must not cost the figures of a whole night
        _LOG.debug("%s failed", path, exc_info=True)
        return FileResult(str(path), error=_one_line(error))


def _encode_decode_compare(path: Path, codec: Codec, coded: Path, decoded: Path, share: _Share) -> FileResult:
    from snaccli.codec import decode_file, encode_file

    began = time.perf_counter()
    encoding = encode_file(
        path, coded, model=codec, channels="mono", overwrite=True, progress=share.stage(path, 0.0, 0.5)
    )
    encode_s = time.perf_counter() - began
    began = time.perf_counter()
    decode_file(coded, decoded, model=codec, overwrite=True, progress=share.stage(path, 0.5, 0.9))
    decode_s = time.perf_counter() - began

    with coded.open("rb") as file:
        layout = container.read_header(file)
    described = container.describe(layout)
    levels = tuple(described["levels"])
    tokens = sum(level["tokens"] for level in levels)
    duration, size = encoding.duration_s, coded.stat().st_size
    figures = _compare(path, decoded, share.stage(path, 0.9, 1.0))
    return FileResult(
        path=str(path),
        duration_s=duration,
        bytes=size,
        bitrate_kbps=ratio(8 * size / 1000, duration),
        raw_bitrate_kbps=ratio(math.log2(layout.header.codebook_size) * tokens / 1000, duration),
        bits_per_token=ratio(8 * sum(level["bytes"] for level in levels), tokens),
        **asdict(figures),
        encode_x_realtime=ratio(duration, encode_s),
        decode_x_realtime=ratio(duration, decode_s),
        tokens=tokens,
        encode_s=encode_s,
        decode_s=decode_s,
        levels=levels,
        note=encoding.note,
    )


def _compare(path: Path, decoded: Path, tell: Callable[[float], None]) -> Figures:
    """The measures of a decoded file against its original, both read block by block."""
    with audio.open_audio(path) as original, audio.open_audio(decoded) as copy:
        comparison = Comparison(original.rate)
        done = 0
        for pair in _aligned(audio.downmix(original.blocks()), copy.blocks()):
            comparison.update(*pair)
            done += len(pair[0])
            tell(done / (original.expected_frames or done))
    return comparison.result()


def _aligned(reference: Iterable[Block], decoded: Iterable[Block]) -> Iterator[tuple[Block, Block]]:
    """Cut two streams of blocks (n, channels) at the same places.

    Raises:
        AudioError: one stream is longer than the other.
    """
    streams = iter(reference), iter(decoded)
    blocks: list[Block | None] = [None, None]
    while True:
        for side, stream in enumerate(streams):
            while (block := blocks[side]) is None or not len(block):
                blocks[side] = next(stream, None)
                if blocks[side] is None:
                    break
        first, second = blocks
        if first is None and second is None:
            return
        if first is None or second is None:
            raise AudioError(
                "the decoded audio differs in length from the recording: they cannot be compared"
            )
        length = min(len(first), len(second))
        yield first[:length], second[:length]
        blocks = [first[length:], second[length:]]


def _one_line(error: Exception) -> str:
    """What a record says of an error; torch says with RuntimeError what the device lacks."""
    text = files.cause(error) if isinstance(error, OSError) else str(error)
    if isinstance(error, MemoryError):
        text = "not enough memory: close other programs"
    elif not isinstance(error, (SnacError, OSError, RuntimeError)):
        text = f"this is a defect of snac: {type(error).__name__}: {text}"
    return files.shown(" ".join(text.split())) or type(error).__name__
