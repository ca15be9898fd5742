"""The configuration of a SNAC model of either form, and the geometry that follows from it. Knows no torch.

A model is of the *waveform* form, that of the published package, or of the *spectral* form, whose encoder
and decoder work at the rate of the latent frames. ``config.json`` tells them apart by its key
``architecture``: ``"spectral"``, or no such key for the published form. What both share is in
:class:`ModelConfig`, which is what nearly everybody needs to know.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Final

from snac.errors import ModelError

ATTENTION_HEAD = 64
"""Channels a head of the attention."""

LONG_BANDS: Final = 100
"""Mel bands of the long window among the features of a spectral model."""

SHORT_BANDS: Final = 40
"""Mel bands of each of the two short windows a frame among the features of a spectral model."""

# Bounds on what a configuration may ask for: far above every published model, far below what would
# exhaust a machine when a hostile config.json is loaded.
_MAX_CHANNELS = 16384
_MAX_HOP = 65536
_MAX_CODEBOOK_SIZE = 65536
_MAX_LEVELS = 16
_MAX_WINDOW = 65536
_MAX_BLOCKS = 64
_MAX_STACK_WEIGHTS = 1 << 28
_MAX_CONFIG_BYTES = 1 << 20
_IN_LISTS = (1, 4096)


def _within(low: int, high: int | str, default: Any, *, optional: bool = False) -> Any:
    """A field that holds a whole number from ``low`` to ``high``, or None where it is optional.

    ``high`` may be the name of an attribute.
    """
    return field(default=default, metadata={"within": (low, high), "optional": optional})


@dataclass(frozen=True)
class Stack:
    """The size of a stack of ConvNeXt blocks.

    Attributes:
        dim: channels between the blocks.
        hidden: channels within a block, after its first linear layer.
        blocks: how many blocks there are.
    """

    dim: int = field(metadata={"within": (1, _MAX_CHANNELS)})
    hidden: int = field(metadata={"within": (1, 4 * _MAX_CHANNELS)})
    blocks: int = field(metadata={"within": (1, _MAX_BLOCKS)})


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ABC):
    """What is asked of a model of either form. ``from_file`` and ``from_dict`` choose the form.

    Attributes:
        sampling_rate: Hz of the audio the model codes.
        codebook_size: codewords a codebook, 2 to 65536.
        codebook_dim: channels a codeword.
        vq_strides: latent frames a token of each level, coarse to fine; all divide the first one.

    Raises:
        ModelError: a value is of the wrong type, out of range, or contradicts another.
    """

    architecture: ClassVar[str | None] = None

    sampling_rate: int = _within(1, 768_000, 44100)
    codebook_size: int = _within(2, _MAX_CODEBOOK_SIZE, 4096)
    codebook_dim: int = _within(1, 1024, 8)
    vq_strides: tuple[int, ...] = (8, 4, 2, 1)

    def __post_init__(self) -> None:
        """Checks each value by its field's default and bounds, then all of them together."""
        for each in dataclasses.fields(self):
            name, value = each.name, getattr(self, each.name)
            if isinstance(each.default, bool):
                if not isinstance(value, bool):
                    raise _refusal(f"{name} must be true or false")
            elif isinstance(each.default, tuple):
                if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= _MAX_LEVELS:
                    raise _refusal(f"{name} must be a list of 1 to {_MAX_LEVELS} whole numbers")
                object.__setattr__(self, name, tuple(_whole(name, item, *_IN_LISTS) for item in value))
            elif isinstance(each.default, Stack):
                parts = dataclasses.asdict(value) if isinstance(value, Stack) else value
                given = _known(parts, Stack, name)
                sizes = {
                    part.name: _whole(f"{name}.{part.name}", given[part.name], *part.metadata["within"])
                    for part in dataclasses.fields(Stack)
                }
                object.__setattr__(self, name, Stack(**sizes))
            elif value is not None or not each.metadata["optional"]:
                low, high = each.metadata["within"]
                most = getattr(self, high) if isinstance(high, str) else high
                object.__setattr__(self, name, _whole(name, value, low, most))
        if any(self.vq_strides[0] % stride for stride in self.vq_strides):
            raise _refusal(f"vq_strides {list(self.vq_strides)} must all divide the first one")
        if problem := self._contradiction():
            raise _refusal(problem)

    @abstractmethod
    def _contradiction(self) -> str | None:
        """What is wrong with values that are right each by itself; None where nothing is."""

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> ModelConfig:
        """Validates a parsed config.json and chooses the form by its key ``architecture``.

        Raises:
            ModelError: an unknown architecture or key (the nearest known one is named), or a bad value.
        """
        if "architecture" not in values:
            return WaveformConfig(**_known(values, WaveformConfig))
        if values["architecture"] != SpectralConfig.architecture:
            raise _refusal(
                f"architecture {values['architecture']!r} is not known: it is "
                f"{SpectralConfig.architecture!r}, or left out for the published form"
            )
        others = {key: value for key, value in values.items() if key != "architecture"}
        return SpectralConfig(**_known(others, SpectralConfig))

    @staticmethod
    def from_file(path: str | Path) -> ModelConfig:
        """Reads a config.json.

        Raises:
            ModelError: the file cannot be read, is not JSON, or describes no SNAC model.
        """
        try:
            with open(path, "rb") as file:
                text = file.read(_MAX_CONFIG_BYTES + 1)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
        try:
            values = json.loads(text) if len(text) <= _MAX_CONFIG_BYTES else None
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{path}: {_NO_OBJECT}") from error
        if not isinstance(values, dict):
            raise ModelError(f"{path}: {_NO_OBJECT}")
        try:
            return ModelConfig.from_dict(values)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON values; ``from_dict(to_dict())`` gives an equal one."""
        values = dataclasses.asdict(self)
        if self.architecture is not None:
            values = {"architecture": self.architecture, **values}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """Channels of the latent frames."""

    @property
    @abstractmethod
    def hop_length(self) -> int:
        """Samples per latent frame."""

    @property
    def attention_window(self) -> int | None:
        """Latent frames of a window of the attention; None for a model without attention."""
        return None

    @property
    def frame_alignment(self) -> int:
        """Latent frames to whose multiple a signal is padded: lcm(first stride, attention window or 1)."""
        return math.lcm(self.vq_strides[0], self.attention_window or 1)

    @property
    def pad_multiple(self) -> int:
        """Samples to whose multiple a signal is padded on the right before it is encoded."""
        return self.hop_length * self.frame_alignment

    @property
    def frame_rate(self) -> float:
        """Latent frames a second."""
        return self.sampling_rate / self.hop_length

    @property
    def token_rate(self) -> float:
        """Tokens a second, all levels together."""
        return self.frame_rate * sum(1 / stride for stride in self.vq_strides)

    @property
    def raw_bitrate(self) -> float:
        """Bits a second when each token takes log2(codebook_size) bits, without container."""
        return self.token_rate * math.log2(self.codebook_size)

    def frames_for(self, samples: int) -> int:
        """Latent frames of ``samples`` samples at ``sampling_rate``, padded as the model pads them."""
        return -(-samples // self.pad_multiple) * self.frame_alignment

    @abstractmethod
    def geometry(self) -> dict[str, Any]:
        """What decoding needs to know and the tensors do not tell, for the fingerprint."""


@dataclass(frozen=True, kw_only=True)
class WaveformConfig(ModelConfig):
    """The published form: the constructor arguments and the defaults of :class:`snac.SNAC`.

    Attributes:
        encoder_dim: channels of the encoder at the full rate; doubled by each of its strides.
        encoder_rates: strides of the encoder; their product is ``hop_length``.
        latent_dim: channels of the latents; None becomes ``encoder_dim * 2 ** len(encoder_rates)``, the only
            value that fits.
        decoder_dim: channels of the decoder at the latent rate; halved by each of its rates.
        decoder_rates: upsampling of the decoder, of the same product as ``encoder_rates``.
        attn_window_size: latent frames of the attention windows, None for no attention.
        noise: whether the decoder has noise blocks.
        depthwise: depthwise convolutions.

    Raises:
        ModelError: a value is of the wrong type, out of range, or contradicts another.
    """

    encoder_dim: int = _within(1, _MAX_CHANNELS, 64)
    encoder_rates: tuple[int, ...] = (3, 3, 7, 7)
    latent_dim: int | None = _within(1, _MAX_CHANNELS, None, optional=True)
    decoder_dim: int = _within(1, _MAX_CHANNELS, 1536)
    decoder_rates: tuple[int, ...] = (7, 7, 3, 3)
    attn_window_size: int | None = _within(1, 4096, 32, optional=True)
    noise: bool = True
    depthwise: bool = True

    def __post_init__(self) -> None:
        """Checks all values, and fills in ``latent_dim``."""
        super().__post_init__()
        if self.latent_dim is None:
            _whole("latent_dim", self.latent_channels, 1, _MAX_CHANNELS)
            object.__setattr__(self, "latent_dim", self.latent_channels)

    def _contradiction(self) -> str | None:
        latent, halvings = self.latent_dim or self.latent_channels, len(self.decoder_rates)
        rates = list(self.encoder_rates), list(self.decoder_rates)
        if math.prod(self.encoder_rates) != math.prod(self.decoder_rates):
            return f"encoder_rates {rates[0]} and decoder_rates {rates[1]} have different products"
        if self.hop_length > _MAX_HOP:
            return f"a hop of {self.hop_length} samples is over {_MAX_HOP}"
        if latent != self.latent_channels:
            doubled = f"encoder_dim x 2^{len(self.encoder_rates)}"
            return f"latent_dim {latent} does not equal {doubled}, which the encoder puts out"
        if self.decoder_dim % 2**halvings:
            return f"decoder_dim {self.decoder_dim} cannot be halved {halvings} times"
        for name, channels in (("latent_dim", latent), ("decoder_dim", self.decoder_dim)):
            if self.attn_window_size and channels % ATTENTION_HEAD:
                needed = f"a multiple of {ATTENTION_HEAD} where there is attention (attn_window_size)"
                return f"{name} {channels} must be {needed}"
        return None

    @property
    def latent_channels(self) -> int:
        """Channels of the latent frames."""
        channels: int = self.encoder_dim * 2 ** len(self.encoder_rates)
        return channels

    @property
    def hop_length(self) -> int:
        """Samples per latent frame."""
        return math.prod(self.encoder_rates)

    @property
    def attention_window(self) -> int | None:
        """Latent frames of a window of the attention; None for a model without attention."""
        return self.attn_window_size

    def geometry(self) -> dict[str, Any]:
        """What decoding needs to know and the tensors do not tell, for the fingerprint."""
        keys = ("attn_window_size", "decoder_rates", "encoder_rates", "sampling_rate", "vq_strides")
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True, kw_only=True)
class SpectralConfig(ModelConfig):
    """The spectral form, without attention or noise: all layers work at the rate of the latent frames.

    The features of a frame are ``LONG_BANDS`` mel bands of a window of ``window_length`` samples,
    ``SHORT_BANDS`` of each of two windows of ``hop_length`` samples that are half a hop apart, the first
    ``linear_bins`` bins of the long window's spectrum, and the first ``phase_bins`` with their phases. The
    decoder makes the spectrum of one window of ``window_length`` samples a frame.

    Attributes:
        hop_length: samples per latent frame, a multiple of 4.
        window_length: samples of the long window, a multiple of ``hop_length`` and at least twice that.
        linear_bins: how many bins of the long window's spectrum are features, from 0 Hz on.
        phase_bins: how many bins of the long window's spectrum, from 0 Hz on, are features with their phases,
            and have phases from the decoder that are directions in the complex plane.
        running_phases: whether the decoder's phases count from those of tones at the bins' frequencies that
            run on from frame to frame, instead of from 0 in each frame.
        latent_dim: channels of the latents.
        encoder: size of the encoder's stack.
        decoder: size of the decoder's stack.

    Raises:
        ModelError: a value is of the wrong type, out of range, or contradicts another.
    """

    architecture: ClassVar[str | None] = "spectral"

    sampling_rate: int = _within(1, 768_000, 24000)
    hop_length: int = _within(4, _MAX_WINDOW // 2, 320)
    window_length: int = _within(8, _MAX_WINDOW, 1280)
    linear_bins: int = _within(0, "bins", 0)
    phase_bins: int = _within(0, "bins", 0)
    running_phases: bool = False
    latent_dim: int = _within(1, _MAX_CHANNELS, 256)
    encoder: Stack = Stack(192, 576, 4)
    decoder: Stack = Stack(320, 960, 7)

    def _contradiction(self) -> str | None:
        if self.hop_length % 4:
            return f"hop_length {self.hop_length} is not a multiple of 4"
        if self.window_length % self.hop_length or self.window_length < 2 * self.hop_length:
            wanted = f"must be 2, 3, 4, ... times hop_length {self.hop_length}"
            return f"window_length {self.window_length} {wanted}"
        for name, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            if stack.dim * stack.hidden * stack.blocks > _MAX_STACK_WEIGHTS:
                size = f"{stack.blocks} blocks of {stack.dim} x {stack.hidden}"
                return f"{name} has {size}, over {_MAX_STACK_WEIGHTS} weights"
        return None

    @property
    def latent_channels(self) -> int:
        """Channels of the latent frames."""
        return self.latent_dim

    @property
    def features(self) -> int:
        """Values a frame that the encoder takes."""
        return LONG_BANDS + 2 * SHORT_BANDS + self.linear_bins + 2 * self.phase_bins

    @property
    def spectrum_values(self) -> int:
        """Values a frame that the decoder makes its spectrum of."""
        return 2 * self.bins + 2 * self.phase_bins

    @property
    def bins(self) -> int:
        """Frequencies of the long window's spectrum, from 0 Hz to half the sampling rate."""
        return self.window_length // 2 + 1

    def geometry(self) -> dict[str, Any]:
        """What decoding needs to know and the tensors do not tell, for the fingerprint."""
        keys = ["architecture", "hop_length", "linear_bins", "sampling_rate", "vq_strides", "window_length"]
        # Keys that came later: without them fingerprints are as they were.
        keys += [key for key in ("phase_bins", "running_phases") if getattr(self, key)]
        return {key: getattr(self, key) for key in sorted(keys)}


_NO_OBJECT = "is not a JSON object; is this the config.json of a SNAC model?"


def _known(values: Any, kind: type[ModelConfig] | type[Stack], name: str = "") -> dict[str, Any]:
    """The values of an object of JSON, if each key is that of a field of ``kind`` and none is missing."""
    fields = {each.name: each for each in dataclasses.fields(kind)}
    if not isinstance(values, Mapping):
        raise _refusal(f"{name} must be an object with the keys {', '.join(fields)}")
    prefix = f"{name}." if name else ""
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise _refusal(f"unknown key {prefix + str(key)!r}{meant}")
    for key, each in fields.items():
        if each.default is dataclasses.MISSING and key not in values:
            raise _refusal(f"{prefix}{key} is missing")
    return dict(values)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number of any type, such as those of NumPy and 24000.0, as int."""
    number: int | None = None
    if isinstance(value, Real) and not isinstance(value, (bool, Integral)):
        number = int(float(value)) if float(value).is_integer() else None
    elif not isinstance(value, bool):
        with contextlib.suppress(TypeError):
            number = operator.index(value)
    if number is None or not low <= number <= high:
        raise _refusal(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    return number


def _refusal(text: str) -> ModelError:
    return ModelError(f"model configuration: {text}")
