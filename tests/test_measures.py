"""Measures: against librosa, against hand-computed cases, and the invariances each promises."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaccli import measures
from snaccli.errors import AudioError
from snaccli.measures import (
    Comparison,
    Figures,
    compare,
    lsd_db,
    mel_distance,
    mel_filters,
    si_sdr_db,
    snr_db,
)

GOLDEN = np.load(Path(__file__).parent / "golden" / "mel_filters.npz")
RATE = 24000


def noise(samples: int, seed: int = 0, level: float = 0.1, channels: int | None = None) -> np.ndarray:
    shape = samples if channels is None else (samples, channels)
    return level * np.random.default_rng(seed).standard_normal(shape)


def gain(decibels: float) -> float:
    return float(10.0 ** (decibels / 20.0))


@cache
def dft(window: int) -> np.ndarray:
    """The sum that defines the transform, as a matrix (bins, samples)."""
    return np.exp(-2j * np.pi * np.outer(np.arange(window // 2 + 1), np.arange(window)) / window)


def naive_power(signal: np.ndarray, window: int) -> np.ndarray:
    """Power spectra frame by frame by the plain DFT sum, zeros after the end: (frames, bins)."""
    hop = window // 4
    frames = 1 + max(0, -(-(len(signal) - window) // hop))
    padded = np.concatenate([signal, np.zeros(window + frames * hop)])
    time = np.arange(window)
    hann = np.sin(np.pi * time / window) ** 2
    kernel = dft(window)
    cut = np.stack([padded[i * hop : i * hop + window] * hann for i in range(frames)])
    return np.abs(cut @ kernel.T / (window / 4)) ** 2


# Mel filters and spectral distances


@pytest.mark.parametrize("key", [key for key in GOLDEN.files if key.startswith("filters_")])
def test_mel_filters_are_librosas(key: str) -> None:
    rate, window = map(int, key.split("_")[1:])
    filters = mel_filters(rate, window)
    assert filters.shape == (80, window // 2 + 1)
    np.testing.assert_allclose(filters, GOLDEN[key], rtol=1e-5, atol=1e-8)


def test_spectral_distances_are_librosas() -> None:
    figures = compare(GOLDEN["reference"], GOLDEN["decoded"], RATE)
    assert figures.mel_distance == pytest.approx(float(GOLDEN["mel_distance"]), abs=1e-6)
    assert figures.lsd_db == pytest.approx(float(GOLDEN["lsd_db"]), abs=1e-6)


@pytest.mark.parametrize("samples", [1, 2047, 2048, 2049, 2560, 3000])
def test_lsd_of_odd_lengths_equals_the_plain_sum(samples: int) -> None:
    reference, decoded = noise(samples), noise(samples, seed=1, level=0.03)
    spectra = [10 * np.log10(np.maximum(naive_power(s, 2048), 10**-11.5)) for s in (reference, decoded)]
    expected = np.mean(np.sqrt(np.mean((spectra[0] - spectra[1]) ** 2, axis=1)))
    assert lsd_db(reference, decoded) == pytest.approx(expected, abs=1e-6)


def test_full_scale_sine_reads_zero_decibels_against_silence() -> None:
    """A sine on bin 100 fills bins 99 to 101 (Hann: 0, -6.02 dB beside it); the rest lies at the floor."""
    sine = np.sin(2 * np.pi * 100 * np.arange(2048) / 2048)
    above = np.array([115.0, 115.0 - 20 * np.log10(2), 115.0 - 20 * np.log10(2)])
    assert lsd_db(sine, np.zeros(2048)) == pytest.approx(np.sqrt(np.sum(above**2) / 1025), abs=1e-4)


@pytest.mark.parametrize("decibels", [-20.0, -1.0, 0.5, 12.0])
def test_spectral_distances_of_a_scaled_copy_are_its_gain(decibels: float) -> None:
    signal = noise(9000)
    assert lsd_db(signal, gain(decibels) * signal) == pytest.approx(abs(decibels), abs=1e-6)
    for rate in (
        8000,
        24000,
        44100,
        96000,
        768000,
    ):  # at high rates low bands hold no bin: left out, not diluting
        assert mel_distance(signal, gain(decibels) * signal, rate) == pytest.approx(abs(decibels), abs=1e-6)


def test_differences_below_the_floor_do_not_count() -> None:
    quiet, quieter = noise(9000, level=1e-8), noise(9000, seed=1, level=1e-8)
    assert lsd_db(quiet, quieter) == 0.0
    assert mel_distance(quiet, quieter, RATE) == 0.0


def test_rounding_to_16_bits_hardly_shows() -> None:
    signal = noise(30000, level=0.05)
    rounded = np.round(signal * 32768) / 32768
    assert lsd_db(signal, rounded) < 0.05


def test_a_missing_band_shows() -> None:
    signal = noise(24000)
    spectrum = np.fft.rfft(signal)
    spectrum[6000:] = 0.0  # nothing above 6 kHz: half of the bins
    dull = np.fft.irfft(spectrum)
    assert lsd_db(signal, dull) > 40.0
    assert mel_distance(signal, dull, RATE) > 10.0


# SNR and SI-SDR


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.9, 1.001, 2.0, -1.0])
def test_snr_of_a_scaled_copy(factor: float) -> None:
    signal = noise(5000)
    assert snr_db(signal, factor * signal) == pytest.approx(-20 * np.log10(abs(1 - factor)), abs=1e-6)


def test_snr_by_hand() -> None:
    assert snr_db(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(20.0)
    # Channels count as one longer signal: 25 + 100 of signal, 0.25 + 1 of noise.
    pair = np.array([[3.0, 6.0], [4.0, 8.0]]), np.array([[3.0, 7.0], [4.5, 8.0]])
    assert snr_db(*pair) == pytest.approx(20.0)


def test_si_sdr_by_hand() -> None:
    # d = 2 s + e with e orthogonal to s: |2 s|^2 / |e|^2 = 8 / 0.08.
    assert si_sdr_db(np.array([1.0, 1.0]), np.array([2.2, 1.8])) == pytest.approx(20.0)
    channels = np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([[2.2, 1.1], [1.8, 0.9]])
    assert si_sdr_db(*channels) == pytest.approx(20.0)


def test_si_sdr_is_the_mean_over_channels_that_sound() -> None:
    reference, decoded = noise(4000, channels=3), noise(4000, seed=1, channels=3)
    decoded = 0.8 * reference + 0.3 * decoded
    each = [si_sdr_db(reference[:, i], decoded[:, i]) for i in range(3)]
    assert si_sdr_db(reference, decoded) == pytest.approx(np.mean(each))
    reference[:, 2] = 0.0
    assert si_sdr_db(reference, decoded) == pytest.approx(np.mean(each[:2]))


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_si_sdr_ignores_gain_and_snr_does_not_exceed_it(factor: float, seed: int) -> None:
    reference = noise(2000, seed)
    decoded = reference + noise(2000, seed + 100, level=0.02)
    plain = si_sdr_db(reference, decoded)
    assert plain is not None
    assert si_sdr_db(reference, factor * decoded) == pytest.approx(plain, abs=1e-6)
    assert si_sdr_db(factor * reference, decoded) == pytest.approx(plain, abs=1e-6)
    snr = snr_db(reference, factor * decoded)
    assert snr is not None
    # Whatever the gain, s - g d is no shorter than |s| sin: SNR <= 1 / sin^2, and SI-SDR = cos^2 / sin^2.
    assert snr <= 10 * np.log10(10 ** (plain / 10) + 1) + 1e-6


def test_measures_want_alignment() -> None:
    signal = noise(20000)
    shifted = np.roll(signal, 1)
    assert snr_db(signal, shifted) < 0.0
    assert si_sdr_db(signal, shifted) < -10.0
    assert snr_db(signal[:-1], shifted[1:]) == measures.CEILING_DB
    assert lsd_db(signal, shifted) < lsd_db(signal, noise(20000, seed=1))


# Edges


def test_identical_signals() -> None:
    signal = noise(5000)
    assert compare(signal, signal.copy(), RATE) == Figures(120.0, 120.0, 0.0, 0.0)


def test_tiny_errors_stay_within_the_ceiling() -> None:
    signal = noise(5000)
    assert snr_db(signal, signal * (1 + 1e-9)) == 120.0
    assert si_sdr_db(signal, signal + 1e-9 * noise(5000, 1)) == 120.0
    assert si_sdr_db(signal, signal + 1e-5 * noise(5000, 1)) == pytest.approx(100.0, abs=0.5)


@pytest.mark.parametrize("samples", [1, 100, 5000])
def test_silence(samples: int) -> None:
    silence, sound = np.zeros(samples), noise(samples) + 0.1
    assert compare(silence, silence, RATE) == Figures(None, None, 0.0, 0.0)
    assert snr_db(silence, sound) is None
    assert si_sdr_db(silence, sound) is None
    assert snr_db(sound, silence) == 0.0
    assert si_sdr_db(sound, silence) == -120.0
    if samples > 1:  # the first sample alone has weight 0 in a Hann window
        assert lsd_db(sound, silence) > 20.0
        assert mel_distance(sound, silence, RATE) > 20.0


@pytest.mark.parametrize("empty", [np.zeros(0), np.zeros((0, 2))])
def test_nothing_to_measure(empty: np.ndarray) -> None:
    assert compare(empty, empty, RATE) == Figures(None, None, None, None)
    assert Comparison(RATE).result() == Figures(None, None, None, None)


@pytest.mark.parametrize("rate", [1, 7, 8000, 768000])
@pytest.mark.parametrize("samples", [1, 2, 511, 512, 513, 2100])
def test_every_length_and_rate_gives_finite_figures(samples: int, rate: int) -> None:
    figures = compare(noise(samples), noise(samples, seed=1), rate)
    for value in (figures.snr_db, figures.si_sdr_db, figures.mel_distance, figures.lsd_db):
        assert value is not None
        assert np.isfinite(value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("measure", [snr_db, si_sdr_db, lsd_db, lambda r, d: mel_distance(r, d, RATE)])
def test_samples_that_are_no_numbers_are_refused(measure: Callable[..., float], bad: float) -> None:
    signal, broken = noise(3000), noise(3000)
    broken[1234] = bad
    with pytest.raises(AudioError, match="decoded audio holds NaN or infinite"):
        measure(signal, broken)
    with pytest.raises(AudioError, match="reference audio holds NaN or infinite"):
        measure(broken, signal)


@pytest.mark.parametrize(
    ("reference", "decoded"),
    [
        (np.zeros(5), np.zeros(6)),
        (np.zeros((5, 2)), np.zeros((5, 1))),
        (np.zeros(5), np.zeros((5, 1))),
        (np.zeros((5, 2, 2)), np.zeros((5, 2, 2))),
        (np.zeros((5, 0)), np.zeros((5, 0))),
    ],
)
def test_shapes_that_do_not_fit_are_refused(reference: np.ndarray, decoded: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"shape|samples must be"):
        snr_db(reference, decoded)


# Accumulation


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 7000), max_size=12), channels=st.integers(1, 3))
def test_the_cut_into_blocks_does_not_matter(cuts: list[int], channels: int) -> None:
    reference = noise(7000, channels=channels)
    decoded = 0.9 * reference + noise(7000, seed=1, level=0.02, channels=channels)
    comparison = Comparison(RATE)
    edges = [0, *sorted(cuts), 7000]
    for start, end in itertools.pairwise(edges):
        comparison.update(reference[start:end], decoded[start:end])
    once, pieces = compare(reference, decoded, RATE), comparison.result()
    for name in ("snr_db", "si_sdr_db", "mel_distance", "lsd_db"):
        assert getattr(pieces, name) == pytest.approx(getattr(once, name), abs=1e-9)


def test_equal_channels_read_as_one() -> None:
    reference, decoded = noise(6000), noise(6000) + noise(6000, seed=1, level=0.02)
    one, two = (
        compare(reference, decoded, RATE),
        compare(np.stack([reference] * 2, 1), np.stack([decoded] * 2, 1), RATE),
    )
    for name in ("snr_db", "si_sdr_db", "mel_distance", "lsd_db"):
        assert getattr(two, name) == pytest.approx(getattr(one, name), abs=1e-9)


def test_integer_and_single_precision_samples_are_taken() -> None:
    signal = (1000 * noise(4000)).astype(np.int16)
    assert snr_db(signal, signal // 2 * 2) == pytest.approx(
        snr_db(signal.astype(np.float32), (signal // 2 * 2).astype(np.float32))
    )


def test_memory_does_not_grow_with_the_length() -> None:
    """Peaks of a short and a four times longer stereo signal, of blocks made as they are needed."""

    def peak(blocks: int) -> int:
        comparison = Comparison(48000)
        tracemalloc.start()
        for seed in range(blocks):
            block = noise(20000, seed, channels=2).astype(np.float32)
            comparison.update(block, block)
        comparison.result()
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    short, long = peak(2), peak(8)
    assert long < 1.1 * short
    assert long < 64 << 20
