"""Coder 1's model, with the range decoder over a block of tokens, as one compiled kernel.

docs/format.md, sections 5 and 6, is the normative text; the names are those of its pseudo-code, and the
constants of its section 6.1 stand here or in the modules of the kernel's parts, because the cache of compiled
code looks at these files alone.

Every machine must come to the same integers, so:

- integers have a width throughout (numba widens by itself what is not cut back), and wrap around;
- floats hold integers only: below 2^24 in float32, below 2^53 in float64, whole sums and products included,
  so the order of a sum and a multiplication fused with an addition change nothing. Their scaling by powers
  of two is exact, and what follows it is rounded down. ``power`` alone rounds; its result is proven over all
  its arguments by a test.

Products with points are of 16-bit integers where scores and squared distances fit in 32 bits (of published
models they do), else of 64-bit ones: what limits them is how many bytes the processor's second cache gives.
Loops over codewords are written for the compiler to vectorise: one thing at a time, over slices from 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snac.jit import Record, compiled, part
from snaccli.entropy.arithmetic import PEAK_BITS, WEIGHT, WEIGHT_BITS, Integer, power, share
from snaccli.entropy.mixing import Learned, blend, recall, remember, reweigh
from snaccli.entropy.payloads import TOTAL, decode_token, interval

__all__ = ["Choice", "State", "code_narrow", "code_wide"]

MASS_BITS = 16  # of the counts that one token adds, the spike aside
START = 50  # tokens' mass that lie evenly on each heap at first
HEAPS = 2  # the wide one and the narrow one
KERNEL_SHIFTS = (7, 5)  # from squared distances to steps of `power`
SPIKES = (0, 45_875)  # what a token's own codeword gets beside the kernel
HALVE = 1 << 13  # tokens after which all counts are halved
HEAP_SHARE, TILT_SHARE = 328, 164  # of it, what each of the two is given anew at each token
BASE_BITS = 26  # of the sum of the mixed heaps
BIAS = 64  # the constant feature of a context
STEP = 800_000  # of the gradient, over 64 times the root of the tokens seen
STEP_START, STEP_CAP = 40, 4096
ERROR_BITS = 4
GRADIENT_SHIFT = 14
TILT_SHIFT = 16
TILT_LIMIT = 1 << 11
SCORE_SHIFT = 9  # from point . tilt to steps of `power`
UNIFORM = TOTAL >> 7
MIX_BITS = 28
CAP = TOTAL // 16 * 15 - 1  # of a frequency, less one

ABREAST = 8  # coordinates that are added up in one go; points have a multiple of these

F, S = np.float64, np.float32
I, L = np.int32, np.int64  # noqa: E741
U, V = np.uint32, np.uint64

UNWEIGHT, UNMIX = 0.5**WEIGHT_BITS, 0.5**MIX_BITS
WIDE_SHIFT, NARROW_SHIFT = KERNEL_SHIFTS
WIDE_SPIKE, NARROW_SPIKE = SPIKES
MASS = 1 << (MASS_BITS + PEAK_BITS)
FAR = 1 << 30  # a squared distance at which every kernel is 0
OCTAVES = S(0.5**23)  # from the bits of a float32 to its logarithm, 127 more and at most 0.09 less

Array = npt.NDArray[Any]


class State(NamedTuple):
    """The model of one stream, the features of its next token, and room for what each token needs.

    K is the number of codewords, D their dimension, D8 that up to a multiple of ``ABREAST``.
    """

    points: Array  # float32 (D8, K)
    axes: Array  # int16, or int64 where sums do not fit in 32 bits, (D8, K): the points once more
    squares: Array  # int32, or int64, (K,) of the points' lengths
    features: Array  # int64 (features,)
    maps: Array  # int64 (phases, features, D)
    rates: Array  # int64 (STEP_CAP + 1,) of learning, by the tokens seen
    steps: Array  # int64 (phases,) tokens of each phase
    weights: Array  # int64 (2, phases) of the wide heap, of the mixture that is not tilted
    counts: Array  # int32 (2, K)
    wholes: Array  # int64 (2,) sums of the counts
    seen: Array  # int64 (2,) tokens counted, kernels kept
    kept: Array  # uint16 (kernels + 1, 2, K) of tokens that have come; the first is that of any other
    kept_sums: Array  # int64 (kernels + 1, 2)
    slots: Array  # int32 (K,) where a token's kernels are kept, 0 if they are not
    gains: Array  # int32, or int64, (K,)
    mixed: Array  # float64 (2, K) the mixture of the heaps, plain and tilted
    row: Array  # int32 (K,) frequencies less an extra that is the same for all
    tilt: Array  # as `axes` (D8,)
    error: Array  # int64 (D8,)
    sums: Array  # int64 (5,) of `mixed` and of the heaps weighted by the gains; the extra of `row`


class Choice(NamedTuple):
    """What to choose tokens by, and room for it; nothing where tokens are not chosen."""

    costs: Array  # float32 (n, K) of each codeword beside its bits, in bits
    logs: Array  # float32 (K,) frequencies
    log_bits: Array  # int32 (K,) the same memory


@part
def _along(axes: Array, direction: Array, out: Array) -> None:
    """Sets ``out`` to the products of points (D8, K) with a direction (D8,)."""
    number = out.dtype.type
    out[:] = 0
    for d in range(0, axes.shape[0], ABREAST):
        p0, p1, p2, p3 = axes[d], axes[d + 1], axes[d + 2], axes[d + 3]
        p4, p5, p6, p7 = axes[d + 4], axes[d + 5], axes[d + 6], axes[d + 7]
        t0, t1, t2, t3 = direction[d], direction[d + 1], direction[d + 2], direction[d + 3]
        t4, t5, t6, t7 = direction[d + 4], direction[d + 5], direction[d + 6], direction[d + 7]
        for c in range(out.size):
            a = number(p0[c]) * number(t0) + number(p1[c]) * number(t1)
            a += number(p2[c]) * number(t2) + number(p3[c]) * number(t3)
            b = number(p4[c]) * number(t4) + number(p5[c]) * number(t5)
            b += number(p6[c]) * number(t6) + number(p7[c]) * number(t7)
            out[c] = number(out[c] + number(a + b))


@part
def _gains(scores: Array) -> None:
    """Turns scores into gains, the largest 2^15."""
    number, top = scores.dtype.type, scores[0]
    for c in range(scores.size):
        top = max(top, scores[c])
    for c in range(scores.size):
        scores[c] = power(U(number(top - scores[c]) >> number(SCORE_SHIFT)))


@part
def _mix(counts: Array, factors: tuple[float, float], gains: Array, mixed: Array, sums: Array) -> None:
    """Sets the mixture of the heaps, plain and tilted; their sums, and those of the heaps under gains."""
    wide, narrow, base, tilted = counts[0], counts[1], mixed[0], mixed[1]
    wide_factor, narrow_factor = factors
    a, b, x, y = 0.0, 0.0, 0.0, 0.0
    for c in range(gains.size):
        gain = F(gains[c])
        both = np.floor(wide[c] * wide_factor + narrow[c] * narrow_factor) + 1.0
        base[c] = both
        tilted[c] = both * gain
        a += both
        b += both * gain
        x += gain * wide[c]
        y += gain * narrow[c]
    sums[0], sums[1], sums[2], sums[3] = L(a), L(b), L(x), L(y)


@part
def _rows(mixed: Array, base_factor: float, tilted_factor: float, floor: float, row: Array) -> Any:
    """Sets the frequencies less an extra that is the same for all; returns the extra."""
    base, tilted, size = mixed[0], mixed[1], row.size
    largest, whole = I(-1), I(0)
    for c in range(size):
        frequency = I(tilted[c] * tilted_factor + (base[c] * base_factor + floor))
        row[c] = frequency
        largest = max(largest, frequency)
        whole = I(whole + frequency)
    return _settled(row, largest, whole)


@part
def _settled(row: Array, largest: Integer, whole: Integer) -> Any:
    """Gives the largest frequency what is left; returns an extra that is to be added to all.

    Args:
        row: the frequencies; ``largest`` of them, and ``whole``, their sum.
    """
    size = row.size
    top = I(size)
    for c in range(size):
        top = min(top, I(c) if row[c] == largest else I(size))
    frequency, extra = L(largest) + TOTAL - size - whole, L(1)
    if frequency > CAP:
        spare = (frequency - CAP) // (size - 1) + 1
        frequency -= spare * size
        extra += spare
    row[top] = I(frequency)
    return extra


@part
def _moments(tilted: Array, points: Array, out: Array) -> None:
    """Sets ``out`` (D8,) to the sums of the points weighted by the tilted mixture."""
    for d in range(0, points.shape[0], ABREAST):
        p0, p1, p2, p3 = points[d], points[d + 1], points[d + 2], points[d + 3]
        p4, p5, p6, p7 = points[d + 4], points[d + 5], points[d + 6], points[d + 7]
        a0, a1, a2, a3, a4, a5, a6, a7 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for c in range(tilted.size):
            weight = tilted[c]
            a0 += weight * p0[c]
            a1 += weight * p1[c]
            a2 += weight * p2[c]
            a3 += weight * p3[c]
            a4 += weight * p4[c]
            a5 += weight * p5[c]
            a6 += weight * p6[c]
            a7 += weight * p7[c]
        out[d], out[d + 1], out[d + 2], out[d + 3] = L(a0), L(a1), L(a2), L(a3)
        out[d + 4], out[d + 5], out[d + 6], out[d + 7] = L(a4), L(a5), L(a6), L(a7)


@part
def _kernels(across: Array, squares: Array, square: int, kernels: Array, sums: Array) -> None:
    """Sets the kernels (2, K) of both heaps around a token's point, and their sums.

    Args:
        across: -2 times the products of all points with it.
        squares: of the points' lengths; ``square`` that of its own.
    """
    wide, narrow, number = kernels[0], kernels[1], across.dtype.type
    wide_sum, narrow_sum = I(0), I(0)
    for c in range(across.size):
        distance = U(min(number(number(squares[c] + square) + across[c]), number(FAR)))
        a = power(U(distance >> U(WIDE_SHIFT)))
        b = power(U(distance >> U(NARROW_SHIFT)))
        wide[c] = np.uint16(a)
        narrow[c] = np.uint16(b)
        wide_sum = I(wide_sum + a)
        narrow_sum = I(narrow_sum + b)
    sums[0], sums[1] = wide_sum, narrow_sum


@part
def _add(counts: Array, kernel: Array, factor: int) -> Any:
    """Adds what one heap gains; returns the sum of it."""
    total, factor32 = I(0), U(factor)
    for c in range(counts.size):
        gained = I(U(U(kernel[c]) * factor32) >> U(15))
        counts[c] = I(counts[c] + gained)
        total = I(total + gained)
    return L(total)


@part
def _halve(counts: Array) -> Any:
    """Halves the counts of one heap, rounding up; returns their sum."""
    total = L(0)
    for c in range(counts.size):
        counts[c] = I(I(counts[c] + I(1)) >> I(1))
        total += counts[c]
    return total


@part
def _aim(features: Array, turned: Array, along: Array, tilt: Array) -> None:
    """Sets the tilt that the features ask for by a map (features, D). Overwrites ``along``."""
    along[:] = 0
    for f in range(features.size):
        for d in range(turned.shape[1]):
            along[d] += features[f] * turned[f, d]
    for d in range(turned.shape[1]):
        tilt[d] = min(max(along[d] >> TILT_SHIFT, -TILT_LIMIT), TILT_LIMIT)


@part
def _turn(features: Array, error: Array, maps: Array, phase: Integer, rate: int) -> None:
    """Turns the maps by the error."""
    phases, _, dim = maps.shape
    shared = L(0)
    for f in range(features.size):
        start = dim if f >= dim else 0
        if f in (0, dim):
            shared = L(0)
            for d in range(dim):
                shared += features[start + d] * error[d]
        for d in range(dim):
            gradient = features[f] * error[d]
            if f < 2 * dim and f == start + d:
                gradient += shared
            gradient = (gradient * rate) >> GRADIENT_SHIFT
            for each in range(phases):
                maps[each, f, d] += gradient
            maps[phase, f, d] += gradient


@part
def _predict(state: State, phase: int) -> None:
    """Sets the frequencies of the next token."""
    size, sums, wide, plain = state.row.size, state.sums, state.weights[0, phase], state.weights[1, phase]
    _aim(state.features, state.maps[phase], state.error, state.tilt)
    _along(state.axes, state.tilt, state.gains)
    _gains(state.gains)
    wide_factor = ((wide << BASE_BITS) // state.wholes[0]) * UNWEIGHT
    narrow_factor = (((WEIGHT - wide) << BASE_BITS) // state.wholes[1]) * UNWEIGHT
    _mix(state.counts, (wide_factor, narrow_factor), state.gains, state.mixed, sums)
    free = TOTAL - size - UNIFORM
    plain_mass = (free * plain) >> WEIGHT_BITS
    tilted_factor = (((free - plain_mass) << MIX_BITS) // sums[1]) * UNMIX
    base_factor = ((plain_mass << MIX_BITS) // sums[0]) * UNMIX
    floor = ((UNIFORM << MIX_BITS) // size) * UNMIX
    sums[4] = _rows(state.mixed, base_factor, tilted_factor, floor, state.row)


@part
def _learn(state: State, phase: Integer, token: Integer) -> None:
    """Learns from the token that came under the last prediction."""
    base, tilted, wide, narrow = state.sums[0], state.sums[1], state.sums[2], state.sums[3]
    counts, weights, error, dim = state.counts, state.weights, state.error, state.maps.shape[2]
    first, second = L(counts[0, token]), L(counts[1, token])
    weights[0, phase] = share(weights[0, phase], first, narrow, second, wide, HEAP_SHARE)
    first, second = L(state.mixed[0, token]), L(state.mixed[1, token])
    weights[1, phase] = share(weights[1, phase], first, tilted, second, base, TILT_SHARE)
    _moments(state.mixed[1], state.points, error)
    for d in range(dim):
        error[d] = (L(state.points[d, token]) << ERROR_BITS) - (error[d] << ERROR_BITS) // tilted
    _turn(state.features, error, state.maps, phase, state.rates[min(state.steps[phase], STEP_CAP)])
    state.steps[phase] += 1
    _spread(state, token)
    for d in range(dim):
        state.features[dim + d] = state.features[d]
        state.features[d] = L(state.points[d, token])


@part
def _spread(state: State, token: Integer) -> None:
    """Adds a token's mass to the heaps. Overwrites ``gains`` and ``tilt``."""
    slot, counts, seen = state.slots[token], state.counts, state.seen
    if not slot:
        if seen[1] + 1 < state.kept.shape[0]:
            seen[1] += 1
            slot = I(seen[1])
            state.slots[token] = slot
        for d in range(state.tilt.size):
            state.tilt[d] = -2 * state.axes[d, token]
        _along(state.axes, state.tilt, state.gains)
        square = state.squares[token]
        _kernels(state.gains, state.squares, square, state.kept[slot], state.kept_sums[slot])
    for heap in range(HEAPS):
        spike = WIDE_SPIKE if heap == 0 else NARROW_SPIKE
        gained = _add(counts[heap], state.kept[slot, heap], MASS // state.kept_sums[slot, heap])
        state.wholes[heap] += gained + spike
        counts[heap, token] += I(spike)
    seen[0] += 1
    if seen[0] == HALVE:
        seen[0] = HALVE // 2
        for heap in range(HEAPS):
            state.wholes[heap] = _halve(counts[heap])


@part
def _choose(choice: Choice, n: int, row: Array, extra: int) -> Any:
    """Returns the codeword of least cost and bits for token ``n`` of the block, the first of several."""
    costs, logs, bits, size = choice.costs[n], choice.logs, choice.log_bits, row.size
    for c in range(size):
        logs[c] = S(I(row[c] + I(extra)))
    least = S(np.inf)
    for c in range(size):
        cost = costs[c] - S(bits[c]) * OCTAVES
        costs[c] = cost
        least = min(least, cost)
    token = I(size)
    for c in range(size):
        token = min(token, I(c) if costs[c] == least else I(size))
    return L(token)


@part
def _mingle(state: State, learned: Learned, n: int) -> None:
    """Sets the frequencies of the next token under the prior and coder 1: coder 2's."""
    recall(learned, n)
    _along(learned.table, learned.out, learned.scores)
    blend(learned, state.row, state.sums[4])
    gains, row = learned.scores, learned.row
    factor = (((TOTAL - row.size - UNIFORM) << MIX_BITS) // learned.sums[0]) * UNMIX
    floor = ((UNIFORM << MIX_BITS) // row.size) * UNMIX
    largest, whole = I(-1), I(0)
    for c in range(row.size):
        frequency = I(F(gains[c]) * factor + floor)
        row[c] = frequency
        largest = max(largest, frequency)
        whole = I(whole + frequency)
    learned.sums[3] = _settled(row, largest, whole)


def _code(
    state: State,
    learned: Learned,
    choice: Choice,
    start: int,
    above: Array,
    tokens: Array,
    intervals: Array,
    payload: Array,
    reader: Array,
) -> int:
    """Codes the next tokens: one function for both ways and coders, since it takes seconds to compile.

    Args:
        state: changes with every token.
        learned: the prior's part, its ``row`` empty for coder 1 alone.
        choice: what to choose tokens by, its ``costs`` empty where they are given or decoded.
        start: tokens of the stream before these.
        above: int64 (n, width), features from the coarser level.
        tokens: uint16 (n,), read, or written where they are chosen or decoded.
        intervals: int64 (n, 2), written: the frequencies below a token's, and its own; with a prior (n, 4),
            first coder 1's, then coder 2's; (0, 2) to choose, or else to decode.
        payload: uint8, the stream's bytes, to decode.
        reader: uint64 (3,), the range, the offset, and the bytes read.

    Returns:
        the tokens coded; fewer than n if no encoder wrote the payload.
    """
    phases, _, dim = state.maps.shape
    both = learned.row.size > 0
    for n in range(tokens.size):
        phase = (start + n) % phases
        for f in range(above.shape[1]):
            state.features[2 * dim + f] = above[n, f]
        _predict(state, phase)
        if both:
            _mingle(state, learned, n)
        row, extra = (learned.row, learned.sums[3]) if both else (state.row, state.sums[4])
        if intervals.size:
            token = L(tokens[n])
            interval(state.row, token, state.sums[4], intervals[n])
            if both:
                interval(learned.row, token, learned.sums[3], intervals[n, 2:])
        else:
            if choice.costs.size:
                token = _choose(choice, n, row, extra)
            else:
                token = decode_token(row, extra, payload, reader)
            if token < 0:
                return n
            tokens[n] = token
        if both:
            reweigh(learned, token, state.rates[min(state.steps[phase], STEP_CAP)])
            remember(learned, token)
        _learn(state, phase, token)
    return tokens.size


def _kinds(axis: str, number: str) -> tuple[Record | str, ...]:
    """Returns the kinds of the kernel's arguments for products of one type, summed up in another."""
    state = "f42 A2 N1 i81 i83 i81 i81 i82 i42 i81 i81 u23 i82 i41 N1 f82 i41 A1 i81 i81"
    state = state.replace("A", axis).replace("N", number)
    learned = "f42 i81 i41 i82 i81 f42 f42 f42 f41 i81 i22 i41 f41 i21 i41 i41 i41 i41 i81 i81"
    records = []
    for kind, fields in ((State, state), (Learned, learned), (Choice, "f42 f41 i41")):
        kinds = [f"{field[:2]}[{','.join(':' * int(field[2]))}]" for field in fields.split()]
        records.append(Record(kind, dict(zip(kind._fields, kinds, strict=True))))
    return *records, "i8", "i8[:,:]", "u2[:]", "i8[:,:]", "u1[:]", "u8[:]"


FAST = frozenset({"reassoc", "contract"})
code_narrow = compiled(*_kinds("i2", "i4"), fastmath=FAST)(_code)
code_wide = compiled(*_kinds("i8", "i8"), fastmath=FAST)(_code)
