"""A chain of layers over a signal of any length, piece by piece, with the result of the whole at once.

Each layer of the chain is a stage with its own pieces: it holds back as many samples as its own
convolutions reach, computes a piece when its surroundings have come, and hands the result on. So only a
layer's own reach is computed twice, and memory is bounded by the pieces. The pieces at hand are computed side
by side by threads.

At the true ends of the signal nothing is added, so that the convolutions pad with zeros there, as they do for
the whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snac.nn.attention import LocalMHA

Run = Callable[[Tensor, int], Tensor]
"""Computes a piece (B, C, T), given the absolute index of its first sample."""


def inputs_reaching(layers: Iterable[nn.Module], low: int, high: int) -> tuple[int, int]:
    """First and last input of a chain of layers that its outputs ``low`` to ``high`` depend on."""
    for layer in reversed(_reaching(layers)):
        if isinstance(layer, LocalMHA):
            window = layer.window_size
            low, high = low // window * window, (high // window + 1) * window - 1
        elif isinstance(layer, nn.ConvTranspose1d):
            stride, padding = layer.stride[0], int(layer.padding[0])
            low = -((layer.kernel_size[0] - 1 - low - padding) // stride)
            high = (high + padding) // stride
        elif isinstance(layer, nn.Conv1d):
            stride, padding = layer.stride[0], int(layer.padding[0])
            low = low * stride - padding
            high = high * stride - padding + (layer.kernel_size[0] - 1) * layer.dilation[0]
    return low, high


def _reaching(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Convolutions and attentions in the order in which the signal passes them."""
    kinds = (nn.Conv1d, nn.ConvTranspose1d, LocalMHA)
    return [child for layer in layers for child in layer.modules() if isinstance(child, kinds)]


@dataclass(frozen=True)
class Stage:
    """One step of the chain.

    Attributes:
        layers: what ``run`` computes, for their reach.
        run: the computation.
        up, down: ``up`` outputs for ``down`` inputs.
        unit: pieces begin and end on multiples of so many inputs, unless the signal ends.
        before, after: inputs beside a piece that its outputs depend on.
    """

    layers: Sequence[nn.Module]
    run: Run
    up: int
    down: int
    unit: int
    before: int
    after: int

    @classmethod
    def of(cls, layers: Sequence[nn.Module], run: Run) -> Stage:
        """A stage of some layers, its numbers read off them."""
        up = down = unit = 1
        for layer in _reaching(layers):
            if isinstance(layer, nn.ConvTranspose1d):
                up *= layer.stride[0]
            elif isinstance(layer, nn.Conv1d):
                down *= layer.stride[0]
            elif isinstance(layer, LocalMHA):
                unit = layer.window_size
        unit *= down
        # One piece stands for all: every piece begins on a multiple of the unit.
        low, high = inputs_reaching(layers, 0, unit * up // down - 1)
        return cls(layers, run, up, down, unit, max(0, -low), max(0, high - (unit - 1)))

    def piece(self, wanted: int) -> int:
        """Inputs of a piece: about as ``wanted``, but several times what is computed twice."""
        least = max(wanted, 4 * (self.before + self.after))
        return -(-least // self.unit) * self.unit


def flow(
    stage: Stage, blocks: Iterable[Tensor], piece: int, workers: int, pool: Executor | None, first: int = 0
) -> Iterator[Tensor]:
    """Passes a signal through a stage.

    Args:
        stage: what to compute.
        blocks: tensors (B, C, n), the signal from ``first`` on.
        piece: inputs computed at once, a multiple of the stage's unit.
        workers: pieces computed side by side.
        pool: of so many threads; None computes here.
        first: absolute index of the first input, a multiple of the unit.

    Yields:
        tensors (B, C', m), joined the stage's output for the whole signal.
    """
    held: list[Tensor] = []
    start = end = done = first  # of the inputs held; of those computed
    for block in blocks:
        held.append(block)
        end += block.shape[-1]
        while end - stage.after - done >= workers * piece:
            signal = _joined(held)
            bounds = [done + piece * i for i in range(workers + 1)]
            yield from _computed(stage, signal, start, bounds, pool)
            done = bounds[-1]
            keep = max(start, (done - stage.before) // stage.unit * stage.unit)
            held, start = [signal[..., keep - start :]], keep
    if end > done:
        bounds = _divided(done, end, stage, piece, workers)
        yield from _computed(stage, _joined(held), start, bounds, pool)


def _joined(held: list[Tensor]) -> Tensor:
    return held[0] if len(held) == 1 else torch.cat(held, dim=-1)


def _divided(done: int, end: int, stage: Stage, piece: int, workers: int) -> list[int]:
    """Bounds of the last pieces: as many as keep the workers busy, none so short that most is done twice."""
    units = -(-(end - done) // stage.unit)
    least = max(1, (stage.before + stage.after) // stage.unit)
    most = max(-(-units * stage.unit // piece), workers)
    count = max(1, min(most, units // least))
    inner = [done + units * i // count * stage.unit for i in range(count)]
    return [*inner, end]


def _computed(
    stage: Stage, signal: Tensor, start: int, bounds: Sequence[int], pool: Executor | None
) -> Iterator[Tensor]:
    """Outputs for the inputs between each two bounds; ``signal`` begins at the absolute index ``start``."""

    def compute(low: int, high: int) -> Tensor:
        begin = max(start, (low - stage.before) // stage.unit * stage.unit)
        stop = min(start + signal.shape[-1], high + stage.after)
        if high < start + signal.shape[-1]:  # whole units, but for the signal's own end
            stop = min(start + signal.shape[-1], -(-stop // stage.unit) * stage.unit)
        with torch.inference_mode():
            # A copy: layers may overwrite what they are given.
            piece = signal[..., begin - start : stop - start].clone(memory_format=torch.contiguous_format)
            out = stage.run(piece, begin)
        skip = (low - begin) * stage.up // stage.down
        return out[..., skip : skip + (high - low) * stage.up // stage.down]

    spans = itertools.pairwise(bounds)
    if pool is None or len(bounds) == 2:
        yield from (compute(low, high) for low, high in spans)
    else:
        yield from [task.result() for task in [pool.submit(compute, low, high) for low, high in spans]]
