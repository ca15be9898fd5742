"""What the kernel works on: the format's constants, and the state of a stream. Imports no numba.

Numba's cache of the kernel does not look at this file. It need not: a change of the fields' types is a change
of the kernel's signature, and values come in anew with every stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snaccli.entropy import model
from snaccli.entropy.context import Context

Bytes = npt.NDArray[np.uint8]
Small = npt.NDArray[np.int16]
Shorts = npt.NDArray[np.uint16]
Words = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Quad = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


class Constants(NamedTuple):
    """Of docs/format.md, section 6.1; ``KERNEL_SHIFTS`` and ``SPIKES`` one by one."""

    wide_shift: int
    narrow_shift: int
    wide_spike: int
    narrow_spike: int
    kernel_bits: int
    halve: int
    weight_bits: int
    heap_share: int
    tilt_share: int
    base_bits: int
    step: int
    step_start: int
    step_cap: int
    error_bits: int
    gradient_shift: int
    tilt_shift: int
    tilt_limit: int
    score_shift: int
    uniform: int
    mix_bits: int
    cap: int


class State(NamedTuple):
    """A model, the features of the next token, and room for what is computed for each token.

    K is the number of codewords, D their dimension, D8 that up to a multiple of ``ABREAST``.
    """

    points: Small  # (D8, K)
    wide_points: Words  # the same
    squares: Words  # (K,) of the points' lengths
    features: Longs  # (features,)
    maps: Longs  # (phases, features, D)
    steps: Longs  # (phases,) tokens of each phase
    weights: Longs  # (2, phases) of the wide heap, of the mixture that is not tilted
    counts: Words  # (2, K)
    wholes: Longs  # (2,) sums of the counts
    seen: Longs  # (2,) tokens counted, kernels kept
    kept: Shorts  # (kernels + 1, 2, K) of tokens that have come; the first is that of any other
    kept_sums: Longs  # (kernels + 1, 2)
    slots: Words  # (K,) where a token's kernels are kept, 0 if they are not
    gains: Words  # (K,)
    base: Floats  # (K,)
    tilted: Floats  # (K,)
    row: Words  # (K,) frequencies less ``extra``
    sums: Words  # (pieces,) of ``row``
    tilt: Words  # (D8,)
    error: Longs  # (D8,)
    gradient: Longs  # (D8,)


Code = Callable[[State, Constants, int, Longs, Shorts, Longs, Bytes, Quad, bool], int]


def constants() -> Constants:
    """Return the format's constants as they are now."""
    return Constants(
        wide_shift=model.KERNEL_SHIFTS[0],
        narrow_shift=model.KERNEL_SHIFTS[1],
        wide_spike=model.SPIKES[0],
        narrow_spike=model.SPIKES[1],
        kernel_bits=model.MASS_BITS + model.PEAK_BITS,
        halve=model.HALVE,
        weight_bits=model.WEIGHT_BITS,
        heap_share=model.HEAP_SHARE,
        tilt_share=model.TILT_SHARE,
        base_bits=model.BASE_BITS,
        step=model.STEP,
        step_start=model.STEP_START,
        step_cap=model.STEP_CAP,
        error_bits=model.ERROR_BITS,
        gradient_shift=model.GRADIENT_SHIFT,
        tilt_shift=model.TILT_SHIFT,
        tilt_limit=model.TILT_LIMIT,
        score_shift=model.SCORE_SHIFT,
        uniform=model.UNIFORM,
        mix_bits=model.MIX_BITS,
        cap=model.CAP,
    )


def beginning(context: Context) -> State:
    """Return the state of a stream's start."""
    from snaccli.entropy.kernel import ABREAST, PIECE

    size, dim = context.points.shape
    padded = -(-dim // ABREAST) * ABREAST
    points = np.zeros((padded, size), dtype=np.int16)
    points[:dim] = context.points.T
    features = np.zeros(context.size, dtype=np.int64)
    features[-1] = model.BIAS
    counts = np.full((model.HEAPS, size), (model.START << model.MASS_BITS) // size, dtype=np.int32)
    kept = min(size, model.KERNELS // size)
    start = np.array([[model.WEIGHT // 2], [model.WEIGHT // 4]], dtype=np.int64)
    return State(
        points=points,
        wide_points=points.astype(np.int32),
        squares=(context.points * context.points).sum(axis=1).astype(np.int32),
        features=features,
        maps=np.zeros((context.phases, context.size, dim), dtype=np.int64),
        steps=np.zeros(context.phases, dtype=np.int64),
        weights=np.repeat(start, context.phases, axis=1),
        counts=counts,
        wholes=counts.sum(axis=1, dtype=np.int64),
        seen=np.zeros(2, dtype=np.int64),
        kept=np.empty((kept + 1, model.HEAPS, size), dtype=np.uint16),
        kept_sums=np.zeros((kept + 1, model.HEAPS), dtype=np.int64),
        slots=np.zeros(size, dtype=np.int32),
        gains=np.zeros(size, dtype=np.int32),
        base=np.zeros(size),
        tilted=np.zeros(size),
        row=np.zeros(size, dtype=np.int32),
        sums=np.zeros(-(-size // PIECE), dtype=np.int32),
        tilt=np.zeros(padded, dtype=np.int32),
        error=np.zeros(padded, dtype=np.int64),
        gradient=np.zeros(padded, dtype=np.int64),
    )
