"""The figures of one recording, of one model over many, and their averages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from snaccli.files import shown

__all__ = ["BenchResult", "FileResult", "ratio"]


@dataclass(frozen=True)
class FileResult:
    """One recording through one model. Figures are None where they are undefined, all of them if it failed.

    Attributes:
        path: as found, to the original recording.
        duration_s: of the recording, seconds.
        bytes: of the whole ``.snac`` file.
        bitrate_kbps: 8 * bytes / duration, in 1000 bit/s.
        raw_bitrate_kbps: log2(codebook size) bits a token, without container, in 1000 bit/s.
        bits_per_token: bits of the coded streams, without container, over the number of tokens.
        snr_db, si_sdr_db, mel_distance, lsd_db: see :mod:`snaccli.measures`; against the original, downmixed
            to mono as it was coded, at the original rate.
        encode_x_realtime, decode_x_realtime: duration over wall-clock seconds, reading and writing included.
        tokens: of all streams.
        encode_s, decode_s: wall-clock seconds.
        levels: the coded streams as ``snac info --json`` lists them.
        note: what encoding has to say, such as a downmix.
        error: one line, if the recording failed.
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
    encode_x_realtime: float | None = None
    decode_x_realtime: float | None = None
    tokens: int | None = None
    encode_s: float | None = None
    decode_s: float | None = None
    levels: tuple[dict[str, Any], ...] = ()
    note: str = ""
    error: str | None = None

    @property
    def failure(self) -> str:
        """The error led by the path, unless it names it already; empty if there is none."""
        name = shown(self.path)
        return "" if self.error is None else self.error if name in self.error else f"{name}: {self.error}"


@dataclass(frozen=True)
class BenchResult:
    """All recordings through one model."""

    model: str
    fingerprint: str
    device: str
    threads: int
    files: tuple[FileResult, ...] = field(default=())

    @property
    def failed(self) -> tuple[FileResult, ...]:
        """The recordings that failed."""
        return tuple(file for file in self.files if file.error is not None)

    @property
    def summary(self) -> dict[str, Any]:
        """Averages over the recordings that did not fail, under the keys of a file.

        Rates are those of all recordings joined to one: ``bitrate_kbps`` and ``raw_bitrate_kbps`` weighted by
        duration, ``bits_per_token`` by tokens, the speeds total duration over total seconds.
        ``duration_s``, ``bytes`` and the measures in dB are plain means over the recordings where they are
        defined. None where there is nothing to average. Further keys: ``files``, ``failed`` (counts),
        ``total_duration_s``, ``total_bytes``, ``tokens``.
        """
        done = [file for file in self.files if file.error is None]
        duration, size, tokens = (_total(done, key) for key in ("duration_s", "bytes", "tokens"))
        raw = sum((file.raw_bitrate_kbps or 0.0) * (file.duration_s or 0.0) for file in done)
        coded = sum(level["bytes"] for file in done for level in file.levels)
        return {
            "duration_s": _mean(done, "duration_s"),
            "bytes": _mean(done, "bytes"),
            "bitrate_kbps": ratio(8 * size / 1000, duration),
            "raw_bitrate_kbps": ratio(raw, duration),
            "bits_per_token": ratio(8 * coded, tokens),
            **{key: _mean(done, key) for key in ("snr_db", "si_sdr_db", "mel_distance", "lsd_db")},
            "encode_x_realtime": ratio(duration, _total(done, "encode_s")),
            "decode_x_realtime": ratio(duration, _total(done, "decode_s")),
            "files": len(done),
            "failed": len(self.failed),
            "total_duration_s": duration,
            "total_bytes": int(size),
            "tokens": int(tokens),
        }

    def to_dict(self) -> dict[str, Any]:
        """The object of ``snac bench --json``: model, device, threads, files, summary, and more."""
        return {
            "model": self.model,
            "fingerprint": self.fingerprint,
            "device": self.device,
            "threads": self.threads,
            "files": [asdict(file) for file in self.files],
            "summary": self.summary,
        }


def _total(files: Iterable[FileResult], key: str) -> float:
    return float(sum(getattr(file, key) or 0 for file in files))


def _mean(files: Iterable[FileResult], key: str) -> float | None:
    values = [value for file in files if (value := getattr(file, key)) is not None]
    return sum(values) / len(values) if values else None


def ratio(numerator: float, denominator: float) -> float | None:
    """The quotient, or None where the denominator is not above 0."""
    return numerator / denominator if denominator > 0 else None
