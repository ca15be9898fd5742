"""A loaded model that turns samples into codes and back."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext

import numpy as np
import torch

from snac.engine.threads import one_thread_each
from snac.engine.tiles import decode_tiles, encode_tiles
from snac.hub.locate import locate
from snac.nn.model import SNAC
from snaccli import heap
from snaccli.audio import fit, resample
from snaccli.codes import Codes
from snaccli.errors import ModelMismatchError, Remedy, UsageError
from snaccli.processors import share
from snaccli.workers import read_ahead

_TIDY_S = 60.0  # of audio coded between two trims of the heap


class Codec:
    """A model ready to code: folded, on its device.

    Safe to share between threads.

    Attributes:
        name: what files call the model.
        fingerprint: 16 hex digits of its weights.
        rate: of the audio it codes, Hz.
        hop_length: samples a latent frame.
        strides: latent frames a token of each level, coarse to fine.
        codebook_size: codewords a level.
        device: where it computes, ``cpu``, ``cuda`` or ``mps``; with ``-half`` behind, in 16 bits.
        threads: that compute side by side for each recording, on the CPU.
    """

    def __init__(self, model: SNAC, name: str, *, device: str = "cpu", threads: int | None = None) -> None:
        self.name = name
        self.fingerprint = model.fingerprint()
        self.config = model.config
        self.rate = model.config.sampling_rate
        self.hop_length = model.config.hop_length
        self.strides = model.config.vq_strides
        self.codebook_size = model.config.codebook_size
        self.device = device
        self.threads = threads or share(1).threads
        self.codebooks = [
            level.codebook.weight.detach().cpu().numpy().copy() for level in model.quantizer.levels()
        ]
        place, _, precision = device.partition("-")
        self._on_cpu = place == "cpu"
        self.model = model.fold().to(place)
        if precision:
            # Processors that multiply 16 bits do so in bfloat16; GPUs all know float16, which is finer.
            self.model.lower_precision(torch.bfloat16 if self._on_cpu else torch.float16)
        self._untidy_s = 0.0  # of audio coded since the heap was trimmed

    @classmethod
    def load(cls, model: str = "mini", *, device: str = "auto", threads: int | None = None) -> Codec:
        """Loads a model by name, Hub repository or folder (see ``SNAC.from_pretrained``).

        Args:
            model: which one.
            device: ``auto`` takes CUDA, else MPS, else the CPU; ``cuda-half``, ``mps-half`` and ``cpu-half``
                compute in 16 bits, with which codes and samples differ a little.
            threads: for each recording, on the CPU; None for one a processor, at most 8.

        Raises:
            ModelError: the model cannot be had or is damaged.
            UsageError: there is no such device here.
        """
        chosen = _device(device)
        loaded = SNAC.from_pretrained(model)
        # Asked for after loading, which records the files: only then are they not hashed a second time.
        return cls(loaded, locate(model).name, device=chosen, threads=threads)

    def encode(self, blocks: Iterable[np.ndarray], rate: int, channels: int) -> tuple[Codes, int]:
        """Audio to codes; each channel is coded by itself.

        Args:
            blocks: float32 arrays (n, channels), nominally -1 to 1.
            rate: of the blocks, Hz.
            channels: of every block.

        Returns:
            the codes, and the number of samples a channel that went in.
        """
        count = 0

        def counted() -> Iterator[np.ndarray]:
            nonlocal count
            for block in blocks:
                count += len(block)
                self._tidy(len(block) / rate)
                yield block

        resampled = resample(counted(), rate, self.rate, channels)
        tensors = (torch.from_numpy(np.ascontiguousarray(block.T)) for block in resampled)
        # Buffers that grow: small arrays kept between those of the tiles would fragment the heap.
        rows = [[bytearray() for _ in range(channels)] for _ in self.strides]
        with self._threads():
            for codes in encode_tiles(self.model, tensors, channels, workers=self.threads):
                for level, code in zip(rows, codes, strict=True):
                    for row, tokens in zip(level, code.numpy().astype(np.uint16), strict=True):
                        row += tokens.tobytes()
        levels = tuple(np.stack([np.frombuffer(row, np.uint16) for row in level]) for level in rows)
        return Codes(levels, self.strides, self.codebook_size), count

    def decode(
        self, codes: Codes, *, seed: int | None = 0, start: int = 0, stop: int | None = None
    ) -> Iterator[np.ndarray]:
        """Codes to audio at the model's rate; a block or two are computed ahead, in a thread.

        Args:
            codes: all levels of this model or the coarsest ones.
            seed: of the decoder's noise, None for none.
            start: first sample wanted.
            stop: sample to stop before; by default the end of the codes.

        Yields:
            float32 arrays (n, channels), in -1 to 1.

        Raises:
            ModelMismatchError: the codes are of another kind of model.
        """
        if codes.strides != self.strides[: len(codes.strides)] or codes.codebook_size > self.codebook_size:
            raise ModelMismatchError(
                f"codes of strides {list(codes.strides)} and {codes.codebook_size} codewords are not of the "
                f"model {self.name} ({list(self.strides)}, {self.codebook_size})",
                remedy=Remedy.OTHER_MODEL,
            )
        total = codes.frames * self.hop_length
        stop = total if stop is None else min(stop, total)
        first, last = start // self.hop_length, -(-stop // self.hop_length)
        with closing(read_ahead(self._blocks(codes, first, last, seed))) as blocks:
            yield from cut(blocks, start - first * self.hop_length, stop - start, codes.channels)

    def _tidy(self, seconds: float) -> None:
        """Has the heap trimmed once a minute of audio coded: else it grows by some 15 MB a minute.

        Many short recordings count together. Where several are coded at once a count may get lost: no matter.
        """
        self._untidy_s += seconds
        if self._untidy_s >= _TIDY_S:
            self._untidy_s = 0.0
            heap.trim()

    def _threads(self) -> AbstractContextManager[None]:
        """On the CPU the threads that compute pieces are those of ``share``, not the libraries' own."""
        return one_thread_each() if self._on_cpu else nullcontext()

    def _blocks(self, codes: Codes, first: int, last: int, seed: int | None) -> Iterator[np.ndarray]:
        levels = [torch.from_numpy(level.astype(np.int32)) for level in codes.levels]
        with self._threads():
            tiles = decode_tiles(self.model, levels, start=first, stop=last, seed=seed, workers=self.threads)
            for tile in tiles:
                yield np.ascontiguousarray(tile.numpy().T)


def _device(wanted: str) -> str:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, present in available.items() if present)
    if not available.get(wanted.removesuffix("-half")):
        raise UsageError(f"device {wanted!r} is not available here; use cpu or auto")
    return wanted


def cut(
    blocks: Iterable[np.ndarray], skip: int, frames: int, channels: int
) -> Generator[np.ndarray, None, None]:
    """``frames`` samples of a stream, after the first ``skip``."""

    def rest() -> Iterator[np.ndarray]:
        left = skip
        for block in blocks:
            yield block[left:]
            left = max(0, left - len(block))

    return fit(rest(), frames, channels)
