"""Takes each recording through each codec, takes the times and compares what comes out with what went in."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from snaccli import audio
from snaccli.bench.gallery import Gallery
from snaccli.bench.peers import Peer
from snaccli.bench.perceptual import Perceptual, load_packages
from snaccli.bench.results import BenchResult, FileResult, ratio
from snaccli.bench.subjects import ModelSubject, PeerSubject, Subject, Track, open_original
from snaccli.errors import AudioError, FileError, SnacError, UsageError
from snaccli.io import files
from snaccli.io.files import walk
from snaccli.measures import Comparison
from snaccli.progress import Progress, part
from snaccli.workers import interruption

__all__ = ["Tell", "find_recordings", "run"]

Tell = Callable[[float, str], None]
"""Called with the fraction done (0 to 1, never falling) and what is under way, as ``mini: speech.wav``."""


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
    """Encodes and decodes every recording with every codec, and measures.

    All models are loaded first, so that a wrong name costs no time. A recording that fails is recorded with
    its error and does not stop the rest.

    Args:
        inputs: see :func:`find_recordings`.
        models: names as ``snac encode -m`` takes them; repeats are dropped.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: number of threads on the CPU, None to let the codec choose.
        progress: called often, from this thread.
        against: codecs to measure beside the models; their programs must be there (``Peer.check``).
        levels: whether to decode each model's files from its coarsest 1, 2, … levels, too.
        gallery: filled with pictures and excerpts of some recordings, for a report.

    Returns:
        One result a model in the order given, then one a codec beside them.

    Raises:
        UsageError: see :func:`find_recordings`, or no model was named.
        ModelError: a model cannot be found or loaded.
    """
    from snaccli.codec import Codec

    paths = find_recordings(inputs)
    names = list(dict.fromkeys(models))
    if not names:
        raise UsageError("no model to measure: name one")
    tell = progress or (lambda fraction, what: None)
    tell(0.0, "loading")
    codecs = [Codec.load(name, device=device, threads=threads) for name in names]
    with tempfile.TemporaryDirectory(prefix="snac-bench-") as name:
        folder = Path(name)
        subjects: list[Subject] = [ModelSubject(codec, by_levels=levels) for codec in codecs]
        subjects += [PeerSubject(peer, folder) for peer in against]
        exhibits = 0 if gallery is None else min(gallery.count, len(paths))
        steps = _Steps(tell, len(paths) * len(subjects) + exhibits)
        bench = _Bench(subjects, folder, steps)
        bench.warm_up()
        results = bench.measure(paths, keep=gallery is not None)
        if gallery is not None:
            shelves = [(subject, bench.coded_by(number)) for number, subject in enumerate(subjects)]
            gallery.fill(paths, results, shelves, folder, steps.begin)
    tell(1.0, "done")
    return results


class _Steps:
    """Turns the progress of each of many equal steps, which it takes, into that of the whole run."""

    def __init__(self, tell: Tell, count: int) -> None:
        self._tell = tell
        self._count = max(1, count)
        self._begun = 0
        self._what = ""

    def begin(self, what: str) -> None:
        """The next step is under way, and those before it are done."""
        self._what = what
        self._tell(self._begun / self._count, what)
        self._begun += 1

    def started(self, seconds: float | None) -> None:
        """The length of a recording makes no difference here."""

    def __call__(self, fraction: float) -> None:
        """So much of the step under way is done."""
        self._tell((self._begun - 1 + fraction) / self._count, self._what)


class _Bench:
    """All codecs of a run, and the folder of their coded files and scratch files."""

    def __init__(self, subjects: Sequence[Subject], folder: Path, steps: _Steps) -> None:
        self._subjects = subjects
        self._folder = folder
        self._steps = steps

    def coded_by(self, subject: int) -> Callable[[int], Path]:
        """Returns where a codec's file of a recording lies, by the recording's number."""
        return lambda number: self._folder / f"coded-{subject}-{number}"

    def warm_up(self) -> None:
        """Has every codec do what only its first calls do, and imports what computes measures."""
        load_packages()
        for subject in self._subjects:
            subject.warm_up(self._folder)

    def measure(self, paths: Sequence[Path], *, keep: bool) -> list[BenchResult]:
        """Measures all recordings; the coded files, small as they are, stay if `keep`."""
        measured: list[list[tuple[FileResult, ...]]] = [[] for _ in self._subjects]
        for number, path in enumerate(paths):
            original: Track | FileResult
            try:
                original = open_original(path, self._folder / "original")
            except (SnacError, OSError) as error:
                original = _failed(path, error)
            for index, subject in enumerate(self._subjects):
                self._steps.begin(f"{subject.name}: {path.name}")
                coded = self.coded_by(index)(number)
                if isinstance(original, FileResult):
                    found = (original,) * len(subject.depths)
                else:
                    found = self._attempt(subject, path, original, coded)
                measured[index].append(found)
                if not keep:
                    coded.unlink(missing_ok=True)
        return [_result(subject, found) for subject, found in zip(self._subjects, measured, strict=True)]

    def _attempt(self, subject: Subject, path: Path, original: Track, coded: Path) -> tuple[FileResult, ...]:
        """Returns one result for each of the subject's depths, whatever happens."""
        try:
            encode_s = subject.encode(original, coded, part(self._steps, 0.0, 0.5))
            share = 0.5 / len(subject.depths)
            return tuple(
                self._decode(subject, path, original, coded, encode_s, depth, 0.5 + index * share, share)
                for index, depth in enumerate(subject.depths)
            )
        except Exception as error:  # even a defect must not cost the figures of a whole night
            if (interrupt := interruption(error)) is not None:
                raise interrupt from error
            return (_failed(path, error),) * len(subject.depths)

    def _decode(
        self,
        subject: Subject,
        path: Path,
        original: Track,
        coded: Path,
        encode_s: float,
        depth: int | None,
        start: float,
        share: float,
    ) -> FileResult:
        middle = start + 0.8 * share
        scratch = self._folder / "decoded"
        decoded, decode_s = subject.decode(coded, original, scratch, depth, part(self._steps, start, middle))
        figures = _compare(original, decoded, part(self._steps, middle, start + share))
        content, duration = subject.content(coded, depth), original.duration_s
        tokens = content.tokens
        return FileResult(
            path=str(path),
            duration_s=duration,
            bytes=content.bytes,
            bitrate_kbps=ratio(8 * content.bytes / 1000, duration),
            raw_bitrate_kbps=ratio(content.raw_bits * tokens / 1000, duration) if tokens else None,
            bits_per_token=ratio(8 * sum(level["bytes"] for level in content.levels), tokens or 0),
            **figures,
            encode_x_realtime=ratio(duration, encode_s),
            decode_x_realtime=ratio(duration, decode_s),
            tokens=tokens,
            encode_s=encode_s,
            decode_s=decode_s,
            levels=content.levels,
            note=original.note,
        )


