"""A loaded model that turns samples into codes and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from snac.hub import locate
from snac.snac import SNAC
from snac.tiles import decode_tiles, encode_tiles

from ..audio import fit, resample
from ..codes import Codes
from ..errors import ModelMismatchError, UsageError


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
        device: where it computes, ``cpu``, ``cuda`` or ``mps``.
        threads: of torch on the CPU.
    """

    def __init__(self, model: SNAC, name: str, *, device: str = "cpu") -> None:
        self.name = name
        self.fingerprint = model.fingerprint()
        self.config = model.config
        self.rate = model.config.sampling_rate
        self.hop_length = model.config.hop_length
        self.strides = model.config.vq_strides
        self.codebook_size = model.config.codebook_size
        self.device = device
        self.threads = torch.get_num_threads()
        self.codebooks = [
            level.codebook.weight.detach().cpu().numpy().copy() for level in model.quantizer.levels()
        ]
        self.model = model.fold().to(device)

    @classmethod
    def load(cls, model: str = "mini", *, device: str = "auto", threads: int | None = None) -> Codec:
        """Loads a model by name, Hub repository or folder (see ``SNAC.from_pretrained``).

        Args:
            model: which one.
            device: ``auto`` takes CUDA, else MPS, else the CPU.
            threads: of torch on the CPU, for the whole process; None for torch's choice.

        Raises:
            ModelError: the model cannot be had or is damaged.
            UsageError: there is no such device here.
        """
        chosen = _device(device)
        if threads is not None:
            torch.set_num_threads(max(1, threads))
        loaded = SNAC.from_pretrained(model)
        # Asked for after loading, which records the files: only then are they not hashed a second time.
        return cls(loaded, locate(model).name, device=chosen)

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
                yield block

        resampled = resample(counted(), rate, self.rate, channels)
        tensors = (torch.from_numpy(np.ascontiguousarray(block.T)) for block in resampled)
        tiles: list[list[np.ndarray]] = [[] for _ in self.strides]
        for codes in encode_tiles(self.model, tensors, channels):
            for level, code in zip(tiles, codes, strict=True):
                level.append(code.numpy().astype(np.uint16))
        empty = np.zeros((channels, 0), dtype=np.uint16)
        levels = tuple(np.concatenate([empty, *level], axis=1) for level in tiles)
        return Codes(levels, self.strides, self.codebook_size), count

    def decode(
        self, codes: Codes, *, seed: int | None = 0, start: int = 0, stop: int | None = None
    ) -> Iterator[np.ndarray]:
        """Codes to audio at the model's rate.

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
                f"model {self.name} ({list(self.strides)}, {self.codebook_size}); name theirs with -m"
            )
        total = codes.frames * self.hop_length
        stop = total if stop is None else min(stop, total)
        first = start // self.hop_length
        levels = [torch.from_numpy(level.astype(np.int32)) for level in codes.levels]
        tiles = decode_tiles(self.model, levels, start=first, stop=-(-stop // self.hop_length), seed=seed)
        blocks = (_block(tile) for tile in tiles)
        yield from cut(blocks, start - first * self.hop_length, stop - start, codes.channels)


def _block(tile: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tile.numpy().T)


def _device(wanted: str) -> str:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, present in available.items() if present)
    if wanted not in available or not available[wanted]:
        raise UsageError(f"device {wanted!r} is not available here; use cpu or auto")
    return wanted


def cut(blocks: Iterable[np.ndarray], skip: int, frames: int, channels: int) -> Iterator[np.ndarray]:
    """``frames`` samples of a stream, after the first ``skip``."""

    def rest() -> Iterator[np.ndarray]:
        left = skip
        for block in blocks:
            yield block[left:]
            left = max(0, left - len(block))

    return fit(rest(), frames, channels)
