"""The configuration of a training run: typed, validated, read from TOML. Knows no torch."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snac.config import ModelConfig, WaveformConfig
from snaccli.errors import ParameterError, UsageError, cause, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LISTS = {"tuple[int, ...]": "int", "tuple[float, ...]": "float", "tuple[str, ...]": "str"}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text in quotes",
}


def build(kind: Any, values: Any, where: str) -> Any:
    """A dataclass of ``kind`` from the values of a table.

    Raises:
        UsageError: an unknown key (the nearest known one is named), a missing one, a value of another type.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} configuration: must be a table, not {values!r}")
    known = {item.name: item for item in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise UsageError(f"{where} configuration: unknown key {key!r}{hint}")
    for name, item in known.items():
        default = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        if name not in values and not default:
            raise UsageError(f"{where} configuration: {name!r} is missing")
    return kind(**{name: _value(value, str(known[name].type), where, name) for name, value in values.items()})


def _value(value: Any, wanted: str, where: str, name: str) -> Any:
    if wanted in _LISTS:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where} configuration: {name} must be a list, not {value!r}")
        return tuple(_value(item, _LISTS[wanted], where, f"each of {name}") for item in value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        "int": number and isinstance(value, int),
        "float": number and math.isfinite(value),
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
    }
    if not fits.get(wanted, True):
        raise UsageError(f"{where} configuration: {name} must be {_WORDS[wanted]}, not {value!r}")
    return float(value) if wanted == "float" else value


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raises a UsageError unless ``low`` <= ``value`` <= ``high``."""
    if not low <= value <= high:
        raise UsageError(f"training configuration: {name} must be from {low:g} to {high:g}, not {value:g}")


def check_share(name: str, value: float) -> None:
    """Raises a UsageError unless ``value`` is from 0 to 1."""
    check_range(name, value, 0, 1)


def set_value(values: dict[str, Any], change: str) -> None:
    """Sets one value of a nested table by ``key=value``, the key with dots, list items by their number.

    Raises:
        ParameterError: the change has no key, or the key leads into a value that is no table.
    """
    path, equals, text = change.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(re.fullmatch(r"[\w-]+", key) for key in keys):
        raise ParameterError("changes", change, "write key=value, such as stages.0.batch=4")
    place: Any = values
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(place, list) and key.isdigit() and int(key) < len(place):
            index: Any = int(key)
        elif isinstance(place, dict):
            index = key
            if not last:
                place.setdefault(key, {})
        else:
            raise ParameterError("changes", change, f"there is no {'.'.join(keys[: depth + 1])}")
        if last:
            place[index] = _parsed(text.strip())
        else:
            place = place[index]


def _parsed(text: str) -> Any:
    """A value as TOML writes it; text without quotes where that is no TOML."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, KeyError):
        return text


@dataclass(frozen=True)
class LossWeights:
    """Factors of the losses; a loss of weight 0 is not computed.

    See ``losses.py``, ``quantise.py`` and ``discriminators.py`` for each. The defaults suit the published
    form of the model; the spectral form learns by ``log_mel``, ``log_magnitude``, ``compressed``,
    ``disturbance``, ``advance`` and ``phase`` instead (examples/train/mini.toml).
    """

    waveform: float = 5.0
    low_band: float = 4.0
    stft: float = 2.0
    mel: float = 10.0
    intelligibility: float = 0.0
    log_mel: float = 0.0
    log_magnitude: float = 0.0
    compressed: float = 0.0
    disturbance: float = 0.0
    advance: float = 0.0
    phase: float = 0.0
    commitment: float = 1.0
    codebook: float = 4.0
    adversarial: float = 0.0
    feature: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            check_range(f"weights.{name}", getattr(self, name), 0, 1e6)

    def reconstruction(self) -> tuple[str, ...]:
        """Those of ``COMPARISONS`` that have a weight: what validation adds up."""
        return tuple(name for name in COMPARISONS if getattr(self, name))


COMPARISONS = tuple(
    name
    for name in LossWeights.__dataclass_fields__
    if name not in ("commitment", "codebook", "adversarial", "feature")
)
"""The losses that compare decoded audio with the recording."""


@dataclass(frozen=True)
class SpectraConfig:
    """Window lengths in samples of the spectral losses."""

    stft_windows: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    mel_windows: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    magnitude_windows: tuple[int, ...] = (256, 512, 1024, 2048)

    def __post_init__(self) -> None:
        for window in self.stft_windows + self.mel_windows + self.magnitude_windows:
            check_range("a window in spectra", window, 32, 65536)


