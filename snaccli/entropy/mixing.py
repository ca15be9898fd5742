"""Parts of the kernel for coder 2: a learned prior's scores, and their mixture with coder 1's frequencies.

docs/format.md, section 8, is the normative text. As in kernel.py floats hold integers only: a prior whose
sums could leave 2^24 is refused when it is loaded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snac.jit import part
from snaccli.entropy.arithmetic import Integer, power

__all__ = ["LAGS", "Learned", "blend", "recall", "remember", "reweigh"]

LAGS = 4  # tokens of the same level that a prior sees
HIDDEN_LIMIT = 127  # of a hidden unit
OUT_LIMIT = 511  # of a coordinate of the output
PRIOR_SHIFT = 8  # from scores to steps of `power`
MIXING_BITS = 12  # of a factor of 1 in the mixture, as it is used
LEARNING_BITS = 24  # the same, as it is learned
PRIOR_START, ROW_START = 13_421_773, 5_033_165  # factors of the prior and of coder 1: 0.8 and 0.3
LARGEST = 2 << LEARNING_BITS  # of a factor

F, S = np.float64, np.float32
I, L = np.int32, np.int64  # noqa: E741
U = np.uint32

Array = npt.NDArray[Any]


class Learned(NamedTuple):
    """A prior's part for one stream, and room for what each token needs; without a prior all are empty.

    K is the number of codewords, E the width of an embedding, H that of the hidden layer, D that of the
    output, up to a multiple of 8; W the number of windows, M the largest of them, LAGS at least.
    """

    embedding: Array  # float32 (K + 1, E), the last row 0: a token that is not there
    windows: Array  # int64 (W,) tokens of each
    history: Array  # int32 (M,) the last tokens of the same level, token t at t modulo M, or K
    totals: Array  # int64 (W, E) sums of the embeddings in each window
    taken: Array  # int64 (1,) tokens so far
    first: Array  # float32 ((LAGS + W) * E, H)
    above: Array  # float32 (tokens, H) what the coarser levels and the phase give to the hidden layer
    second: Array  # float32 (D, H)
    second_bias: Array  # float32 (D,)
    shifts: Array  # int64 (2,) of the hidden layer, of the output
    table: Array  # int16 (D, K)
    table_bias: Array  # int32 (K,)
    hidden: Array  # float32 (H,)
    out: Array  # int16 (D,)
    scores: Array  # int32 (K,) in the end the mixture
    known: Array  # int32 (K,) the prior's scores in steps of `power`
    logs: Array  # int32 (K,) logarithms of coder 1's frequencies, in the same steps
    row: Array  # int32 (K,) frequencies less an extra that is the same for all
    factors: Array  # int64 (2,) of the prior and of coder 1
    sums: Array  # int64 (4,) of the mixture, of the features under it; the extra


@part
def _add_means(learned: Learned) -> None:
    """Adds to the hidden units what the means of the last tokens of the same level give."""
    hidden, width = learned.hidden, learned.embedding.shape[1]
    for number in range(learned.windows.size):
        count = min(learned.taken[0], learned.windows[number])
        if count > 0:
            totals = learned.totals[number]
            for e in range(width):
                weights = learned.first[(LAGS + number) * width + e]
                mean = S((2 * totals[e] + count) // (2 * count))
                for h in range(hidden.size):
                    hidden[h] += mean * weights[h]


@part
def recall(learned: Learned, n: int) -> None:
    """Sets the prior's output for token ``n`` of the block; its scores are the table's products with it."""
    hidden, out, width = learned.hidden, learned.out, learned.embedding.shape[1]
    above = learned.above[n]
    for h in range(hidden.size):
        hidden[h] = above[h]
    table, history, taken = learned.embedding, learned.history, learned.taken[0]
    x0, x1 = table[history[(taken - 1) % history.size]], table[history[(taken - 2) % history.size]]
    x2, x3 = table[history[(taken - 3) % history.size]], table[history[(taken - 4) % history.size]]
    for e in range(width):
        w0, w1 = learned.first[e], learned.first[width + e]
        w2, w3 = learned.first[2 * width + e], learned.first[3 * width + e]
        y0, y1, y2, y3 = x0[e], x1[e], x2[e], x3[e]
        for h in range(hidden.size):
            hidden[h] += (y0 * w0[h] + y1 * w1[h]) + (y2 * w2[h] + y3 * w3[h])
    _add_means(learned)
    shift = learned.shifts[0]
    for h in range(hidden.size):
        hidden[h] = S(min(max(I(hidden[h]) >> I(shift), I(0)), I(HIDDEN_LIMIT)))
    shift = learned.shifts[1]
    for d in range(out.size):
        weights, total = learned.second[d], learned.second_bias[d]
        for h in range(hidden.size):
            total += weights[h] * hidden[h]
        out[d] = min(max(I(total) >> I(shift), I(-OUT_LIMIT)), I(OUT_LIMIT))


@part
def blend(learned: Learned, row: Array, extra: int) -> None:
    """Turns the prior's scores into its mixture with coder 1's frequencies, and sets the sums."""
    scores, known, logs = learned.scores, learned.known, learned.logs
    first = I(learned.factors[0] >> (LEARNING_BITS - MIXING_BITS))
    second = I(learned.factors[1] >> (LEARNING_BITS - MIXING_BITS))
    top = I(-(1 << 30))
    for c in range(scores.size):
        prior = I(I(scores[c] + learned.table_bias[c]) >> I(PRIOR_SHIFT))
        log = I(I(S(I(row[c] + I(extra))).view(np.int32) >> I(18)) - I(127 * 32))
        z = I(I(I(prior * first) + I(log * second)) >> I(MIXING_BITS))
        known[c], logs[c], scores[c] = prior, log, z
        top = max(top, z)
    total, knowing, logging = 0.0, 0.0, 0.0
    for c in range(scores.size):
        gain = power(U(I(top - scores[c])))
        scores[c] = gain
        total += F(gain)
        knowing += F(gain) * known[c]
        logging += F(gain) * logs[c]
    learned.sums[0], learned.sums[1], learned.sums[2] = L(total), L(knowing), L(logging)


@part
def reweigh(learned: Learned, token: Integer, rate: int) -> None:
    """Learns the factors of the mixture from the token that came."""
    sums, factors = learned.sums, learned.factors
    first = learned.known[token] - sums[1] // sums[0]
    second = learned.logs[token] - sums[2] // sums[0]
    factors[0] = min(max(factors[0] + first * rate, 0), LARGEST)
    factors[1] = min(max(factors[1] + second * rate, 0), LARGEST)


@part
def remember(learned: Learned, token: Integer) -> None:
    """Takes a token as the last one."""
    taken, history, table = learned.taken[0], learned.history, learned.embedding
    learned.taken[0] = taken + 1
    for number in range(learned.windows.size):
        totals, length = learned.totals[number], learned.windows[number]
        for e in range(totals.size):
            totals[e] += L(table[token, e])
        if taken >= length:
            gone = history[(taken - length) % history.size]
            for e in range(totals.size):
                totals[e] -= L(table[gone, e])
    history[taken % history.size] = token
