"""Changing the sample rate of a stream of blocks, with exact lengths and without delay."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterable, Iterator

import numpy as np
import soxr

__all__ = ["downmix", "fit", "resample", "resample_span", "resampled_length"]

Blocks = Iterable[np.ndarray]

_OUTPUT_FRAMES = 1 << 16  # a block in is fed in parts that make at most about so many frames each
_STAGE_RATIO = 32  # soxr holds back thousands of periods of the lower rate: at 1 Hz to 24 kHz, gigabytes
_FILTER_PERIODS = 128  # of the lower rate: soxr's HQ filter was measured to reach 100 to either side
_PAIRWISE = 8  # numbers from which on NumPy adds up in another order


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
        yield from (block for block in blocks if len(block))
        return
    lowest = min(in_rate, out_rate)
    if max(in_rate, out_rate) > 2 * _STAGE_RATIO * lowest:
        # By way of a whole multiple of the lower rate. The length still comes out as if there were one stage:
        # rounding up after each division by a whole number is rounding up once.
        between = _STAGE_RATIO * lowest
        nearer = resample(blocks, in_rate, between, channels)
        yield from resample(nearer, between, out_rate, channels)
        return
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


def fit(blocks: Blocks, frames: int, channels: int, *, skip: int = 0) -> Generator[np.ndarray, None, None]:
    """Cuts a stream after `frames` frames, or goes on with zeros until it has so many.

    Takes from `blocks` no more than it needs.

    Args:
        blocks: float32 arrays (n, channels).
        frames: length wanted, 0 or more.
        channels: columns of the zeros.
        skip: frames to drop at the beginning, 0 or more.

    Yields:
        float32 arrays (n, channels), n >= 1, of `frames` frames in total.
    """
    left = frames
    if left > 0:
        for block in blocks:
            part = block[skip : skip + left]
            skip = max(0, skip - len(block))
            left -= len(part)
            if len(part):
                yield part
            if left <= 0:
                return
    while left > 0:
        part = np.zeros((min(left, _OUTPUT_FRAMES), channels), np.float32)
        left -= len(part)
        yield part


def resample_span(first: int, count: int, in_rate: int, out_rate: int) -> tuple[int, int, int]:
    """Returns which input makes a part of a resampled stream, where only that is wanted.

    Resampling the input frames from `start` to `stop` and dropping the first `skip` frames gives the frames
    from `first` on of the whole resampled stream (but for what the filter leaves, below 1e-5 of full scale).
    `start` lies on a frame where both rates' grids meet, and both lie far enough out for the filter's reach.

    Args:
        first: first output frame wanted, 0 or more.
        count: output frames wanted, 0 or more.
        in_rate: rate in Hz of what is fed.
        out_rate: rate in Hz of what comes out.

    Returns:
        (start, stop, skip): first input frame to feed, the one after the last, output frames to drop.
    """
    if in_rate == out_rate:
        return first, first + count, 0
    common = math.gcd(in_rate, out_rate)
    in_period, out_period = in_rate // common, out_rate // common
    in_reach, out_reach = (
        _FILTER_PERIODS * max(1, -(-rate // other))
        for rate, other in ((in_rate, out_rate), (out_rate, in_rate))
    )
    periods = max(0, first - out_reach) // out_period
    stop = (first + count) * in_rate // out_rate + 1 + in_reach
    return periods * in_period, stop, first - periods * out_period


def downmix(blocks: Blocks) -> Iterator[np.ndarray]:
    """Yields the mean of all channels: (n, channels) to (n, 1), float32."""
    for block in blocks:
        channels = block.shape[1]
        if channels == 1:
            yield block
        elif channels >= _PAIRWISE or block.dtype != np.float32:
            yield block.mean(axis=1, keepdims=True, dtype=np.float32)
        else:
            # As NumPy does it, but thirty times as fast as it is along so short an axis.
            total = block[:, :1] + block[:, 1:2]
            for channel in range(2, channels):
                total += block[:, channel : channel + 1]
            total /= channels
            yield total
