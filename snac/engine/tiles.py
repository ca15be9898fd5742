"""Coding of signals of any length in bounded memory, tile by tile, with the result of the whole at once.

Encoder and decoder are chains of stages (``stages.py``); a tile is what each of them computes at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction

import torch
from torch import Tensor, nn

from snac.config import WaveformConfig
from snac.engine.stages import Stage, flow, inputs_reaching
from snac.nn.layers import DecoderBlock, NoiseBlock
from snac.nn.model import SNAC
from snac.noise import NoiseSource

TILE_VALUES = 1 << 21
"""Activations a tile has at the full rate: few enough to stay near the caches."""

_GPU_TILES = 64
"""Tiles that a GPU computes at once: as one long tile, which is a batch without the seams."""


def tile_frames(model: SNAC) -> int:
    """Latent frames of a tile: of about ``TILE_VALUES``, aligned to attention windows and coarse tokens."""
    config = model.config
    assert isinstance(config, WaveformConfig)
    channels = max(config.encoder_dim, config.decoder_dim >> len(config.decoder_rates))
    unit = config.frame_alignment
    return max(1, round(TILE_VALUES / (channels * config.hop_length * unit))) * unit


def decoder_reach(model: SNAC) -> tuple[int, int]:
    """Latent frames before and after a frame of audio that its samples depend on, aligned."""
    hop, unit = model.hop_length, model.config.frame_alignment
    # Alignment makes every tile of the same kind; one tile's first and last sample stand for all.
    low, high = inputs_reaching(model.decoder.model, 0, unit * hop - 1)
    return -(low // unit) * unit, (high // unit) * unit


def encode_tiles(
    model: SNAC, blocks: Iterable[Tensor], channels: int, frames: int | None = None, workers: int = 1
) -> Iterator[list[Tensor]]:
    """Encodes a signal that arrives in blocks.

    Args:
        model: on the device that shall compute.
        blocks: float tensors (channels, n) at the model's rate; each channel is coded by itself.
        channels: of every block.
        frames: latent frames a tile, a multiple of ``frame_alignment``; by default ``tile_frames``.
        workers: threads that compute tiles side by side; best within ``snac.engine.threads.one_thread_each``.

    Yields:
        for each tile one int64 tensor (channels, tokens) a level, coarse to fine; joined in time they are
        ``model.encode`` of the whole signal (but for ties at float rounding).
    """
    device = _device(model)
    tile = _tile(model, frames, device)
    unit = model.config.frame_alignment

    def padded() -> Iterator[Tensor]:
        count = 0
        for block in blocks:
            if block.shape[1]:
                count += block.shape[1]
                yield block[:, None].to(device)
        if count:
            yield torch.zeros(channels, 1, -count % model.config.pad_multiple, device=device)

    samples = tile * model.hop_length
    with _threads(workers, device) as pool:
        signal: Iterator[Tensor] = padded()
        for layer in model.encoder.block:
            stage = Stage.of([layer], _plain(layer))
            signal = flow(stage, signal, stage.piece(samples), workers if pool else 1, pool)
            samples = samples * stage.up // stage.down
        for latents in _aligned(signal, unit):
            with torch.inference_mode():
                _, codes = model.quantizer(latents.float())
            yield [code.cpu() for code in codes]


def decode_tiles(
    model: SNAC,
    codes: Sequence[Tensor],
    *,
    start: int = 0,
    stop: int | None = None,
    frames: int | None = None,
    seed: int | None = 0,
    workers: int = 1,
) -> Iterator[Tensor]:
    """Decodes codes tile by tile.

    Args:
        model: on the device that shall compute.
        codes: integer tensors (channels, tokens), the coarsest one or more levels.
        start: first latent frame wanted.
        stop: latent frame to stop before; by default the end.
        frames: latent frames a tile, a multiple of ``frame_alignment``; by default ``tile_frames``.
        seed: of the noise, as for ``SNAC.decode``.
        workers: threads that compute tiles side by side; best within ``snac.engine.threads.one_thread_each``.

    Yields:
        float32 tensors (channels, samples) in -1 to 1; joined they are the frames ``start`` to ``stop`` of
        ``model.decode`` of the whole, within float rounding.
    """
    device = _device(model)
    tile = _tile(model, frames, device)
    total = codes[0].shape[-1] * model.vq_strides[0]
    stop = total if stop is None else min(stop, total)
    if stop <= start:
        return
    before, after = decoder_reach(model)
    unit = model.config.frame_alignment
    first = max(0, start - before) // unit * unit
    last = min(total, -(-(stop + after) // unit) * unit)
    wanted = tile
    with _threads(workers, device) as pool:
        signal = _latents(model, codes, first, last, tile)
        position = first
        for stage in decoder_stages(model, seed):
            signal = flow(stage, signal, stage.piece(wanted), workers if pool else 1, pool, position)
            wanted, position = wanted * stage.up, position * stage.up
        skip, left = (start - first) * model.hop_length, (stop - start) * model.hop_length
        for audio in signal:
            block = audio[:, 0, skip : skip + left].float().cpu()
            skip, left = max(0, skip - audio.shape[-1]), left - block.shape[-1]
            if block.shape[-1]:
                yield block
            if not left:
                break


def _device(model: SNAC) -> torch.device:
    return next(model.parameters()).device


def _tile(model: SNAC, frames: int | None, device: torch.device) -> int:
    return frames or tile_frames(model) * (1 if device.type == "cpu" else _GPU_TILES)


@contextmanager
def _threads(workers: int, device: torch.device) -> Iterator[Executor | None]:
    """A pool of threads; none where one would do, as on a GPU."""
    if workers == 1 or device.type != "cpu":
        yield None
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="snac-tile") as pool:
        yield pool


def _plain(layer: nn.Module) -> Callable[[Tensor, int], Tensor]:
    dtype = next(layer.parameters()).dtype

    def run(x: Tensor, position: int) -> Tensor:
        y: Tensor = layer(x.to(dtype))
        return y

    return run


def decoder_stages(model: SNAC, seed: int | None) -> list[Stage]:
    """The decoder as a chain from latents to samples; ``seed`` of its noise, None for none."""
    decoder = model.decoder
    stages = [Stage.of([layer], _plain(layer)) for layer in decoder.at_latent_rate()]
    for block in decoder.blocks():
        stages.append(Stage.of([block], _noisy(block, seed)))
    return [*stages, Stage.of(decoder.output_layers(), lambda x, position: decoder.output(x))]


def _noisy(block: DecoderBlock, seed: int | None) -> Callable[[Tensor, int], Tensor]:
    """A block with the noise of its position: its samples a latent frame say where in a frame it begins."""
    upsampling = next((layer.upsampling for layer in block.block if isinstance(layer, NoiseBlock)), 1)
    stride = block.stride

    def run(x: Tensor, position: int) -> Tensor:
        noise = NoiseSource(seed or 0, Fraction(position * stride, upsampling))
        y: Tensor = block(x, noise, noise_on=seed is not None)
        return y

    return run


def _latents(model: SNAC, codes: Sequence[Tensor], first: int, last: int, tile: int) -> Iterator[Tensor]:
    """Latents (channels, C, n) of the frames ``first`` to ``last``, of each level's tokens."""
    device = _device(model)
    for begin in range(first, last, tile):
        end = min(begin + tile, last)
        pieces = [
            code[:, begin // stride : end // stride].to(device=device, dtype=torch.int64)
            for code, stride in zip(codes, model.vq_strides, strict=False)
        ]
        with torch.inference_mode():
            yield model.quantizer.from_codes(pieces)


def _aligned(signal: Iterable[Tensor], unit: int) -> Iterator[Tensor]:
    """The same signal in tensors of multiples of ``unit`` samples."""
    held: Tensor | None = None
    for block in signal:
        held = block if held is None else torch.cat((held, block), dim=-1)
        whole = held.shape[-1] // unit * unit
        if whole:
            yield held[..., :whole]
            held = held[..., whole:]
