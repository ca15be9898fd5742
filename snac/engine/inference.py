"""The inference form of the costly layers on a CPU: matrix products between the kernels of ``kernels.py``.

The products are NumPy's: the OpenBLAS of its wheels takes 50 to 95 % of the time of torch's MKL on the shapes
at hand (docs/speed.md).

``SNAC.fold`` attaches these to the layers they stand for; the layers use them on float32 tensors on the CPU
where no gradients are asked for. Results are the layers' own within float rounding.
"""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snac.nn.layers import (
    SNAKE_EPSILON,
    Decoder,
    DecoderBlock,
    Encoder,
    EncoderBlock,
    NoiseBlock,
    ResidualUnit,
)


def _kernels() -> ModuleType | None:
    """The compiled kernels; None where numba cannot be had, and the plain layers do."""
    try:
        kernels = importlib.import_module("snac.engine.old_kernels")
    except ImportError:
        return None
    return None if kernels.interpreted() else kernels


def fuse(encoder: Encoder, decoder: Decoder) -> None:
    """Attaches the inference forms; without numba, or where a layer is of another kind, it stays as it is."""
    kernels = _kernels()
    if kernels is None:
        return
    for layer in [*encoder.modules(), *decoder.modules()]:
        if isinstance(layer, ResidualUnit) and _suits(kernels, layer.block[1]):
            layer.fused = FusedUnit(kernels, layer.block)
        elif isinstance(layer, NoiseBlock):
            layer.fused = FusedNoise(kernels, layer.linear)
        elif isinstance(layer, EncoderBlock):
            layer.fused = FusedDown(kernels, layer.block[-2], layer.block[-1])
        elif isinstance(layer, DecoderBlock):
            layer.fused = FusedUp(kernels, layer.block[0], layer.block[1])
    decoder.fused = FusedOutput(kernels, decoder.model[-3], decoder.model[-2])


def _suits(kernels: ModuleType, dilated: Any) -> bool:
    depthwise = dilated.groups == dilated.in_channels
    return depthwise and dilated.kernel_size[0] == kernels.KERNEL and dilated.dilation[0] in (1, 3, 9)


def _snake(snake: Any) -> np.ndarray:
    """Rates and scales (2, C) as the kernels take them."""
    alpha = snake.alpha.detach().double().flatten() + SNAKE_EPSILON
    return _array(torch.stack((alpha / math.pi, 1 / alpha)))


def _array(values: Tensor) -> np.ndarray:
    """The weights' own memory where their layout allows it: a folded model is not for training."""
    array: np.ndarray = values.detach().to("cpu", torch.float32).contiguous().numpy()
    return array


class FusedUnit:
    """A depthwise residual unit: one kernel, one matrix product added to the signal in place."""

    def __init__(self, kernels: ModuleType, block: nn.Sequential) -> None:
        first, dilated, second, pointwise = (layer for layer in block)  # as ResidualUnit has them
        convolution: Any = dilated
        product: Any = pointwise
        self.run = kernels.depthwise_unit
        self.snakes = _snake(first), _snake(second)
        self.weight, self.bias = _array(convolution.weight[:, 0]), _array(convolution.bias)
        self.dilation = int(convolution.dilation[0])
        self.product = _array(product.weight[:, :, 0])
        self.shift = _array(product.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, T) to itself, overwritten."""
        for item in x:
            signal = item.numpy()
            out, product = item.new_empty(2, *item.shape).numpy()
            self.run(
                signal,
                self.shift,
                self.snakes[0],
                self.weight,
                self.bias,
                self.snakes[1],
                self.dilation,
                out,
            )
            np.matmul(self.product, out, out=product)
            signal += product
        return x


class FusedNoise:
    """A noise block: one matrix product, scaled and added to the signal in place."""

    def __init__(self, kernels: ModuleType, linear: Any) -> None:
        self.add = kernels.add_scaled
        self.linear = _array(linear.weight[:, :, 0])

    def __call__(self, x: Tensor, noise: Tensor) -> Tensor:
        """(B, C, T) and noise (B or 1, 1, T) to the signal with noise, which overwrites ``x``."""
        for item, drawn in zip(x, noise.expand(x.shape[0], 1, -1), strict=True):
            signal, product = item.numpy(), torch.empty_like(item).numpy()
            np.matmul(self.linear, signal, out=product)
            self.add(signal, product, drawn[0].numpy())
        return x


class FusedDown:
    """A snake and a strided convolution of twice as many taps: three matrix products for two frames."""

    def __init__(self, kernels: ModuleType, snake: nn.Module, down: Any) -> None:
        self.split, self.join = kernels.split_phases, kernels.join_frames
        self.snake, self.bias = _snake(snake), _array(down.bias)
        self.stride, self.pad = int(down.stride[0]), int(down.padding[0])
        taps = down.weight.detach().permute(2, 0, 1)  # 2S C' C
        early, late = (half.permute(1, 0, 2).flatten(1) for half in taps.chunk(2))  # C' (S C)
        self.products = _array(torch.stack((early, early + late, late)))

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C', T / stride)."""
        batch, channels, length = x.shape
        frames = length // self.stride
        out = x.new_empty(batch, self.bias.shape[0], frames)
        sides = x.new_empty(3, self.stride, channels, (frames + 1) // 2)
        products = x.new_empty(3, self.bias.shape[0], sides.shape[3]).numpy()
        for item, to in zip(x, out, strict=True):
            self.split(item.numpy(), self.snake, self.pad, sides.numpy())
            np.matmul(self.products, sides.flatten(1, 2).numpy(), out=products)
            self.join(products, self.bias, to.numpy())
        return out


class FusedUp:
    """A snake and a transposed convolution of twice as many taps: three matrix products for two frames."""

    def __init__(self, kernels: ModuleType, snake: nn.Module, up: Any) -> None:
        self.split, self.join = kernels.split_frames, kernels.join_samples
        self.snake, self.bias = _snake(snake), _array(up.bias)
        self.stride, self.first = int(up.stride[0]), int(up.padding[0])
        taps = up.weight.detach().permute(2, 1, 0)  # 2S C' C
        early, late = (half.flatten(0, 1) for half in taps.chunk(2))  # (S C') C
        # A frame's samples come from itself and, their second half, from the frame before.
        self.products = _array(torch.stack((late, late + early, early)))

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C', T * stride)."""
        batch, channels, frames = x.shape
        out = x.new_empty(batch, self.bias.shape[0], frames * self.stride)
        pairs = frames // 2 + 1
        sides = x.new_empty(3, channels, pairs).numpy()
        products = x.new_empty(3, self.stride, self.bias.shape[0], pairs).numpy()
        for item, to in zip(x, out, strict=True):
            self.split(item.numpy(), self.snake, sides)
            np.matmul(self.products, sides, out=products.reshape(3, -1, pairs))
            self.join(products, self.bias, self.first, to.numpy())
        return out


class FusedOutput:
    """The decoder's last snake, convolution to one channel, and tanh."""

    def __init__(self, kernels: ModuleType, snake: nn.Module, convolution: Any) -> None:
        self.run = kernels.output
        self.snake = _snake(snake)
        self.weight, self.bias = _array(convolution.weight[0]), np.float32(convolution.bias.item())

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, 1, T)."""
        out = x.new_empty(x.shape[0], 1, x.shape[2])
        for item, to in zip(x, out, strict=True):
            self.run(item.numpy(), self.snake, self.weight, self.bias, to[0].numpy())
        return out.tanh_()
