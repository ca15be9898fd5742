"""The one streaming engine: a signal through a chain of stages, piece by piece, with the result of the whole.

Each stage is a convolution or less. It keeps the end of its own input, as much as its next output depends on,
and computes each output once, as soon as nothing that follows can change it. Where the signal begins and
ends it reads zeros, as the convolutions of the model do. So nothing is computed twice, however the signal is
cut, and the memory held does not grow with its length.

A flow is one signal, of one or more lanes (audio channels), on its way through a chain. ``push`` takes any
amount of it. What a stage gives goes on through the rest of the chain before the stage computes more, so
little waits between stages; threads share each piece of each stage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import numpy as np

from snac.products import one_thread_each

Array = Any
"""An array of the kind that a chain's workspace handles: NumPy's (times, channels), or a tensor."""

_ENOUGH = 0.75  # of a piece; waiting for the rest would mean copying what is here
_LEAST = 1 << 14  # activations that a thread must have to compute for another thread to be worth it


class Workspace(Protocol):
    """Where a chain's arrays come from, and which of their axes is time.

    Attributes:
        together: whether all channels of a signal are one array; if not, each is one, a lane of its own.
    """

    together: bool

    def length(self, array: Array) -> int:
        """How many times an array spans."""
        ...

    def part(self, array: Array, low: int, high: int) -> Array:
        """The times from ``low`` to ``high``, in the same memory."""
        ...

    def joined(self, parts: Sequence[Array]) -> Array:
        """An array of its own of some arrays, one after the other in time."""
        ...

    def zeros(self, like: Array, length: int) -> Array:
        """Zeros of the shape of ``like`` but for its length."""
        ...

    def extended(self, array: Array, length: int) -> Array:
        """An array with so many zeros after it, perhaps in the memory that follows it, where nothing lies."""
        ...

    def take(self, *shape: int, dtype: type[np.generic]) -> Array | None:
        """An array whose values are undefined; None where stages make their own."""
        ...

    def inward(self, signal: np.ndarray) -> list[Array]:
        """The lanes of a signal (channels, n, C)."""
        ...

    def outward(self, lanes: Sequence[Sequence[Array]]) -> np.ndarray:
        """A signal (channels, n, C) of the arrays of each lane, one or more, which are not used any more."""
        ...


class Stage(ABC):
    """One step of a chain: the k-th step of ``up`` outputs depends on ``window`` inputs from k ``step`` on.

    Inputs are counted from ``history`` zeros before the signal on; ``tail`` zeros follow it.

    Attributes:
        window: inputs that a step reads.
        step: inputs from one step to the next.
        up: outputs of a step.
        history: zeros before the signal.
        skip: outputs at the start that lie before the signal and are left out.
        tail: zeros after the signal, enough for all its outputs.
        channels: of its outputs.
        dtype: of its outputs.
        values: the larger of its channels in and its channels out for one input: the size of its work.
    """

    window: int = 1
    step: int = 1
    up: int = 1
    history: int = 0
    skip: int = 0
    tail: int = 0
    channels: int = 1
    dtype: ClassVar[type[np.generic]] = np.float32
    values: int = 1

    @abstractmethod
    def run(self, held: Array, x: Array, steps: int, position: int, out: Array | None) -> Array:
        """Outputs of the next steps. Several threads may compute different steps at once.

        Args:
            held: inputs kept from before, perhaps none.
            x: inputs that follow; may be overwritten by a stage that keeps none.
            steps: how many, at least one; they read the first (steps - 1) step + window inputs.
            position: index of the first output, counted from the signal's first.
            out: what the workspace's ``take`` gave for these outputs, to be filled.

        Returns:
            steps * up outputs: ``out``, or an array of the stage's own where that is None.
        """

    def reaching(self, low: int, high: int) -> tuple[int, int]:
        """First and last input that the outputs ``low`` to ``high`` depend on."""
        first, last = (low + self.skip) // self.up, (high + self.skip) // self.up
        return first * self.step - self.history, last * self.step - self.history + self.window - 1

    @property
    def lag(self) -> int:
        """Outputs by which what is final ends before the input does, at most."""
        return (self.window - 1 - self.history) * self.up // self.step + self.skip


class Chain:
    """Stages one after the other; knows no signal.

    Args:
        stages: from the first to the last.
        values: activations that a thread computes at once: few enough for a cache.
    """

    def __init__(self, stages: Iterable[Stage], values: int) -> None:
        self.stages, self._values = tuple(stages), values
        self.pieces = [max(1, values // (stage.values * stage.step)) * stage.step for stage in self.stages]

    def reaching(self, low: int, high: int) -> tuple[int, int]:
        """First and last input that the outputs ``low`` to ``high`` depend on."""
        for stage in reversed(self.stages):
            low, high = stage.reaching(low, high)
        return low, high

    def without_last(self) -> Chain:
        """The chain of all stages but the last."""
        return Chain(self.stages[:-1], self._values)

    @property
    def latency(self) -> int:
        """Outputs by which what a push returned so far ends before what was pushed, at most."""
        behind, up, down = 0, 1, 1
        for stage in self.stages:
            behind = -(-behind * stage.up // stage.step) + stage.lag
            up, down = up * stage.up, down * stage.step
        return behind


@dataclass(eq=False)
class _Node:
    """A stage of one lane with its part of the signal.

    Attributes:
        piece: inputs that it takes at once.
        start: index of its first output within the whole signal.
        held: the end of its input, which its next outputs depend on; None before the first.
        inbox: inputs that wait for it, ``waiting`` in all.
        taken: inputs taken so far.
        steps: computed so far.
        given: outputs so far.
    """

    stage: Stage
    piece: int
    start: int
    held: Array = None
    inbox: list[Array] = field(default_factory=list)
    waiting: int = 0
    taken: int = 0
    steps: int = 0
    given: int = 0


class Flow:
    """One signal on its way through a chain.

    Args:
        chain: the stages.
        workspace: for its arrays.
        channels: of the signal.
        start: index of the first input within the whole signal; outputs near it are then not the whole's.
        workers: threads that share the work, the caller's among them.
        pool: the others; not needed for one.
    """

    def __init__(
        self, chain: Chain, workspace: Workspace, channels: int = 1, *, start: int = 0, workers: int = 1,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:  # fmt: skip
        self._workspace, self._workers, self._pool = workspace, workers, pool
        self._lanes: list[list[_Node]] = []
        for _ in range(1 if workspace.together else channels):
            nodes, at = [], start
            for stage, piece in zip(chain.stages, chain.pieces, strict=True):
                at = at * stage.up // stage.step
                nodes.append(_Node(stage, piece * workers, at))
            self._lanes.append(nodes)
        self._out: list[Array] = []
        self._ended = False

    def push(self, signal: np.ndarray | None, *, ended: bool = False) -> np.ndarray | None:
        """Takes further inputs.

        Args:
            signal: (channels, n, C); None for nothing.
            ended: whether the signal ends here.

        Returns:
            the outputs (channels, m, C') that became final; None for none.
        """
        self._ended = ended
        lanes: Sequence[Array] = [None] * len(self._lanes)
        if signal is not None:
            lanes = self._workspace.inward(signal)
        found = []
        with one_thread_each():
            for nodes, x in zip(self._lanes, lanes, strict=True):
                self._out = []
                self._carry(nodes, 0, x, last=True)
                found.append(self._out)
        return self._workspace.outward(found) if found[0] else None

    def _carry(self, nodes: list[_Node], place: int, x: Array | None, *, last: bool) -> None:
        """Takes inputs of the stage at a place, and what they give through the stages after it.

        ``last`` tells that nothing follows within this push.
        """
        workspace, length = self._workspace, 0 if x is None else self._workspace.length(x)
        if place == len(nodes):
            if length:
                self._out.append(x)
            return
        node = nodes[place]
        if length:
            node.inbox.append(x)
            node.waiting += length
        if node.waiting < node.piece * _ENOUGH and not last:
            return
        inputs, waiting = node.inbox, node.waiting
        node.inbox, node.waiting = [], 0
        whole = workspace.joined(inputs) if len(inputs) > 1 else inputs[0] if inputs else None
        count = max(1, (waiting + node.piece // 2) // node.piece)
        for number in range(count):
            done = last and number + 1 == count
            low, high = waiting * number // count, waiting * (number + 1) // count
            piece = None if whole is None else workspace.part(whole, low, high)
            y = self._advance(node, piece, ending=done and self._ended)
            self._carry(nodes, place + 1, y, last=done)

    def _advance(self, node: _Node, x: Array | None, *, ending: bool) -> Array | None:
        """Outputs for further inputs; ``ending`` if the signal ends with them."""
        workspace, stage = self._workspace, node.stage
        if x is not None:
            node.taken += workspace.length(x)
            if node.held is None:
                node.held = workspace.zeros(x, stage.history)
        if ending and stage.tail and node.held is not None:
            # What an array of the last piece is followed by are outputs that have been left out, if anything.
            held, tail = node.held, stage.tail
            x = workspace.zeros(held, tail) if x is None else workspace.extended(x, tail)
        if x is None:
            return None

        held, m, n = node.held, workspace.length(node.held), workspace.length(x)
        steps = max(0, (m + n - stage.window) // stage.step + 1)
        keep = m + n - steps * stage.step
        if keep > n:
            node.held = workspace.joined([workspace.part(held, m + n - keep, m), x])
        elif keep > 0:
            node.held = workspace.joined([workspace.part(x, n - keep, n)])
        else:
            node.held = workspace.part(held, 0, 0)
        if not steps:
            return None

        before = node.steps * stage.up
        y = self._computed(stage, held, x, steps, node.start + before - stage.skip)
        length = steps * stage.up
        skip = min(length, max(0, stage.skip - before))
        # The tail makes whole steps, of which the last outputs may lie after the signal.
        stop = min(length, skip + node.taken * stage.up // stage.step - node.given) if ending else length
        node.steps += steps
        node.given += stop - skip
        return y if stop - skip == length else workspace.part(y, skip, stop)

    def _computed(self, stage: Stage, held: Array, x: Array, steps: int, position: int) -> Array:
        """The outputs of a stage's next steps, a share of them by each thread."""
        part, up = self._workspace.part, stage.up
        out = self._workspace.take(steps * up, stage.channels, dtype=stage.dtype)
        shares = min(self._workers, steps, steps * stage.step * stage.values // _LEAST)
        if shares < 2 or out is None or self._pool is None:
            return stage.run(held, x, steps, position, out)
        m, jobs = self._workspace.length(held), []
        for first, last in pairwise(steps * share // shares for share in range(shares + 1)):
            low, high = first * stage.step, (last - 1) * stage.step + stage.window
            before, after = part(held, min(low, m), m), part(x, max(0, low - m), max(0, high - m))
            place = position + first * up
            jobs.append((before, after, last - first, place, part(out, first * up, last * up)))
        others = [self._pool.submit(stage.run, *job) for job in jobs[1:]]
        try:
            stage.run(*jobs[0])
        finally:
            for other in others:
                other.result()
        return out
