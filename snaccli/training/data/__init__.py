"""Data sets for training: folders of recordings in, train/ and val/ with a manifest out. Knows no torch."""

from __future__ import annotations

from snaccli.training.data.manifest import MANIFEST, SPLITS, Row, Summary, read_rows
from snaccli.training.data.prepare import Settings, prepare

__all__ = ["MANIFEST", "SPLITS", "Row", "Settings", "Summary", "prepare", "read_rows"]
