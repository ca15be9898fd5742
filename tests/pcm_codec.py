"""A codec made for the bench's tests: eight bits a sample, so that every figure is known."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli import container
from snaccli.codes import CodedStream
from snaccli.errors import ModelNotFoundError

RATE = 16000


@dataclass
class PcmCodec:
    """Stands in for the neural codec: one token a sample, 256 codewords."""

    name: str = "pcm"
    fingerprint: str = "0123456789abcdef"
    rate: int = RATE
    device: str = "cpu"
    threads: int = 2
    codebook_size: int = 256
    strides: tuple[int, ...] = (1,)

    @classmethod
    def load(cls, model: str = "mini", *, device: str = "auto", threads: int | None = None) -> PcmCodec:
        if model.startswith("missing"):
            raise ModelNotFoundError(f"no model {model}: run `snac models list`")
        return cls(
            name=model,
            device="cpu" if device == "auto" else device,
            threads=threads or 2,
            codebook_size=200 if model == "small" else 256,
        )


def encode(codec: PcmCodec, blocks: Iterable[np.ndarray], rate: int) -> bytes:
    """The file of a recording, mono."""
    mono = np.concatenate([np.zeros(0, np.float32), *(block[:, 0] for block in blocks)])
    tokens = np.clip(np.round(mono * 128) + 128, 0, codec.codebook_size - 1).astype(np.uint8)
    header = container.Header(
        model="pcm", fingerprint=bytes(8), sample_rate=rate, model_rate=rate, channels=1,
        samples=len(mono), frames=len(mono), codebook_size=codec.codebook_size, strides=(1,),
    )  # fmt: skip
    return container.pack(header, [CodedStream(0, tokens.tobytes())])


def decode(
    codec: PcmCodec, coded: Path, levels: int | None, start: float = 0.0, duration: float | None = None
) -> Iterator[np.ndarray]:
    """Samples of a file or of a part of it, in two blocks."""
    layout, streams, _ = container.unpack(coded.read_bytes())
    samples = (np.frombuffer(streams[0].payload, np.uint8) - 128.0) / 128
    rate = layout.header.sample_rate
    first = round(start * rate)
    samples = samples[first : None if duration is None else first + round(duration * rate)]
    yield from np.array_split(samples.astype(np.float32)[:, None], 2)


def install(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Puts this codec in the place of the real one."""
    module = types.ModuleType("snaccli.codec")
    module.__dict__.update(Codec=PcmCodec)
    monkeypatch.setitem(sys.modules, "snaccli.codec", module)
    coding = types.ModuleType("snaccli.bench.interim")
    coding.__dict__.update(encode=encode, decode=decode)
    monkeypatch.setitem(sys.modules, "snaccli.bench.interim", coding)
    return coding


def tone(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    noise = 0.01 * np.random.default_rng(seed).standard_normal((time.size, channels))
    return 0.4 * np.sin(2 * np.pi * 440 * time)[:, None] + noise


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path
