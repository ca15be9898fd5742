"""A codec made for the bench's tests: eight bits a sample, so that every figure is known."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from snaccli import container
from snaccli.codes import CodedStream
from snaccli.errors import AudioError, ModelNotFoundError

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


def encode_file(
    source: Path,
    output: Path,
    *,
    model: PcmCodec,
    channels: str = "mono",
    overwrite: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Any:
    try:
        samples, rate = soundfile.read(source, always_2d=True)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"not audio: {source}") from error
    assert channels == "mono"
    mono = samples.mean(axis=1)
    tokens = np.clip(np.round(mono * 128) + 128, 0, model.codebook_size - 1).astype(np.uint8)
    header = container.Header(
        model="pcm", fingerprint=bytes(8), sample_rate=rate, model_rate=rate, channels=1,
        samples=len(mono), frames=len(mono), codebook_size=model.codebook_size, strides=(1,),
    )  # fmt: skip
    output.write_bytes(container.pack(header, [CodedStream(0, tokens.tobytes())]))
    for fraction in (0.0, 0.5, 1.0):
        if progress:
            progress(fraction)
    note = "stereo downmixed to mono" if samples.shape[1] == 2 else ""
    return types.SimpleNamespace(duration_s=len(mono) / rate, note=note)


def decode_file(
    source: Path,
    output: Path,
    *,
    model: PcmCodec,
    levels: int | None = None,
    start: float = 0.0,
    duration: float | None = None,
    overwrite: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Any:
    layout, streams, _ = container.unpack(source.read_bytes())
    samples = (np.frombuffer(streams[0].payload, np.uint8) - 128.0) / 128
    rate = layout.header.sample_rate
    first = round(start * rate)
    samples = samples[first : None if duration is None else first + round(duration * rate)]
    soundfile.write(output, samples, rate, subtype="PCM_16")
    if progress:
        progress(1.0)
    return types.SimpleNamespace()


def install(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Puts this codec in the place of the real one."""
    module = types.ModuleType("snaccli.codec")
    module.__dict__.update(Codec=PcmCodec, encode_file=encode_file, decode_file=decode_file)
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
