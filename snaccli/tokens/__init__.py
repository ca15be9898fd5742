"""The codes of recordings as tokens for language models: in files, and as one sequence of ids.

``flatten`` and ``unflatten`` turn levels of codes into a sequence of ids and back, on NumPy arrays and torch
tensors; ``export_file`` and ``import_file`` do what ``snac tokens`` does. docs/tokens.md has the order, the
formula and the files. Importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snaccli.tokens.interleave import (
    Interleaving,
    RaggedLevelsError,
    TokenError,
    TokenFileError,
    TokenRangeError,
    flatten,
    unflatten,
)
from snaccli.tokens.recording import Form, NamedRecording

if TYPE_CHECKING:
    from snaccli.tokens.transfer import ExportResult, ImportResult, export_file, import_file

__all__ = [
    "ExportResult",
    "Form",
    "ImportResult",
    "Interleaving",
    "NamedRecording",
    "RaggedLevelsError",
    "TokenError",
    "TokenFileError",
    "TokenRangeError",
    "export_file",
    "flatten",
    "import_file",
    "unflatten",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from snaccli.tokens import transfer

        return getattr(transfer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
