"""The quantiser, under the published package's name of its module."""

from __future__ import annotations

from snac.nn.vq import ResidualVectorQuantize, VectorQuantize

__all__ = ["ResidualVectorQuantize", "VectorQuantize"]
