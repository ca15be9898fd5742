"""Real files to change, and the tiny models that they are of. Everything follows from fixed seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from snac.config import ModelConfig
from snac.hub.checkpoint import save_checkpoint
from snac.hub.state import fingerprint, state_shapes
from snaccli.codec import Codec
from snaccli.codec.recording import Recording
from snaccli.codes import Codes
from snaccli.entropy.prior import Prior
from tests.test_prior import some_prior

SPECTRAL: dict[str, Any] = {
    "architecture": "spectral",
    "sampling_rate": 8000,
    "hop_length": 32,
    "window_length": 64,
    "linear_bins": 0,
    "phase_bins": 3,
    "latent_dim": 8,
    "encoder": {"dim": 8, "hidden": 8, "blocks": 1},
    "decoder": {"dim": 8, "hidden": 8, "blocks": 1},
    "codebook_size": 24,
    "codebook_dim": 4,
    "vq_strides": [4, 2, 1],
}
WAVEFORM: dict[str, Any] = {
    "sampling_rate": 8000,
    "encoder_dim": 4,
    "encoder_rates": [4, 4],
    "decoder_dim": 8,
    "decoder_rates": [4, 4],
    "attn_window_size": None,
    "codebook_size": 16,
    "codebook_dim": 4,
    "vq_strides": [2, 1],
}


def weights(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of a model."""
    rng, found = np.random.default_rng(seed), {}
    for name, shape in state_shapes(config).items():
        positive = name.endswith(("original0", "alpha"))
        found[name] = (0.3 * rng.standard_normal(shape) + positive).astype(np.float32)
    return found


def save_model(folder: Path, values: dict[str, Any]) -> Path:
    """Writes the model of a configuration, without a pickle."""
    config = ModelConfig.from_dict(values)
    save_checkpoint(folder, config, weights(config))
    (folder / "pytorch_model.bin").unlink(missing_ok=True)
    return folder


@dataclass(frozen=True)
class World:
    """A tiny model on the disk, its prior, and tokens of it."""

    folder: Path

    @cached_property
    def codec(self) -> Codec:
        """The model, its learned prior beside it."""
        return Codec.load(str(save_model(self.folder / "tiny", SPECTRAL)), threads=1, prior=self.prior)

    @cached_property
    def prior(self) -> Prior:
        """Of the model; it knows nothing, but codes."""
        config = ModelConfig.from_dict(SPECTRAL)
        found = fingerprint(config, weights(config)).hex()
        prior = some_prior(config.vq_strides, config.codebook_size, windows=(8, 40))
        return replace(prior, model_fingerprint=found)

    def recording(self, channels: int, frames: int, seed: int, rate: int = 8000) -> Recording:
        """Tokens that favour some codewords, of so many frames or none, as of audio at a rate."""
        codec, rng = self.codec, np.random.default_rng(seed)
        size = codec.codebook_size
        likely = rng.dirichlet(np.full(size, 0.3))
        levels = tuple(
            rng.choice(size, (channels, frames // stride), p=likely).astype(np.uint16)
            for stride in codec.strides
        )
        at_model = frames * codec.hop_length
        samples = at_model * rate // codec.rate
        return Recording(
            Codes(levels, codec.strides, size), codec.name, codec.fingerprint, codec.rate, rate, samples
        )
