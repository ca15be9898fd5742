"""An engine: encoder and decoder of a checkpoint, ready to run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from snac import processors
from snac.config import ModelConfig, SpectralConfig
from snac.engine import spectral, waveform
from snac.engine.chain import Chain, Stage
from snac.engine.cpu import Arena, Weights
from snac.engine.quantise import Quantiser
from snac.engine.streams import Backend, DecoderInput, DecoderStream, EncoderStream, check_codes
from snac.jit import Kernel, available, reason
from snac.noise import Noise

if TYPE_CHECKING:
    from snac.hub.checkpoint import Checkpoint

PIECE_VALUES = 1 << 19
"""Activations that a thread computes at once on a CPU: few enough to lie in a processor's last cache."""

_PUSH_SECONDS = 5.0  # of audio that go into the first stage at once, so that all have enough to work on
_MOST_THREADS = 8
_log = logging.getLogger(__name__)
_DEFAULT_NOISE = Noise.seeded(0)


def build_engine(checkpoint: Checkpoint, *, device: str = "cpu", threads: int | None = None) -> Engine:
    """The engine of a checkpoint.

    Args:
        checkpoint: configuration, arrays and fingerprint.
        device: ``cpu``: NumPy and compiled kernels, or torch where these cannot be had (``snac.jit.reason``
            says why); ``cuda`` and ``mps``: torch; ``cpu-half``, ``cuda-half``, ``mps-half``: torch in
            16 bits.
        threads: that compute side by side on a CPU, for each call; None for one a processor, at most 8.

    Raises:
        ModelError: torch has no such device here.
    """
    workers = threads or min(_MOST_THREADS, processors.available())
    if device == "cpu" and available(*kernels_of(checkpoint.config)):
        return Engine(_CpuBackend(checkpoint.config, checkpoint.arrays), checkpoint.fingerprint, workers)
    if device == "cpu":
        _log.warning("no compiled kernels here (%s): torch computes instead, some times slower", reason())
    from snac.engine.torch_chain import TorchBackend

    return Engine(TorchBackend(checkpoint.config, checkpoint.arrays, device), checkpoint.fingerprint, 1)


def kernels_of(config: ModelConfig) -> tuple[Kernel, ...]:
    """The compiled kernels that an engine of this configuration uses on a CPU."""
    return spectral.KERNELS if isinstance(config, SpectralConfig) else waveform.KERNELS


