"""Layers of the published form: its encoder and decoder, attention and noise (paper, section 3).

The order of the layers is that of the published checkpoints. The noise of the decoder's blocks is torch's
own, or that of ``snac.noise``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from snac.config import ATTENTION_HEAD
from snac.noise import MASK, Noise, noise_key


class LocalMHA(nn.Module):
    """Multi-head attention within windows of ``window_size`` frames that do not overlap, with a residual.

    Rotary embeddings (Su et al. 2021, arXiv 2104.09864) count positions from the start of each window.

    Args:
        dim: channels; ``dim // dim_head`` heads.
        window_size: frames attended to at once; the input's length must be a multiple of it.
        dim_head: channels a head.
        use_rotary_pos_emb: whether positions within a window count.
    """

    def __init__(
        self,
        dim: int = 1024,
        window_size: int = 32,
        dim_head: int = ATTENTION_HEAD,
        use_rotary_pos_emb: bool = True,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.heads = dim // dim_head
        self.window_size = window_size
        self.to_qkv = nn.Linear(dim, dim * 3, bias=False)
        self.rel_pos = RotaryEmbedding(dim_head) if use_rotary_pos_emb else None
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C, T)."""
        windows = x.shape[-1] // self.window_size
        qkv = self.to_qkv(self.norm(x.transpose(1, 2)))  # B T 3C
        q, k, v = (
            rearrange(part, "b (w n) (h d) -> b h w n d", w=windows, h=self.heads)
            for part in qkv.chunk(3, dim=-1)
        )
        if self.rel_pos is not None:
            cos, sin = self.rel_pos(q.shape[-2])  # n d
            q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        heard = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.to_out(rearrange(heard, "b h w n d -> b (w n) (h d)"))
        return x + out.transpose(1, 2)


