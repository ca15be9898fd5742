"""The convolutional encoder and decoder (paper, section 3; layer order of the published checkpoints)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from snac.nn.attention import LocalMHA
from snac.nn.convolutions import plain_cpu, wn_conv1d, wn_upsampling
from snac.noise import NoiseSource

_KERNEL = 7
_DILATIONS = (1, 3, 9)
SNAKE_EPSILON = 1e-9  # keeps 1 / alpha finite; part of the published activation


class _SnakeFunction(torch.autograd.Function):
    """Snake with a backward pass that keeps only its input: half the memory of autograd's own graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(x, alpha)
        return x + (alpha + SNAKE_EPSILON).reciprocal() * torch.sin(alpha * x).square_()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grad_outputs
        x, alpha = ctx.saved_tensors
        inverse = (alpha + SNAKE_EPSILON).reciprocal()
        double_sine = torch.sin(2 * alpha * x)
        # d/d alpha of sin^2(alpha x) / alpha, with sin^2 = (1 - cos(2 alpha x)) / 2
        grad_alpha = double_sine.mul(x)
        grad_alpha -= torch.cos(2 * alpha * x).neg_().add_(1).mul_(0.5 * inverse)
        grad_alpha = (grad_alpha * grad).sum(dim=(0, 2), keepdim=True) * inverse
        grad_x = double_sine.mul_(alpha * inverse).add_(1).mul_(grad)
        return grad_x, grad_alpha


class Snake1d(nn.Module):
    """The snake activation x + sin^2(alpha x) / alpha (Ziyin et al. 2020, arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C, T)."""
        if torch.is_grad_enabled():
            y: Tensor = _SnakeFunction.apply(x, self.alpha)  # type: ignore[no-untyped-call]
            return y
        return self._add_to(x.clone(), x)

    def inplace(self, x: Tensor) -> Tensor:
        """The same, overwriting ``x`` where no gradients are asked for."""
        return self.forward(x) if torch.is_grad_enabled() else self._add_to(x, x)

    def _add_to(self, out: Tensor, x: Tensor) -> Tensor:
        """out + b - b cos(2 alpha x) with b = 1 / (2 alpha): one cosine and three cheap passes."""
        half = (self.alpha + SNAKE_EPSILON).reciprocal().mul_(0.5)
        cosine = torch.mul(x, 2 * self.alpha).cos_()
        return out.add_(half).addcmul_(cosine, half, value=-1)


