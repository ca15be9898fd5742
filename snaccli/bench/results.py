"""What a bench found: the figures, of one recording and of one codec over many, and both as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from snaccli.io.files import shown

__all__ = [
    "FIGURES",
    "MEASURES",
    "RESAMPLES",
    "WORST",
    "BenchResult",
    "Figure",
    "FileResult",
    "Interval",
    "flat",
    "interval",
    "ranking",
    "ratio",
    "short_names",
    "to_csv",
    "to_json",
]

Interval = tuple[float, float]

RESAMPLES = 2000
"""Bootstrap samples an interval rests on."""

WORST = 3
"""Recordings that are named as the worst ones."""

_BATCH_VALUES = 1 << 20  # indices drawn at once


@dataclass(frozen=True)
class Figure:
    """One figure of a recording.

    Attributes:
        key: the key under which a file of ``snac bench --json`` holds it.
        name: the name in running text and over a column.
        unit: the unit, empty where there is none.
        decimals: the number of decimals worth showing.
        better: which way is better, empty where the figure only describes.
        meaning: one sentence for a reader who does not know it.
    """

    key: str
    name: str
    unit: str
    decimals: int
    better: Literal["", "higher", "lower"]
    meaning: str

    def text(self, value: float | None, absent: str = "-") -> str:
        """Returns the value with the decimals worth showing."""
        return absent if value is None else f"{value:.{self.decimals}f}"


FIGURES = (
    Figure("duration_s", "length", "s", 1, "", "Of the recording."),
    Figure(
        "bitrate_kbps", "rate", "kbit/s", 2, "lower", "Eight bits a byte of the whole file over its length."
    ),
    Figure("raw_bitrate_kbps", "raw rate", "kbit/s", 2, "", "The same tokens, packed, without a container."),
    Figure("bits_per_token", "bits/token", "", 2, "lower", "Of the coded streams, without the container."),
    Figure("snr_db", "SNR", "dB", 1, "higher", "Signal-to-noise ratio of the waveform."),
    Figure("si_sdr_db", "SI-SDR", "dB", 1, "higher", "The same, whatever the volume."),
    Figure(
        "mel_distance", "mel", "dB", 1, "lower", "Mean difference of log-mel spectra, near to what one hears."
    ),
    Figure("lsd_db", "LSD", "dB", 1, "lower", "Log-spectral distance; a missing high band weighs heavily."),
    Figure("stoi", "STOI", "", 2, "higher", "Intelligibility of speech, 0 to 1 (Taal et al. 2011)."),
    Figure("pesq", "PESQ", "", 2, "higher", "Quality of speech, 1 to 4.6 (ITU-T P.862.2, wide band)."),
    Figure("encode_x_realtime", "encode", "x", 1, "higher", "Length over the time it took."),
    Figure("decode_x_realtime", "decode", "x", 1, "higher", "Length over the time it took."),
)
"""In the order of every table."""

MEASURES = tuple(
    figure
    for figure in FIGURES
    if figure.key in ("snr_db", "si_sdr_db", "mel_distance", "lsd_db", "stoi", "pesq")
)
"""The figures of quality."""


def interval(numerators: Sequence[float], denominators: Sequence[float]) -> Interval | None:
    """Returns the 95 % percentile bootstrap interval of sum(numerators) / sum(denominators) over recordings.

    Recordings are drawn with replacement, `RESAMPLES` times; ones as denominators make it that of a plain
    mean. The draw is seeded, so that the same figures give the same interval. Source: Efron and Tibshirani,
    An Introduction to the Bootstrap, 1993, section 13.3.

    Args:
        numerators: one number a recording.
        denominators: as many, none negative.

    Returns:
        (low, high), or None for fewer than two recordings or denominators that may sum to 0: one recording
        says nothing of others.
    """
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    count = len(above)
    if count < 2 or not (below > 0).all():
        return None
    generator = np.random.default_rng(0)
    batch = max(1, _BATCH_VALUES // count)
    quotients = []
    for first in range(0, RESAMPLES, batch):
        drawn = generator.integers(0, count, (min(batch, RESAMPLES - first), count))
        quotients.append(above[drawn].sum(axis=1) / below[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(quotients), (2.5, 97.5))
    return float(low), float(high)


@dataclass(frozen=True)
class FileResult:
    """One recording through one codec. Figures are None where they are undefined, all of them if it failed.

    Attributes:
        path: the path of the original recording, as it was found.
        duration_s: length of the recording, seconds.
        bytes: size of the whole coded file; where only the coarsest levels are used, without the finer ones.
        bitrate_kbps: 8 * bytes / duration, in 1000 bit/s.
        raw_bitrate_kbps: log2(codebook size) bits a token, without container, in 1000 bit/s.
        bits_per_token: bits of the coded streams, without container, over the number of tokens. Other codecs
            have no tokens: these two are None.
        snr_db, si_sdr_db, mel_distance, lsd_db: see :mod:`snaccli.measures`; against the original, downmixed
            to mono as it was coded, at the original rate.
        stoi, pesq: see :mod:`snaccli.bench.perceptual`; None without the extra ``snaccli[metrics]``.
        encode_x_realtime, decode_x_realtime: duration over the wall-clock seconds from samples to the bytes
            of the coded file, and back.
        tokens: number of tokens of all streams.
        encode_s, decode_s: the wall-clock seconds.
        levels: the coded streams as ``snac info --json`` lists them.
        note: what encoding has to say, such as a downmix.
        error: why the recording failed, on one line; None if it did not.
        located: whether the error names the recording itself; left out of JSON and CSV.
        trace: the traceback of the error, for reports of defects; left out likewise.
    """

    path: str
    duration_s: float | None = None
    bytes: int | None = None
    bitrate_kbps: float | None = None
    raw_bitrate_kbps: float | None = None
    bits_per_token: float | None = None
    snr_db: float | None = None
    si_sdr_db: float | None = None
    mel_distance: float | None = None
    lsd_db: float | None = None
    stoi: float | None = None
    pesq: float | None = None
    encode_x_realtime: float | None = None
    decode_x_realtime: float | None = None
    tokens: int | None = None
    encode_s: float | None = None
    decode_s: float | None = None
    levels: tuple[dict[str, Any], ...] = ()
    note: str = ""
    error: str | None = None
    located: bool = field(default=False, repr=False, compare=False)
    trace: str = field(default="", repr=False, compare=False)

    @property
    def failure(self) -> str:
        """The error led by the path, unless it names it already; empty if there is none."""
        return (
            "" if self.error is None else self.error if self.located else f"{shown(self.path)}: {self.error}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the object that stands for this recording in JSON."""
        return {key: value for key, value in asdict(self).items() if key not in ("located", "trace")}


