"""The adaptive coder compiled by numba: model.py and the range decoder for a block of tokens in one call.

Every machine must come to the same integers, so:

- the constants of the format come in as :class:`Constants`. Were they compiled in, numba's cache, which
  looks at this file alone, would outlive a change of them; nor can what is compiled lie in several files;
- integers have a width throughout (numba widens by itself what is not cut back), and wrap around;
- floats hold integers only: below 2^24 in float32, below 2^53 in float64, whole sums and products
  included, so the order of a sum and a multiplication fused with an addition change nothing. Their
  scaling by powers of two is exact, and what follows it is rounded down. :func:`_power` alone rounds; its
  result is proven over all its arguments by a test.

Loops over codewords are written for the compiler to vectorise: one thing at a time, over slices from 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np

from snaccli.entropy.jit import OPTIONS, F, I, L, S, U, V, compiled, inlined, jit

if TYPE_CHECKING:
    from snaccli.entropy.state import (
        Bytes,
        Code,
        Constants,
        Floats,
        Longs,
        Quad,
        Shorts,
        Small,
        State,
        Words,
    )

PIECE = 256  # codewords whose frequencies are summed up together
ABREAST = 8  # coordinates that are added up in one go; points have a multiple of these
PRECISION = 24  # bits of the sum of all frequencies

# A polynomial in i that rounds down to 2^15 * 2^(-i / 32), rounded, for i from 0 to 31. Its distance from
# the middle between two roundings is at least 0.03, that of float32 from it below 0.01.
P0, P1, P2, P3, P4 = (
    S(32768.52938531), S(-22711.50247403 / 2**5), S(7854.30644681 / 2**10),
    S(-1759.89815508 / 2**15), S(233.50648223 / 2**20),
)  # fmt: skip


def build(*, cached: bool) -> Code:
    """Return :func:`_code` as a function that is compiled, or taken from numba's cache, when it is called.

    Raises:
        RuntimeError: numba finds no folder for its cache.
    """
    return cast("Code", jit(cache=cached, **OPTIONS)(_code))


@inlined
def _power(step: np.uint32) -> np.int32:
    """Return 2^15 * 2^(-step / 32), rounded, then shifted right octave by octave; 0 from 512 on."""
    step = step if step < U(511) else U(511)
    i = S(I(step & U(31)))
    top: np.uint32 = U(I(P0 + i * (P1 + i * (P2 + i * (P3 + i * P4)))))
    power: np.int32 = I(U(top >> U(U(step >> U(5)) & U(15))))
    return power


@compiled
def _along(points: Small, direction: Words, out: Words) -> None:
    """Set ``out`` to the points' products with a direction (D8,)."""
    out[:] = 0
    for d in range(0, points.shape[0], ABREAST):
        p0, p1, p2, p3 = points[d], points[d + 1], points[d + 2], points[d + 3]
        p4, p5, p6, p7 = points[d + 4], points[d + 5], points[d + 6], points[d + 7]
        t0, t1, t2, t3 = direction[d], direction[d + 1], direction[d + 2], direction[d + 3]
        t4, t5, t6, t7 = direction[d + 4], direction[d + 5], direction[d + 6], direction[d + 7]
        for c in range(out.size):
            a = I(I(I(p0[c]) * t0) + I(I(p1[c]) * t1))
            b = I(I(I(p2[c]) * t2) + I(I(p3[c]) * t3))
            x = I(I(I(p4[c]) * t4) + I(I(p5[c]) * t5))
            y = I(I(I(p6[c]) * t6) + I(I(p7[c]) * t7))
            out[c] = I(out[c] + I(I(a + b) + I(x + y)))


@compiled
def _gains(scores: Words, shift: int) -> None:
    """Turn scores into gains, the largest 2^15."""
    shift = U(shift & 31)
    top = scores[0]
    for c in range(scores.size):
        top = max(top, scores[c])
    for c in range(scores.size):
        scores[c] = _power(U(U(I(top - scores[c])) >> shift))


@compiled
def _mix(
    wide: Words, narrow: Words, factors: tuple[float, float], gains: Words, base: Floats, tilted: Floats
) -> tuple[int, int, int, int]:
    """Set the mixture of the heaps, plain and tilted.

    Returns:
        the sums of both, and of the two heaps weighted by the gains.
    """
    wide_factor, narrow_factor = factors
    base_whole, tilted_whole, wide_gained, narrow_gained = 0.0, 0.0, 0.0, 0.0
    for c in range(base.size):
        x, y, gain = F(wide[c]), F(narrow[c]), F(gains[c])
        both = np.floor(x * wide_factor + y * narrow_factor) + 1.0
        weighted = both * gain
        base[c] = both
        tilted[c] = weighted
        base_whole += both
        tilted_whole += weighted
        wide_gained += gain * x
        narrow_gained += gain * y
    return L(base_whole), L(tilted_whole), L(wide_gained), L(narrow_gained)