@dataclass(frozen=True)
class AdversarialConfig:
    """The discriminators, which there are if ``weights.adversarial`` or ``weights.feature`` is above 0.

    Attributes:
        start: step from which they train and count.
        learning_rate: of their optimiser.
        channels: of their first layer.
        periods: of the multi-period discriminators, in samples.
        windows: of the multi-resolution ones, in samples.
    """

    start: int = 0
    learning_rate: float = 1e-4
    channels: int = 32
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    windows: tuple[int, ...] = (2048, 1024, 512)

    def __post_init__(self) -> None:
        check_range("adversarial.channels", self.channels, 1, 1024)
        check_range("adversarial.learning_rate", self.learning_rate, 0, 1)
        for period in self.periods:
            check_range("a period in adversarial", period, 1, 1000)
        for window in self.windows:
            check_range("a window in adversarial", window, 32, 65536)


@dataclass(frozen=True)
class AugmentationConfig:
    """Shares of the segments that are changed; see ``loader.py``."""

    speed: float = 0.4
    mix: float = 0.15
    level: float = 1.0
    band_limit: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            check_share(f"augmentation.{name}", getattr(self, name))


@dataclass(frozen=True)
class DataConfig:
    """What the model learns from: folders with train/ and val/ (see ``snac prepare``), or packed sets.

    Attributes:
        train: each source with the share of the segments drawn from it.
        validation: sources; by default those folders of ``train``.
        validation_segments: of each source.
        workers: threads that read ahead; on a GPU processes.
    """

    train: Mapping[str, float]
    validation: tuple[str, ...]
    validation_segments: int = 24
    workers: int = 2

    def __post_init__(self) -> None:
        if not self.train:
            raise UsageError("data configuration: train names no data: give it a folder made by snac prepare")
        if not self.validation:
            raise UsageError("data configuration: validation names no data")
        for name, share in self.train.items():
            check_range(f"the share of {name}", share, 1e-9, 1e9)
        check_range("data.validation_segments", self.validation_segments, 1, 1_000_000)
        check_range("data.workers", self.workers, 0, 256)


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
        seconds: length of its segments; rounded to what the model takes.
        batch: segments a step, of all processes together.
        steps: of the optimiser; 0 where ``epochs`` says how many.
        epochs: how often a step's segments, all together, are as long as the training audio.
    """

    seconds: float
    batch: int
    steps: int = 0
    epochs: float = 0.0

    def __post_init__(self) -> None:
        check_range("stages: seconds", self.seconds, 1e-3, 600)
        check_range("stages: batch", self.batch, 1, 1_000_000)
        if (self.steps > 0) == (self.epochs > 0) or min(self.steps, self.epochs) < 0:
            raise UsageError("stages configuration: a stage has either steps or epochs, above 0")


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        data: what it learns from.
        stages: one after another.
        model: constructor arguments; None for those of ``init``.
        init: a model to start from, as for ``-m``; empty for fresh weights.
        freeze: parts that keep their weights: ``encoder``, ``quantizer``, ``decoder``, or parts of these.
        weights, spectra, adversarial, augmentation: see there.
        scale_layers: from scratch, of the published form: begin with layers scaled so that what comes out of
            each varies by 1.
        unquantised_steps: first steps, in which noise stands in for the codebooks; they are then fitted.
        refit: with ``init``, fit the codebooks anew before the first step, but for frozen ones.
        fit_seconds: audio that the codebooks are fitted to.
        learning_rate, warmup_steps, decay: linear rise, constant, linear fall to zero over the last ``decay``
            of all steps, a share.
        codebook_rate: factor of the learning rate for the codewords, of which a step moves only those chosen.
        betas, weight_decay, clip: of AdamW and the gradient norm.
        ema: decay of the averaged weights, which are then what is validated and exported; 0 for none.
        accumulate: parts a batch is computed in, to save memory.
        precision: ``fp32``, ``bf16`` for autocast, or ``auto``: ``bf16`` where the processor computes with
            it.
        revive_every: steps between restarts of idle codewords, 0 for none; none while the rate decays.
        checkpoint_every: steps.
        validate_every: steps; 0 for once an epoch.
        compile: fuse layers with torch.compile (needs a C++ compiler).
        threads: of torch, 0 for its own choice.
        half: export in 16 bits.
        seed: of everything random.
    """

    data: DataConfig
    stages: tuple[Stage, ...]
    model: ModelConfig | None = None
    init: str = ""
    freeze: tuple[str, ...] = ()
    weights: LossWeights = field(default_factory=LossWeights)
    spectra: SpectraConfig = field(default_factory=SpectraConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    scale_layers: bool = False
    unquantised_steps: int = 0
    refit: bool = False
    fit_seconds: float = 1600.0
    learning_rate: float = 6e-4
    codebook_rate: float = 1.0
    warmup_steps: int = 50
    decay: float = 0.3
    betas: tuple[float, ...] = (0.8, 0.99)
    weight_decay: float = 0.0
    clip: float = 20.0
    ema: float = 0.0
    accumulate: int = 1
    precision: str = "fp32"
    revive_every: int = 50
    checkpoint_every: int = 100
    validate_every: int = 0
    compile: bool = False
    threads: int = 0
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.stages:
            raise UsageError("training configuration: no [[stages]]: give one, with steps, seconds and batch")
        if self.model is None and not self.init:
            raise UsageError("training configuration: no model: give [model], or init to start from")
        if self.scale_layers and (self.init or not isinstance(self.model, WaveformConfig)):
            raise UsageError(
                "training configuration: scale_layers is for fresh models of the published form, without init"
            )
        if self.precision not in ("fp32", "bf16", "auto"):
            raise UsageError(
                f"training configuration: precision is fp32, bf16 or auto, not {self.precision!r}"
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError("training configuration: betas are two numbers from 0 to below 1")
        check_share("decay", self.decay)
        check_range("ema", self.ema, 0, 0.999999)
        check_range("learning_rate", self.learning_rate, 1e-12, 1)
        check_range("codebook_rate", self.codebook_rate, 0, 1000)
        check_range("accumulate", self.accumulate, 1, 100_000)
        check_range("checkpoint_every", self.checkpoint_every, 1, 1e9)
        for name in ("unquantised_steps", "warmup_steps", "revive_every", "validate_every", "threads"):
            check_range(name, getattr(self, name), 0, 1e9)
        for name in ("clip", "fit_seconds"):
            check_range(name, getattr(self, name), 1e-6, 1e9)

    @classmethod
    def from_toml(cls, path: str | Path, changes: Sequence[str] = (), init: str | None = None) -> TrainConfig:
        """Reads a configuration; relative paths in it are resolved against its folder.

        Args:
            path: of the file.
            changes: ``key=value`` each, the key with dots (``stages.0.batch=4``), the value as in TOML; data
                named so is relative to the current folder.
            init: takes the place of ``init``.

        Raises:
            UsageError: the file cannot be read, or holds an unknown key or a wrong value.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"{shown(path)}: cannot be read as a configuration: {cause(error)}") from error
        except ValueError as error:
            raise UsageError(f"{shown(path)}: cannot be read as TOML: {error}") from error
        _resolve_data(values, Path(path).parent)
        for change in changes:
            set_value(values, change)
            if change.startswith("data."):
                _resolve_data(values, Path.cwd())
        if init is not None:
            values["init"] = init
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """A configuration from the values of a TOML file; see :meth:`from_toml`."""
        values = dict(values)
        if "model" in values:
            if not isinstance(values["model"], Mapping):
                raise UsageError(
                    "training configuration: [model] is a table of the architecture; init names a model to "
                    "start from"
                )
            model = dict(values["model"])
            if model.get("attn_window_size") == 0:  # TOML has no null
                model["attn_window_size"] = None
            values["model"] = ModelConfig.from_dict(model)
        values["data"] = _data(values.get("data", {}))
        stages = values.get("stages", [])
        if not isinstance(stages, list):
            raise UsageError("training configuration: stages are written as [[stages]]")
        values["stages"] = tuple(build(Stage, stage, "stages") for stage in stages)
        parts = {
            "weights": LossWeights,
            "spectra": SpectraConfig,
            "adversarial": AdversarialConfig,
            "augmentation": AugmentationConfig,
        }
        for name, kind in parts.items():
            if name in values:
                values[name] = build(kind, values[name], name)
        config: TrainConfig = build(cls, values, "training")
        return config


def _resolve_data(values: dict[str, Any], folder: Path) -> None:
    """Turns the sources of [data] into absolute paths; those that are absolute stay."""
    data = values.get("data")
    if not isinstance(data, dict):
        return
    for name in ("train", "validation"):
        given = data.get(name)
        if isinstance(given, str):
            data[name] = str((folder / given).absolute())
        elif isinstance(given, dict):
            data[name] = {str((folder / key).absolute()): share for key, share in given.items()}
        elif isinstance(given, list):
            data[name] = [str((folder / str(key)).absolute()) for key in given]


def _data(values: Any) -> DataConfig:
    if not isinstance(values, dict):
        raise UsageError("data configuration: is written as [data]")
    values = dict(values)
    train = values.get("train", {})
    train = [train] if isinstance(train, str) else train
    if isinstance(train, list):
        train = dict.fromkeys(train, 1.0)
    if not isinstance(train, dict) or not all(isinstance(share, (int, float)) for share in train.values()):
        raise UsageError("data configuration: train is a folder, a list of them, or a table of shares")
    values["train"] = {str(name): float(share) for name, share in train.items()}
    validation = values.get("validation", [name for name in train if not str(name).endswith(".npy")])
    values["validation"] = [validation] if isinstance(validation, str) else validation
    data: DataConfig = build(DataConfig, values, "data")
    return data
