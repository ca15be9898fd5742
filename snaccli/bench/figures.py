"""The figures of a bench: what each is called, its unit, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["FIGURES", "MEASURES", "Figure"]


@dataclass(frozen=True)
class Figure:
    """One figure of a recording.

    Attributes:
        key: of a file in ``snac bench --json``.
        name: in running text and over a column.
        unit: empty where there is none.
        decimals: worth showing.
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
        """The value with the decimals worth showing."""
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
"""Those of quality."""
