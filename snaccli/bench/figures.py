"""The figures of a bench: names, units, which way is better, and how far a mean can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["FIGURES", "MEASURES", "RESAMPLES", "Figure", "Interval", "interval"]

Interval = tuple[float, float]

RESAMPLES = 2000
"""Bootstrap samples an interval rests on."""

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
    """95 % percentile bootstrap interval of sum(numerators) / sum(denominators) over recordings.

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