@dataclass(frozen=True)
class BenchResult:
    """All recordings through one codec.

    Attributes:
        model: what to call the codec: the model's name, or such as ``opus:6``.
        fingerprint: fingerprint of the weights, 16 hex digits; empty for other codecs.
        device: where it ran, as ``cpu``.
        threads: number of threads that computed each recording.
        files: one result a recording.
        kind: ``model``, or ``peer`` for a codec measured beside the models.
        tool: the program that coded, with its version, where that is another one.
        levels: how many of the coarsest levels were decoded, None for all.
        parts: the same encoding decoded from fewer levels, coarsest first.
    """

    model: str
    fingerprint: str
    device: str
    threads: int
    files: tuple[FileResult, ...] = ()
    kind: Literal["model", "peer"] = "model"
    tool: str = ""
    levels: int | None = None
    parts: tuple[BenchResult, ...] = ()

    @property
    def label(self) -> str:
        """The name, and the number of levels where not all were used."""
        if self.levels is None:
            return self.model
        return f"{self.model}, {self.levels} level{'s' * (self.levels > 1)}"

    @property
    def failed(self) -> tuple[FileResult, ...]:
        """The recordings that failed."""
        return tuple(file for file in self.files if file.error is not None)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Averages over the recordings that did not fail, under the keys of a file.

        Rates are those of all recordings joined to one: ``bitrate_kbps`` and ``raw_bitrate_kbps`` weighted by
        duration, ``bits_per_token`` by tokens, the speeds total duration over total seconds.
        ``duration_s``, ``bytes`` and the measures are plain means over the recordings where they are
        defined. None where there is nothing to average. Further keys: ``files``, ``failed`` (counts),
        ``total_duration_s``, ``total_bytes``, ``tokens``; ``confidence``, see :attr:`confidence`.
        """
        done = self._done
        duration, size, tokens = (_total(done, key) for key in ("duration_s", "bytes", "tokens"))
        raw = sum((file.raw_bitrate_kbps or 0.0) * (file.duration_s or 0.0) for file in done)
        coded = sum(level["bytes"] for file in done for level in file.levels)
        return {
            "duration_s": _mean(done, "duration_s"),
            "bytes": _mean(done, "bytes"),
            "bitrate_kbps": ratio(8 * size / 1000, duration),
            "raw_bitrate_kbps": ratio(raw, duration) if tokens else None,
            "bits_per_token": ratio(8 * coded, tokens),
            **{figure.key: _mean(done, figure.key) for figure in MEASURES},
            "encode_x_realtime": ratio(duration, _total(done, "encode_s")),
            "decode_x_realtime": ratio(duration, _total(done, "decode_s")),
            "files": len(done),
            "failed": len(self.failed),
            "total_duration_s": duration,
            "total_bytes": int(size),
            "tokens": int(tokens),
            "confidence": self.confidence,
        }

    @cached_property
    def confidence(self) -> dict[str, Interval | None]:
        """95 % intervals (low, high) of averages in :attr:`summary`, by bootstrap over the recordings.

        For the two bit rates and the measures; None where there are fewer than two recordings.
        """
        done = self._done
        found: dict[str, Interval | None] = {
            "bitrate_kbps": interval(
                [8 * (file.bytes or 0) / 1000 for file in done], [file.duration_s or 0.0 for file in done]
            ),
            "bits_per_token": interval(
                [8 * sum(level["bytes"] for level in file.levels) for file in done],
                [file.tokens or 0 for file in done],
            ),
        }
        for figure in MEASURES:
            values = _defined(done, figure.key)
            found[figure.key] = interval(values, [1.0] * len(values))
        return found

    def by_level(self) -> list[dict[str, Any]]:
        """Returns what each level of the codes costs, coarse to fine, over all recordings that did not fail.

        Keys: ``stride``, ``tokens``, ``bytes``, ``bits_per_token`` (None without tokens), ``bitrate_kbps``.
        """
        duration = _total(self._done, "duration_s")
        rows: dict[int, list[int]] = {}
        for file in self._done:
            for level in file.levels:
                row = rows.setdefault(level["stride"], [0, 0])
                row[0] += level["tokens"]
                row[1] += level["bytes"]
        return [
            {
                "stride": stride,
                "tokens": tokens,
                "bytes": size,
                "bits_per_token": ratio(8 * size, tokens),
                "bitrate_kbps": ratio(8 * size / 1000, duration),
            }
            for stride, (tokens, size) in sorted(rows.items(), reverse=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns the object of ``snac bench --json``: model, device, threads, files, summary, and more."""
        found: dict[str, Any] = {
            "model": self.model,
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "tool": self.tool,
            "device": self.device,
            "threads": self.threads,
            "files": [file.to_dict() for file in self.files],
            "summary": self.summary,
            "by_level": self.by_level(),
        }
        if self.parts:
            found["by_levels_used"] = [
                {
                    "levels": part.levels,
                    "files": [file.to_dict() for file in part.files],
                    "summary": part.summary,
                }
                for part in self.parts
            ]
        return found

    @property
    def _done(self) -> list[FileResult]:
        return [file for file in self.files if file.error is None]


