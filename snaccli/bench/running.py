"""Encodes and decodes each recording with each codec, takes the times and compares."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snaccli import audio
from snaccli.bench.gallery import Gallery
from snaccli.bench.peers import Peer
from snaccli.bench.perceptual import Perceptual
from snaccli.bench.recordings import find_recordings
from snaccli.bench.results import BenchResult, FileResult, ratio
from snaccli.bench.steps import Steps, Tell
from snaccli.bench.subjects import Encoded, ModelSubject, PeerSubject, Subject
from snaccli.errors import AudioError, SnacError, UsageError
from snaccli.io import files
from snaccli.measures import Comparison
from snaccli.progress import Progress

__all__ = ["run"]

Block = npt.NDArray[np.float32]
_LOG = logging.getLogger(__name__)


def run(
    inputs: Sequence[str | Path] = (),
    models: Sequence[str] = ("mini",),
    device: str = "auto",
    threads: int | None = None,
    progress: Tell | None = None,
    *,
    against: Sequence[Peer] = (),
    levels: bool = False,
    gallery: Gallery | None = None,
) -> list[BenchResult]:
    """Encode and decode every recording with every codec, and measure.

    All models are loaded first, so that a wrong name costs no time. A recording that fails is recorded with
    its error and does not stop the rest.

    Args:
        inputs: see :func:`find_recordings`.
        models: names as ``snac encode -m`` takes them; repeats are dropped.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: of the CPU, None to let the codec choose.
        progress: called often, from this thread.
        against: codecs to measure beside the models; their programs must be there (``Peer.check``).
        levels: decode each model's files from its coarsest 1, 2, … levels, too.
        gallery: filled with pictures and excerpts of some recordings, for a report.

    Returns:
        One result a model in the order given, then one a codec beside them.

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
    with tempfile.TemporaryDirectory(prefix="snac-bench-") as name:
        folder = Path(name)
        subjects: list[Subject] = [ModelSubject(codec, by_levels=levels) for codec in codecs]
        subjects += [PeerSubject(peer, folder) for peer in against]
        exhibits = 0 if gallery is None else min(gallery.count, len(paths))
        steps = Steps(report, len(paths) * len(subjects) + exhibits)
        benches = [_Bench(subject, folder / str(index), steps) for index, subject in enumerate(subjects)]
        results = [bench.measure(paths, keep=gallery is not None) for bench in benches]
        if gallery is not None:
            gallery.fill(paths, results, [(bench.subject, bench.coded) for bench in benches], folder, steps)
    report(1.0, "done")
    return results


class _Bench:
    """One subject and the folder of its coded files."""

    def __init__(self, subject: Subject, folder: Path, steps: Steps) -> None:
        self.subject = subject
        self._folder = folder
        self._steps = steps
        folder.mkdir()

    def coded(self, number: int) -> Path:
        return self._folder / f"{number}{self.subject.ending}"

    def measure(self, paths: Sequence[Path], *, keep: bool) -> BenchResult:
        """Measure all recordings; the coded files, small as they are, stay if `keep`."""
        subject = self.subject
        self._steps.begin(f"{subject.name}: warming up")
        subject.warm_up(self._folder)
        measured = []
        for number, path in enumerate(paths):
            self._steps.begin(f"{subject.name}: {path.name}")
            measured.append(self._measure_file(path, self.coded(number)))
            self._steps.end()
            if not keep:
                self.coded(number).unlink(missing_ok=True)
        whole, *parts = [
            BenchResult(
                subject.name, subject.fingerprint, subject.device, subject.threads, of_depth,
                kind=subject.kind, tool=subject.tool, levels=depth,
            )
            for depth, of_depth in zip(subject.depths, zip(*measured, strict=True), strict=True)
        ]  # fmt: skip
        return replace(whole, parts=tuple(parts))

    def _measure_file(self, path: Path, coded: Path) -> tuple[FileResult, ...]:
        """One result for each of the subject's depths."""
        depths = self.subject.depths
        try:
            encoded = self.subject.encode(path, coded, self._steps.stage(0.0, 0.5))
            share = 0.5 / len(depths)
            return tuple(
                self._decode_compare(path, coded, encoded, depth, 0.5 + index * share, share)
                for index, depth in enumerate(depths)
            )
        except Exception as error:  # even a defect must not cost the figures of a whole night
            _LOG.debug("%s failed", path, exc_info=True)
            return (FileResult(str(path), error=_one_line(error)),) * len(depths)

    def _decode_compare(
        self, path: Path, coded: Path, encoded: Encoded, depth: int | None, start: float, share: float
    ) -> FileResult:
        decoded = self._folder / "decoded.wav"
        middle = start + 0.8 * share
        decode_s = self.subject.decode(path, coded, decoded, depth, self._steps.stage(start, middle))
        figures = _compare(path, decoded, self._steps.stage(middle, start + share))
        content, duration = self.subject.content(coded, depth), encoded.duration_s
        tokens = content.tokens
        return FileResult(
            path=str(path),
            duration_s=duration,
            bytes=content.bytes,
            bitrate_kbps=ratio(8 * content.bytes / 1000, duration),
            raw_bitrate_kbps=ratio(content.raw_bits * tokens / 1000, duration) if tokens else None,
            bits_per_token=ratio(8 * sum(level["bytes"] for level in content.levels), tokens or 0),
            **figures,
            encode_x_realtime=ratio(duration, encoded.seconds),
            decode_x_realtime=ratio(duration, decode_s),
            tokens=tokens,
            encode_s=encoded.seconds,
            decode_s=decode_s,
            levels=content.levels,
            note=encoded.note,
        )


def _compare(path: Path, decoded: Path, tell: Progress) -> dict[str, Any]:
    """The measures of a decoded file against its original, both read block by block."""
    with audio.open_audio(path) as original, audio.open_audio(decoded) as copy:
        comparison, perceptual = Comparison(original.rate), Perceptual(original.rate)
        done = 0
        for pair in _aligned(audio.downmix(original.blocks()), copy.blocks()):
            comparison.update(*pair)
            perceptual.update(*pair)
            done += len(pair[0])
            tell(done / (original.expected_frames or done))
    return {**asdict(comparison.result()), **perceptual.result()}


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
