"""Parts of the kernel for coder 2: a learned prior's scores, and their mixture with coder 1's frequencies.

docs/format.md, section 8, is the normative text. As in kernel.py floats hold integers only: a prior whose
sums could leave 2^24 is refused when it is loaded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snac.jit import part
from snaccli.entropy.arithmetic import power

__all__ = ["LAGS", "Learned", "blend", "recall", "reweigh"]

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
    output, up to a multiple of 8.
    """

    embedding: Array  # float32 (K + 1, E), the last row 0: a token that is not there
    recent: Array  # int64 (LAGS,) tokens of the same level, the last one first; K where there is none
    first: Array  # float32 (LAGS * E, H)
    above: Array  # float32 (tokens, H) what the coarser levels and the phase give to the hidden layer
    second: Array  # float32 (D, H)
    second_bias: Array  # float32 (D,)
    shifts: Array  # int64 (2,) of the hidden layer, of the output
    table: Array  # float32 (D, K)
    table_bias: Array  # float32 (K,)
    hidden: Array  # float32 (H,)
    out: Array  # float32 (D,)
    scores: Array  # float32 (K,)
    known: Array  # int32 (K,) the same in steps of `power`
    logs: Array  # float32 (K,) coder 1's frequencies
    log_bits: Array  # int32 (K,) the same memory, in the end their logarithms
    mixed: Array  # float64 (2, K) zeros, and the mixture
    row: Array  # int32 (K,) frequencies less an extra that is the same for all
    factors: Array  # int64 (2,) of the prior and of coder 1
    sums: Array  # int64 (4,) of the mixture, of the features under it; the extra


@part
def recall(learned: Learned, n: int) -> None:
    """Sets the prior's output for token ``n`` of the block; its scores are the table's products with it."""
    hidden, out, width = learned.hidden, learned.out, learned.embedding.shape[1]
    above = learned.above[n]
    for h in range(hidden.size):
        hidden[h] = above[h]
    for lag in range(LAGS):
        vector = learned.embedding[learned.recent[lag]]
        for e in range(width):
            x, weights = vector[e], learned.first[lag * width + e]
            for h in range(hidden.size):
                hidden[h] += x * weights[h]
    shift = learned.shifts[0]
    for h in range(hidden.size):
        hidden[h] = S(min(max(I(hidden[h]) >> I(shift), I(0)), I(HIDDEN_LIMIT)))
    shift = learned.shifts[1]
    for d in range(out.size):
        weights, total = learned.second[d], learned.second_bias[d]
        for h in range(hidden.size):
            total += weights[h] * hidden[h]
        out[d] = S(min(max(I(total) >> I(shift), I(-OUT_LIMIT)), I(OUT_LIMIT)))


@part
def blend(learned: Learned, row: Array, extra: int) -> None:
    """Sets the mixture of the prior's scores and of coder 1's frequencies, and the sums."""
    scores, known, mixture = learned.scores, learned.known, learned.mixed[1]
    logs, bits = learned.logs, learned.log_bits
    first = I(learned.factors[0] >> (LEARNING_BITS - MIXING_BITS))
    second = I(learned.factors[1] >> (LEARNING_BITS - MIXING_BITS))
    for c in range(logs.size):
        logs[c] = S(I(row[c] + I(extra)))
    top = I(-(1 << 30))
    for c in range(logs.size):
        prior = I(I(scores[c] + learned.table_bias[c]) >> I(PRIOR_SHIFT))
        log = I(I(bits[c] >> I(18)) - I(127 * 32))
        z = I(I(I(prior * first) + I(log * second)) >> I(MIXING_BITS))
        known[c], bits[c], scores[c] = prior, log, S(z)
        top = max(top, z)
    total, knowing, logging = 0.0, 0.0, 0.0
    for c in range(logs.size):
        gain = F(power(U(I(top - I(scores[c])))))
        mixture[c] = gain
        total += gain
        knowing += gain * known[c]
        logging += gain * bits[c]
    learned.sums[0], learned.sums[1], learned.sums[2] = L(total), L(knowing), L(logging)


@part
def reweigh(learned: Learned, token: int, rate: int) -> None:
    """Learns the factors of the mixture from the token that came, and takes it as the last one."""
    sums, factors = learned.sums, learned.factors
    first = learned.known[token] - sums[1] // sums[0]
    second = learned.log_bits[token] - sums[2] // sums[0]
    factors[0] = min(max(factors[0] + first * rate, 0), LARGEST)
    factors[1] = min(max(factors[1] + second * rate, 0), LARGEST)
    for lag in range(LAGS - 1, 0, -1):
        learned.recent[lag] = learned.recent[lag - 1]
    learned.recent[0] = token
