"""The cross-entropy of an output layer over many codewords, and its gradients, in little memory.

Scores of a thousand tokens over thousands of codewords do not fit into a processor's caches, and several
passes over them in memory take most of a step's time. Here they are made for a few tokens at a time, and only
the gradients are kept. Where the processor multiplies bfloat16 itself, that is used: twice as fast, and what
it rounds is far below the noise of a batch.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["cross_entropy_of", "product_type"]

_ABREAST = 256  # tokens whose scores are held at once
_LEAST, _MOST = 1e-20, 1e20  # sums of gains: beyond, some that matter become 0, or products of them infinite


def cross_entropy_of(out: Tensor, table: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    """The mean of -log(softmax(out @ table.T + bias)[target]) in nats, differentiable once.

    Args:
        out: float32 (n, d), n at least 1.
        table: float32 (size, d).
        bias: float32 (size,).
        target: int64 (n,), 0 to size - 1.
    """
    function: Any = _CrossEntropy
    return cast(Tensor, function.apply(out, table, bias, target))


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, table: Tensor, bias: Tensor, target: Tensor) -> Tensor:
        kind = product_type()
        chosen = table[target]
        narrow, start = table.to(kind), bias.to(kind)
        by_out, by_table, by_bias = torch.empty_like(out), torch.zeros_like(table.T), torch.zeros_like(bias)
        room = torch.empty(min(_ABREAST, len(out)), len(table), dtype=kind)
        loss = -float((out * chosen).sum() + bias[target].sum())
        for low in range(0, len(out), _ABREAST):
            some = out[low : low + _ABREAST]
            gains, total, logs = _gains(some.to(kind), narrow, start, room[: len(some)])
            loss += float(logs.sum())
            by_out[low : low + _ABREAST] = (gains @ narrow).float() / total
            by_table += (some / total).to(kind).T @ gains
            by_bias += ((1 / total).to(kind).T @ gains)[0]
        by_out -= chosen
        by_table = by_table.T.contiguous()
        by_table.index_add_(0, target, out, alpha=-1)
        by_bias -= torch.bincount(target, minlength=len(bias))
        ctx.save_for_backward(by_out, by_table, by_bias)
        ctx.count = len(out)
        return torch.tensor(loss / len(out))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        scale = grads[0] / ctx.count
        by_out, by_table, by_bias = ctx.saved_tensors
        return by_out * scale, by_table * scale, by_bias * scale, None


def _gains(out: Tensor, table: Tensor, bias: Tensor, room: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers proportional to the probabilities (n, size), their sums (n, 1), and the logarithms of these.

    The largest score is subtracted first only where the numbers would leave the range otherwise.
    """
    gains = torch.addmm(bias, out, table.T, out=room).exp_()
    total = gains.sum(1, keepdim=True).float()
    if bool(((total > _LEAST) & (total < _MOST)).all()):
        return gains, total, total.log()
    scores = torch.addmm(bias, out, table.T, out=room)
    top = scores.amax(1, keepdim=True)
    gains = scores.sub_(top).exp_()
    total = gains.sum(1, keepdim=True).float()
    return gains, total, total.log() + top


@functools.cache
def product_type() -> torch.dtype:
    """Returns bfloat16 where the processor has instructions for its products, else float32."""
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if has() else torch.float32
