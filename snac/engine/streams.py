"""Streams of an engine: samples in and codes out, codes in and samples out, as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from snac.config import ModelConfig
from snac.engine.chain import Chain, Flow, Workspace
from snac.engine.quantise import Quantiser
from snac.noise import Noise
from snac.products import one_thread_each

DecoderInput = Callable[[Sequence[np.ndarray], int, int], np.ndarray]


class Backend(Protocol):
    """What computes: NumPy and compiled kernels, or torch.

    Attributes:
        config: of the model.
        quantiser: its codebooks.
        decoder_input: what the decoder takes, of codes, as ``Quantiser.latents``.
    """

    config: ModelConfig
    quantiser: Quantiser
    decoder_input: DecoderInput

    @property
    def workspace(self) -> Workspace:
        """Of the arrays in its chains."""
        ...

    @property
    def encoder(self) -> Chain:
        """Samples (T, 1) to rows of codes, see ``Quantiser``."""
        ...

    def decoder(self, noise: Noise) -> Chain:
        """What ``decoder_input`` gives (T, C) to samples (T hop, 1)."""
        ...


class EncoderStream:
    """Samples to codes as they come, or to the latents that codes would be made of.

    Args:
        backend: what computes.
        channels: of the signal.
        latents: whether to give latents.
        workers, pool: see ``Flow``.

    Attributes:
        latency: samples by which the codes returned so far end before the samples pushed so far do, at most.
    """

    def __init__(
        self, backend: Backend, channels: int = 1, *, latents: bool = False, workers: int = 1,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:  # fmt: skip
        config, chain = backend.config, backend.encoder
        self._latents = latents
        self.latency = (chain.latency + 1) * config.vq_strides[0] * config.hop_length - 1
        self._config, self._quantiser, self._channels, self._taken = config, backend.quantiser, channels, 0
        chain = chain.without_last() if latents else chain
        self._flow = Flow(chain, backend.workspace, channels, workers=workers, pool=pool)

    def push(self, block: np.ndarray | None, *, ended: bool = False) -> tuple[np.ndarray, ...]:
        """Takes further samples.

        Args:
            block: float32 (channels, n) at the model's rate; None for nothing.
            ended: whether the signal ends here; it is then padded as the model pads. The stream takes
                nothing more after that.

        Returns:
            uint16 (channels, tokens) a level, coarse to fine, the codes that became final; perhaps none. Or
            latents alone, float32 (channels, frames, C).

        Raises:
            ValueError: the block is no such array.
        """
        if block is not None:
            self.check(block)
            self._taken += block.shape[1]
        if ended:
            padding = np.zeros((self._channels, -self._taken % self._config.pad_multiple), dtype=np.float32)
            block = padding if block is None else np.concatenate((block, padding), axis=1)
        rows = self._flow.push(None if block is None else block[:, :, None], ended=ended)
        if self._latents:
            return (np.empty((self._channels, 0, 0), np.float32) if rows is None else rows,)
        if rows is None:
            return tuple(np.empty((self._channels, 0), np.uint16) for _ in self._config.vq_strides)
        return self._quantiser.levels(rows)

    def check(self, block: np.ndarray) -> None:
        """Refuses what is no block of samples; see :meth:`push`."""
        if not isinstance(block, np.ndarray) or block.dtype != np.float32 or block.ndim != 2:
            got = f"{block.dtype} {block.shape}" if isinstance(block, np.ndarray) else type(block).__name__
        elif block.shape[0] != self._channels:
            got = f"{block.shape[0]} channels in {block.shape}"
        else:
            return
        raise ValueError(
            f"audio must be float32 arrays ({self._channels}, samples) at {self._config.sampling_rate} Hz, "
            f"nominally in -1 to 1; got {got}"
        )


class DecoderStream:
    """Codes to samples as they come, with the samples of decoding all codes at once.

    Noise included: it depends on the seed and on the position only.

    Args:
        backend: what computes.
        chain: its decoder.
        channels: of the signal.
        start: latent frame to begin with, a multiple of the first stride.
        workers, pool: see ``Flow``.

    Attributes:
        latency: samples by which the audio returned so far ends before the codes pushed so far do, at most:
            the decoder's look-ahead and, with attention, a window that is not full.
    """

    def __init__(
        self, backend: Backend, chain: Chain, channels: int = 1, *, start: int = 0, workers: int = 1,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:  # fmt: skip
        self._flow = Flow(chain, backend.workspace, channels, start=start, workers=workers, pool=pool)
        self.latency = chain.latency
        self._config, self._input, self._channels = backend.config, backend.decoder_input, channels
        self._tokens: list[np.ndarray] = []  # of each level, from the one that covers the frame `_base` on
        self._base = start  # a multiple of the first stride
        self._frames = start  # latent frame that goes into the first stage next

    def push(self, codes: Sequence[np.ndarray] | None, *, ended: bool = False) -> np.ndarray:
        """Takes further codes.

        Args:
            codes: one integer array (channels, n) a level, coarse to fine; the same levels, one or more, at
                every push. Any number of tokens, none too; levels may run ahead of each other. None for
                nothing.
            ended: whether the codes end here. The stream takes nothing more after that.

        Returns:
            float32 (channels, samples), the samples that became final, in order; perhaps none.

        Raises:
            ValueError: the levels or the channels differ from those before, a code is outside its codebook,
                or, at the end, the levels are not equally long or do not fill the last attention window. The
                stream is then as it was before.
        """
        tokens = self._tokens if codes is None else self._joined(codes)
        ready = self._ready(tokens)
        if ended:
            self._check_end(tokens, ready)
        self._tokens = tokens
        signal = self._signal(ready) if ready > self._frames else None
        audio = self._flow.push(signal, ended=ended)
        return np.empty((self._channels, 0), np.float32) if audio is None else audio[:, :, 0]

    def _joined(self, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
        checked = check_codes(self._config, codes, self._channels)
        if not self._tokens:
            return checked
        if len(checked) != len(self._tokens):
            raise ValueError(f"{len(checked)} levels after {len(self._tokens)}: finish the stream first")
        return [np.concatenate(pair, axis=1) for pair in zip(self._tokens, checked, strict=True)]

    def _ready(self, tokens: list[np.ndarray]) -> int:
        """Latent frames of which every level's tokens are here."""
        strides = self._config.vq_strides
        counts = [level.shape[1] * stride for level, stride in zip(tokens, strides, strict=False)]
        return self._base + min(counts, default=0)

    def _check_end(self, tokens: list[np.ndarray], ready: int) -> None:
        strides = self._config.vq_strides
        lengths = [
            self._base // stride + level.shape[1] for level, stride in zip(tokens, strides, strict=False)
        ]
        if any(length * stride != ready for length, stride in zip(lengths, strides, strict=False)):
            raise ValueError(f"levels of {lengths} tokens do not fit the strides {list(strides)}")
        if ready % self._config.frame_alignment:
            raise ValueError(
                f"{ready} latent frames are no multiple of the {self._config.frame_alignment} that the "
                "attention of this model takes"
            )

    def _signal(self, ready: int) -> np.ndarray:
        """The decoder's input (channels, n, C) from ``_frames`` to ``ready``, whose tokens are let go."""
        first, last = self._frames - self._base, ready - self._base
        with one_thread_each():  # another thread of the BLAS would keep a processor busy long after its share
            lanes = [
                self._input([level[channel] for level in self._tokens], first, last)
                for channel in range(self._channels)
            ]
        signal = np.stack(lanes)
        self._frames = ready
        base = ready // self._config.vq_strides[0] * self._config.vq_strides[0]
        self._tokens = [
            level[:, (base - self._base) // stride :]
            for level, stride in zip(self._tokens, self._config.vq_strides, strict=False)
        ]
        self._base = base
        return signal


def check_codes(config: ModelConfig, codes: Sequence[np.ndarray], channels: int | None) -> list[np.ndarray]:
    """Codes as the quantiser takes them.

    Args:
        config: of the model.
        codes: integers (channels, n) of the coarsest one or more levels.
        channels: that they must have; None for as many as the first level has.

    Raises:
        ValueError: they are no codes of this model.
    """
    levels = len(config.vq_strides)
    if not 1 <= len(codes) <= levels:
        raise ValueError(f"codes must have 1 to {levels} levels, not {len(codes)}")
    checked = []
    for number, given in enumerate(codes):
        level = np.asarray(given)
        if level.ndim != 2:
            raise ValueError(f"level {number} has shape {level.shape}; give (channels, tokens)")
        if channels is None:
            channels = level.shape[0]
        if level.shape[0] != channels:
            raise ValueError(f"level {number} has {level.shape[0]} channels instead of {channels}")
        if level.dtype.kind not in "iu" and level.size:
            raise ValueError(f"level {number} is of {level.dtype}; codes are whole numbers")
        if level.size and (level.min() < 0 or level.max() >= config.codebook_size):
            row, token = np.argwhere((level < 0) | (level >= config.codebook_size))[0]
            raise ValueError(
                f"level {number} has a code outside 0..{config.codebook_size - 1}: {level[row, token]}, "
                f"token {token} of these, row {row} of the batch"
            )
        checked.append(level)
    return checked