class RotaryEmbedding(nn.Module):
    """Angles of the rotary embedding; ``inv_freq`` is kept as a buffer because checkpoints carry it."""

    inv_freq: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (10000 ** (torch.arange(0, dim, 2).float() / dim)))

    def forward(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (length, dim), for positions 0 to length - 1."""
        positions = torch.arange(length, device=self.inv_freq.device, dtype=self.inv_freq.dtype)
        angles = positions[:, None] * self.inv_freq[None, :]
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


class NoiseStream(Protocol):
    """Where noise blocks draw their noise from."""

    def draw(self, layer: int, length: int, like: Tensor) -> Tensor:
        """Standard normal noise for a signal from its first sample on.

        Args:
            layer: number of the noise block within its decoder.
            length: samples.
            like: the signal (B, C, length).

        Returns:
            (B, 1, length) or (1, 1, length), of the device and type of ``like``.
        """


class FreshNoise:
    """Noise of torch's own generator, as training and the published package have it."""

    def draw(self, layer: int, length: int, like: Tensor) -> Tensor:
        """See :class:`NoiseStream`."""
        return torch.randn((like.shape[0], 1, length), device=like.device, dtype=like.dtype)


class SeededNoise:
    """Noise that depends on a seed, the layer and the position alone, the same as the engine's.

    Args:
        seed: any integer; only its low 64 bits count.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def draw(self, layer: int, length: int, like: Tensor) -> Tensor:
        """See :class:`NoiseStream`."""
        return gaussian(self._seed, layer, 0, length, like)


FRESH: Final[NoiseStream] = FreshNoise()


def traced() -> bool:
    """Whether a graph is being recorded, of which values and perhaps sizes are unknown as yet."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or torch.compiler.is_compiling()


def gaussian(seed: int, layer: int, first: int, length: int, like: Tensor) -> Tensor:
    """The values of ``snac.noise.Noise.seeded(seed)`` for the positions from ``first`` on.

    On a CPU NumPy computes them; elsewhere torch on the device itself, with the same bits of the hash and
    float rounding of the device. In a graph torch does so on a CPU as well: what NumPy gave would be a
    constant.

    Args:
        seed: any integer; only its low 64 bits count.
        layer: number of the noise block within its decoder.
        first: absolute index of a sample at the layer's rate, 0 or greater.
        length: how many values.
        like: says the device and the type.

    Returns:
        (1, 1, length).
    """
    if like.device.type == "cpu" and not traced():
        drawn = torch.from_numpy(Noise.seeded(seed).draw(layer, first, length))
    else:
        drawn = _gaussian_on_device(seed, layer, first, length, like.device)
    return drawn.to(device=like.device, dtype=like.dtype)[None, None]


def _gaussian_on_device(seed: int, layer: int, first: int, length: int, device: torch.device) -> Tensor:
    key = noise_key(seed, layer)
    places = torch.arange(first, first + length, device=device)
    state = _mix((places & MASK) ^ _mix((places >> 32) ^ key))
    # 23 bits plus a half are exact in float32, and never 0: the logarithm stays finite.
    uniform = ((_mix(state ^ 0x3C6EF372) >> 9).to(torch.float32) + 0.5) * 2.0**-23
    angle = (_mix(state ^ 0xDAA66D2B) >> 8).to(torch.float32) * (2.0 * math.pi * 2.0**-24)
    return torch.sqrt(-2.0 * torch.log(uniform)) * torch.cos(angle)


def _mix(x: Tensor) -> Tensor:
    """The bijection of ``snac.noise`` on 32-bit integers that are held in int64."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK
    return x ^ (x >> 16)


_KERNEL = 7
_DILATIONS = (1, 3, 9)
SNAKE_EPSILON = 1e-9  # keeps 1 / alpha finite; part of the published activation


def convolution(*arguments: Any, **options: Any) -> nn.Conv1d:
    """A weight-normalised convolution; the arguments are those of nn.Conv1d."""
    layer: nn.Conv1d = weight_norm(nn.Conv1d(*arguments, **options))
    return layer


def transposed_convolution(*arguments: Any, **options: Any) -> nn.ConvTranspose1d:
    """Likewise of nn.ConvTranspose1d."""
    layer: nn.ConvTranspose1d = weight_norm(nn.ConvTranspose1d(*arguments, **options))
    return layer


def upsampling(inputs: int, outputs: int, stride: int) -> nn.Module:
    """A weight-normalised transposed convolution: ``stride`` samples for one, with 2 x ``stride`` taps."""
    return transposed_convolution(
        inputs,
        outputs,
        kernel_size=2 * stride,
        stride=stride,
        padding=(stride + 1) // 2,
        output_padding=stride % 2,
    )


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """x + sin^2(alpha x) / alpha (Ziyin et al. 2020, arXiv 2006.08195): (B, C, ...) and (1, C, 1)."""
    if x.ndim != 3:
        return snake(x.reshape(x.shape[0], x.shape[1], -1), alpha).reshape(x.shape)
    if traced():  # what compiles a graph chooses by itself what it keeps
        return x + (alpha + SNAKE_EPSILON).reciprocal() * torch.sin(alpha * x).square()
    y: Tensor = _SnakeFunction.apply(x, alpha)  # type: ignore[no-untyped-call]
    return y


class _SnakeFunction(torch.autograd.Function):
    """Snake with a backward pass that keeps only its input: half the memory of autograd's own graph."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, alpha: Tensor) -> Tensor:
        sine = torch.sin(alpha * x)
        return x + (alpha + SNAKE_EPSILON).reciprocal() * sine.mul_(sine)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grad_outputs
        x, alpha = ctx.saved_tensors
        if torch.is_grad_enabled():  # for derivatives of the second order nothing is overwritten
            by_x, by_alpha = _snake_derivatives(x, alpha)
            return grad * by_x, (grad * by_alpha).sum_to_size(alpha.shape)
        inverse = (alpha + SNAKE_EPSILON).reciprocal()
        double_sine = torch.sin(2 * alpha * x)
        # d/d alpha of sin^2(alpha x) / alpha, with sin^2 = (1 - cos(2 alpha x)) / 2
        grad_alpha = double_sine.mul(x)
        grad_alpha -= torch.cos(2 * alpha * x).neg_().add_(1).mul_(0.5 * inverse)
        grad_alpha = (grad_alpha * grad).sum_to_size(alpha.shape) * inverse
        return double_sine.mul_(alpha * inverse).add_(1) * grad, grad_alpha

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        derivatives = _snake_derivatives(*ctx.saved_tensors)
        parts = [by * given for by, given in zip(derivatives, tangents, strict=True) if given is not None]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _snake_derivatives(x: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """By x and by alpha, as operations that can be differentiated again."""
    inverse = (alpha + SNAKE_EPSILON).reciprocal()
    double_sine = torch.sin(2 * alpha * x)
    squared_sine = 0.5 - 0.5 * torch.cos(2 * alpha * x)
    return 1 + alpha * inverse * double_sine, (x * double_sine - squared_sine * inverse) * inverse


class Snake1d(nn.Module):
    """The activation :func:`snake` with an ``alpha`` for each channel, which is learned."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C, T)."""
        return snake(x, self.alpha)


class ResidualUnit(nn.Module):
    """Snake, dilated convolution, snake, pointwise convolution, around a skip connection."""

    def __init__(self, dim: int = 16, dilation: int = 1, kernel: int = _KERNEL, groups: int = 1) -> None:
        super().__init__()
        padding = (kernel - 1) * dilation // 2
        self.block = nn.Sequential(
            Snake1d(dim),
            convolution(dim, dim, kernel, dilation=dilation, padding=padding, groups=groups),
            Snake1d(dim),
            convolution(dim, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C, T)."""
        y: Tensor = self.block(x)
        return x + y


def _residual_units(dim: int, groups: int) -> list[nn.Module]:
    return [ResidualUnit(dim, dilation=dilation, groups=groups) for dilation in _DILATIONS]


class EncoderBlock(nn.Module):
    """Three residual units and a strided convolution, from half the channels unless it is said otherwise."""

    def __init__(
        self, output_dim: int = 16, input_dim: int | None = None, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        input_dim = input_dim or output_dim // 2
        self.block = nn.Sequential(
            *_residual_units(input_dim, groups),
            Snake1d(input_dim),
            convolution(input_dim, output_dim, 2 * stride, stride=stride, padding=(stride + 1) // 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, input_dim, T) to (B, output_dim, T / stride)."""
        y: Tensor = self.block(x)
        return y


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
        layers: list[nn.Module] = [convolution(1, d_model, _KERNEL, padding=_KERNEL // 2)]
        for stride in strides:
            groups = d_model if depthwise else 1
            d_model *= 2
            layers.append(EncoderBlock(output_dim=d_model, stride=stride, groups=groups))
        if attn_window_size is not None:
            layers.append(LocalMHA(dim=d_model, window_size=attn_window_size))
        groups = d_model if depthwise else 1
        layers.append(convolution(d_model, d_model, _KERNEL, padding=_KERNEL // 2, groups=groups))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, T) to (B, C, T / hop)."""
        y: Tensor = self.block(x)
        return y


class NoiseBlock(nn.Module):
    """Adds noise scaled by a linear function of the signal (paper, section 3.2).

    Attributes:
        layer: number of this block within its decoder.
    """

    def __init__(self, dim: int, layer: int = 0) -> None:
        super().__init__()
        self.layer = layer
        self.linear = convolution(dim, dim, 1, bias=False)

    def forward(self, x: Tensor, noise: NoiseStream = FRESH) -> Tensor:
        """(B, C, T) to (B, C, T)."""
        return torch.addcmul(x, noise.draw(self.layer, x.shape[-1], like=x), self.linear(x))


class DecoderBlock(nn.Module):
    """A transposed convolution that halves the channels, noise, and three residual units.

    Args:
        input_dim, output_dim: channels.
        stride: samples out for one in.
        noise: whether there is a noise block.
        groups: of the wide convolutions.
        layer: number of the noise block within its decoder.
    """

    def __init__(
        self,
        input_dim: int = 16,
        output_dim: int = 8,
        stride: int = 1,
        noise: bool = False,
        groups: int = 1,
        layer: int = 0,
    ) -> None:
        super().__init__()
        # Made in the order of the published package, so that a seed of torch gives the same fresh weights.
        layers: list[nn.Module] = [Snake1d(input_dim), upsampling(input_dim, output_dim, stride)]
        if noise:
            layers.append(NoiseBlock(output_dim, layer))
        self.block = nn.Sequential(*layers, *_residual_units(output_dim, groups))

    def forward(self, x: Tensor, noise: NoiseStream | None = FRESH) -> Tensor:
        """(B, C, T) to (B, C / 2, T * stride)."""
        for layer in self.block:
            if not isinstance(layer, NoiseBlock):
                x = layer(x)
            elif noise is not None:
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
        d_out: channels of the samples.
    """

    def __init__(
        self,
        input_channel: int,
        channels: int,
        rates: Sequence[int],
        noise: bool = False,
        depthwise: bool = False,
        attn_window_size: int | None = 32,
        d_out: int = 1,
    ) -> None:
        super().__init__()
        pad = _KERNEL // 2
        layers: list[nn.Module] = []
        if depthwise:
            layers.append(
                convolution(input_channel, input_channel, _KERNEL, padding=pad, groups=input_channel)
            )
            layers.append(convolution(input_channel, channels, 1))
        else:
            layers.append(convolution(input_channel, channels, _KERNEL, padding=pad))
        if attn_window_size is not None:
            layers.append(LocalMHA(dim=channels, window_size=attn_window_size))
        for i, stride in enumerate(rates):
            inputs, channels = channels, channels // 2
            groups = channels if depthwise else 1
            layers.append(DecoderBlock(inputs, channels, stride, noise, groups=groups, layer=i))
        layers += [Snake1d(channels), convolution(channels, d_out, _KERNEL, padding=pad), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor, noise: NoiseStream | None = FRESH) -> Tensor:
        """Latents to samples.

        Args:
            x: (B, C, T).
            noise: where the noise blocks draw from; None leaves them out.

        Returns:
            (B, d_out, T * hop), in -1 to 1.
        """
        for layer in self.model:
            x = layer(x, noise) if isinstance(layer, DecoderBlock) else layer(x)
        return x
