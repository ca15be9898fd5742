"""The model's convolutions, with ways through them that suit a CPU where no gradients are asked for."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class Convolution(nn.Conv1d):
    """nn.Conv1d; a dilated depthwise one is a sum of shifted products on the CPU.

    torch has fast kernels for depthwise convolutions without dilation only: the others take three to six
    times as long as the seven passes below.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, T) to (B, C', T')."""
        dilated_depthwise = self.groups == self.in_channels == self.out_channels and self.dilation[0] > 1
        if dilated_depthwise and plain_cpu(input) and self.bias is not None:
            return self._shifted_products(input, self.bias)
        return super().forward(input)

    def _shifted_products(self, x: Tensor, bias: Tensor) -> Tensor:
        padding, dilation = int(self.padding[0]), self.dilation[0]
        length = x.shape[-1] + 2 * padding - (self.kernel_size[0] - 1) * dilation
        padded = F.pad(x, (padding, padding))
        weight = self.weight  # C 1 taps
        out = torch.addcmul(bias[:, None], padded[:, :, :length], weight[:, :, 0])
        for tap in range(1, self.kernel_size[0]):
            out.addcmul_(padded[:, :, tap * dilation : tap * dilation + length], weight[:, :, tap])
        return out


class Upsampling(nn.ConvTranspose1d):
    """nn.ConvTranspose1d of twice as many taps as its stride: one matrix product on the CPU.

    Each input frame gives two strides' worth of samples; the second half overlaps the next frame's first.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, C, T) to (B, C', T * stride)."""
        if plain_cpu(input) and self.bias is not None and output_size is None:
            return self._overlapped_product(input, self.bias)
        return super().forward(input, output_size)

    def _overlapped_product(self, x: Tensor, bias: Tensor) -> Tensor:
        batch, _, frames = x.shape
        stride, channels = self.stride[0], self.out_channels
        taps = torch.matmul(self.weight.view(self.in_channels, -1).t(), x)
        taps = taps.view(batch, channels, 2, stride, frames).transpose(3, 4)  # B C' 2 frames stride
        out = x.new_empty(batch, channels, frames + 1, stride)
        out[:, :, :frames] = taps[:, :, 0]
        out[:, :, frames] = 0
        out[:, :, 1:] += taps[:, :, 1]
        out += bias[:, None, None]
        first = int(self.padding[0])
        return out.view(batch, channels, -1)[:, :, first : first + frames * stride]


def plain_cpu(x: Tensor) -> bool:
    """Whether the ways that suit a CPU are open: single precision there, and no gradients asked for."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()


def wn_conv1d(*args: Any, **kwargs: Any) -> nn.Module:
    """A weight-normalised convolution; arguments of nn.Conv1d."""
    layer: nn.Module = weight_norm(Convolution(*args, **kwargs))
    return layer


def wn_upsampling(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A weight-normalised transposed convolution: ``stride`` samples for one, with 2 x ``stride`` taps."""
    padding = (stride + 1) // 2
    layer: nn.Module = weight_norm(
        Upsampling(
            in_channels,
            out_channels,
            kernel_size=2 * stride,
            stride=stride,
            padding=padding,
            output_padding=stride % 2,
        )
    )
    return layer
