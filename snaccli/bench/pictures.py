"""Pictures of sound for a report: waveforms as outlines, log-mel spectrograms as small PNG images."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snaccli.measures import FLOOR_DB, mel_filters

__all__ = ["DIFFERENCE_DB", "RANGE_DB", "difference_png", "log_mel", "outline", "spectrogram_png"]

Samples = npt.NDArray[np.float32]
Decibels = npt.NDArray[np.float64]

RANGE_DB = 70.0
"""From the darkest to the brightest colour of a spectrogram."""
DIFFERENCE_DB = 30.0
"""A difference of so much, to either side, has the strongest colour."""

_BANDS = 80
_FRAMES = 360  # columns of a picture at most
_COLUMNS = 420  # of a waveform
_SHADES = 48  # colours of an image: fewer make it smaller, and nobody sees the steps
_WINDOW_S = 0.045

# Corners of the colours, evenly spaced: dark to bright, its brightness rising all the way; and blue over
# nothing to orange, which colour-blind people tell apart.
_BRIGHTENING = ("#05040e", "#2b115e", "#6a1c80", "#b2337a", "#ee605e", "#fdaf78", "#fcfbc4")
_DIVERGING = ("#1b6fd0", "#7fb2ea", "#808080", "#f0a35e", "#d9600a")


@dataclass(frozen=True)
class _Palette:
    colours: bytes  # (shades, 3)
    alphas: bytes  # (shades,), or empty for opaque


def log_mel(samples: Samples, rate: int) -> Decibels:
    """Returns log-mel spectrogram, (bands, frames) in dB, 0 for a full-scale sine, not below FLOOR_DB.

    Args:
        samples: (n,), n >= 0.
        rate: Hz.
    """
    window = 1 << max(6, round(np.log2(_WINDOW_S * rate)))
    padded = np.pad(np.asarray(samples, np.float64), window // 2)
    hop = max(window // 8, -(-len(samples) // _FRAMES))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    taper = np.hanning(window + 1)[:-1]
    # Twice the window's length: at low rates the lowest bands would else hold no bin.
    power = np.abs(np.fft.rfft(frames * (taper * 2 / taper.sum()), 2 * window)) ** 2
    filters = mel_filters(rate, 2 * window, _BANDS)
    weights = filters / np.maximum(filters.sum(axis=1, keepdims=True), 1e-12)
    decibels: Decibels = 10 * np.log10(np.maximum(power @ weights.T, 10 ** (FLOOR_DB / 10))).T
    return decibels


def spectrogram_png(decibels: Decibels, top: float) -> bytes:
    """Returns a spectrogram as PNG, low bands at the bottom, from `top` - RANGE_DB to `top`."""
    return _png((decibels - top) / RANGE_DB + 1.0, _OPAQUE)


def difference_png(decoded: Decibels, reference: Decibels, top: float) -> bytes:
    """Returns how much louder (orange) or softer (blue) `decoded` is; equal is transparent.

    What lies below the range of the spectrograms counts as at its lower end.
    """
    floor = top - RANGE_DB
    excess = np.maximum(decoded, floor) - np.maximum(reference, floor)
    return _png((excess / DIFFERENCE_DB + 1.0) / 2.0, _CLEAR)


def outline(samples: Samples) -> npt.NDArray[np.float32]:
    """Returns lowest and highest sample in each of up to 420 columns: (2, columns)."""
    columns = min(_COLUMNS, max(1, len(samples)))
    if not len(samples):
        return np.zeros((2, 1), np.float32)
    edges = np.linspace(0, len(samples), columns, endpoint=False).astype(int)
    return np.stack([np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)])


def _palette(corners: tuple[str, ...], *, clear_middle: bool) -> _Palette:
    values = np.array([[int(corner[i : i + 2], 16) for i in (1, 3, 5)] for corner in corners], float)
    places = np.linspace(0, len(corners) - 1, _SHADES)
    colours = np.stack([np.interp(places, np.arange(len(corners)), channel) for channel in values.T], axis=1)
    alphas = np.abs(np.linspace(-1, 1, _SHADES)) ** 0.8 * 255 if clear_middle else np.zeros(0)
    return _Palette(np.rint(colours).astype(np.uint8).tobytes(), np.rint(alphas).astype(np.uint8).tobytes())


_OPAQUE = _palette(_BRIGHTENING, clear_middle=False)
_CLEAR = _palette(_DIVERGING, clear_middle=True)


def _png(values: Decibels, palette: _Palette) -> bytes:
    """Returns an indexed image (ISO/IEC 15948) of values 0 to 1, (rows from the bottom, columns)."""
    shades = np.clip(np.rint(values * (_SHADES - 1)), 0, _SHADES - 1).astype(np.uint8)[::-1]
    height, width = shades.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each led by its filter: 0, none
    lines[:, 1:] = shades
    chunks = [
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        _chunk(b"PLTE", palette.colours),
        _chunk(b"tRNS", palette.alphas) if palette.alphas else b"",
        _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
        _chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
