"""What a run keeps on disk and in averages: checkpoints that are whole or not there."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
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
        """Takes up what :meth:`state_dict` gave.

        Raises:
            LookupError, TypeError, ValueError: it is something else.
        """
        self.steps = checked_count(state["steps"], "the age of the average")
        demand_tensors(state["weights"], self.weights, "the averaged weights")
        for name, value in state["weights"].items():
            self.weights[name].copy_(value)


def checked_count(value: Any, what: str) -> int:
    """A number of steps as a state keeps it, 0 to 2 to the 53rd.

    Raises:
        ValueError: it is something else.
    """
    if type(value) is not int or not 0 <= value <= 1 << 53:
        raise ValueError(f"{what} is no number of steps")
    return value


def is_plain(value: Any, shape: Sequence[int], dtype: torch.dtype) -> bool:
    """Whether a value is a tensor of this shape and type with a place and a finite number for each element.

    An archive may hold others too: without numbers, sparse, or with elements that share their place.
    """
    return (
        isinstance(value, Tensor)
        and (value.shape, value.dtype, value.layout) == (torch.Size(shape), dtype, torch.strided)
        and not (value.is_meta or value.requires_grad or _overlaps(value))
        and bool(value.isfinite().all())
    )


def _overlaps(value: Tensor) -> bool:
    """Whether elements share a place, by the strides of those dimensions that have more than one element."""
    reach = 1
    for step, size in sorted(zip(value.stride(), value.shape, strict=True)):
        if size > 1 and step < reach:
            return True
        reach += step * (size - 1)
    return False


def demand_tensors(found: Any, own: Mapping[str, Tensor], what: str) -> None:
    """Checks that tensors found have the names, shapes and types of one's own, and finite numbers.

    Raises:
        ValueError: they have not.
    """
    if not isinstance(found, dict) or found.keys() != own.keys():
        raise ValueError(f"{what} are of another model")
    for name, value in own.items():
        if not is_plain(found[name], value.shape, value.dtype):
            raise ValueError(f"{name} of {what} does not fit, or is not finite")


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Takes up the state of an Adam, and checks what torch finds out only at the next step.

    Raises:
        ValueError, or what torch raises: it does not fit the optimiser's weights, or is no state of it.
    """
    own = [dict(group) for group in optimizer.param_groups]
    numbers = [group["params"] for group in optimizer.state_dict()["param_groups"]]
    if numbers != [group["params"] for group in state["param_groups"]]:
        raise ValueError("the optimiser's groups are of other weights")
    weights = dict(enumerate(weight for group in own for weight in group["params"]))
    for number, kept in state["state"].items():
        _check_averages(kept, weights[number])
    optimizer.load_state_dict(state)
    for group, before in zip(optimizer.param_groups, own, strict=True):
        _check_settings(group, before)


def _check_averages(kept: dict[str, Any], weight: Tensor) -> None:
    """Checks what Adam keeps of a weight: how many steps it took, and the averages of gradients."""
    if kept.keys() != {"step", "exp_avg", "exp_avg_sq"}:
        raise ValueError("the optimiser keeps other numbers of a weight")
    for name, value in kept.items():
        shape, dtype = ((), torch.float32) if name == "step" else (weight.shape, weight.dtype)
        if not is_plain(value, shape, dtype):
            raise ValueError(f"the optimiser's {name} does not fit its weight, or is not finite")
    if not 0 <= float(kept["step"]) <= 1 << 24:  # where float32 counts no further
        raise ValueError("the optimiser's step is no number of steps")
    if bool((kept["exp_avg_sq"] < 0).any()):
        raise ValueError("the optimiser's exp_avg_sq is below 0")


def _check_settings(group: dict[str, Any], before: dict[str, Any]) -> None:
    """Checks the settings of a group of weights against those that it had; some may have other values."""
    variable = ("lr", "betas", "weight_decay")
    for name, value in before.items():
        if name != "params" and type(group.get(name)) is not type(value):
            raise ValueError("a setting of the optimiser is of another type")
        if name not in ("params", *variable) and group[name] != value:
            raise ValueError(f"the optimiser's {name} is another")
    rates = [group["lr"], group["weight_decay"]]
    if not all(0 <= rate < math.inf for rate in rates):
        raise ValueError("the optimiser's rates are out of range")
    betas = group["betas"]
    if len(betas) != 2 or not all(isinstance(beta, (int, float)) and 0 <= beta < 1 for beta in betas):
        raise ValueError("the optimiser's betas are out of range")


def cpu_copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are now, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in state.items()}
