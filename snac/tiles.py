"""Coding of signals of any length in bounded memory, tile by tile, with the result of the whole at once.

Each tile is computed together with as many neighbouring frames as its result depends on. At the true ends of
the signal nothing is added, so that the convolutions pad with zeros there, as they do for the whole.
Tiles begin on multiples of ``ModelConfig.frame_alignment``: attention windows and coarse tokens stay whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import LocalMHA
from .layers import Encoder
from .noise import NoiseSource
from .snac import SNAC

TILE_VALUES = 1 << 21
"""Activations a tile has at the full rate: many against the overlap, few enough to stay near the caches."""


@dataclass(frozen=True)
class Reach:
    """How far a result depends on what lies beside it, in latent frames (already aligned)."""

    before: int
    after: int


def encoder_reach(model: SNAC) -> Reach:
    """Frames of audio beside a latent frame that its value depends on."""
    low, high = _frames_reaching(model.encoder, model.config.frame_alignment)
    hop = model.hop_length
    return _aligned(model, -(low // hop), high // hop)


def decoder_reach(model: SNAC) -> Reach:
    """Latent frames beside a frame of audio that its samples depend on."""
    hop = model.hop_length
    # Alignment makes every tile of the same kind; one tile's first and last sample stand for all.
    low, high = _latents_reaching(model.decoder.model, 0, model.config.frame_alignment * hop - 1)
    return _aligned(model, -low, high - (model.config.frame_alignment - 1))


def _aligned(model: SNAC, before: int, after: int) -> Reach:
    unit = model.config.frame_alignment
    return Reach(*(max(0, -(-frames // unit)) * unit for frames in (before, after)))


def _convolutions(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Convolutions and attentions in the order in which the signal passes them."""
    kinds = (nn.Conv1d, nn.ConvTranspose1d, LocalMHA)
    return [child for layer in layers for child in layer.modules() if isinstance(child, kinds)]


def _frames_reaching(encoder: Encoder, frames: int) -> tuple[int, int]:
    """First and last sample that frames 0 to ``frames - 1`` depend on, the last from the end of the last."""
    low, high = 0, frames - 1
    scale = frames
    for layer in reversed(_convolutions(encoder.block)):
        if isinstance(layer, LocalMHA):
            low, high = _whole_windows(low, high, layer.window_size)
        elif isinstance(layer, nn.Conv1d):
            stride, padding = layer.stride[0], int(layer.padding[0])
            low = low * stride - padding
            high = high * stride - padding + (layer.kernel_size[0] - 1) * layer.dilation[0]
            scale *= stride
    return low, high - (scale - 1)


