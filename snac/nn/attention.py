"""Local windowed self-attention with rotary position embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from snac.config import ATTENTION_HEAD


class LocalMHA(nn.Module):
    """Multi-head attention within windows of ``window_size`` frames that do not overlap, with a residual.

    Rotary embeddings (Su et al. 2021, arXiv 2104.09864) count positions from the start of each window.

    Args:
        dim: channels; ``dim // dim_head`` heads.
        window_size: frames attended to at once; the input's length must be a multiple of it.
        dim_head: channels a head.
    """

    def __init__(self, dim: int = 1024, window_size: int = 32, dim_head: int = ATTENTION_HEAD) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.heads = dim // dim_head
        self.window_size = window_size
        self.to_qkv = nn.Linear(dim, dim * 3, bias=False)
        self.rel_pos = RotaryEmbedding(dim_head)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C, T)."""
        windows = x.shape[-1] // self.window_size
        qkv = self.to_qkv(self.norm(x.transpose(1, 2)))  # B T 3C
        q, k, v = (
            rearrange(part, "b (w n) (h d) -> b h w n d", w=windows, h=self.heads)
            for part in qkv.chunk(3, dim=-1)
        )
        cos, sin = self.rel_pos(self.window_size)  # n d
        heard = F.scaled_dot_product_attention(_rotate(q, cos, sin), _rotate(k, cos, sin), v)
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
