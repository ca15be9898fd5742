"""Pack recordings into flat files that a training run can map into memory.

A pack is two files. ``NAME.npy`` is one long row of 16-bit samples (24 kHz, mono). ``NAME.json`` is a list
with one object a recording: name, start and length (samples), bandwidth_hz (there is nothing above it), kind,
licence and source.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE = 24_000
HEADER_BYTES = 128
PEAK = 0.98


@dataclass(frozen=True)
class Clip:
    """One recording on its way into a pack; several paths are stems to be mixed.

    A ``bandwidth_hz`` of 0 is measured when the clip is read.
    """

    name: str
    paths: tuple[Path, ...]
    bandwidth_hz: int
    kind: str
    licence: str
    source: str


@dataclass(frozen=True)
class Row:
    """Where one recording lies in a pack; start and length count samples."""

    name: str
    start: int
    length: int
    bandwidth_hz: int
    kind: str
    licence: str
    source: str


def npy_header(samples: int) -> bytes:
    """The .npy header (format 1.0) of a row of int16 samples, always HEADER_BYTES long.

    A fixed length lets the header be written last, when the number of samples is known.
    """
    text = f"{{'descr': '<i2', 'fortran_order': False, 'shape': ({samples},), }}"
    prefix = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    return prefix + text.ljust(HEADER_BYTES - 11).encode("ascii") + b"\n"


def ffmpeg_mono(path: Path, rate: int, *options: str) -> np.ndarray:
    """Decode with ffmpeg: float32 (samples,) at ``rate`` Hz."""
    command = ["ffmpeg", "-nostdin", "-v", "error", *options, "-i", str(path)]
    command += ["-ac", "1", "-ar", str(rate), "-f", "f32le", "-"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return np.frombuffer(done.stdout, dtype="<f4").astype(np.float32)


def read_mono(path: Path) -> tuple[np.ndarray, int]:
    """Read a recording as float32 (samples,) in -1..1 and its rate in Hz; channels are averaged."""
    if path.suffix == ".g722":
        return ffmpeg_mono(path, 16_000, "-f", "g722"), 16_000
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        return ffmpeg_mono(path, 48_000), 48_000
    return samples.mean(axis=1), rate


def read_clip(clip: Clip) -> np.ndarray:
    """Read, mix and resample a clip: int16 (samples,) at RATE, turned down where it would clip."""
    mix = np.zeros(0, dtype=np.float32)
    for path in clip.paths:
        samples, rate = read_mono(path)
        stem = soxr.resample(samples, rate, RATE, quality="HQ")
        if len(stem) > len(mix):
            mix = np.pad(mix, (0, len(stem) - len(mix)))
        mix[: len(stem)] += stem
    peak = float(np.abs(mix).max(initial=0.0))
    if peak > PEAK:
        mix = mix * (PEAK / peak)
    return np.round(mix * 32767.0).astype("<i2")


def measured_bandwidth(samples: np.ndarray) -> int:
    """Hz above which int16 ``samples`` (n,) at RATE hold nothing to speak of: 60 dB below the strongest band.

    The mean power spectrum in bands of 94 Hz says so; what ends above 94 % of half the rate counts as whole.
    """
    window = 1024
    wave = np.pad(samples.astype(np.float32), (0, max(0, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[:: window // 2]
    power = (np.abs(np.fft.rfft(frames * np.hanning(window))) ** 2).mean(axis=0)
    bands = power[: window // 2].reshape(-1, 4).mean(axis=1)
    heard = np.flatnonzero(bands > 1e-6 * bands.max(initial=0.0))
    bandwidth = (heard[-1] + 1) * 4 * RATE / window if len(heard) else RATE / 2
    return RATE // 2 if bandwidth > 0.94 * RATE / 2 else round(bandwidth)


def write_pack(clips: Iterable[Clip], target: Path) -> list[Row]:
    """Write ``target``.npy and ``target``.json and return the rows; both appear only when complete.

    A recording without a sample gets no row.
    """
    data, table = target.with_suffix(".npy"), target.with_suffix(".json")
    part = data.with_name(data.name + ".part")
    rows: list[Row] = []
    start = 0
    with part.open("wb") as file:
        file.write(npy_header(0))
        for clip in clips:
            samples = read_clip(clip)
            if not len(samples):
                continue
            file.write(samples.tobytes())
            bandwidth = clip.bandwidth_hz or measured_bandwidth(samples)
            rows.append(Row(clip.name, start, len(samples), bandwidth, clip.kind, clip.licence, clip.source))
            start += len(samples)
        file.seek(0)
        file.write(npy_header(start))
    os.replace(part, data)
    part = table.with_name(table.name + ".part")
    part.write_text(json.dumps([asdict(row) for row in rows], indent=0) + "\n", encoding="utf-8")
    os.replace(part, table)
    return rows
