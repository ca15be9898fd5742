"""Changing the sample rate of a stream of blocks, with exact lengths and without delay."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterable, Iterator

import numpy as np
import soxr

__all__ = ["cut", "downmix", "filter_reach", "fit", "resample", "resample_start", "resampled_length"]

Blocks = Iterable[np.ndarray]

_OUTPUT_FRAMES = 1 << 16  # a block in is fed in parts that make at most about so many frames each
_STAGE_RATIO = 32  # soxr holds back thousands of periods of the lower rate: at 1 Hz to 24 kHz, gigabytes
_FILTER_PERIODS = 128  # of the lower rate: soxr's HQ filter was measured to reach 100 to either side


def resampled_length(frames: int, in_rate: int, out_rate: int) -> int:
    """Returns ceil(frames x out_rate / in_rate): frames at `out_rate` that cover `frames` at `in_rate`."""
    return -(-frames * out_rate // in_rate)


def resample(blocks: Blocks, in_rate: int, out_rate: int, channels: int) -> Iterator[np.ndarray]:
    """Resamples a stream with soxr's HQ filter (linear phase; no delay: sample 0 stays at time 0).

    The result does not depend on how the input is cut into blocks, and counts exactly
    `resampled_length` frames of the input's total. Beyond both ends the signal is taken as silent.

    Args:
        blocks: float32 arrays (n, channels), n >= 0.
        in_rate: rate of `blocks` in Hz.
        out_rate: rate wanted in Hz; equal rates pass the blocks through.
        channels: 1 or more.

    Yields:
        float32 arrays (n, channels), n >= 1.
    """
    if in_rate == out_rate:
        return (block for block in blocks if len(block))
    rates = _stages(in_rate, out_rate)
    for stage_in, stage_out in itertools.pairwise(rates):
        blocks = _resampled(blocks, stage_in, stage_out, channels)
    return iter(blocks)


def _stages(in_rate: int, out_rate: int) -> list[int]:
    """Rates from `in_rate` to `out_rate` by way of whole multiples of the lower one, no two far apart.

    The lengths still come out as if there were one stage: rounding up after each division by a whole number
    is rounding up once.
    """
    rates, highest = [min(in_rate, out_rate)], max(in_rate, out_rate)
    while highest > 2 * _STAGE_RATIO * rates[-1]:
        rates.append(rates[-1] * _STAGE_RATIO)
    rates.append(highest)
    return rates if in_rate < out_rate else rates[::-1]


def _resampled(blocks: Blocks, in_rate: int, out_rate: int, channels: int) -> Iterator[np.ndarray]:
    stream = soxr.ResampleStream(in_rate, out_rate, channels, dtype="float32", quality="HQ")
    step = max(1, min(_OUTPUT_FRAMES, _OUTPUT_FRAMES * in_rate // out_rate))
    taken = given = 0
    for block in blocks:
        block = np.ascontiguousarray(block, dtype=np.float32)
        for start in range(0, len(block), step):
            part = block[start : start + step]
            taken += len(part)
            out = stream.resample_chunk(part)
            given += len(out)
            if len(out):
                yield out
    # Silence draws out what the filter still holds. soxr's own flush does the same, but all at once, and
    # rounds the length to nearest where ours is rounded up.
    silence = np.zeros((step, channels), np.float32)
    tail = (stream.resample_chunk(silence) for _ in itertools.count())
    yield from fit(tail, resampled_length(taken, in_rate, out_rate) - given, channels)


def fit(blocks: Blocks, frames: int, channels: int) -> Generator[np.ndarray, None, None]:
    """Cuts a stream after `frames` frames, or goes on with zeros until it has so many.

    Takes from `blocks` no more than it needs.

    Args:
        blocks: float32 arrays (n, channels).
        frames: length wanted, 0 or more.
        channels: columns of the zeros.

    Yields:
        float32 arrays (n, channels), n >= 1, of `frames` frames in total.
    """
    left = frames
    if left > 0:
        for block in blocks:
            part = block[:left]
            left -= len(part)
            if len(part):
                yield part
            if left <= 0:
                return
    while left > 0:
        part = np.zeros((min(left, _OUTPUT_FRAMES), channels), np.float32)
        left -= len(part)
        yield part


def cut(blocks: Blocks, skip: int, frames: int, channels: int) -> Generator[np.ndarray, None, None]:
    """Yields `frames` frames of a stream, after the first `skip`; zeros where it ends before.

    Args and yields: as `fit`.
    """

    def rest() -> Iterator[np.ndarray]:
        left = skip
        for block in blocks:
            yield block[left:]
            left = max(0, left - len(block))

    return fit(rest(), frames, channels)


def filter_reach(rate: int, other_rate: int) -> int:
    """Returns the frames at `rate` to either side that resampling to or from `other_rate` depends on."""
    return _FILTER_PERIODS * max(1, -(-rate // other_rate))


def resample_start(first: int, in_rate: int, out_rate: int) -> tuple[int, int]:
    """Returns where to begin when only a later part of a resampled stream is wanted.

    Resampling from input frame `start` on and dropping the first `skip` frames gives the frames from
    `first` on of the whole resampled stream (but for what the filter leaves, below 1e-5 of full scale).
    `start` lies on a frame where both rates' grids meet, and early enough for the filter's reach.

    Args:
        first: first output frame wanted, 0 or more.
        in_rate: rate in Hz of what is fed.
        out_rate: rate in Hz of what comes out.

    Returns:
        (start, skip): first input frame to feed, output frames to drop.
    """
    if in_rate == out_rate:
        return first, 0
    common = math.gcd(in_rate, out_rate)
    in_period, out_period = in_rate // common, out_rate // common
    reach = filter_reach(out_rate, in_rate)
    periods = max(0, first - reach) // out_period
    return periods * in_period, first - periods * out_period


def downmix(blocks: Blocks) -> Iterator[np.ndarray]:
    """Yields the mean of all channels: (n, channels) to (n, 1), float32."""
    for block in blocks:
        yield block if block.shape[1] == 1 else block.mean(axis=1, keepdims=True, dtype=np.float32)