class ResidualUnit(nn.Module):
    """Snake, dilated convolution, snake, pointwise convolution, around a skip connection.

    Attributes:
        fused: the unit's inference form on a CPU, once folded; it overwrites its input.
    """

    fused: Callable[[Tensor], Tensor] | None = None

    def __init__(self, dim: int = 16, dilation: int = 1, kernel: int = _KERNEL, groups: int = 1) -> None:
        super().__init__()
        padding = (kernel - 1) * dilation // 2
        self.block = nn.Sequential(
            Snake1d(dim),
            wn_conv1d(dim, dim, kernel_size=kernel, dilation=dilation, padding=padding, groups=groups),
            Snake1d(dim),
            wn_conv1d(dim, dim, kernel_size=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C, T)."""
        if self.fused is not None and plain_cpu(x):
            return self.fused(x)
        first, dilated, second, pointwise = self.block
        y: Tensor = pointwise(second.inplace(dilated(first(x))))  # type: ignore[operator]
        return x + y if torch.is_grad_enabled() else y.add_(x)


def _residual_units(dim: int, groups: int) -> list[nn.Module]:
    return [ResidualUnit(dim, dilation=dilation, groups=groups) for dilation in _DILATIONS]


class EncoderBlock(nn.Module):
    """Three residual units and a strided convolution that doubles the channels.

    Attributes:
        fused: the last snake's and the convolution's inference form on a CPU, once folded.
    """

    fused: Callable[[Tensor], Tensor] | None = None

    def __init__(self, output_dim: int = 16, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        input_dim = output_dim // 2
        self.block = nn.Sequential(
            *_residual_units(input_dim, groups),
            Snake1d(input_dim),
            wn_conv1d(
                input_dim, output_dim, kernel_size=2 * stride, stride=stride, padding=math.ceil(stride / 2)
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, 2C, T / stride)."""
        *units, snake, down = self.block
        for unit in units:
            x = unit(x)
        if self.fused is not None and plain_cpu(x):
            return self.fused(x)
        x = down(snake.inplace(x))  # type: ignore[operator]
        return x


class Encoder(nn.Module):
    """Samples to latents.

    Args:
        d_model: channels at the full rate; doubled by each stride.
        strides: of the blocks, first to last.
        depthwise: one group a channel in the wide convolutions.
        attn_window_size: frames of the attention before the last convolution, None for no attention.
    """

    def __init__(
        self,
        d_model: int = 64,
        strides: Sequence[int] = (3, 3, 7, 7),
        depthwise: bool = False,
        attn_window_size: int | None = 32,
    ) -> None:
        super().__init__()
        layers = [wn_conv1d(1, d_model, kernel_size=_KERNEL, padding=_KERNEL // 2)]
        for stride in strides:
            groups = d_model if depthwise else 1
            d_model *= 2
            layers.append(EncoderBlock(output_dim=d_model, stride=stride, groups=groups))
        if attn_window_size is not None:
            layers.append(LocalMHA(dim=d_model, window_size=attn_window_size))
        groups = d_model if depthwise else 1
        layers.append(wn_conv1d(d_model, d_model, kernel_size=_KERNEL, padding=_KERNEL // 2, groups=groups))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) to (B, C, T / hop)."""
        y: Tensor = self.block(x)
        return y


class NoiseBlock(nn.Module):
    """Adds noise scaled by a linear function of the signal (paper, section 3.2).

    Without a :class:`NoiseSource`, as in training, the noise is fresh at every call.

    Attributes:
        layer: number of this block within its decoder.
        upsampling: samples of this block's signal a latent frame.
        fused: the block's inference form on a CPU, once folded; it overwrites its input.
    """

    fused: Callable[[Tensor, Tensor], Tensor] | None = None

    def __init__(self, dim: int, layer: int = 0, upsampling: int = 1) -> None:
        super().__init__()
        self.layer = layer
        self.upsampling = upsampling
        self.linear = wn_conv1d(dim, dim, kernel_size=1, bias=False)

    def forward(self, x: Tensor, noise: NoiseSource | None = None) -> Tensor:
        """(B, C, T) to (B, C, T)."""
        if noise is None:
            drawn = torch.randn((x.shape[0], 1, x.shape[2]), device=x.device, dtype=x.dtype)
        else:
            drawn = noise.draw(self.layer, self.upsampling, x.shape[2], like=x)
        if self.fused is not None and plain_cpu(x):
            return self.fused(x, drawn)
        return torch.addcmul(x, drawn, self.linear(x))


class DecoderBlock(nn.Module):
    """A transposed convolution that halves the channels, noise, and three residual units.

    Attributes:
        fused: the first snake's and the convolution's inference form on a CPU, once folded.
    """

    fused: Callable[[Tensor], Tensor] | None = None

    def __init__(
        self,
        input_dim: int = 16,
        output_dim: int = 8,
        stride: int = 1,
        noise: NoiseBlock | None = None,
        groups: int = 1,
    ) -> None:
        super().__init__()
        layers = [
            Snake1d(input_dim),
            wn_upsampling(input_dim, output_dim, stride),
        ]
        if noise is not None:
            layers.append(noise)
        self.block = nn.Sequential(*layers, *_residual_units(output_dim, groups))
        self.stride = stride

    def forward(self, x: Tensor, noise: NoiseSource | None = None, noise_on: bool = True) -> Tensor:
        """(B, C, T) to (B, C / 2, T * stride)."""
        snake, up, *rest = self.block
        fused = self.fused if plain_cpu(x) else None
        x = fused(x) if fused else up(snake.inplace(x))  # type: ignore[operator]
        for layer in rest:
            if not isinstance(layer, NoiseBlock):
                x = layer(x)
            elif noise_on:
                x = layer(x, noise)
        return x


class Decoder(nn.Module):
    """Latents to samples.

    Args:
        input_channel: latent channels.
        channels: after the first convolutions; halved by each rate.
        rates: upsampling of the blocks, first to last.
        noise: whether the blocks add noise.
        depthwise: one group a channel in the wide convolutions.
        attn_window_size: frames of the attention before the blocks, None for no attention.

    Attributes:
        fused: the inference form of the layers after the last block, once folded.
    """

    fused: Callable[[Tensor], Tensor] | None = None

    def __init__(
        self,
        input_channel: int,
        channels: int,
        rates: Sequence[int],
        noise: bool = False,
        depthwise: bool = False,
        attn_window_size: int | None = 32,
    ) -> None:
        super().__init__()
        pad = _KERNEL // 2
        layers: list[nn.Module] = []
        if depthwise:
            width = input_channel
            layers.append(wn_conv1d(width, width, kernel_size=_KERNEL, padding=pad, groups=width))
            layers.append(wn_conv1d(width, channels, kernel_size=1))
        else:
            layers.append(wn_conv1d(input_channel, channels, kernel_size=_KERNEL, padding=pad))
        if attn_window_size is not None:
            layers.append(LocalMHA(dim=channels, window_size=attn_window_size))
        upsampling = 1
        for i, stride in enumerate(rates):
            upsampling *= stride
            channels //= 2
            block_noise = NoiseBlock(channels, layer=i, upsampling=upsampling) if noise else None
            groups = channels if depthwise else 1
            layers.append(DecoderBlock(2 * channels, channels, stride, block_noise, groups=groups))
        layers += [Snake1d(channels), wn_conv1d(channels, 1, kernel_size=_KERNEL, padding=pad), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor, noise: NoiseSource | None = None, noise_on: bool = True) -> Tensor:
        """Latents to samples.

        Args:
            x: (B, C, T).
            noise: where the noise blocks draw from; None draws fresh noise from torch's generator.
            noise_on: False leaves the noise blocks out.

        Returns:
            (B, 1, T * hop), in -1 to 1.
        """
        for layer in self.at_latent_rate():
            x = layer(x)
        return self.upsample(x, noise, noise_on)

    def upsample(self, x: Tensor, noise: NoiseSource | None = None, noise_on: bool = True) -> Tensor:
        """What ``forward`` does after the layers at the latent rate: (B, C', T) to (B, 1, T * hop)."""
        for block in self.blocks():
            x = block(x, noise, noise_on)
        return self.output(x)

    def output(self, x: Tensor) -> Tensor:
        """What follows the last block: (B, C, T) to samples (B, 1, T)."""
        if self.fused is not None and plain_cpu(x):
            return self.fused(x)
        snake, convolution, tanh = self.output_layers()
        result: Tensor = tanh(convolution(snake.inplace(x)))  # type: ignore[operator]
        return result

    def at_latent_rate(self) -> list[nn.Module]:
        """The layers before the first block."""
        return list(takewhile(lambda layer: not isinstance(layer, DecoderBlock), self.model))

    def blocks(self) -> list[DecoderBlock]:
        """The upsampling blocks: nearly all of the work."""
        return [layer for layer in self.model if isinstance(layer, DecoderBlock)]

    def output_layers(self) -> list[nn.Module]:
        """The last snake, convolution and tanh."""
        return list(self.model)[-3:]


def convolutions(module: nn.Module) -> Iterable[nn.Conv1d | nn.ConvTranspose1d]:
    """Every convolution within ``module``, in order of registration."""
    for child in module.modules():
        if isinstance(child, (nn.Conv1d, nn.ConvTranspose1d)):
            yield child
