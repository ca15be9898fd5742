"""Changes to segments that a recording could have had, too. Knows no torch."""

from __future__ import annotations

import numpy as np
import soxr

from snaccli.training.config import AugmentationConfig

SPEEDS = (0.8, 1.25)
_MIX_DB = (-20.0, 0.0)
_LEVEL_DB = (-20.0, -0.5)
_BAND_HZ = (3500.0, 11000.0)


def draw_speed(rng: np.random.Generator, config: AugmentationConfig) -> float:
    """How much faster a segment is played, 0.8 to 1.25; pitch and formants move along."""
    return float(rng.uniform(*SPEEDS)) if rng.random() < config.speed else 1.0


def draw_mix(rng: np.random.Generator, config: AugmentationConfig) -> float | None:
    """The gain at which a second segment is added, or None."""
    return float(10 ** (rng.uniform(*_MIX_DB) / 20)) if rng.random() < config.mix else None


def at_speed(wave: np.ndarray, speed: float) -> np.ndarray:
    """``wave`` (n,) played ``speed`` times as fast, float32."""
    return wave if speed == 1.0 else np.asarray(soxr.resample(wave, speed, 1.0, quality="HQ"), np.float32)


def band_limited(
    wave: np.ndarray, rate: int, rng: np.random.Generator, config: AugmentationConfig
) -> np.ndarray:
    """At times without what lies above 3.5 to 11 kHz, as telephones and old recordings are."""
    if rng.random() >= config.band_limit:
        return wave
    limit = min(2 * float(rng.uniform(*_BAND_HZ)), float(rate))
    out = np.zeros_like(wave)
    narrow = soxr.resample(soxr.resample(wave, rate, limit, quality="HQ"), limit, rate, quality="HQ")
    out[: min(len(narrow), len(wave))] = narrow[: len(wave)]
    return out


def levelled(wave: np.ndarray, rng: np.random.Generator, config: AugmentationConfig) -> np.ndarray:
    """With another level and at times the other sign, float32 in -1 to 1."""
    peak = float(np.abs(wave).max(initial=0)) + 1e-6
    gain = 1.0
    if rng.random() < config.level:
        level = 10 ** (rng.uniform(*_LEVEL_DB) / 20)
        sign = 1.0 if rng.random() < 0.5 else -1.0
        # Between the recording's own level and a drawn one, so that most keep natural loudness.
        gain = sign * (level / peak) ** 0.5 * min(1.0, 1 / peak) ** 0.5
    return np.asarray(np.clip(wave * np.float32(min(gain, 0.98 / peak)), -1, 1), dtype=np.float32)
