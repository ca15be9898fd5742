"""Resampled streams have exact lengths, no delay, and do not depend on how they were cut into blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from snaccli.audio import downmix, fit, resample, resample_span, resampled_length

RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 44101, 48000, 96000, 192000)


def noise(frames: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (frames, channels)).astype(np.float32)


def cut(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


def joined(blocks: Iterator[np.ndarray], channels: int = 1) -> np.ndarray:
    parts = list(blocks)
    assert all(part.dtype == np.float32 and part.ndim == 2 and len(part) for part in parts)
    return np.concatenate([np.zeros((0, channels), np.float32), *parts])


@pytest.mark.parametrize(
    ("in_rate", "out_rate"), [(44100, 24000), (24000, 44100), (48000, 24000), (8000, 24000), (24000, 44101)]
)
@pytest.mark.parametrize("size", [1, 100, 4096, 10**6])
def test_chunked_equals_one_shot(in_rate: int, out_rate: int, size: int) -> None:
    for frames in (0, 1, 99, 100, 101, in_rate - 1, in_rate, in_rate + 1):
        if size == 1 and frames > 1000:
            continue
        samples = noise(frames, 2)
        result = joined(resample(cut(samples, size), in_rate, out_rate, 2), 2)
        assert result.shape == (math.ceil(frames * out_rate / in_rate), 2)
        reference = soxr.resample(samples, in_rate, out_rate)
        shared = min(len(reference), len(result))
        assert len(result) - shared <= 1  # soxr rounds to nearest
        np.testing.assert_array_equal(result[:shared], reference[:shared])


@settings(deadline=None, max_examples=60)
@given(
    in_rate=st.one_of(st.sampled_from(RATES), st.integers(1000, 768_000)),
    out_rate=st.sampled_from((24000, 32000, 44100)),
    frames=st.integers(0, 3000),
    sizes=st.lists(st.integers(0, 1500), min_size=1, max_size=4),
)
def test_length_there_and_back(in_rate: int, out_rate: int, frames: int, sizes: list[int]) -> None:
    samples = noise(frames)
    blocks = [samples[at : at + size] for at, size in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True)]
    frames = sum(map(len, blocks))
    there = joined(resample(blocks, in_rate, out_rate, 1))
    assert len(there) == resampled_length(frames, in_rate, out_rate) == -(-frames * out_rate // in_rate)
    back = joined(fit(resample([there], out_rate, in_rate, 1), frames, 1))
    assert len(back) == frames
    assert resampled_length(len(there), out_rate, in_rate) >= frames  # nothing had to be padded
    assert np.isfinite(back).all()


@pytest.mark.parametrize("rate", [r for r in RATES if r != 24000])
def test_no_shift_there_and_back(rate: int) -> None:
    time = np.arange(rate // 2) / rate
    samples = (np.sin(2 * np.pi * 997 * time) * np.hanning(len(time))).astype(np.float32)[:, None]
    there = joined(resample(cut(samples, 1000), rate, 24000, 1))
    back = joined(fit(resample(cut(there, 777), 24000, rate, 1), len(samples), 1))
    # A shift by a hundredth of a sample at 8 kHz would differ by 8e-3.
    assert np.abs(back - samples).max() < 1e-5
    on_grid = np.sin(2 * np.pi * 997 * np.arange(len(there)) / 24000)
    middle = slice(len(there) // 2 - 20, len(there) // 2 + 20)
    assert np.abs(there[middle, 0] - on_grid[middle]).max() < 2e-3


@pytest.mark.parametrize(
    ("in_rate", "out_rate"), [(48000, 24000), (24000, 48000), (44100, 24000), (24000, 44100)]
)
def test_impulse_stays_where_it_is(in_rate: int, out_rate: int) -> None:
    samples = np.zeros((4 * in_rate // 10, 1), np.float32)
    samples[in_rate // 10] = 1
    result = joined(resample(cut(samples, 999), in_rate, out_rate, 1))[:, 0]
    peak = out_rate // 10
    assert np.abs(result).argmax() == peak
    np.testing.assert_allclose(result[peak - 50 : peak], result[peak + 1 : peak + 51][::-1], atol=1e-6)


def test_last_frame_is_sound_and_not_padding() -> None:
    # 100 frames at 44100 Hz are 54.4 at 24000 Hz: soxr gives 54, the 55th begins inside the recording.
    samples = np.ones((100, 1), np.float32)
    result = joined(resample([samples], 44100, 24000, 1))
    assert len(result) == 55
    assert result[54] > 0.1


def test_equal_rates_pass_through() -> None:
    samples = noise(1000, 3)
    result = joined(resample(cut(samples, 300), 24000, 24000, 3), 3)
    np.testing.assert_array_equal(result, samples)
    assert next(iter(resample([samples[:0], samples], 8000, 8000, 3))) is samples


@pytest.mark.parametrize(
    ("in_rate", "out_rate", "frames"),
    [
        (1, 24000, 20),
        (24000, 1, 24000 * 20 - 1),
        (768_000, 24000, 100_001),
        (24000, 768_000, 3000),
        (7, 44100, 30),
        (44100, 7, 44100),
        (300, 32000, 1000),
        (1, 768_000, 2),
    ],
)
def test_extreme_rates(in_rate: int, out_rate: int, frames: int) -> None:
    samples = np.full((frames, 1), 0.5, np.float32)
    blocks = list(resample([samples], in_rate, out_rate, 1))
    assert max(map(len, blocks)) <= 1 << 18  # however large the block that went in
    result = np.concatenate(blocks)
    assert len(result) == math.ceil(frames * out_rate / in_rate)
    assert abs(float(np.quantile(result, 0.7)) - 0.5) < 0.1
    again = joined(resample(cut(samples, 4999), in_rate, out_rate, 1))
    np.testing.assert_array_equal(again, result)


@pytest.mark.parametrize(
    ("in_rate", "out_rate"), [(24000, 44100), (24000, 8000), (44100, 24000), (24000, 44101), (24000, 48000)]
)
def test_later_part_alone(in_rate: int, out_rate: int) -> None:
    samples = noise(3 * in_rate)
    whole = joined(resample(cut(samples, 5000), in_rate, out_rate, 1))
    for first in (0, 1, 57, out_rate - 1, out_rate, out_rate + 1, 2 * out_rate + 12345 % out_rate):
        start, stop, skip = resample_span(first, 2000, in_rate, out_rate)
        assert 0 <= start <= first * in_rate / out_rate
        for end in (len(samples), stop):
            part = joined(resample([samples[start:end]], in_rate, out_rate, 1))[skip : skip + 2000]
            assert np.abs(part - whole[first : first + 2000]).max() < 1e-5
    assert resample_span(1234, 10, in_rate, in_rate) == (1234, 1244, 0)


def test_later_part_begins_near_by() -> None:
    start, stop, skip = resample_span(44100 * 3600, 44100, 24000, 44100)
    assert 24000 * 3600 - start < 24000
    assert 0 <= stop - 24000 * 3601 < 24000
    assert skip < 44100


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 50), max_size=6),
    frames=st.integers(0, 300),
    channels=st.integers(1, 3),
    skip=st.integers(0, 120),
)
def test_fit(sizes: list[int], frames: int, channels: int, skip: int) -> None:
    samples = noise(sum(sizes), channels)
    blocks = np.split(samples, np.cumsum(sizes)[:-1]) if sizes else []
    result = joined(fit(blocks, frames, channels, skip=skip), channels)
    assert result.shape == (frames, channels)
    samples = samples[skip:]
    shared = min(frames, len(samples))
    np.testing.assert_array_equal(result[:shared], samples[:shared])
    assert not result[shared:].any()


def test_fit_takes_no_more_than_it_needs() -> None:
    def endless() -> Iterator[np.ndarray]:
        for _ in range(3):
            yield np.ones((10, 1), np.float32)
        raise AssertionError("read on")

    assert len(joined(fit(endless(), 30, 1))) == 30
    assert len(joined(fit(endless(), 0, 1))) == 0


@pytest.mark.parametrize("channels", [2, 3, 5, 7, 8, 16])
def test_downmix_is_the_mean(channels: int) -> None:
    samples = noise(100, channels)
    result = joined(downmix(cut(samples, 33)))
    np.testing.assert_array_equal(result, samples.mean(axis=1, keepdims=True, dtype=np.float32))
    assert next(downmix([samples.astype(np.float64)])).dtype == np.float32
    mono = noise(10)
    assert next(downmix([mono])) is mono
