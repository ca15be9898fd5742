"""What recordings are called where there is little room."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from snaccli.io import files

__all__ = ["short_names"]


def short_names(paths: Sequence[str]) -> list[str]:
    """Paths without the folders that all of them share, fit to be shown."""
    parents = [Path(path).parent.parts for path in paths]
    shared = 0
    while parents and all(len(p) > shared and p[shared] == parents[0][shared] for p in parents):
        shared += 1
    return [files.shown(str(Path(*Path(path).parts[shared:]))) for path in paths]
