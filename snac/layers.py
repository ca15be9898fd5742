"""The layers, under the published package's name of their module."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from snac.nn.layers import (
    Decoder,
    DecoderBlock,
    Encoder,
    EncoderBlock,
    LocalMHA,
    NoiseBlock,
    ResidualUnit,
    Snake1d,
    snake,
)

__all__ = [
    "Decoder",
    "DecoderBlock",
    "Encoder",
    "EncoderBlock",
    "LocalMHA",
    "NoiseBlock",
    "ResidualUnit",
    "Snake1d",
    "WNConv1d",
    "WNConvTranspose1d",
    "snake",
]


def WNConv1d(*args: Any, **kwargs: Any) -> nn.Conv1d:  # noqa: N802 - the published name
    """A weight-normalised ``nn.Conv1d`` of these arguments."""
    layer: nn.Conv1d = weight_norm(nn.Conv1d(*args, **kwargs))
    return layer


def WNConvTranspose1d(*args: Any, **kwargs: Any) -> nn.ConvTranspose1d:  # noqa: N802 - the published name
    """A weight-normalised ``nn.ConvTranspose1d`` of these arguments."""
    layer: nn.ConvTranspose1d = weight_norm(nn.ConvTranspose1d(*args, **kwargs))
    return layer
