"""The layers, under the published package's name of their module."""

from __future__ import annotations

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
from snac.nn.layers import convolution as WNConv1d
from snac.nn.layers import transposed_convolution as WNConvTranspose1d

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
