"""Makes mel_filters.npz: mel filters and spectral distances by librosa 1.0.0, to test snaccli.measures.

Run in an environment of its own, `pip install librosa==1.0.0`, then `python make_mel_filters.py`.
"""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np

CASES = ((24000, 2048), (44100, 512), (16000, 1024), (96000, 512))
RATE = 24000
FLOOR = 10.0 ** (-115.0 / 10.0)


def signals() -> tuple[np.ndarray, np.ndarray]:
    """A chirp in noise with a pause, and a low-passed copy with other noise; whole frames cover them."""
    time = np.arange(2048 + 512 * 12) / RATE
    noise = np.random.default_rng(7)
    reference = 0.4 * np.sin(2 * np.pi * (200.0 + 2500.0 * time) * time)
    reference += 0.01 * noise.standard_normal(time.size)
    reference[3000:7000] = 0.0
    decoded = np.convolve(reference, np.hanning(9) / 4.0, mode="same") + 1e-5 * noise.standard_normal(
        time.size
    )
    return reference.astype(np.float32), decoded.astype(np.float32)


def power(signal: np.ndarray, window: int) -> np.ndarray:
    """Power spectrum (bins, frames), a full-scale sine reading 1."""
    taper = librosa.filters.get_window("hann", window, fftbins=True)
    spectrum = librosa.stft(
        signal.astype(np.float64), n_fft=window, hop_length=window // 4, window="hann", center=False
    )
    return np.abs(spectrum * 2.0 / taper.sum()) ** 2


def decibels(values: np.ndarray) -> np.ndarray:
    return librosa.power_to_db(values, ref=1.0, amin=FLOOR, top_db=None)


def filters(rate: int, window: int) -> np.ndarray:
    return librosa.filters.mel(
        sr=rate, n_fft=window, n_mels=80, fmin=0.0, fmax=rate / 2, htk=False, norm="slaney", dtype=np.float64
    )


def mel_difference(reference: np.ndarray, decoded: np.ndarray, window: int) -> float:
    bands = filters(RATE, window)
    bands = bands[bands.sum(axis=1) > 0]
    bands = bands / bands.sum(axis=1, keepdims=True)
    pair = (decibels(bands @ power(signal, window)) for signal in (reference, decoded))
    return float(np.mean(np.abs(next(pair) - next(pair))))


def main() -> None:
    reference, decoded = signals()
    difference = decibels(power(reference, 2048)) - decibels(power(decoded, 2048))
    arrays = {f"filters_{rate}_{window}": filters(rate, window).astype(np.float32) for rate, window in CASES}
    np.savez_compressed(
        Path(__file__).with_name("mel_filters.npz"),
        reference=reference,
        decoded=decoded,
        mel_distance=np.mean([mel_difference(reference, decoded, window) for window in (512, 1024, 2048)]),
        lsd_db=np.mean(np.sqrt(np.mean(difference**2, axis=0))),
        **arrays,
    )


if __name__ == "__main__":
    main()
