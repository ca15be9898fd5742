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
# Importing torch to ask for a GPU takes a second and more: only where there may be one. NVIDIA, WSL, AMD:
_CUDA_FILES: tuple[str, ...] = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
if sys.platform == "win32":
    _CUDA_FILES = (os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll"),)
elif sys.platform == "darwin":
    _CUDA_FILES = ()
_MAY_HAVE_MPS = sys.platform == "darwin" and platform.machine() == "arm64"


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
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        may_be = {"cuda": not hidden and any(map(os.path.exists, _CUDA_FILES)), "mps": _MAY_HAVE_MPS}
        for each in _KINDS if text == "auto" else (kind,):
            if each == "cpu":
                return cls("cpu", half=text == "cpu-half")
            if may_be.get(each):
                with suppress(ImportError):
                    import torch

                    if (torch.cuda if each == "cuda" else torch.backends.mps).is_available():
                        return cls(each, half=text == f"{each}-half")
        raise UsageError(f"device {text!r} is not available here; use cpu or auto")
