"""The integers that a learned prior is kept in (docs/format.md, section 8), and its net as they leave it.

A byte a weight is coarse: a net that was trained in floats loses some hundredths of a bit a token by it. So
the end of a training takes its gradients where the weights will be kept, and lets the floats behind them
move (Courbariaux et al. 2015, arXiv 1511.00363).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from snaccli.entropy import mixing
from snaccli.entropy.prior import Layer, Prior

if TYPE_CHECKING:
    from torch import Tensor

    from snaccli.training.corpus import Corpus, Means
    from snaccli.training.prior import PriorNet

__all__ = ["STEPS_PER_NAT", "Scales", "bytes_of", "quantised", "rounded", "scales_of"]

STEPS_PER_NAT = 32 / math.log(2) * (1 << mixing.PRIOR_SHIFT)  # of scores
_LARGEST = 127  # of bytes; -128 is not used
_SEEN = 1000  # tokens of each level that tell how large its numbers become


class LevelScales(NamedTuple):
    """From the floats of one level to integers.

    Attributes:
        hidden: of the hidden units.
        out: of the outputs.
        first, second: of the weights that lead to these, without the shifts.
        shifts: powers of two that those weights are multiplied by besides.
    """

    hidden: float
    out: float
    first: float
    second: float
    shifts: tuple[int, int]


class Scales(NamedTuple):
    """From the floats of a net to integers: of the embeddings, and of each level."""

    embedding: float
    levels: list[LevelScales]


def bytes_of(tables: np.ndarray) -> tuple[np.ndarray, float]:
    """Embeddings (levels, size + 1, width) as int8, and the scale by which all but a few fit."""
    scale = _LARGEST / max(1e-6, float(np.quantile(np.abs(tables[:, :-1]), 0.9999, axis=(1, 2)).max()))
    return _integers(tables * scale, 0, np.int8), scale


@torch.no_grad()
@np.errstate(over="ignore", invalid="ignore")  # a training that has gone wrong is told of at its end
def scales_of(net: PriorNet, corpus: Corpus, means: Means) -> Scales:
    """The scales that some tokens of a corpus ask for.

    They are powers of two times what the format fixes: hidden units up to 127 and outputs up to 511, but for
    a few.
    """
    found = []
    for level, places in enumerate(corpus.places):
        at = places[:: max(1, len(places) // _SEEN)]
        data = corpus.context(level, at), means.at(level, at), at
        units, outs = net.inner(level, *map(torch.from_numpy, data))
        hidden = mixing.HIDDEN_LIMIT / max(1e-6, float(units.flatten().quantile(0.9995)))
        out = mixing.OUT_LIMIT / max(1e-6, float(outs.abs().flatten().quantile(0.9999)))
        first, second = hidden / means.scale, out / hidden
        shifts = _shift(_weights(net.first[level]) * first), _shift(_weights(net.second[level]) * second)
        found.append(LevelScales(hidden, out, first, second, shifts))
    return Scales(means.scale, found)


@contextmanager
def rounded(net: PriorNet, scales: Scales) -> Iterator[None]:
    """The net with what is kept in bytes as the bytes say it; gradients are those of there.

    The floats are put back afterwards.
    """
    factors: dict[Tensor, float] = dict.fromkeys(net.embeddings, scales.embedding)
    for level, each in enumerate(scales.levels):
        factors[net.get_parameter(f"first.{level}.weight")] = each.first * 2.0 ** each.shifts[0]
        factors[net.get_parameter(f"second.{level}.weight")] = each.second * 2.0 ** each.shifts[1]
    floats = [(parameter, parameter.data) for parameter in factors]
    try:
        for parameter, factor in factors.items():
            integers = (parameter.data * factor).round_().clamp_(-_LARGEST, _LARGEST)
            parameter.data = integers.div_(factor)
        yield
    finally:
        for parameter, data in floats:
            parameter.data = data


@torch.no_grad()
def quantised(net: PriorNet, scales: Scales, model: str, fingerprint: str, summary: dict[str, Any]) -> Prior:
    """The net in integers."""
    tables = np.stack([table.numpy()[:-1] for table in net.embeddings])
    layers = []
    for level, each in enumerate(scales.levels):
        first, second = net.first[level], net.second[level]
        bias = (_bias(first) + net.phases[level].numpy()) * each.hidden
        layers.append(
            Layer(
                first=_integers(_weights(first).T * each.first, each.shifts[0], np.int8),
                first_bias=_halved(bias, each.shifts[0]),
                second=_integers(_weights(second) * each.second, each.shifts[1], np.int8),
                second_bias=_halved(_bias(second) * each.out, each.shifts[1]),
                table=_integers(net.tables[level].numpy() * STEPS_PER_NAT / each.out, 0, np.int16),
                table_bias=_integers(net.biases[level].numpy() * STEPS_PER_NAT, 0, np.int32),
                shifts=np.array(each.shifts, dtype=np.int32),
            )
        )
    embedding = _integers(tables * scales.embedding, 0, np.int8)
    return Prior(embedding, tuple(layers), net.strides, model, fingerprint, summary, net.config.windows)


def _weights(layer: nn.Module) -> np.ndarray:
    weights: np.ndarray = cast(nn.Linear, layer).weight.detach().numpy()
    return weights


def _bias(layer: nn.Module) -> np.ndarray:
    bias: np.ndarray = cast(nn.Linear, layer).bias.detach().numpy()
    return bias


def _shift(weights: np.ndarray) -> int:
    """The largest shift at which weights times two to it stay within a byte, but for a few."""
    largest = max(1e-9, float(np.quantile(np.abs(weights), 0.9999)))
    return max(0, min(23, math.floor(math.log2(_LARGEST / largest))))


def _halved(values: np.ndarray, shift: int) -> np.ndarray:
    """Offsets of sums that are shifted back, rounding down: half of what is lost more, so that it rounds."""
    return _integers(values + (0.5 if shift else 0.0), shift, np.int32)


def _integers(values: np.ndarray, shift: int, dtype: Any) -> np.ndarray:
    """Values times two to the shift, rounded, within the limits of their type (bytes: -127 to 127).

    What is no number, in a training that has gone wrong, becomes 0.
    """
    highest = np.iinfo(dtype).max
    integers: np.ndarray = np.nan_to_num(np.clip(np.rint(values * 2.0**shift), -highest, highest)).astype(
        dtype
    )
    return integers
