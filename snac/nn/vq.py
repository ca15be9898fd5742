"""Residual vector quantisation at several time scales."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from snac.nn.layers import convolution


class VectorQuantize(nn.Module):
    """One codebook, factorised and L2-normalised (Yu et al. 2022, arXiv 2110.04627, section 3.2).

    Args:
        input_dim: latent channels.
        codebook_size: number of codewords.
        codebook_dim: channels a codeword.
        stride: latent frames a token.
    """

    def __init__(self, input_dim: int, codebook_size: int, codebook_dim: int, stride: int = 1) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.codebook_dim = codebook_dim
        self.stride = stride
        self.in_proj = convolution(input_dim, codebook_dim, 1)
        self.out_proj = convolution(codebook_dim, input_dim, 1)
        self.codebook = nn.Embedding(codebook_size, codebook_dim)

    def project(self, z: Tensor) -> Tensor:
        """Latents (B, C, T) averaged over ``stride`` frames and projected: (B, D, T / stride)."""
        if self.stride > 1:
            z = F.avg_pool1d(z, self.stride, self.stride)
        projected: Tensor = self.in_proj(z)
        return projected

    def expand(self, z_q: Tensor) -> Tensor:
        """Codewords (B, D, T / stride) back to latents (B, C, T), each held for ``stride`` frames."""
        z_q = self.out_proj(z_q)
        return z_q.repeat_interleave(self.stride, dim=-1) if self.stride > 1 else z_q

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T) to quantised (B, C, T) and indices (B, T / stride); gradients pass straight through."""
        z_e = self.project(z)
        z_q, indices = self.decode_latents(z_e)
        z_q = z_e + (z_q - z_e).detach() if torch.is_grad_enabled() else z_q
        return self.expand(z_q), indices

    def embed_code(self, embed_id: Tensor) -> Tensor:
        """Indices (B, T) to codewords (B, T, D)."""
        return F.embedding(embed_id, self.codebook.weight)

    def decode_code(self, embed_id: Tensor) -> Tensor:
        """Indices (B, T) to codewords (B, D, T)."""
        return self.embed_code(embed_id).transpose(1, 2)

    def decode_latents(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The codeword nearest in angle to each projected latent.

        Args:
            latents: (B, D, T).

        Returns:
            codewords (B, D, T), not normalised, and indices (B, T), int64.
        """
        encodings = F.normalize(rearrange(latents, "b d t -> (b t) d"))
        codebook = F.normalize(self.codebook.weight)  # N D
        # Kept in the published order of operations, so that near ties fall the same way.
        distance = (
            encodings.pow(2).sum(1, keepdim=True)
            - 2 * encodings @ codebook.t()
            + codebook.pow(2).sum(1, keepdim=True).t()
        )
        indices = rearrange(distance.argmin(1), "(b t) -> b t", b=latents.size(0))
        return self.decode_code(indices), indices


class ResidualVectorQuantize(nn.Module):
    """Codebooks one after another, each on what the ones before left over (paper, section 3.1)."""

    def __init__(
        self,
        input_dim: int = 512,
        codebook_size: int = 1024,
        codebook_dim: int = 8,
        vq_strides: Sequence[int] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        self.n_codebooks = len(vq_strides)
        self.codebook_dim = codebook_dim
        self.codebook_size = codebook_size
        self.quantizers = nn.ModuleList(
            VectorQuantize(input_dim, codebook_size, codebook_dim, stride) for stride in vq_strides
        )

    def levels(self) -> Iterator[VectorQuantize]:
        """The codebooks, coarse to fine."""
        for level in self.quantizers:
            assert isinstance(level, VectorQuantize)
            yield level

    def forward(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, C, T) to quantised (B, C, T) and a list of indices (B, T / stride), coarse to fine."""
        z_q = torch.zeros_like(z)
        residual = z
        codes = []
        for quantizer in self.levels():
            z_q_i, indices = quantizer(residual)
            z_q = z_q + z_q_i
            residual = residual - z_q_i
            codes.append(indices)
        return z_q, codes

    def from_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """Indices of the coarsest one or more levels, each (B, T / stride), to latents (B, C, T)."""
        latents = (
            quantizer.expand(quantizer.decode_code(code))
            for quantizer, code in zip(self.levels(), codes, strict=False)
        )
        z_q: Tensor = next(latents)
        for z_q_i in latents:
            z_q = z_q + z_q_i
        return z_q
