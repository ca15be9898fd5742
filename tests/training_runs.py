"""Small runs for the tests of training: recordings, a tiny model, a configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from snaccli.training.config import TrainConfig

RATE = 8000
MODEL: dict[str, Any] = {
    "sampling_rate": RATE,
    "encoder_dim": 4,
    "encoder_rates": [4, 4],
    "decoder_dim": 16,
    "decoder_rates": [4, 4],
    "attn_window_size": 0,
    "codebook_size": 32,
    "codebook_dim": 4,
    "vq_strides": [2, 1],
}
SPECTRAL: dict[str, Any] = {
    "architecture": "spectral",
    "sampling_rate": RATE,
    "hop_length": 32,
    "window_length": 128,
    "linear_bins": 20,
    "latent_dim": 16,
    "encoder": {"dim": 8, "hidden": 16, "blocks": 1},
    "decoder": {"dim": 16, "hidden": 32, "blocks": 2},
    "codebook_size": 32,
    "codebook_dim": 4,
    "vq_strides": [2, 1],
}
SPECTRAL_WEIGHTS: dict[str, float] = {
    **dict.fromkeys(("waveform", "low_band", "stft", "mel"), 0.0),
    **{
        "log_mel": 15.0,
        "log_magnitude": 5.0,
        "compressed": 5.0,
        "disturbance": 2.0,
        "advance": 2.0,
        "phase": 1.0,
    },
}


def pack(path: Path, lengths: tuple[int, ...] = (9000, 4000, 300)) -> str:
    """Tones of one pitch a row, so that a segment tells which row it is from."""
    waves = [0.4 * np.sin(2 * np.pi * 200 * (i + 1) * np.arange(n) / RATE) for i, n in enumerate(lengths)]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, (np.concatenate(waves) * 32767).astype(np.int16))
    starts = np.cumsum([0, *lengths[:-1]])
    rows = [
        {"name": str(i), "start": int(start), "length": length, "bandwidth_hz": RATE / 2}
        for i, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]
    path.with_suffix(".json").write_text(json.dumps(rows))
    return str(path)


def recordings(folder: Path, count: int = 4, rate: int = RATE) -> Path:
    """A folder with train/ and val/, tones of another pitch in each recording."""
    for split, first in (("train", 0), ("val", 100)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            time = np.arange(2 * rate) / rate
            wave = 0.3 * np.sin(2 * np.pi * (200 + first + 20 * number) * time)
            soundfile.write(folder / split / f"{number}.wav", wave, rate)
    return folder


def make_config(data: str, **values: Any) -> TrainConfig:
    """A run of 12 steps on a packed set or a folder; `values` replace those of the file."""
    given: dict[str, Any] = {
        "model": MODEL,
        "data": {"train": data, "validation": [data], "validation_segments": 4, "workers": 0},
        "stages": [{"steps": 12, "seconds": 0.128, "batch": 4}],
        "unquantised_steps": 4,
        "fit_seconds": 1.0,
        "decay": 0.33,
        "revive_every": 3,
        "checkpoint_every": 3,
        "validate_every": 6,
        "learning_rate": 2e-3,
    }
    return TrainConfig.from_dict(given | values)
