"""Residual units compiled into a few fused loops: on a CPU, most of a training step is memory traffic."""

from __future__ import annotations

import functools
import types
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snac.nn.layers import SNAKE_EPSILON, ResidualUnit, Snake1d
from snaccli.errors import UsageError


def _snake(x: Tensor, alpha: Tensor) -> Tensor:
    return x + (alpha + SNAKE_EPSILON).reciprocal() * torch.sin(alpha * x).square()


def _depthwise_unit(x: Tensor, alpha1: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """Snake and depthwise convolution, the convolution as shifted products, which fuse with the rest."""
    length = x.shape[-1]
    reach = (weight.shape[-1] - 1) * dilation // 2
    padded = F.pad(_snake(x, alpha1), (reach, reach))
    out = bias[:, None].expand(-1, length)
    for tap in range(weight.shape[-1]):
        shifted = padded[:, :, tap * dilation : tap * dilation + length]
        out = out + weight[:, 0, tap, None] * shifted
    return out


def fuse_layers(model: nn.Module, device: str | torch.device = "cpu") -> None:
    """Replaces the forward pass of the snakes and the depthwise residual units by compiled ones.

    The results are the same but for rounding. Compiling takes a minute or two at the first step.

    Args:
        model: changed in place.
        device: where it will be trained.

    Raises:
        UsageError: torch.compile does not work there.
    """
    torch._dynamo.config.recompile_limit = 256
    activation: Any = torch.compile(_snake, dynamic=False)
    depthwise: Any = torch.compile(_depthwise_unit, dynamic=False)
    _try(activation, device)
    for layer in model.modules():
        if isinstance(layer, ResidualUnit):
            forward: Any = types.MethodType(_fused_unit(activation, depthwise), layer)
        elif isinstance(layer, Snake1d):
            forward = functools.partial(_fused_snake, activation, layer)
        else:
            continue
        setattr(layer, "forward", forward)  # noqa: B010


def _try(activation: Any, device: str | torch.device) -> None:
    """Compiles something small, to learn now rather than at the first step whether there is a compiler."""
    try:
        activation(torch.zeros(1, 1, 8, device=device), torch.ones(1, 1, 1, device=device))
    except Exception as error:  # each backend fails by errors of its own
        reason = " ".join(str(error).split())[:120]
        raise UsageError(
            f"compile = true: torch.compile does not work here ({reason}): "
            "install a C++ compiler (g++, clang or MSVC), or set compile=false"
        ) from error


def _fused_snake(activation: Any, layer: Snake1d, x: Tensor) -> Tensor:
    result: Tensor = activation(x, layer.alpha)
    return result


def _fused_unit(activation: Any, depthwise: Any) -> Any:
    def forward(unit: ResidualUnit, x: Tensor) -> Tensor:
        first, dilated, second, pointwise = cast(Any, unit.block)
        if dilated.groups != dilated.in_channels:
            return ResidualUnit.forward(unit, x)
        y = depthwise(x, first.alpha, dilated.weight, dilated.bias, dilated.dilation[0])
        result: Tensor = x + pointwise(activation(y, second.alpha))
        return result

    return forward
