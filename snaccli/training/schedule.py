"""Which stage a step belongs to, and what follows from it. Knows no torch."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from snaccli.errors import UsageError
from snaccli.training.config import Stage


@dataclass(frozen=True)
class Part:
    """A stage as it is run.

    Attributes:
        index: of the stage, from 0.
        first: its first step.
        steps: of it.
        segment: samples a segment.
        batch: segments a step.
        epoch: steps that hold as much audio as there is to train on.
    """

    index: int
    first: int
    steps: int
    segment: int
    batch: int
    epoch: int


class Schedule:
    """The stages of a run, one after another.

    Args:
        stages: as configured.
        samples: of training audio.
        rate: Hz.
        pad_multiple: samples to whose multiple segments are rounded.
        warmup_steps, decay: of the learning rate; see ``TrainConfig``.
        divisor: parts that each batch is divided in.

    Raises:
        UsageError: a batch cannot be divided so.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        samples: int,
        rate: int,
        pad_multiple: int,
        warmup_steps: int = 0,
        decay: float = 0.0,
        divisor: int = 1,
    ) -> None:
        self.parts: list[Part] = []
        first = 0
        for index, stage in enumerate(stages):
            if stage.batch % divisor:
                raise UsageError(
                    f"stages: a batch of {stage.batch} cannot be divided among {divisor} "
                    "(processes x accumulate): choose a multiple"
                )
            segment = max(1, round(stage.seconds * rate / pad_multiple)) * pad_multiple
            epoch = max(1, math.ceil(samples / (segment * stage.batch)))
            steps = stage.steps or max(1, round(stage.epochs * epoch))
            self.parts.append(Part(index, first, steps, segment, stage.batch, epoch))
            first += steps
        self.steps = first
        self.warmup_steps = warmup_steps
        self.decay_steps = round(decay * first)
        self._firsts = [part.first for part in self.parts]

    def at(self, step: int) -> Part:
        """The stage of a step; the last one beyond the end."""
        return self.parts[bisect.bisect_right(self._firsts, step) - 1]

    @property
    def segments(self) -> list[int]:
        """The segment lengths, each once, in samples."""
        return sorted({part.segment for part in self.parts})

    def rate_factor(self, step: int) -> float:
        """What the learning rate is multiplied by at a step: a rise, 1, and a fall to 0 at the end."""
        rise = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        fall = min(1.0, (self.steps - step) / max(self.decay_steps, 1))
        return rise * max(fall, 0.0)

    def settling(self, step: int) -> bool:
        """Whether the learning rate falls already."""
        return step > self.steps - self.decay_steps

    def validates(self, step: int, every: int) -> bool:
        """Whether ``step`` steps done ask for validation: each ``every``, or each epoch of the stage.

        Ends of stages always do.
        """
        part = self.at(step - 1)
        return (step - part.first) % (every or part.epoch) == 0 or step == part.first + part.steps
