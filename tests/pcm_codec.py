"""A codec made for the bench's tests: eight bits a sample, so that every figure is known."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile

from snaccli import container
from snaccli.codec.recording import WHOLE, Span
from snaccli.codes import CodedStream
from snaccli.errors import ModelNotFoundError
from snaccli.progress import SILENT, Progress

RATE = 16000


@dataclass(frozen=True)
class PcmRecording:
    """Stands in for a recording: its tokens are its samples."""

    tokens: np.ndarray
    rate: int
    codebook_size: int

    @property
    def samples(self) -> int:
        return len(self.tokens)


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
    codebooks: tuple[np.ndarray, ...] = ()
    prior: None = None

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

    def encode(
        self,
        blocks: Iterable[np.ndarray],
        rate: int,
        channels: int,
        *,
        expected: int | None = None,
        progress: Progress = SILENT,
    ) -> PcmRecording:
        assert channels == 1
        mono = np.concatenate([np.zeros(0, np.float32), *(block[:, 0] for block in blocks)])
        assert expected == len(mono)
        progress(1.0)
        tokens = np.clip(np.round(mono * 128) + 128, 0, self.codebook_size - 1).astype(np.uint8)
        return PcmRecording(tokens, rate, self.codebook_size)

    def decode(
        self, recording: PcmRecording, *, span: Span = WHOLE, progress: Progress = SILENT
    ) -> Iterator[np.ndarray]:
        samples = (recording.tokens - 128.0) / 128
        first, count = span.within(len(samples), recording.rate)
        yield from np.array_split(samples[first : first + count].astype(np.float32)[:, None], 2)
        progress(1.0)


def dumps(
    recording: PcmRecording,
    codebooks: Any,
    *,
    prior: None = None,
    threads: int = 1,
    progress: Progress = SILENT,
) -> bytes:
    header = container.Header(
        model="pcm", fingerprint=bytes(8), sample_rate=recording.rate, model_rate=recording.rate, channels=1,
        samples=recording.samples, frames=recording.samples, codebook_size=recording.codebook_size,
        strides=(1,),
    )  # fmt: skip
    progress(1.0)
    return container.pack(header, [CodedStream(0, recording.tokens.tobytes())])


@dataclass(frozen=True)
class PcmFile:
    """Stands in for a file that was read, its tokens still coded."""

    layout: Any
    payload: bytes

    def decode(self, codec: PcmCodec, levels: int | None = None) -> PcmRecording:
        header = self.layout.header
        return PcmRecording(np.frombuffer(self.payload, np.uint8), header.sample_rate, header.codebook_size)


def loads(file: BinaryIO, *, path: Path | None = None) -> PcmFile:
    layout, streams, _ = container.unpack(file.read())
    return PcmFile(layout, streams[0].payload)


def install(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Puts this codec in the place of the real one."""
    module = types.ModuleType("snaccli.codec")
    module.__dict__.update(Codec=PcmCodec, Span=Span, dumps=dumps, loads=loads)
    monkeypatch.setitem(sys.modules, "snaccli.codec", module)
    return module


def tone(seconds: float, rate: int = RATE, channels: int = 1, seed: int = 0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    noise = 0.01 * np.random.default_rng(seed).standard_normal((time.size, channels))
    return 0.4 * np.sin(2 * np.pi * 440 * time)[:, None] + noise


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path
