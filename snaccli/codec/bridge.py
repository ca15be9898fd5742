"""`SNAC` in the shape of an engine, until the engine of `snac.engine` takes its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from snac.config import ModelConfig


@dataclass(frozen=True)
class Noise:
    """Which noise the decoder adds: of a seed, or none."""

    kind: Literal["seeded", "none"]
    seed: int = 0

    @classmethod
    def seeded(cls, seed: int) -> Noise:
        """Noise that is always the same for a seed."""
        return cls("seeded", seed)

    @classmethod
    def none(cls) -> Noise:
        """No noise."""
        return cls("none")


class Engine:
    """Encoder and decoder of a model."""

    def __init__(self, model: Any, device: str, threads: int) -> None:
        self.config: ModelConfig = model.config
        self.fingerprint: str = model.fingerprint()
        self.codebooks = tuple(
            level.codebook.weight.detach().cpu().numpy().copy() for level in model.quantizer.levels()
        )
        place, _, precision = device.partition("-")
        self.threads, self._on_cpu = threads, place == "cpu"
        self.model = model.fold().to(place)
        if precision:
            import torch

            self.model.lower_precision(torch.bfloat16 if self._on_cpu else torch.float16)

    def encode(self, blocks: Iterable[np.ndarray], channels: int) -> Iterator[tuple[np.ndarray, ...]]:
        """See the contract of the engine."""
        import torch

        from snac.engine.threads import one_thread_each
        from snac.engine.tiles import encode_tiles

        tensors = (torch.from_numpy(np.ascontiguousarray(block)) for block in blocks)
        with one_thread_each() if self._on_cpu else nullcontext():
            for codes in encode_tiles(self.model, tensors, channels, workers=self.threads):
                yield tuple(code.numpy().astype(np.uint16) for code in codes)

    def decode(
        self, codes: Sequence[np.ndarray], *, start: int = 0, stop: int | None = None, noise: Noise
    ) -> Iterator[np.ndarray]:
        """See the contract of the engine."""
        import torch

        from snac.engine.threads import one_thread_each
        from snac.engine.tiles import decode_tiles

        levels = [torch.from_numpy(level.astype(np.int32)) for level in codes]
        seed = noise.seed if noise.kind == "seeded" else None
        with one_thread_each() if self._on_cpu else nullcontext():
            tiles = decode_tiles(self.model, levels, start=start, stop=stop, seed=seed, workers=self.threads)
            for tile in tiles:
                yield tile.numpy()


def build(source: str, device: str, threads: int) -> tuple[str, Engine]:
    """The name and the engine of a model."""
    from snac.hub.locate import locate
    from snac.nn.model import SNAC

    model = SNAC.from_pretrained(source)
    return locate(source).name, Engine(model, device, threads)
