"""What training adds to the quantiser: its losses, and codewords that are brought back into use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from snac.nn.layers import NoiseStream
from snac.nn.vq import ResidualVectorQuantize
from snaccli.training.state import is_plain

_NOISE_LAYER = 1000  # numbers of noise sources that no block of a decoder has


@dataclass
class QuantiseResult:
    """What one pass through the quantiser gives in training.

    Attributes:
        z_q: quantised latents, (B, C, T).
        commitment: how far the encoder is from its codewords (van den Oord et al. 2017, arXiv 1711.00937,
            equation 3), mean over levels.
        codebook: how far the codewords are from the encoder, of the same equation.
        indices: chosen codewords, one (B, T / stride) a level.
        projected: the projected latents they were chosen for, one (B, D, T / stride) a level, detached.
    """

    z_q: Tensor
    commitment: Tensor
    codebook: Tensor
    indices: list[Tensor]
    projected: list[Tensor]


def quantise(quantizer: ResidualVectorQuantize, z: Tensor) -> QuantiseResult:
    """Quantises latents (B, C, T) as the model does, keeping what the losses need."""
    z_q = torch.zeros_like(z)
    residual = z
    commitment, codebook = z.new_zeros(()), z.new_zeros(())
    indices, projected = [], []
    for level in quantizer.levels():
        z_e = level.project(residual)
        words, chosen = level.decode_latents(z_e)
        commitment = commitment + F.mse_loss(z_e, words.detach())
        codebook = codebook + F.mse_loss(words, z_e.detach())
        z_q_i = level.expand(z_e + (words - z_e).detach())
        z_q = z_q + z_q_i
        residual = residual - z_q_i
        indices.append(chosen)
        projected.append(z_e.detach())
    count = quantizer.n_codebooks
    return QuantiseResult(z_q, commitment / count, codebook / count, indices, projected)


def soften(quantizer: ResidualVectorQuantize, z: Tensor, noise: NoiseStream) -> tuple[Tensor, Tensor]:
    """A differentiable stand-in for codebooks that do not exist yet.

    Each projected latent goes to the unit sphere, where codewords are looked up, and is moved there by noise
    as large as the distance to the nearest of ``codebook_size`` evenly spread codewords, of the order of
    ``codebook_size ** (-1 / (D - 1))`` (the sphere has D - 1 dimensions). So encoder and decoder learn to
    live with what fits through the codebooks before these are fitted.

    Args:
        z: latents (B, C, T).
        noise: where the noise is drawn from.

    Returns:
        latents (B, C, T), and the mean squared distance of the projected latents from the sphere.
    """
    spread = quantizer.codebook_size ** (-1 / (quantizer.codebook_dim - 1)) / quantizer.codebook_dim**0.5
    z_q = torch.zeros_like(z)
    residual = z
    distance = z.new_zeros(())
    for number, level in enumerate(quantizer.levels()):
        z_e = level.project(residual)
        unit = F.normalize(z_e, dim=1)
        drawn = noise.draw(_NOISE_LAYER + number, unit[0].numel(), like=unit).view_as(unit)
        distance = distance + F.mse_loss(z_e, unit.detach())
        z_q_i = level.expand(F.normalize(unit + spread * drawn, dim=1))
        z_q = z_q + z_q_i
        residual = residual - z_q_i
    return z_q, distance / quantizer.n_codebooks


class CodebookUsage:
    """Counts how often each codeword is chosen, and moves idle ones to where the encoder is.

    Counts decay exponentially over ``horizon`` times the codebook size in tokens; a codeword whose count
    falls below ``threshold`` times the mean is replaced by a projected latent drawn from recent ones (the
    restart of Dhariwal et al. 2020, arXiv 2005.00341, section 3).
    """

    def __init__(
        self, quantizer: ResidualVectorQuantize, horizon: float = 4.0, threshold: float = 0.1
    ) -> None:
        self.quantizer = quantizer
        self.threshold = threshold
        self.horizon_tokens = horizon * quantizer.codebook_size
        size = quantizer.codebook_size
        self.counts = [torch.full((size,), 1.0 / size) for _ in range(quantizer.n_codebooks)]
        self.recent: list[Tensor] = [torch.empty(0, quantizer.codebook_dim) for _ in self.counts]

    def update(self, indices: Sequence[Tensor], projected: Sequence[Tensor]) -> None:
        """Takes the choices of one step into account, as :class:`QuantiseResult` has them."""
        size = self.quantizer.codebook_size
        for level, (chosen, z_e) in enumerate(zip(indices, projected, strict=True)):
            share = torch.bincount(chosen.flatten().cpu(), minlength=size) / chosen.numel()
            weight = min(chosen.numel() / self.horizon_tokens, 1.0)
            self.counts[level].mul_(1 - weight).add_(share, alpha=weight)
            vectors = z_e.transpose(1, 2).reshape(-1, z_e.shape[1]).cpu()
            self.recent[level] = torch.cat((vectors, self.recent[level]))[: 2 * size]

    def load(self, counts: list[Tensor], recent: list[Tensor]) -> None:
        """Takes up what another of the same quantiser had counted.

        Raises:
            ValueError: it is of another quantiser, or no state of one.
        """
        size, dim = self.quantizer.codebook_size, self.quantizer.codebook_dim
        for count, vectors, own in zip(counts, recent, self.counts, strict=True):
            held = min(len(vectors), 2 * size)
            fit = is_plain(count, own.shape, own.dtype) and is_plain(vectors, (held, dim), own.dtype)
            if not fit or bool((count < 0).any()):
                raise ValueError("what was counted is of other codebooks")
        self.counts, self.recent = list(counts), list(recent)

    @torch.no_grad()
    def revive(self, generator: torch.Generator) -> list[int]:
        """Replaces idle codewords by vectors that ``generator`` draws; returns how many a level.

        Frozen codebooks stay as they are.
        """
        revived = []
        for level, counts, recent in zip(self.quantizer.levels(), self.counts, self.recent, strict=True):
            if not level.codebook.weight.requires_grad:
                revived.append(0)
                continue
            idle = (counts * counts.numel() < self.threshold).nonzero().flatten()
            idle = idle[torch.randperm(len(idle), generator=generator)[: len(recent)]]
            if len(idle):
                drawn = recent[torch.randperm(len(recent), generator=generator)[: len(idle)]]
                level.codebook.weight[idle] = drawn.to(level.codebook.weight)
                counts[idle] = 1.0 / counts.numel()
            revived.append(len(idle))
        return revived

    def perplexity(self) -> list[float]:
        """exp(entropy) of the decayed shares a level: how many codewords are in equal use."""
        shares = (counts / counts.sum() for counts in self.counts)
        return [float(torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum())) for share in shares]


@torch.no_grad()
def fit_codebooks(
    quantizer: ResidualVectorQuantize, latents: Iterable[Tensor], generator: torch.Generator, unit: bool
) -> list[int]:
    """Spherical k-means of each level's projected residuals, coarse to fine; frozen codebooks stay.

    Args:
        quantizer: its codebooks are overwritten.
        latents: encoder outputs, each (B, C, T); held in memory together.
        generator: draws the first centres; of the CPU.
        unit: put the points on the unit sphere first, where :func:`soften` left them; a decoder trained with
            codebooks knows them by their lengths, too.

    Returns:
        the number of vectors each level was fitted to.
    """
    residuals = list(latents)
    fitted = []
    for level in quantizer.levels():
        projected = [level.project(z) for z in residuals]
        points = torch.cat([z_e.transpose(1, 2).reshape(-1, z_e.shape[1]) for z_e in projected])
        if level.codebook.weight.requires_grad:
            points = F.normalize(points) if unit else points
            level.codebook.weight.copy_(spherical_kmeans(points, level.codebook_size, generator))
        residuals = [
            z - level.expand(level.decode_latents(z_e)[0])
            for z, z_e in zip(residuals, projected, strict=True)
        ]
        fitted.append(len(points))
    return fitted


def spherical_kmeans(points: Tensor, size: int, generator: torch.Generator, rounds: int = 8) -> Tensor:
    """Centres (size, D) of points (N, D), grouped by angle; each centre is the mean of its own points."""
    if len(points) >= size:
        draw = torch.randperm(len(points), generator=generator)[:size]
    else:
        draw = torch.randint(len(points), (size,), generator=generator)
    centres = points[draw.to(points.device)].clone()
    directions = F.normalize(points)
    for _ in range(rounds):
        unit = F.normalize(centres).t()
        nearest = torch.cat([(part @ unit).argmax(1) for part in torch.split(directions, 8192)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=size)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
        empty = (counts == 0).nonzero().flatten()
        drawn = torch.randint(len(points), (len(empty),), generator=generator)
        centres[empty] = points[drawn.to(points.device)]
    return centres
