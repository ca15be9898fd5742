"""The one streaming engine: a signal through a chain of stages, piece by piece, with the result of the whole.

Each stage is a convolution or less. It keeps the end of its own input, as much as its next output depends on,
and computes each output once, as soon as nothing that follows can change it. Where the signal begins and
ends it reads zeros, as the convolutions of the model do. So nothing is computed twice, however the signal is
cut, and the memory held does not grow with its length.

A flow is one signal, of one or more lanes (audio channels), on its way through a chain. ``push`` takes any
amount of it. Within a push the stages that have enough input are computed side by side by as many threads as
the flow has, the deepest first, so that little waits between stages.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

Array = Any
"""An array of the kind that a chain's workspace handles: NumPy's (times, channels), or a tensor."""


class Workspace(Protocol):
    """Where a chain's arrays come from, and which of their axes is time."""

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
        values: the larger of its channels in and its channels out for one input: the size of its work.
    """

    window = 1
    step = 1
    up = 1
    history = 0
    skip = 0
    tail = 0
    values = 1

    @abstractmethod
    def run(self, held: Array, x: Array, steps: int, position: int) -> Array:
        """Outputs of the next steps.

        Args:
            held: inputs kept from before, perhaps none.
            x: inputs that follow; may be overwritten by a stage that keeps none.
            steps: how many, at least one; they read the first (steps - 1) step + window inputs.
            position: index of the first output, counted from the signal's first.

        Returns:
            steps * up outputs, perhaps ``x`` itself.
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
        values: activations that a stage computes at once: few enough for a cache.
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


class _Node:
    """A stage of one lane with its part of the signal."""

    def __init__(self, stage: Stage, piece: int, place: int, lane: int, start: int) -> None:
        self.stage, self.piece, self.place, self.lane = stage, piece, place, lane
        self.start = start  # index of the first output
        self.held: Array = None
        self.steps = self.given = self.taken = 0  # steps computed, outputs given, inputs taken
        self.inbox: deque[Array] = deque()
        self.waiting = 0  # inputs in the inbox
        self.ended = self.finished = self.busy = False

    def put(self, x: Array, length: int) -> None:
        self.inbox.append(x)
        self.waiting += length

    def take(self, workspace: Workspace) -> Array | None:
        """The next inputs, about a piece of them."""
        if not self.waiting:
            return None
        wanted = self.waiting if self.waiting < self.piece + self.piece // 2 else self.piece
        self.waiting -= wanted
        parts = []
        while wanted:
            first = self.inbox[0]
            length = workspace.length(first)
            if length <= wanted:
                parts.append(self.inbox.popleft())
                wanted -= length
            else:
                parts.append(workspace.part(first, 0, wanted))
                self.inbox[0] = workspace.part(first, wanted, length)
                wanted = 0
        return parts[0] if len(parts) == 1 else workspace.joined(parts)

    def advance(self, x: Array | None, ending: bool, workspace: Workspace) -> Array | None:
        """Outputs for further inputs; ``ending`` if the signal ends with them."""
        if x is not None:
            self.taken += workspace.length(x)
            if self.held is None:
                self.held = workspace.zeros(x, self.stage.history)
        if self.held is None:
            return None
        y = None if x is None else self._computed(x, workspace)
        if ending:
            parts = [part for part in (y, self._rest(workspace)) if part is not None]
            y = workspace.joined(parts) if len(parts) > 1 else (parts[0] if parts else None)
        return y

    def _rest(self, workspace: Workspace) -> Array | None:
        """The last outputs: those that read the zeros after the end."""
        stage = self.stage
        missing = self.taken * stage.up // stage.step - self.given
        if not missing or not stage.tail:
            return None
        y = self._computed(workspace.zeros(self.held, stage.tail), workspace)
        return None if y is None else workspace.part(y, 0, missing)

    def _computed(self, x: Array, workspace: Workspace) -> Array | None:
        stage, held = self.stage, self.held
        m, n = workspace.length(held), workspace.length(x)
        steps = (m + n - stage.window) // stage.step + 1
        if steps <= 0:
            self.held = workspace.joined([held, x])
            return None
        keep = m + n - steps * stage.step
        if keep > n:
            self.held = workspace.joined([workspace.part(held, m + n - keep, m), x])
        elif keep:
            self.held = workspace.joined([workspace.part(x, n - keep, n)])
        else:
            self.held = workspace.part(held, 0, 0)
        y = stage.run(held, x, steps, self.start + self.steps * stage.up - stage.skip)
        length = steps * stage.up
        skip = min(length, max(0, stage.skip - self.steps * stage.up))
        self.steps += steps
        self.given += length - skip
        return workspace.part(y, skip, length) if skip else y


