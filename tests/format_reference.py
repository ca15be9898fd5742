"""A decoder of ``.snac`` streams written from docs/format.md alone: integers, no numpy, no constriction.

Slow, and meant to be read beside the document; the constants are read from there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isqrt, ldexp
from operator import mul
from pathlib import Path

DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "format.md").read_text("utf-8")


class InvalidError(Exception):
    """The stream is invalid, says the document."""


def constants(comment: str) -> dict[str, list[int]]:
    """The table of section 6.1 or 8.1."""
    table = DOCUMENT.split(comment, 1)[1].split("\n\n", 1)[0]
    rows = re.findall(r"^\| ([A-Z_]+) \| ([0-9, ]+) \|", table, re.MULTILINE)
    return {name: [int(value) for value in values.split(",")] for name, values in rows}


CONSTANTS = constants("<!-- constants:")
PRIOR_CONSTANTS = constants("<!-- constants of the prior:")
C = {name: values[0] for name, values in (CONSTANTS | PRIOR_CONSTANTS).items()}
MANTISSAS = [int(word) for word in DOCUMENT.split("    M = ", 1)[1].split("\n\n", 1)[0].split()]


def power(i: int) -> int:
    return MANTISSAS[i % 32] >> (i // 32) if i < 512 else 0


def near(a: int, b: int) -> int:
    return (2 * a + b) // (2 * b)


def reference_points(codebook: Sequence[Sequence[float]]) -> list[list[int]]:
    """Section 6.2; ``codebook`` holds float32 numbers."""
    rows = []
    for word in codebook:
        exponent = 0
        largest = max(abs(x) for x in word)
        while largest and largest >= ldexp(1.0, exponent):
            exponent += 1
        while largest and largest < ldexp(1.0, exponent - 1):
            exponent -= 1
        fixed = [round(ldexp(x, C["FIXED_BITS"] - exponent)) for x in word]
        length = max(1, isqrt(sum(x * x for x in fixed)))
        rows.append([near(C["UNIT"] * x, length) for x in fixed])
    mean = [near(sum(column), len(rows)) for column in zip(*rows, strict=True)]
    centred = [[x - m for x, m in zip(row, mean, strict=True)] for row in rows]
    spread = max(1, isqrt(sum(x * x for row in centred for x in row) // len(rows)))
    limit = C["LIMIT"]
    return [[min(max(near(C["SPREAD"] * x, spread), -limit), limit) for x in row] for row in centred]


class ReferenceRange:
    """Section 5."""

    def __init__(self, payload: bytes) -> None:
        self.rest = iter(payload)
        self.range, self.offset = (1 << 64) - 1, self.bytes(8)

    def bytes(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 8 | next(self.rest, 0)
        return value

    def decode(self, frequencies: Sequence[int]) -> int:
        scale = self.range >> 24
        quantile = self.offset // scale
        if quantile >= 1 << 24:
            raise InvalidError
        token, below = 0, 0
        while below + frequencies[token] <= quantile:
            below += frequencies[token]
            token += 1
        self.offset -= scale * below
        self.range = scale * frequencies[token]
        if self.range < 1 << 32:
            self.range <<= 32
            self.offset = self.offset << 32 | self.bytes(4)
        return token


def capped(row: list[int]) -> list[int]:
    """The end of section 6.5: frequencies that sum to 2^24."""
    size, best = len(row), row.index(max(row))
    row[best] += (1 << 24) - size - sum(row)
    if row[best] > C["CAP"]:
        spare = (row[best] - C["CAP"]) // (size - 1) + 1
        row = [x + spare for x in row]
        row[best] -= spare * size
    return [x + 1 for x in row]


class ReferenceModel:
    """Sections 6.4 to 6.6."""

    def __init__(self, points: list[list[int]], phases: int, features: int) -> None:
        self.points, self.size, self.dim = points, len(points), len(points[0])
        start = (C["START"] << C["MASS_BITS"]) // self.size
        self.counts = [[start] * self.size for _ in range(2)]
        self.seen = 0
        self.maps = [[[0] * self.dim for _ in range(features)] for _ in range(phases)]
        self.steps = [0] * phases
        self.wide, self.plain = [C["WEIGHT"] // 2] * phases, [C["WEIGHT"] // 4] * phases

    def frequencies(self, phase: int, features: Sequence[int]) -> list[int]:
        size, bits, limit = self.size, C["MIX_BITS"], C["TILT_LIMIT"]
        maps = self.maps[phase]
        tilt = [sum(x * m[d] for x, m in zip(features, maps, strict=True)) for d in range(self.dim)]
        tilt = [min(max(x >> C["TILT_SHIFT"], -limit), limit) for x in tilt]
        scores = [sum(x * y for x, y in zip(point, tilt, strict=True)) for point in self.points]
        top = max(scores)
        self.gain = [power((top - score) >> C["SCORE_SHIFT"]) for score in scores]
        first, second = self.counts
        f0 = (self.wide[phase] << C["BASE_BITS"]) // sum(first)
        f1 = ((C["WEIGHT"] - self.wide[phase]) << C["BASE_BITS"]) // sum(second)
        self.base = [1 + ((a * f0 + b * f1) >> 16) for a, b in zip(first, second, strict=True)]
        self.tilted = [a * b for a, b in zip(self.base, self.gain, strict=True)]
        free = (1 << 24) - size - C["UNIFORM"]
        p = (free * self.plain[phase]) >> 16
        a = ((free - p) << bits) // sum(self.tilted)
        b = (p << bits) // sum(self.base)
        c = (C["UNIFORM"] << bits) // size
        return capped([(t * a + x * b + c) >> bits for t, x in zip(self.tilted, self.base, strict=True)])

    def learn(self, s: int, phase: int, features: Sequence[int]) -> None:
        first, second = self.counts
        everything, base = sum(self.tilted), sum(self.base)
        gained = [sum(g * n for g, n in zip(self.gain, heap, strict=True)) for heap in self.counts]
        self.wide[phase] = self.share(
            self.wide[phase], first[s] * gained[1], second[s] * gained[0], C["HEAP_SHARE"]
        )
        self.plain[phase] = self.share(
            self.plain[phase], self.base[s] * everything, self.tilted[s] * base, C["TILT_SHARE"]
        )
        error = []
        for d in range(self.dim):
            moment = sum(t * point[d] for t, point in zip(self.tilted, self.points, strict=True))
            error.append((self.points[s][d] << C["ERROR_BITS"]) - (moment << C["ERROR_BITS"]) // everything)
        rate = self.rate(phase)
        for f, feature in enumerate(features):
            for d in range(self.dim):
                g = feature * error[d]
                if f < 2 * self.dim and f % self.dim == d:
                    g += sum(features[f - d + i] * error[i] for i in range(self.dim))
                g = (g * rate) >> C["GRADIENT_SHIFT"]
                for every in self.maps:
                    every[f][d] += g
                self.maps[phase][f][d] += g
        self.steps[phase] += 1
        self.count(s)

    def rate(self, phase: int) -> int:
        return C["STEP"] // isqrt((min(self.steps[phase], C["STEP_CAP"]) + C["STEP_START"]) << 12)

    def count(self, s: int) -> None:
        squares = [sum((x - y) ** 2 for x, y in zip(p, self.points[s], strict=True)) for p in self.points]
        for h, counts in enumerate(self.counts):
            spread = [power(square >> CONSTANTS["KERNEL_SHIFTS"][h]) for square in squares]
            m = (1 << 31) // sum(spread)
            counts[:] = [n + ((x * m) >> 15) for n, x in zip(counts, spread, strict=True)]
            counts[s] += CONSTANTS["SPIKES"][h]
        self.seen += 1
        if self.seen == C["HALVE"]:
            self.seen = C["HALVE"] // 2
            self.counts = [[(n + 1) // 2 for n in counts] for counts in self.counts]

    @staticmethod
    def share(w: int, first: int, second: int, share: int) -> int:
        first, second = w * first, (C["WEIGHT"] - w) * second
        return share + (C["WEIGHT"] - 2 * share) * first // (first + second)


class ReferencePrior:
    """Sections 8.2 to 8.4 for one stream; ``layer`` has the numbers of section 8.1 of its level, as lists."""

    def __init__(
        self,
        embeddings: list[list[list[int]]],
        layer: dict[str, list],
        windows: Sequence[int],
        strides: Sequence[int],
        level: int,
    ) -> None:
        self.embeddings, self.layer, self.strides, self.level = embeddings, layer, strides, level
        self.windows = windows
        self.factors = [C["PRIOR_START"], C["ROW_START"]]

    def inputs(self, t: int, levels: Sequence[list[int]], done: list[int]) -> list[int]:
        """Section 8.2; ``levels`` are the coarser ones, ``done`` the tokens of this one."""
        wanted = [(self.level, done, t - lag) for lag in range(1, C["LAGS"] + 1)]
        for k in range(max(0, self.level - C["COARSER"]), self.level):
            p = t * self.strides[self.level] // self.strides[k]
            wanted += [(k, levels[k], p - 1), (k, levels[k], p), (k, levels[k], p + 1)]
        nothing = [0] * len(self.embeddings[0][0])
        found = [self.embeddings[k][row[i]] if 0 <= i < len(row) else nothing for k, row, i in wanted]
        ends = [(self.level, done, t)]
        for k in range(max(0, self.level - C["COARSER"]), self.level):
            ends.append((k, levels[k], t * self.strides[self.level] // self.strides[k] + 2))
        found += [self.mean(k, row, end, frames) for k, row, end in ends for frames in self.windows]
        return [number for vector in found for number in vector]

    def mean(self, k: int, row: list[int], end: int, frames: int) -> list[int]:
        within = row[max(0, end - max(1, frames // self.strides[k])) : end]
        columns = zip(*(self.embeddings[k][token] for token in within), strict=True)
        width = len(self.embeddings[k][0])
        return [near(sum(column), len(within)) for column in columns] or [0] * width

    def frequencies(self, phase: int, x: list[int], frequency: Sequence[int]) -> list[int]:
        """Section 8.3; ``frequency`` is coder 1's."""
        n, (first, second) = self.layer, self.layer["shifts"]
        columns = zip(*n["first"], strict=True)
        hidden = [
            min(max((bias + sum(map(mul, x, column))) >> first, 0), C["HIDDEN_LIMIT"])
            for bias, column in zip(n["first_bias"][phase], columns, strict=True)
        ]
        out = [
            min(max((bias + sum(map(mul, row, hidden))) >> second, -C["OUT_LIMIT"]), C["OUT_LIMIT"])
            for bias, row in zip(n["second_bias"], n["second"], strict=True)
        ]
        self.known = [
            (bias + sum(map(mul, row, out))) >> C["PRIOR_SHIFT"]
            for bias, row in zip(n["table_bias"], n["table"], strict=True)
        ]
        self.seen = [self.log(v) for v in frequency]
        v, w = (factor >> (C["LEARNING_BITS"] - C["MIXING_BITS"]) for factor in self.factors)
        mixed = [(a * v + b * w) >> C["MIXING_BITS"] for a, b in zip(self.known, self.seen, strict=True)]
        self.weight = [power(max(mixed) - each) for each in mixed]
        size, bits = len(mixed), C["MIX_BITS"]
        a = (((1 << 24) - size - C["UNIFORM"]) << bits) // sum(self.weight)
        c = (C["UNIFORM"] << bits) // size
        return capped([(weight * a + c) >> bits for weight in self.weight])

    def learn(self, s: int, rate: int) -> None:
        """Section 8.4."""
        for i, feature in enumerate((self.known, self.seen)):
            mean = sum(map(mul, self.weight, feature)) // sum(self.weight)
            factor = self.factors[i] + (feature[s] - mean) * rate
            self.factors[i] = min(max(factor, 0), 1 << (C["LEARNING_BITS"] + 1))

    @staticmethod
    def log(v: int) -> int:
        e = v.bit_length() - 1
        return 32 * e + ((32 * v) >> e) - 32