class Engine:
    """An encoder and a decoder, immutable; safe to use from several threads at once.

    Attributes:
        config: of the model.
        fingerprint: 16 hex digits of its weights.
        quantiser: its codebooks, with their projections from latents and back.
        codebooks: float32 (codebook size, dimension) a level.
        threads: that compute side by side for each call.
    """

    def __init__(self, backend: Backend, fingerprint: str, threads: int) -> None:
        self._backend = backend
        self.config, self.fingerprint, self.threads = backend.config, fingerprint, threads
        self.quantiser, self.codebooks = backend.quantiser, backend.quantiser.codebooks

    def encode(
        self, blocks: Iterable[np.ndarray], channels: int, *, latents: bool = False
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Encodes a signal that arrives in blocks; each channel is coded by itself.

        Args:
            blocks: float32 (channels, n) at the model's rate, nominally -1 to 1.
            channels: of every block.
            latents: whether to give what the quantiser would take, not codes.

        Yields:
            uint16 (channels, tokens) a level, coarse to fine, as they become final; joined in time they are
            the codes of the whole signal, padded at its end as the model pads. Nothing for no samples. Or
            one array alone, float32 (channels, frames, C), the latents, likewise.

        Raises:
            ValueError: a block is no such array.
        """
        least = round(_PUSH_SECONDS * self.config.sampling_rate)
        with self._pool() as pool:
            stream = EncoderStream(self._backend, channels, latents=latents, workers=self.threads, pool=pool)
            held: list[np.ndarray] = []
            samples = 0
            for block in blocks:
                stream.check(block)
                held.append(block)
                samples += block.shape[1]
                if samples >= least:
                    levels = stream.push(np.concatenate(held, axis=1))
                    held, samples = [], 0
                    if levels[0].shape[1]:
                        yield levels
            rest = np.concatenate(held, axis=1) if held else None
            levels = stream.push(rest, ended=True)
            if levels[0].shape[1]:
                yield levels

    def decode(
        self,
        codes: Sequence[np.ndarray],
        *,
        start: int = 0,
        stop: int | None = None,
        noise: Noise = _DEFAULT_NOISE,
    ) -> Iterator[np.ndarray]:
        """Decodes codes, or a part of them.

        Args:
            codes: integers (channels, tokens) of the coarsest one or more levels.
            start: latent frame to begin with.
            stop: latent frame to stop before; None for the end.
            noise: of the decoder.

        Yields:
            float32 (channels, n), in order, in -1 to 1: of the whole's samples those of the frames asked for.

        Raises:
            ValueError: the codes do not fit the model or each other.
        """
        levels = check_codes(self.config, codes, None)
        total = _frames(self.config, levels)
        stop = total if stop is None else min(stop, total)
        if stop <= start:
            return
        chain, hop = self._backend.decoder(noise), self.config.hop_length
        unit = self.config.frame_alignment
        low, high = chain.reaching(start * hop, stop * hop - 1)
        first, last = max(0, low // unit * unit), min(total, (high // unit + 1) * unit)
        length = max(1, -(-round(_PUSH_SECONDS * self.config.frame_rate) // unit)) * unit
        skip, left = (start - first) * hop, (stop - start) * hop
        with self._pool() as pool:
            stream = DecoderStream(
                self._backend, chain, len(levels[0]), start=first, workers=self.threads, pool=pool
            )
            for begin in range(first, last, length):
                end = min(begin + length, last)
                piece = [
                    level[:, begin // stride : end // stride]
                    for level, stride in zip(levels, self.config.vq_strides, strict=False)
                ]
                audio = stream.push(piece, ended=end == last)
                wanted = audio[:, skip : skip + left]
                skip -= min(skip, audio.shape[1])
                left -= wanted.shape[1]
                if wanted.shape[1]:
                    yield wanted

    def _pool(self) -> ThreadPoolExecutor:
        """The threads beside the caller's, which start when they are needed and end with the call."""
        return ThreadPoolExecutor(max(1, self.threads - 1), "snac-engine")

    def encoder_stream(self, *, channels: int = 1) -> EncoderStream:
        """A stream of samples in, codes out."""
        return EncoderStream(self._backend, channels)

    def decoder_stream(self, *, noise: Noise = _DEFAULT_NOISE, channels: int = 1) -> DecoderStream:
        """A stream of codes in, samples out."""
        return DecoderStream(self._backend, self._backend.decoder(noise), channels)


def _frames(config: ModelConfig, levels: Sequence[np.ndarray]) -> int:
    frames = {level.shape[1] * stride for level, stride in zip(levels, config.vq_strides, strict=False)}
    if len(frames) > 1:
        lengths = [level.shape[1] for level in levels]
        raise ValueError(f"levels of {lengths} tokens do not fit the strides {list(config.vq_strides)}")
    return int(frames.pop())


class _CpuBackend:
    """NumPy and compiled kernels; see ``Backend``. Encoder and decoder are made when first asked for."""

    def __init__(self, config: ModelConfig, arrays: Mapping[str, np.ndarray]) -> None:
        self.config = config
        self.workspace = Arena()
        self._weights = Weights(arrays)
        self._form: Any = spectral if isinstance(config, SpectralConfig) else waveform
        self._lock = threading.Lock()
        self._encoder: Chain | None = None
        self._decoder: list[Stage] | None = None
        self.quantiser = Quantiser(config, self._weights)
        self.decoder_input: DecoderInput = self.quantiser.latents
        if isinstance(config, SpectralConfig):
            # Its first layer is a convolution of the latents, and these are a linear map of fewer numbers.
            embed = "decoder.embed.weight"
            merged = self.quantiser.over_points(self._weights[embed])
            self._weights = Weights({**arrays, embed: merged})
            self.decoder_input = self.quantiser.points

    @property
    def encoder(self) -> Chain:
        """Samples (T, 1) to rows of codes."""
        with self._lock:
            if self._encoder is None:
                stages = self._form.encoder_stages(self.config, self._weights, self.workspace)
                self._encoder = Chain([*stages, self.quantiser], PIECE_VALUES)
            return self._encoder

    def decoder(self, noise: Noise) -> Chain:
        """What ``decoder_input`` gives (T, C) to samples (T hop, 1)."""
        with self._lock:
            if self._decoder is None:
                self._decoder = self._form.decoder_stages(self.config, self._weights, self.workspace)
        stages = []
        for stage in self._decoder:
            if isinstance(stage, waveform.NoiseBlock):
                if noise.kind == "none":
                    continue
                stage = stage.of(noise)
            stages.append(stage)
        return Chain(stages, PIECE_VALUES)
