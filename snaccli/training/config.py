"""The configuration of a training run: typed, validated, read from TOML. Knows no torch."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snac.config import ModelConfig

from ..errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class LossWeights:
    """Factors of the losses; see ``losses.py`` and ``quantise.py`` for each."""

    waveform: float = 5.0
    low_band: float = 4.0
    stft: float = 2.0
    mel: float = 10.0
    commitment: float = 1.0
    codebook: float = 4.0


@dataclass(frozen=True)
class DataConfig:
    """Packed recordings: flat int16 .npy files, each with a .json manifest of its rows beside it.

    Attributes:
        train: .npy files, each with the share of segments drawn from it.
        validation: .npy files.
        segment: samples a segment.
        batch: segments a step.
    """

    train: dict[str, float]
    validation: list[str]
    segment: int = 20480
    batch: int = 8


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        model: constructor arguments of the model.
        data: what it learns from.
        weights: of the losses.
        steps: optimiser steps in all.
        unquantised_steps: first steps, in which noise stands in for the codebooks; they are then fitted.
        fit_seconds: audio that the codebooks are fitted to.
        learning_rate, warmup_steps, decay_steps: linear rise, constant, linear fall to zero at the end.
        betas, weight_decay, clip: of AdamW and the gradient norm.
        revive_every: steps between restarts of idle codewords; none in the last ``decay_steps``.
        checkpoint_every, validate_every: steps.
        compile: fuse the full-rate layers with torch.compile (needs a C++ compiler).
        threads: of torch, 0 for its own choice.
        seed: of everything random.
    """

    model: ModelConfig
    data: DataConfig
    weights: LossWeights = field(default_factory=LossWeights)
    steps: int = 4000
    unquantised_steps: int = 300
    fit_seconds: float = 1600.0
    learning_rate: float = 6e-4
    warmup_steps: int = 50
    decay_steps: int = 1200
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.0
    clip: float = 20.0
    revive_every: int = 50
    checkpoint_every: int = 100
    validate_every: int = 250
    compile: bool = False
    threads: int = 0
    seed: int = 0

    @classmethod
    def from_toml(cls, path: str | Path) -> TrainConfig:
        """Reads a configuration; relative paths in it are resolved against its folder.

        Raises:
            UsageError: the file cannot be read, or holds an unknown key or a wrong value.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: cannot be read as TOML: {error}") from error
        model = dict(values.get("model", {}))
        if model.get("attn_window_size") == 0:  # TOML has no null
            model["attn_window_size"] = None
        values["model"] = ModelConfig.from_dict(model)
        data = dict(values.get("data", {}))
        folder = Path(path).parent
        data["train"] = {str(folder / name): float(share) for name, share in data.get("train", {}).items()}
        data["validation"] = [str(folder / name) for name in data.get("validation", [])]
        values["data"] = _checked(DataConfig, data, "data")
        values["weights"] = _checked(LossWeights, values.get("weights", {}), "weights")
        if "betas" in values:
            values["betas"] = tuple(values["betas"])
        config: TrainConfig = _checked(cls, values, "training")
        if config.data.segment % config.model.pad_multiple:
            raise UsageError(
                f"{path}: data.segment must be a multiple of {config.model.pad_multiple}, "
                f"not {config.data.segment}"
            )
        return config


def _checked(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    known = {item.name: item for item in dataclasses.fields(kind)}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{where} configuration: unknown key {key!r}{hint}")
        wanted = known[key].type
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        whole = number and isinstance(value, int)
        if (wanted == "int" and not whole) or (wanted == "float" and not number):
            raise UsageError(f"{where} configuration: {key} must be a number ({wanted}), not {value!r}")
    missing = [
        name
        for name, item in known.items()
        if name not in values
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"{where} configuration: {missing[0]!r} is missing")
    return kind(**values)