class Reference:
    """Sections 2, 6 and 8: one channel's streams to tokens, each level decoded under the coarser ones.

    With ``prior``, embeddings and a layer for each level, and the windows, all streams are coder 2's.
    """

    def __init__(
        self,
        codebooks: Sequence[Sequence[Sequence[float]]],
        strides: Sequence[int],
        prior: tuple[list[list[list[int]]], list[dict[str, list]], Sequence[int]] | None = None,
    ) -> None:
        self.prior = prior
        self.points = [reference_points(codebook) for codebook in codebooks]
        self.strides = strides

    def context(self, level: int, t: int, done: list[int], above: list[int]) -> tuple[int, list[int]]:
        """Section 6.3."""
        own = self.points[level]
        zero = [0] * len(own[0])
        features = [*(own[done[t - 1]] if t else zero), *(own[done[t - 2]] if t > 1 else zero)]
        if not level:
            return 0, [*features, C["BIAS"]]
        stride, coarser = self.strides[level], self.strides[level - 1]
        p = t * stride // coarser
        here = self.points[level - 1]
        none = [0] * len(here[0])
        a = here[above[p - 1]] if p else none
        b = here[above[p + 1]] if p + 1 < len(above) else none
        slope = [((y - x) * 181) >> 8 for x, y in zip(a, b, strict=True)]
        return t % self.phases(level), [*features, *here[above[p]], *slope, C["BIAS"]]

    def phases(self, level: int) -> int:
        if not level:
            return 1
        ratio, rest = divmod(self.strides[level - 1], self.strides[level])
        return ratio if not rest and 1 <= ratio <= 16 else 1

    def decode(self, payloads: Sequence[bytes | None], tokens: Sequence[list[int]]) -> list[list[int]]:
        """Decode the levels that have a payload; take those that are None from ``tokens``."""
        levels: list[list[int]] = []
        for level, payload in enumerate(payloads):
            if payload is None:
                levels.append(tokens[level])
                continue
            above = levels[-1] if level else []
            count, done = len(tokens[level]), []
            coder = ReferenceRange(payload)
            size = len(self.context(level, 0, [], above)[1]) if count else 1
            learned = ReferenceModel(self.points[level], self.phases(level), size)
            prior = None
            if self.prior is not None:
                prior = ReferencePrior(
                    self.prior[0], self.prior[1][level], self.prior[2], self.strides, level
                )
            for t in range(count):
                phase, features = self.context(level, t, done, above)
                row = learned.frequencies(phase, features)
                if prior is not None:
                    row = prior.frequencies(phase, prior.inputs(t, levels, done), row)
                done.append(coder.decode(row))
                if prior is not None:
                    prior.learn(done[-1], learned.rate(phase))
                learned.learn(done[-1], phase, features)
            levels.append(done)
        return levels
