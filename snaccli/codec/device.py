"""Where a model computes, and in which precision. Imports torch only where a GPU may be."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass

from snaccli.errors import UsageError

__all__ = ["Device"]

_KINDS = ("cuda", "mps", "cpu")
_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")  # NVIDIA, the same in WSL, AMD


@dataclass(frozen=True)
class Device:
    """A device and the precision of the arithmetic on it.

    Attributes:
        kind: ``cpu``, ``cuda`` or ``mps``.
        half: whether it computes in 16 bits, with which codes and samples differ a little.
    """

    kind: str
    half: bool = False

    def __str__(self) -> str:
        return f"{self.kind}-half" if self.half else self.kind

    @classmethod
    def parse(cls, text: str) -> Device:
        """Returns the device that a text stands for.

        Args:
            text: ``cpu``, ``cuda`` or ``mps``, each with or without ``-half``; or ``auto``, which takes CUDA,
                else MPS, else the CPU.

        Raises:
            UsageError: there is no such device here.
        """
        kind = text.removesuffix("-half")
        for each in _KINDS if text == "auto" else (kind,):
            if each == "cpu":
                return cls("cpu", half=text == "cpu-half")
            if (each == "cuda" and _may_have_cuda()) or (each == "mps" and _may_have_mps()):
                with suppress(ImportError):
                    import torch

                    of_kind = torch.cuda if each == "cuda" else torch.backends.mps
                    if of_kind.is_available():
                        return cls(each, half=text == f"{each}-half")
        raise UsageError(f"device {text!r} is not available here; use cpu or auto")


def _may_have_cuda() -> bool:
    """Returns whether it is worth the second and more that importing torch takes to ask for CUDA."""
    if sys.platform == "darwin" or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    if sys.platform == "win32":
        system = os.environ.get("SYSTEMROOT", r"C:\Windows")
        return os.path.exists(os.path.join(system, "System32", "nvcuda.dll"))
    return any(map(os.path.exists, _GPU_FILES))


def _may_have_mps() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"
