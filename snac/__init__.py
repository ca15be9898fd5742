"""SNAC, the multi-scale neural audio codec (Siuzdak et al. 2024, arXiv 2410.14411), in PyTorch.

``from snac import SNAC`` is the whole surface for most programs. Importing ``snac`` alone does not
import torch: the model class is loaded at its first use, so that programs which only need model names
or errors start quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from snac.errors import ModelError, ModelNotFoundError, SnacError

if TYPE_CHECKING:
    from snac.nn.model import SNAC

__version__ = "0.1.0"
__all__ = ["SNAC", "ModelError", "ModelNotFoundError", "SnacError", "__version__"]
_PUBLISHED = ("attention", "layers", "snac", "vq")


def __getattr__(name: str) -> Any:
    if name == "SNAC":
        from snac.nn.model import SNAC

        return SNAC
    if name in _PUBLISHED:  # the published package imports these with itself
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