def flat(results: Sequence[BenchResult]) -> list[BenchResult]:
    """Returns every result led by its parts of fewer levels: coarsest first, the whole last."""
    return [each for result in results for each in (*result.parts, result)]


def _total(files: Iterable[FileResult], key: str) -> float:
    return float(sum(getattr(file, key) or 0 for file in files))


def _defined(files: Iterable[FileResult], key: str) -> list[float]:
    return [value for file in files if (value := getattr(file, key)) is not None]


def _mean(files: Iterable[FileResult], key: str) -> float | None:
    values = _defined(files, key)
    return sum(values) / len(values) if values else None


def ratio(numerator: float, denominator: float) -> float | None:
    """Returns the quotient, or None where the denominator is not above 0."""
    return numerator / denominator if denominator > 0 else None


def ranking(files: Sequence[FileResult]) -> list[int]:
    """Returns the numbers of the recordings, the greatest mel distance first; failed ones are left out.

    The mel distance is always there, and of the measures that are the nearest to what one hears.
    """
    distances = {number: file.mel_distance for number, file in enumerate(files)}
    known = {number: distance for number, distance in distances.items() if distance is not None}
    return sorted(known, key=lambda number: -known[number])


def short_names(paths: Sequence[str]) -> list[str]:
    """Returns the paths without the folders that all of them share, fit to be shown."""
    parents = [Path(path).parent.parts for path in paths]
    shared = 0
    while parents and all(len(p) > shared and p[shared] == parents[0][shared] for p in parents):
        shared += 1
    return [shown(str(Path(*Path(path).parts[shared:]))) for path in paths]


_CSV_COLUMNS = ("model", "levels", "path", "bytes", *(figure.key for figure in FIGURES), "error")


def to_json(results: Sequence[BenchResult]) -> str:
    """Returns JSON text: an object for one model, a list of them for several; null for NaN and infinity."""
    objects = [result.to_dict() for result in results]
    return json.dumps(objects[0] if len(objects) == 1 else objects, indent=2, allow_nan=False)


def to_csv(results: Sequence[BenchResult]) -> str:
    """Returns CSV text (RFC 4180 quoting, LF line ends): a header, then a row per codec and recording.

    Columns are keys of a file, led by the codec and the number of levels decoded, empty for all; an undefined
    figure is an empty field.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for result in flat(results):
        for file in result.files:
            row = {
                **file.to_dict(), "model": result.model, "levels": result.levels, "path": shown(file.path)
            }  # fmt: skip
            writer.writerow(["" if row[key] is None else row[key] for key in _CSV_COLUMNS])
    return text.getvalue()