@compiled
def _moments(tilted: Floats, points: Words, out: Longs) -> None:
    """Set ``out`` (D8,) to the sums of the points weighted by the tilted mixture."""
    for d in range(0, points.shape[0], ABREAST):
        p0, p1, p2, p3 = points[d], points[d + 1], points[d + 2], points[d + 3]
        p4, p5, p6, p7 = points[d + 4], points[d + 5], points[d + 6], points[d + 7]
        a0, a1, a2, a3, a4, a5, a6, a7 = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for c in range(tilted.size):
            weight = tilted[c]
            a0 += weight * F(p0[c])
            a1 += weight * F(p1[c])
            a2 += weight * F(p2[c])
            a3 += weight * F(p3[c])
            a4 += weight * F(p4[c])
            a5 += weight * F(p5[c])
            a6 += weight * F(p6[c])
            a7 += weight * F(p7[c])
        out[d], out[d + 1], out[d + 2], out[d + 3] = L(a0), L(a1), L(a2), L(a3)
        out[d + 4], out[d + 5], out[d + 6], out[d + 7] = L(a4), L(a5), L(a6), L(a7)


@compiled
def _rows(state: State, factors: tuple[float, float, float]) -> tuple[int, int]:
    """Set the frequencies and their sums by pieces.

    Returns:
        the first of the largest, and the sum of all.
    """
    tilted_factor, base_factor, floor = factors
    best, piece, whole = I(-1), 0, L(0)
    for n in range(state.sums.size):
        tilted = state.tilted[n * PIECE : (n + 1) * PIECE]
        base = state.base[n * PIECE : (n + 1) * PIECE]
        row = state.row[n * PIECE : (n + 1) * PIECE]
        largest, total = I(-1), I(0)
        for c in range(row.size):
            frequency = I(tilted[c] * tilted_factor + (base[c] * base_factor + floor))
            row[c] = frequency
            largest = max(largest, frequency)
            total = I(total + frequency)
        state.sums[n] = total
        whole += total
        if largest > best:
            best, piece = largest, n
    top = piece * PIECE
    while state.row[top] != best:
        top += 1
    return top, whole


