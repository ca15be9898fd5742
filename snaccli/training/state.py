"""What a run keeps: checkpoints that are whole or not there, averages, and a log of its figures.

The log is lines of JSON, and TensorBoard where it is installed.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from snac.files import replacing
from snaccli.errors import OutputError, SnacError
from snaccli.io.files import cause, open_output, shown

LOG = "log.jsonl"

Row = dict[str, Any]


class Report(Protocol):
    """Told how a run goes."""

    def row(self, row: Row) -> None:
        """Figures of a step: losses, or ``validation``, or what happened to the codebooks."""

    def audio(self, step: int, name: str, samples: np.ndarray, rate: int) -> None:
        """Audio (samples,) float32 as decoded at a step."""

    def close(self) -> None:
        """The run has ended, for now."""


class JsonLog:
    """log.jsonl in the run's folder: a row a line. On resuming, rows after the checkpoint are dropped.

    Raises:
        OutputError: the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG

    def row(self, row: Row) -> None:
        """Appends the row."""
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {shown(self._path)}: {cause(error)}") from error

    def forget_after(self, step: int) -> None:
        """Drops the rows of later steps, which are about to be done again; see the class for errors."""
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line).get("step", 0) <= step:
                    kept.append(line + "\n")
            except (ValueError, AttributeError):
                continue  # cut off by a crash
        with open_output(self._path, overwrite=True) as out:
            out.write("".join(kept).encode())

    def audio(self, step: int, name: str, samples: np.ndarray, rate: int) -> None:
        """Nothing: a log has no sound."""

    def close(self) -> None:
        """Nothing is left open."""


class TensorBoard:
    """Scalars, audio and spectrograms for TensorBoard, in the folder ``tensorboard``.

    Raises:
        OutputError: the disk refuses, now or before: a thread of TensorBoard's own does the writing.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._folder = folder / "tensorboard"
        with self._named_errors():
            self._writer: Any = SummaryWriter(str(self._folder), purge_step=step or None)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write {shown(self._folder)}: {cause(error)}") from error

    @staticmethod
    def installed() -> bool:
        """Whether the package is there; without it a run has its log all the same."""
        import importlib.util

        return importlib.util.find_spec("tensorboard") is not None

    def row(self, row: Row) -> None:
        """Each number of the row as a scalar."""
        with self._named_errors():
            self._add(row, row.get("step", 0))

    def _add(self, row: Row, step: int) -> None:
        for name, value in row.items():
            group = "validation" if name == "validation" else "train"
            values = value.items() if isinstance(value, dict) else [(name, value)]
            for key, number in values:
                if isinstance(number, list):
                    for level, part in enumerate(number):
                        self._writer.add_scalar(f"{group}/{key}/{level}", part, step)
                elif isinstance(number, (int, float)) and key != "step":
                    self._writer.add_scalar(f"{group}/{key}", number, step)

    def audio(self, step: int, name: str, samples: np.ndarray, rate: int) -> None:
        """The sound and its spectrogram."""
        with self._named_errors():
            self._writer.add_audio(name, samples[None], step, sample_rate=rate)
            self._writer.add_image(f"{name}/spectrogram", spectrogram(samples)[None], step)

    def close(self) -> None:
        """Writes out what is held back."""
        with self._named_errors():
            self._writer.close()


def spectrogram(samples: np.ndarray, window: int = 512) -> np.ndarray:
    """Magnitudes from -100 to 0 dB as 0 to 1, low frequencies at the bottom: (window / 2, frames) float32."""
    padded = np.pad(samples, (0, max(0, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 4]
    power = np.abs(np.fft.rfft(frames * np.hanning(window))) * 4 / window
    level = 20 * np.log10(np.maximum(power, 1e-5)) / 100 + 1
    return np.asarray(np.clip(level, 0, 1).T[:0:-1], dtype=np.float32)


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