def _result(subject: Subject, measured: Sequence[tuple[FileResult, ...]]) -> BenchResult:
    """Returns the result of all levels, with those of fewer levels as its parts."""
    whole, *parts = [
        BenchResult(
            subject.name, subject.fingerprint, subject.device, subject.threads, of_depth,
            kind=subject.kind, tool=subject.tool, levels=depth,
        )
        for depth, of_depth in zip(subject.depths, zip(*measured, strict=True), strict=True)
    ]  # fmt: skip
    return replace(whole, parts=tuple(parts))


def _compare(original: Track, decoded: Track, progress: Progress) -> dict[str, Any]:
    """Returns the measures of decoded samples against the original's."""
    if decoded.frames != original.frames:
        raise AudioError(
            f"the decoded audio differs in length from the recording ({decoded.frames} samples instead of "
            f"{original.frames}): they cannot be compared"
        )
    comparison, perceptual = Comparison(original.rate), Perceptual(original.rate)
    done = 0
    for reference in original.blocks():
        pair = reference, decoded.read(done, len(reference))[:, None]
        comparison.update(*pair)
        perceptual.update(*pair)
        done += len(reference)
        progress(done / original.frames)
    return {**asdict(comparison.result()), **perceptual.result()}


def _failed(path: Path, error: Exception) -> FileResult:
    trace = "".join(traceback.format_exception(error)).rstrip()
    located = isinstance(error, FileError) and error.path is not None
    return FileResult(str(path), error=_one_line(error), located=located, trace=trace)


def _one_line(error: Exception) -> str:
    """Returns what a record says of an error; torch says with RuntimeError what the device lacks."""
    text = files.cause(error) if isinstance(error, OSError) else str(error)
    if isinstance(error, MemoryError):
        text = "not enough memory: close other programs"
    elif not isinstance(error, (SnacError, OSError, RuntimeError)):
        text = f"this is a defect of snac: {type(error).__name__}: {text}"
    return files.shown(" ".join(text.split())) or type(error).__name__


def find_recordings(inputs: Sequence[str | Path]) -> list[Path]:
    """Returns the recordings to measure: each file once, in the order named, those of a folder sorted.

    Args:
        inputs: files, taken as named, and folders, walked for the extensions of audio files (see
            :func:`snaccli.io.files.walk` for what is left out); when empty, the recordings that a checkout
            ships in examples/audio are taken, else those in examples/audio of the current folder.

    Raises:
        UsageError: an input is ``-``, a folder holds no audio, or there is nothing to take by default.
    """
    if not inputs:
        return _shipped_recordings()
    found: dict[Path, None] = {}
    for given in inputs:
        if str(given) == "-":
            raise UsageError("bench cannot take standard input: name files or folders")
        path = Path(given)
        inside = _audio_files(path) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"no audio files in the folder {path}: name files, or a folder that holds some")
        found.update(dict.fromkeys(inside))
    return list(found)


def _audio_files(folder: Path) -> list[Path]:
    return [Path(found.path) for found in walk(folder, audio.is_audio_name)]


def _shipped_recordings() -> list[Path]:
    for base in (Path(__file__).resolve().parents[2], Path.cwd()):
        folder = base / "examples" / "audio"
        if folder.is_dir() and (found := _audio_files(folder)):
            return found
    raise UsageError("no recordings are shipped with this installation: name files or folders to measure")
