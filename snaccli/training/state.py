"""What a run keeps on disk and in averages: checkpoints that are whole or not there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snac.files import replacing
from snaccli.errors import SnacError
from snaccli.io.files import cause

LAST = "last.pt"
BEST = "best.pt"


class TrainingError(SnacError):
    """A run cannot go on: the loss is not finite, or a checkpoint does not fit or cannot be written."""


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint: whole, or not at all.

    Raises:
        TrainingError: the disk refuses; the former checkpoint stands.
    """
    try:
        with replacing(path, durable=True) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        reason = _reason(error)
        stands = "; the former checkpoint stands" if path.exists() else ""
        raise TrainingError(f"{path}: the checkpoint cannot be written: {reason}{stands}") from error


def _reason(error: BaseException) -> str:
    """What the system said; torch covers it by an error of its own."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError):
            return cause(found)
        found = found.__context__
    return str(error).partition("\n")[0]


def remove_leftovers(folder: Path) -> None:
    """Removes what a process that was killed while it wrote a checkpoint has left in a run's folder."""
    for path in folder.glob(".snac-" + "[0-9a-f]" * 16):
        with contextlib.suppress(OSError):
            path.unlink()


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """A checkpoint as it was written, tensors on the CPU; None where there is none.

    Raises:
        TrainingError: it is damaged, or holds more than tensors and plain values.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler fails with whatever its own state leads to
        raise TrainingError(f"{path}: is no checkpoint, or damaged: {str(error)[:100]!r}") from error
    if not isinstance(state, dict):
        raise TrainingError(f"{path}: is no checkpoint of a run")
    return state


class AveragedWeights:
    """An exponential moving average of a module's weights (Polyak and Juditsky 1992, as commonly decayed).

    Args:
        module: whose weights are followed.
        decay: of the average a step; while it is young, it follows faster: at step n by (1 + n) / (10 + n).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module = module
        self.decay = decay
        self.steps = 0
        self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes the module's present weights into account."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, value in self._module.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the average into the module for the length of a ``with`` block."""
        own = {name: value.detach().clone() for name, value in self._module.state_dict().items()}
        self._module.load_state_dict(self.weights)
        try:
            yield
        finally:
            self._module.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """The average and its age."""
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what :meth:`state_dict` gave."""
        self.steps = int(state["steps"])
        for name, value in state["weights"].items():
            self.weights[name].copy_(value)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Takes up an optimiser's state, and checks what torch finds out only at the next step.

    Raises:
        ValueError, or what torch raises: it does not fit the optimiser's weights.
    """
    kinds = [{name: type(value) for name, value in group.items()} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, kind in zip(optimizer.param_groups, kinds, strict=True):
        if kind != {name: type(group.get(name)) for name in kind}:
            raise ValueError("a setting of the optimiser is of another type")
        for weight in group["params"]:
            for name, value in optimizer.state.get(weight, {}).items():
                shape = torch.Size() if name == "step" else weight.shape
                if not isinstance(value, Tensor) or value.shape != shape or not value.is_floating_point():
                    raise ValueError(f"the optimiser's {name} does not fit its weight")


def cpu_copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are now, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in state.items()}