class Flow:
    """One signal on its way through a chain.

    Args:
        chain: the stages.
        workspace: for its arrays.
        lanes: signals of their own, which all get the same amount.
        workers: threads that compute side by side, the caller's among them.
        start: index of the first input within the whole signal; outputs near it are then not the whole's.
    """

    def __init__(
        self, chain: Chain, workspace: Workspace, *, lanes: int = 1, workers: int = 1, start: int = 0
    ) -> None:
        self._workspace = workspace
        self._lanes: list[list[_Node]] = []
        for lane in range(lanes):
            nodes, at = [], start
            for place, (stage, piece) in enumerate(zip(chain.stages, chain.pieces, strict=True)):
                at = at * stage.up // stage.step
                nodes.append(_Node(stage, piece, place, lane, at))
            self._lanes.append(nodes)
        # The deepest stages first: what they work off need not be kept.
        self._order = sorted((node for nodes in self._lanes for node in nodes), key=lambda node: -node.place)
        self._out: list[list[Array]] = [[] for _ in range(lanes)]
        self._condition = threading.Condition()
        self._busy = 0
        self._flush = False
        self._error: BaseException | None = None
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers - 1, "snac-engine") if workers > 1 else None

    def close(self) -> None:
        """Ends the threads. The flow takes nothing more."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def push(
        self, blocks: Sequence[Array] | None, *, ended: bool = False, flush: bool = True
    ) -> list[list[Array]]:
        """Takes further inputs.

        Args:
            blocks: one array a lane, which may be overwritten; None for nothing.
            ended: whether the signal ends here.
            flush: whether everything that is final shall be returned; if not, stages wait until they have
                enough input to work at full speed.

        Returns:
            for each lane the arrays of further outputs, in order.
        """
        for lane, nodes in enumerate(self._lanes):
            if blocks is not None and self._workspace.length(blocks[lane]):
                nodes[0].put(blocks[lane], self._workspace.length(blocks[lane]))
            nodes[0].ended = ended
        self._flush = flush or ended
        helpers = [self._pool.submit(self._work) for _ in range(self._workers - 1)] if self._pool else []
        try:
            self._work()
        finally:
            for helper in helpers:
                helper.result()
        if self._error is not None:
            raise self._error
        out, self._out = self._out, [[] for _ in self._lanes]
        return out

    def _work(self) -> None:
        while True:
            with self._condition:
                node = self._next()
                while node is None and self._busy and self._error is None:
                    self._condition.wait()
                    node = self._next()
                if node is None or self._error is not None:
                    self._condition.notify_all()
                    return
                x = node.take(self._workspace)
                ending = node.ended and not node.waiting
                node.busy = True
                self._busy += 1
            y = None
            try:
                y = node.advance(x, ending, self._workspace)
            except BaseException as error:
                self._error = error
            with self._condition:
                node.busy = False
                self._busy -= 1
                self._deliver(node, y, ending)
                self._condition.notify_all()

    def _deliver(self, node: _Node, y: Array | None, ending: bool) -> None:
        nodes = self._lanes[node.lane]
        last = node.place + 1 == len(nodes)
        length = 0 if y is None else self._workspace.length(y)
        if length and last:
            self._out[node.lane].append(y)
        elif length:
            nodes[node.place + 1].put(y, length)
        if ending:
            node.finished = True
            if not last:
                nodes[node.place + 1].ended = True

    def _next(self) -> _Node | None:
        """The stage to compute next: the deepest that has enough input, or that will get no more now."""
        for node in self._order:
            if node.busy or node.finished:
                continue
            if node.waiting >= node.piece or node.ended:
                return node
            if node.waiting and self._flush and self._idle_before(node):
                return node
        return None

    def _idle_before(self, node: _Node) -> bool:
        return not any(
            other.busy or other.waiting or (other.ended and not other.finished)
            for other in self._lanes[node.lane][: node.place]
        )
