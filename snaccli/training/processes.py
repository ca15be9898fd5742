"""One process, or several that share each batch, and randomness that does not depend on how many there are.

Several work together through Hugging Face accelerate, which is imported for these only. Noise is drawn from
seed, step and place alone, never from a global state.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snaccli.errors import SnacError
from snaccli.training.launched import process_count


class Processes:
    """This process alone; :class:`SeveralProcesses` is its counterpart.

    Attributes:
        count: of processes.
        index: of this one, from 0.
        device: where it computes.
    """

    count = 1
    index = 0

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.index == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module on its device; what is called in its place, so that gradients are averaged."""
        return module.to(self.device)

    def adding_up(self, module: nn.Module, sync: bool) -> AbstractContextManager[Any]:
        """Where gradients of a wrapped module are computed; ``sync`` averages them over the processes."""
        return contextlib.nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """The mean of ``values`` over the processes."""
        return values

    def gather(self, values: Tensor) -> Tensor:
        """The ``values`` (n, ...) of all processes one after another, (count * n, ...)."""
        return values

    def copy_from_main(self, tensor: Tensor) -> None:
        """Overwrites ``tensor`` by that of the main process."""

    def wait(self) -> None:
        """Until all processes are here."""

    def close(self) -> None:
        """Ends what was begun for several."""


class SeveralProcesses(Processes):
    """Processes as ``accelerate launch`` starts them, on one machine or several."""

    def __init__(self, device: str, unused_weights: bool) -> None:
        try:
            import accelerate
        except ImportError as error:
            raise SnacError(
                "several processes were started, but accelerate is not installed: "
                "pip install 'snaccli[train]', or start one"
            ) from error
        handler = accelerate.DistributedDataParallelKwargs(
            find_unused_parameters=unused_weights, broadcast_buffers=False
        )
        self._accelerator = accelerate.Accelerator(cpu=device == "cpu", kwargs_handlers=[handler])
        super().__init__(str(self._accelerator.device))
        self.count = self._accelerator.num_processes
        self.index = self._accelerator.process_index

    def wrap(self, module: nn.Module) -> nn.Module:
        """See :class:`Processes`."""
        wrapped: nn.Module = self._accelerator.prepare(module)
        return wrapped

    def adding_up(self, module: nn.Module, sync: bool) -> AbstractContextManager[Any]:
        """See :class:`Processes`."""
        if sync:
            return contextlib.nullcontext()
        context: AbstractContextManager[Any] = self._accelerator.no_sync(module)
        return context

    def mean(self, values: Tensor) -> Tensor:
        """See :class:`Processes`."""
        mean: Tensor = self._accelerator.reduce(values, "mean")
        return mean

    def gather(self, values: Tensor) -> Tensor:
        """See :class:`Processes`."""
        gathered: Tensor = self._accelerator.gather(values.contiguous())
        return gathered

    def copy_from_main(self, tensor: Tensor) -> None:
        """See :class:`Processes`."""
        from accelerate.utils import broadcast

        tensor.copy_(broadcast(tensor.clone(), from_process=0))

    def wait(self) -> None:
        """See :class:`Processes`."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """See :class:`Processes`."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def this_process(
    device: str = "auto", unused_weights: bool = False, environ: Mapping[str, str] = os.environ
) -> Processes:
    """What the environment says of this process: alone, or one of several as a launcher starts them.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        unused_weights: whether there are steps in which some weights get no gradients.
        environ: of the process.

    Raises:
        SnacError: several processes without accelerate, or a device that is not there.
    """
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, True):
        raise SnacError(f"no {device} device here: use the device cpu")
    if process_count(environ) > 1:
        return SeveralProcesses(device, unused_weights)
    return Processes(device)


def generator(*place: int) -> torch.Generator:
    """A generator of the CPU for one place in a run: equal numbers, equal draws."""
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@dataclass(frozen=True)
class StepNoise:
    """Fresh noise of one step, a stream an item: it stays the same however the batch is divided.

    Attributes:
        seed: of the run.
        step: of the run.
        first_item: number in the whole batch of the first item here.
    """

    seed: int
    step: int = 0
    first_item: int = 0

    def draw(self, layer: int, length: int, like: Tensor) -> Tensor:
        """Standard normal noise (B, 1, length) for a layer whose signal is ``like`` (B, C, T)."""
        items = range(self.first_item, self.first_item + like.shape[0])
        drawn = [
            torch.randn(1, length, generator=generator(self.seed, self.step, item, layer)) for item in items
        ]
        return torch.stack(drawn).to(like)
