"""A loaded model that turns samples into recordings and back, at any sample rate."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from snac.engine import Engine, build_engine
from snac.hub.checkpoint import load_checkpoint
from snac.hub.registry import DEFAULT_MODEL
from snac.noise import Noise
from snaccli.audio import MAX_CHANNELS, MAX_RATE, fit, resample, resample_span, resampled_length
from snaccli.codec.arguments import checked_block, checked_rate, number, path_of, whole
from snaccli.codec.rate_distortion import Views, choose
from snaccli.codec.recording import WHOLE, Recording, Span
from snaccli.codes import Codes, Tokens
from snaccli.entropy.prior import Prior, load
from snaccli.errors import AudioError, ModelMismatchError, PriorError, Remedy, UsageError
from snaccli.progress import SILENT, Progress, part
from snaccli.workers import available, read_ahead, share

__all__ = ["Codec", "Device", "WantedPrior"]

WantedPrior = bool | str | Path | Prior
"""A prior or its file; True for that beside the model's weights, if there is one; False for none."""

MAX_THREADS = 256
"""Most threads that a codec computes with."""

_DEFAULT_NOISE = Noise.seeded(0)
_CHOOSING_SHARE = 0.3  # of the progress, where tokens are chosen by their bits

_DEVICES = ("cuda", "mps", "cpu")
# Importing torch to ask for a GPU takes a second and more: only where there may be one. NVIDIA, WSL, AMD:
_CUDA_FILES: tuple[str, ...] = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
if sys.platform == "win32":
    _CUDA_FILES = (os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll"),)
elif sys.platform == "darwin":
    _CUDA_FILES = ()
_MAY_HAVE_MPS = sys.platform == "darwin" and platform.machine() == "arm64"


@dataclass(frozen=True)
class Device:
    """A device and the precision of the arithmetic on it.

    Attributes:
        kind: ``cpu``, ``cuda`` or ``mps``.
        half: whether it computes in 16 bits, with which codes and samples differ a little.
    """

    kind: str
    half: bool = False

    def __str__(self) -> str:
        return f"{self.kind}-half" if self.half else self.kind

    @classmethod
    def parse(cls, text: str) -> Device:
        """Returns the device that a text stands for.

        Args:
            text: ``cpu``, ``cuda`` or ``mps``, each with or without ``-half``; or ``auto``, which takes CUDA,
                else MPS, else the CPU.

        Raises:
            UsageError: there is no such device here.
        """
        kind = text.removesuffix("-half")
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        may_be = {"cuda": not hidden and any(map(os.path.exists, _CUDA_FILES)), "mps": _MAY_HAVE_MPS}
        for each in _DEVICES if text == "auto" else (kind,):
            if each == "cpu":
                return cls("cpu", half=text == "cpu-half")
            if may_be.get(each):
                with suppress(ImportError):
                    import torch

                    if (torch.cuda if each == "cuda" else torch.backends.mps).is_available():
                        return cls(each, half=text == f"{each}-half")
        raise UsageError(f"device {text!r} is not available here; use cpu or auto")


class Codec:
    """A model ready to code. Immutable; safe to use from several threads at once.

    Attributes:
        name: what files call the model.
        fingerprint: 16 hex digits of its weights.
        config: its geometry.
        codebooks: float32 (codewords, dimension) a level.
        rate: of the audio it codes, Hz.
        device: where it computes, and in which precision.
        threads: that compute side by side for each recording, on the CPU.
        engine: what computes.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        device: Device,
        *,
        beside: Path | None = None,
        prior: WantedPrior = True,
    ) -> None:
        self.engine, self.name, self.device = engine, name, device
        self._beside, self._prior = beside, prior
        self.config, self.fingerprint, self.codebooks = engine.config, engine.fingerprint, engine.codebooks
        self.rate: int = engine.config.sampling_rate
        self.threads: int = engine.threads

    @cached_property
    def prior(self) -> Prior | None:
        """The learned prior for its tokens, read when it is first asked for; None where there is none.

        Raises:
            PriorError: it cannot be read, or is of other weights.
        """
        wanted, path = self._prior, None
        if isinstance(wanted, Prior):
            prior = wanted
        else:
            path = Path(wanted) if not isinstance(wanted, bool) else self._beside if wanted else None
            if path is None:
                return None
            prior = load(path)
        if prior.model_fingerprint != self.fingerprint:
            raise PriorError(
                f"is a prior for the model {prior.model!r} of fingerprint {prior.model_fingerprint}, not for "
                f"{self.name!r} of {self.fingerprint}",
                path,
                remedy=Remedy.OTHER_PRIOR,
            )
        return prior

    @property
    def hop_length(self) -> int:
        """Samples a latent frame."""
        return self.config.hop_length

    @property
    def strides(self) -> tuple[int, ...]:
        """Latent frames a token of each level, coarse to fine."""
        return self.config.vq_strides

    @property
    def codebook_size(self) -> int:
        """Codewords a level."""
        return self.config.codebook_size

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        device: str = "auto",
        threads: int | None = None,
        prior: WantedPrior = True,
    ) -> Codec:
        """Loads a model.

        Args:
            model: its name, the folder of one, or a repository ``owner/name`` of the Hub.
            device: ``auto`` takes CUDA, else MPS, else the CPU; ``cuda-half``, ``mps-half`` and ``cpu-half``
                compute in 16 bits, with which codes and samples differ a little.
            threads: for each recording, on the CPU; None for one a processor, at most 8.
            prior: a learned prior or its file; True for the file ``prior.safetensors`` beside the weights, if
                there is one; False for none.

        Raises:
            ModelError: the model cannot be had or is damaged.
            UsageError: there is no such device here, or no such number of threads.
        """
        place = Device.parse(str(device))
        count = (
            share(available(), 1).threads if threads is None else whole("threads", threads, 1, MAX_THREADS)
        )
        if not isinstance(prior, bool | Prior):
            prior = path_of("prior", prior)
        checkpoint = load_checkpoint(path_of("model", model))
        engine = build_engine(checkpoint, device=str(place), threads=count)
        return cls(engine, checkpoint.name, place, beside=checkpoint.prior, prior=prior)

    def encode(
        self,
        blocks: Iterable[np.ndarray],
        rate: int,
        channels: int,
        *,
        expected: int | None = None,
        rate_distortion: float = 0.0,
        progress: Progress = SILENT,
    ) -> Recording:
        """Turns samples into tokens; each channel is coded by itself.

        Args:
            blocks: float arrays (n, channels), nominally -1 to 1.
            rate: of the blocks, Hz.
            channels: of every block.
            expected: samples a channel that will come, where that is known, for `progress`.
            rate_distortion: what a bit costs where codewords are chosen that take fewer bits, see
                `snaccli.codec.rate_distortion`; 0 for the model's own choice.
            progress: of the work.

        Raises:
            AudioError: a block is no such array, holds NaN or is far beyond full scale; the rate is none.
            ParameterError: the price of a bit is negative or not finite, or there are no such channels.
        """
        rate_distortion = number("rate_distortion", rate_distortion, "as the price of a bit")
        rate, channels = checked_rate(rate), whole("channels", channels, 1, MAX_CHANNELS)
        count, cheaper = 0, rate_distortion > 0
        told = part(progress, 0.0, 1 - _CHOOSING_SHARE) if cheaper else progress

        def counted() -> Iterator[np.ndarray]:
            nonlocal count
            for block in blocks:
                yield checked_block(block, channels)
                count += len(block)
                if expected:
                    told(min(count / expected, 1.0))

        resampled = (block.T for block in resample(counted(), rate, self.rate, channels))
        if cheaper:
            share_of_choice = part(progress, 1 - _CHOOSING_SHARE, 1.0)
            levels = self._cheaper(resampled, channels, rate_distortion, share_of_choice)
        else:
            # Buffers that grow: small arrays kept between those of the engine would fragment the heap.
            rows = [[bytearray() for _ in range(channels)] for _ in self.strides]
            for codes in self.engine.encode(resampled, channels):
                for level, tokens in zip(rows, codes, strict=True):
                    for row, own in zip(level, tokens, strict=True):
                        row += own.tobytes()
            levels = tuple(np.stack([np.frombuffer(row, np.uint16) for row in level]) for level in rows)
        codes_of_all = Codes(levels, self.strides, self.codebook_size)
        return Recording(codes_of_all, self.name, self.fingerprint, self.rate, rate, count)

    def _cheaper(
        self, blocks: Iterable[np.ndarray], channels: int, rate_distortion: float, progress: Progress
    ) -> tuple[Tokens, ...]:
        """Tokens (channels, n) a level that take fewer bits, of blocks (channels, n) at the model's rate."""
        quantiser = self.engine.quantiser
        views = [Views(quantiser) for _ in range(channels)]
        for (latents,) in self.engine.encode(blocks, channels, latents=True):
            for view, own in zip(views, latents, strict=True):
                view.add(own)
        chosen = [
            choose(
                view,
                quantiser,
                rate_distortion,
                prior=self.prior,
                progress=part(progress, channel / channels, (channel + 1) / channels),
            )
            for channel, view in enumerate(views)
        ]
        return tuple(np.stack(level) for level in zip(*chosen, strict=True))

    def encode_many(self, signals: Sequence[tuple[np.ndarray, int]]) -> list[Recording]:
        """Encodes short signals; those of equal padded length together, as channels of one call.

        That changes no token: each channel is coded by itself, and the padding is the model's own. A GPU is
        kept busy by it; a CPU gains nothing.

        Args:
            signals: of each the samples, float (n, channels), nominally -1 to 1, and their rate in Hz.

        Returns:
            a recording for each, in order.

        Raises:
            AudioError: a signal is no such array.
        """
        groups: dict[int, list[tuple[int, np.ndarray]]] = {}
        for place, (samples, rate) in enumerate(signals):
            channels = samples.shape[-1] if isinstance(samples, np.ndarray) and samples.ndim == 2 else 1
            if not 1 <= channels <= MAX_CHANNELS:
                raise AudioError(f"signal {place} has {channels} channels, not 1 to {MAX_CHANNELS}")
            block = checked_block(samples, channels)
            blocks = list(resample([block], checked_rate(rate), self.rate, channels))
            signal = np.concatenate([np.zeros((0, channels), np.float32), *blocks])
            frames = self.config.frames_for(len(signal))
            padded = np.zeros((channels, frames * self.hop_length), np.float32)
            padded[:, : len(signal)] = signal.T
            groups.setdefault(frames, []).append((place, padded))
        found: dict[int, Codes] = {}
        for group in groups.values():
            found |= self._encoded_together(group)
        return [
            Recording(found[number], self.name, self.fingerprint, self.rate, rate, len(samples))
            for number, (samples, rate) in enumerate(signals)
        ]

    def _encoded_together(self, group: Sequence[tuple[int, np.ndarray]]) -> dict[int, Codes]:
        """Returns the codes of signals (channels, n) of one length, by their numbers."""
        whole = np.concatenate([padded for _, padded in group])
        pieces = list(self.engine.encode([whole], len(whole)))
        empty = np.zeros((len(whole), 0), np.uint16)
        levels = [
            np.concatenate([empty, *(piece[level] for piece in pieces)], axis=1)
            for level in range(len(self.strides))
        ]
        codes, first = {}, 0
        for place, padded in group:
            rows = slice(first, first + len(padded))
            first = rows.stop
            own = tuple(np.ascontiguousarray(level[rows]) for level in levels)
            codes[place] = Codes(own, self.strides, self.codebook_size)
        return codes

    def decode(
        self,
        recording: Recording,
        *,
        rate: int | None = None,
        span: Span = WHOLE,
        noise: Noise = _DEFAULT_NOISE,
        progress: Progress = SILENT,
    ) -> Generator[np.ndarray, None, None]:
        """Turns tokens into samples; a block or two are computed ahead, in a thread.

        Args:
            recording: of this model; all levels or the coarsest ones.
            rate: of the samples wanted, Hz; by default the recording's own.
            span: the part wanted.
            noise: of the decoder.
            progress: of the work.

        Yields:
            float32 arrays (n, channels), nominally -1 to 1, exactly as many samples as the span has.

        Raises:
            ModelMismatchError: the codes are of another kind of model.
            UsageError: the span begins beyond the end, or the rate is none.
        """
        codes = recording.codes
        rate = recording.rate if rate is None else whole("rate", rate, 1, MAX_RATE)
        if codes.strides != self.strides[: len(codes.strides)] or codes.codebook_size != self.codebook_size:
            raise ModelMismatchError(
                f"codes of strides {list(codes.strides)} and {codes.codebook_size} codewords are not of the "
                f"model {self.name} ({list(self.strides)}, {self.codebook_size})",
                remedy=Remedy.OTHER_MODEL,
            )
        first, count = span.within(resampled_length(recording.samples, recording.rate, rate), rate)
        return self._decoded(codes, rate, first, count, noise, progress)

    def _decoded(
        self, codes: Codes, rate: int, first: int, count: int, noise: Noise, progress: Progress
    ) -> Generator[np.ndarray, None, None]:
        """Yields `count` samples from `first` on, at any rate."""
        begin, end, skip = resample_span(first, count, self.rate, rate)
        hop, channels = self.hop_length, codes.channels
        start, stop = begin // hop, min(codes.frames, -(-end // hop))
        length = min(end, codes.frames * hop) - begin
        decoded = (block.T for block in self.engine.decode(codes.levels, start=start, stop=stop, noise=noise))
        with closing(read_ahead(decoded)) as ahead:
            at_model_rate = fit(ahead, length, channels, skip=begin - start * hop)
            at_rate = resample(at_model_rate, self.rate, rate, channels)
            done = 0
            for block in fit(at_rate, count, channels, skip=skip):
                yield block
                done += len(block)
                progress(done / count)