@compiled
def _spread(state: State, token: int, constants: Constants) -> None:
    """Add a token's mass to the heaps. Overwrites ``gains``."""
    slot = state.slots[token]
    if not slot:
        if state.seen[1] + 1 < state.kept.shape[0]:
            state.seen[1] += 1
            slot = state.seen[1]
            state.slots[token] = slot
        sums = _kernels(state, token, state.kept[slot], constants)
        state.kept_sums[slot, 0], state.kept_sums[slot, 1] = sums
    mass = L(1) << constants.kernel_bits
    wide = _add(state.counts[0], state.kept[slot, 0], U(mass // state.kept_sums[slot, 0]))
    narrow = _add(state.counts[1], state.kept[slot, 1], U(mass // state.kept_sums[slot, 1]))
    state.wholes[0] += wide + constants.wide_spike
    state.wholes[1] += narrow + constants.narrow_spike
    state.counts[0, token] += constants.wide_spike
    state.counts[1, token] += constants.narrow_spike


@compiled
def _kernels(state: State, token: int, kernels: Shorts, constants: Constants) -> tuple[int, int]:
    """Set the kernels (2, K) of both heaps around a token's point; return their sums."""
    for d in range(state.tilt.size):
        state.tilt[d] = I(-2 * state.points[d, token])
    across, squares, square = state.gains, state.squares, state.squares[token]
    wide, narrow = kernels[0], kernels[1]
    _along(state.points, state.tilt, across)
    wide_shift, narrow_shift = U(constants.wide_shift & 31), U(constants.narrow_shift & 31)
    wide_sum, narrow_sum = I(0), I(0)
    for c in range(across.size):
        distance = U(I(I(squares[c] + square) + across[c]))
        a = _power(U(distance >> wide_shift))
        b = _power(U(distance >> narrow_shift))
        wide[c] = np.uint16(a)
        narrow[c] = np.uint16(b)
        wide_sum = I(wide_sum + a)
        narrow_sum = I(narrow_sum + b)
    return L(wide_sum), L(narrow_sum)


@compiled
def _add(counts: Words, kernel: Shorts, factor: np.uint32) -> int:
    """Add what one heap gains; return the sum of it."""
    total = I(0)
    for c in range(counts.size):
        gained = I(U(U(kernel[c]) * factor) >> U(15))
        counts[c] = I(counts[c] + gained)
        total = I(total + gained)
    return int(L(total))


@compiled
def _product(a: int, b: int) -> tuple[np.uint64, np.uint64]:
    """Multiply two positive 64-bit integers to one of 128 bits: its high and its low half."""
    half, low_half = V(32), V(0xFFFFFFFF)
    a0, a1, b0, b1 = V(a) & low_half, V(a) >> half, V(b) & low_half, V(b) >> half
    low = a0 * b0
    left = a1 * b0 + (low >> half)
    right = a0 * b1 + (left & low_half)
    return a1 * b1 + (left >> half) + (right >> half), (right << half) | (low & low_half)


@compiled
def _fixed_share(weight: int, whole: int, first: tuple[int, int], second: tuple[int, int], share: int) -> int:
    """Return ``fixed_share`` of model.py, each success given as two factors.

    The quotient has at most 17 bits; it is found by long division, which needs no number above 2^95.
    """
    first_high, first_low = _product(weight * first[0], first[1])
    second_high, second_low = _product((whole - weight) * second[0], second[1])
    low = first_low + second_low
    high = first_high + second_high + V(low < first_low)
    rest_high, rest_low, quotient = V(0), V(0), L(0)
    for bit in range(16, -1, -1):
        rest_high = (rest_high << V(1)) | (rest_low >> V(63))
        rest_low = rest_low << V(1)
        quotient *= 2
        if ((whole - 2 * share) >> bit) & 1:
            rest_low += first_low
            rest_high += first_high + V(rest_low < first_low)
        while rest_high > high or (rest_high == high and rest_low >= low):
            rest_high -= high + V(rest_low < low)
            rest_low -= low
            quotient += 1
    return int(share + quotient)


@compiled
def _tilt(state: State, phase: int, constants: Constants) -> None:
    """Set the tilt that the features ask for."""
    along, dim = state.gradient, state.maps.shape[2]
    along[:] = 0
    for f in range(state.features.size):
        feature, turned = state.features[f], state.maps[phase, f]
        for d in range(dim):
            along[d] += feature * turned[d]
    limit = constants.tilt_limit
    for d in range(dim):
        state.tilt[d] = I(min(max(along[d] >> constants.tilt_shift, -limit), limit))
    state.tilt[dim:] = 0


@compiled
def _turn(state: State, phase: int, constants: Constants) -> None:
    """Turn the maps by the error."""
    phases, features, dim = state.maps.shape
    seen = min(state.steps[phase], constants.step_cap)
    rate = constants.step // L(math.sqrt((seen + constants.step_start) << 12))  # exact below 2^52
    gradient, error, diagonal = state.gradient, state.error, L(0)
    for f in range(features):
        feature = state.features[f]
        for d in range(dim):
            gradient[d] = feature * error[d]
        if f < 2 * dim:
            start = 0 if f < dim else dim
            if f == start:
                diagonal = L(0)
                for d in range(dim):
                    diagonal += state.features[start + d] * error[d]
            gradient[f - start] += diagonal
        for d in range(dim):
            gradient[d] = (gradient[d] * rate) >> constants.gradient_shift
        for each in range(phases):
            turned = state.maps[each, f]
            times = 2 if each == phase else 1
            for d in range(dim):
                turned[d] += gradient[d] * times
    state.steps[phase] += 1


@compiled
def _predict(state: State, phase: int, constants: Constants) -> tuple[int, int, int, int, int]:
    """Set the frequencies of the next token, less an ``extra`` that is the same for all.

    Returns:
        the extra, and what :func:`_mix` returns.
    """
    size, one = state.row.size, L(1) << constants.weight_bits
    wide, plain = state.weights[0, phase], state.weights[1, phase]
    _tilt(state, phase, constants)
    _along(state.points, state.tilt, state.gains)
    _gains(state.gains, constants.score_shift)
    unshift = 0.5**constants.weight_bits
    shares = (
        ((wide << constants.base_bits) // state.wholes[0]) * unshift,
        (((one - wide) << constants.base_bits) // state.wholes[1]) * unshift,
    )
    sums = _mix(state.counts[0], state.counts[1], shares, state.gains, state.base, state.tilted)
    bits, unshift = constants.mix_bits, 0.5**constants.mix_bits
    free = (L(1) << PRECISION) - size - constants.uniform
    plain_mass = (free * plain) >> constants.weight_bits
    factors = (
        (((free - plain_mass) << bits) // sums[1]) * unshift,
        ((plain_mass << bits) // sums[0]) * unshift,
        ((constants.uniform << bits) // size) * unshift,
    )
    top, whole = _rows(state, factors)
    largest, spare = state.row[top] + (L(1) << PRECISION) - size - whole, L(0)
    if largest > constants.cap:
        spare = (largest - constants.cap) // (size - 1) + 1
        largest -= spare * size
    state.sums[top // PIECE] += I(largest - state.row[top])
    state.row[top] = I(largest)
    return spare + 1, sums[0], sums[1], sums[2], sums[3]


@compiled
def _learn(
    state: State, phase: int, token: int, sums: tuple[int, int, int, int], constants: Constants
) -> None:
    """Learn from the token that came under the last prediction."""
    base_whole, tilted_whole, wide_gained, narrow_gained = sums
    one, dim = L(1) << constants.weight_bits, state.maps.shape[2]
    first, second = (L(state.counts[0, token]), narrow_gained), (L(state.counts[1, token]), wide_gained)
    weights = state.weights
    weights[0, phase] = _fixed_share(weights[0, phase], one, first, second, constants.heap_share)
    first, second = (L(state.base[token]), tilted_whole), (L(state.tilted[token]), base_whole)
    weights[1, phase] = _fixed_share(weights[1, phase], one, first, second, constants.tilt_share)
    _moments(state.tilted, state.wide_points, state.error)
    for d in range(dim):
        expected = (state.error[d] << constants.error_bits) // tilted_whole
        state.error[d] = (L(state.points[d, token]) << constants.error_bits) - expected
    _turn(state, phase, constants)
    _spread(state, token, constants)
    state.seen[0] += 1
    if state.seen[0] == constants.halve:
        state.seen[0] = constants.halve // 2
        for heap in range(2):
            state.wholes[heap] = 0
            counts = state.counts[heap]
            for c in range(counts.size):
                counts[c] = I(I(counts[c] + I(1)) >> I(1))
                state.wholes[heap] += counts[c]
    for d in range(dim):
        state.features[dim + d] = state.features[d]
        state.features[d] = state.points[d, token]


@compiled
def _below(state: State, token: int, extra: int) -> int:
    """Return the sum of the frequencies before a token's."""
    piece, total = token // PIECE, extra * token
    for n in range(piece):
        total += state.sums[n]
    for c in range(piece * PIECE, token):
        total += state.row[c]
    return total


@compiled
def _find(state: State, quantile: int, extra: int) -> tuple[int, int]:
    """Return the token whose interval holds a quantile, and the sum of the frequencies before its."""
    below, start, size = L(0), 0, state.row.size
    for n in range(state.sums.size):
        mass = state.sums[n] + extra * (min(size - start, PIECE))
        if below + mass > quantile:
            break
        below += mass
        start += PIECE
    token = start
    while below + state.row[token] + extra <= quantile:
        below += state.row[token] + extra
        token += 1
    return token, below


@compiled
def _read(state: State, extra: int, payload: Bytes, reader: Quad) -> int:
    """Decode a token: docs/format.md, section 5. Returns -1 if no encoder wrote these bytes."""
    scale = reader[0] >> V(PRECISION)
    quantile = reader[1] // scale
    if quantile >> V(PRECISION):
        return -1
    token, below = _find(state, L(quantile), extra)
    reader[0] = scale * V(state.row[token] + extra)
    reader[1] -= scale * V(below)
    if not reader[0] >> V(32):
        reader[0] <<= V(32)
        for at in range(L(reader[2]), L(reader[2]) + 4):
            reader[1] = reader[1] << V(8) | V(payload[at] if at < payload.size else 0)
        reader[2] += V(4)
    return token


def _code(
    state: State,
    constants: Constants,
    start: int,
    above: Longs,
    tokens: Shorts,
    intervals: Longs,
    payload: Bytes,
    reader: Quad,
    reading: bool,
) -> int:
    """Code the next tokens: one function for both ways, since it takes seconds to compile.

    Args:
        state: changes with every token.
        constants: of the format.
        start: tokens of the stream before these.
        above: features from the coarser level (n, width).
        tokens: (n,), read, or written if ``reading``.
        intervals: written (n, 2) if not ``reading``: the frequencies below a token's, and its own.
        payload: the stream's bytes if ``reading``.
        reader: (3,) the range, the offset, and the bytes read.
        reading: whether to decode.

    Returns:
        the tokens coded; fewer than n if no encoder wrote the payload.
    """
    phases, _, dim = state.maps.shape
    for n in range(tokens.size):
        phase = (start + n) % phases
        for f in range(above.shape[1]):
            state.features[2 * dim + f] = above[n, f]
        extra, base, tilted, wide, narrow = _predict(state, phase, constants)
        if reading:
            token = _read(state, extra, payload, reader)
            if token < 0:
                return n
            tokens[n] = token
        else:
            token = L(tokens[n])
            intervals[n, 0] = _below(state, token, extra)
            intervals[n, 1] = state.row[token] + extra
        _learn(state, phase, token, (base, tilted, wide, narrow), constants)
    return tokens.size
