"""The model, under the published package's name of its module."""

from __future__ import annotations

from snac.nn.model import SNAC

__all__ = ["SNAC"]