def _latents_reaching(layers: Iterable[nn.Module], low: int, high: int) -> tuple[int, int]:
    """First and last input of some decoder layers that their outputs ``low`` to ``high`` depend on."""
    for layer in reversed(_convolutions(layers)):
        if isinstance(layer, LocalMHA):
            low, high = _whole_windows(low, high, layer.window_size)
        elif isinstance(layer, nn.ConvTranspose1d):
            stride, padding = layer.stride[0], int(layer.padding[0])
            low = -((layer.kernel_size[0] - 1 - low - padding) // stride)
            high = (high + padding) // stride
        elif isinstance(layer, nn.Conv1d):
            half = (layer.kernel_size[0] - 1) * layer.dilation[0] // 2
            low, high = low - half, high + half
    return low, high


def _whole_windows(low: int, high: int, window: int) -> tuple[int, int]:
    return low // window * window, (high // window + 1) * window - 1


def tile_frames(model: SNAC) -> int:
    """Latent frames of a tile: of about ``TILE_VALUES``, but longer than its overlaps; aligned."""
    config = model.config
    channels = max(config.encoder_dim, config.decoder_dim >> len(config.decoder_rates))
    unit = config.frame_alignment
    least = 2 * max(reach.before + reach.after for reach in (encoder_reach(model), decoder_reach(model)))
    return max(least, round(TILE_VALUES / (channels * config.hop_length * unit)) * unit)


def encode_tiles(
    model: SNAC, blocks: Iterable[Tensor], channels: int, frames: int | None = None
) -> Iterator[list[Tensor]]:
    """Encodes a signal that arrives in blocks.

    Args:
        model: on the device that shall compute.
        blocks: float tensors (channels, n) at the model's rate; each channel is coded by itself.
        channels: of every block.
        frames: latent frames a tile, a multiple of ``frame_alignment``; by default ``tile_frames``.

    Yields:
        for each tile one int64 tensor (channels, tokens) a level, coarse to fine; joined in time they are
        ``model.encode`` of the whole signal (but for ties at float rounding).
    """
    reach, hop = encoder_reach(model), model.hop_length
    tile = frames or tile_frames(model)
    held = torch.zeros(channels, 0)
    first = 0  # frame of the next tile within `held`, whose first sample is on a frame
    for block in blocks:
        held = torch.cat((held, block), dim=1)
        while held.shape[1] >= (first + tile + reach.after) * hop:
            yield _encode_tile(model, held[:, : (first + tile + reach.after) * hop], first, tile)
            first += tile
            spent = max(0, first - reach.before)
            held, first = held[:, spent * hop :], first - spent
    held = F.pad(held, (0, -held.shape[1] % model.config.pad_multiple))
    total = held.shape[1] // hop
    while first < total:
        last = min(first + tile + reach.after, total)
        before = max(0, first - reach.before)
        count = min(tile, total - first)
        yield _encode_tile(model, held[:, before * hop : last * hop], first - before, count)
        first += count


def _encode_tile(model: SNAC, audio: Tensor, first: int, count: int) -> list[Tensor]:
    """Codes of ``count`` frames from ``first`` on, of audio (channels, samples) with its surroundings."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        latents = model.encoder(audio[:, None].to(device))  # channels C frames
        _, codes = model.quantizer(latents[:, :, first : first + count])
    return [code.cpu() for code in codes]


def decode_tiles(
    model: SNAC,
    codes: Sequence[Tensor],
    *,
    start: int = 0,
    stop: int | None = None,
    frames: int | None = None,
    seed: int | None = 0,
) -> Iterator[Tensor]:
    """Decodes codes tile by tile.

    Args:
        model: on the device that shall compute.
        codes: integer tensors (channels, tokens), the coarsest one or more levels.
        start: first latent frame wanted.
        stop: latent frame to stop before; by default the end.
        frames: latent frames a tile, a multiple of ``frame_alignment``; by default ``tile_frames``.
        seed: of the noise, as for ``SNAC.decode``.

    Yields:
        float32 tensors (channels, samples) in -1 to 1; joined they are the frames ``start`` to ``stop`` of
        ``model.decode`` of the whole, within float rounding.
    """
    unit = model.config.frame_alignment
    tile = frames or tile_frames(model)
    total = codes[0].shape[-1] * model.vq_strides[0]
    stop = total if stop is None else min(stop, total)
    position = start // unit * unit
    while position < stop:
        last = min(position + tile, total)
        yield _decode_tile(model, codes, max(position, start), min(last, stop), seed)
        position = last


def _decode_tile(model: SNAC, codes: Sequence[Tensor], first: int, end: int, seed: int | None) -> Tensor:
    """Audio (channels, samples) of the frames ``first`` to ``end``.

    The layers at the latent rate get the surroundings that attention asks for, the costly ones above it only
    those of their own convolutions.
    """
    hop, unit, decoder = model.hop_length, model.config.frame_alignment, model.decoder
    total = codes[0].shape[-1] * model.vq_strides[0]
    low, high = _latents_reaching(decoder.above_latent_rate(), first * hop, end * hop - 1)
    low, high = max(low, 0), min(high, total - 1)
    start, last = _latents_reaching(decoder.at_latent_rate(), low, high)
    start, stop = max(start, 0) // unit * unit, min(-(-(last + 1) // unit) * unit, total)
    device = next(model.parameters()).device
    pieces = [
        code[:, start // stride : stop // stride].to(device=device, dtype=torch.int64)
        for code, stride in zip(codes, model.vq_strides, strict=False)
    ]
    with torch.inference_mode():
        x = model.quantizer.from_codes(pieces)
        for layer in decoder.at_latent_rate():
            x = layer(x)
        x = x[:, :, low - start : high + 1 - start].contiguous()
        audio = decoder.upsample(x, NoiseSource(seed or 0, low), noise_on=seed is not None)
    return audio[:, 0, (first - low) * hop : (end - low) * hop].float().cpu()
