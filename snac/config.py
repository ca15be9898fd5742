"""The configuration of a SNAC model of either form, and the geometry that follows from it. Knows no torch.

A model is of the *waveform* form, that of the published package, or of the *spectral* form, whose encoder
and decoder work at the rate of the latent frames. ``config.json`` tells them apart by its key
``architecture``: ``"spectral"``, or no such key for the published form. What both share is in
:class:`ModelConfig`, which is what nearly everybody needs to know.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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

    sampling_rate: int = 44100
    codebook_size: int = 4096
    codebook_dim: int = 8
    vq_strides: tuple[int, ...] = (8, 4, 2, 1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vq_strides", _positive_ints("vq_strides", self.vq_strides))
        _check_int("sampling_rate", self.sampling_rate, 1, 768_000)
        _check_int("codebook_size", self.codebook_size, 2, _MAX_CODEBOOK_SIZE)
        _check_int("codebook_dim", self.codebook_dim, 1, 1024)
        if any(self.vq_strides[0] % stride for stride in self.vq_strides):
            raise _refusal(f"vq_strides {list(self.vq_strides)} must all divide the first one")

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

    def tokens_for(self, frames: int) -> tuple[int, ...]:
        """Tokens of each level, coarse to fine, for so many latent frames.

        Raises:
            ValueError: ``frames`` is negative or not a multiple of the first stride, which all others divide.
        """
        if frames < 0 or frames % self.vq_strides[0]:
            raise ValueError(
                f"{frames} latent frames are no multiple of {self.vq_strides[0]}, the first stride"
            )
        return tuple(frames // stride for stride in self.vq_strides)

    @abstractmethod
    def geometry(self) -> dict[str, Any]:
        """What decoding needs to know and the tensors do not tell, for ``snac.hub.fingerprint``."""


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

    encoder_dim: int = 64
    encoder_rates: tuple[int, ...] = (3, 3, 7, 7)
    latent_dim: int | None = None
    decoder_dim: int = 1536
    decoder_rates: tuple[int, ...] = (7, 7, 3, 3)
    attn_window_size: int | None = 32
    noise: bool = True
    depthwise: bool = True

    def __post_init__(self) -> None:
        for name in ("encoder_rates", "decoder_rates"):
            object.__setattr__(self, name, _positive_ints(name, getattr(self, name)))
        super().__post_init__()
        _check_int("encoder_dim", self.encoder_dim, 1, _MAX_CHANNELS)
        _check_int("decoder_dim", self.decoder_dim, 1, _MAX_CHANNELS)
        if self.attn_window_size is not None:
            _check_int("attn_window_size", self.attn_window_size, 1, 4096)
        for name in ("noise", "depthwise"):
            if not isinstance(getattr(self, name), bool):
                raise _refusal(f"{name} must be true or false")
        if self.latent_dim is None:
            object.__setattr__(self, "latent_dim", self.encoder_dim * 2 ** len(self.encoder_rates))
        _check_int("latent_dim", self.latent_dim, 1, _MAX_CHANNELS)
        self._check_consistency()

    def _check_consistency(self) -> None:
        if math.prod(self.encoder_rates) != math.prod(self.decoder_rates):
            raise _refusal(
                f"encoder_rates {list(self.encoder_rates)} and decoder_rates "
                f"{list(self.decoder_rates)} have different products"
            )
        if self.hop_length > _MAX_HOP:
            raise _refusal(f"a hop of {self.hop_length} samples is over {_MAX_HOP}")
        if self.latent_dim != self.encoder_dim * 2 ** len(self.encoder_rates):
            raise _refusal(
                f"latent_dim {self.latent_dim} does not equal "
                f"encoder_dim x 2^{len(self.encoder_rates)}, which the encoder puts out"
            )
        if self.decoder_dim % 2 ** len(self.decoder_rates):
            raise _refusal(f"decoder_dim {self.decoder_dim} cannot be halved {len(self.decoder_rates)} times")
        for name in ("latent_dim", "decoder_dim"):
            if self.attn_window_size and getattr(self, name) % ATTENTION_HEAD:
                raise _refusal(
                    f"{name} {getattr(self, name)} must be a multiple of "
                    f"{ATTENTION_HEAD} where there is attention (attn_window_size)"
                )

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
        """What decoding needs to know and the tensors do not tell, for ``snac.hub.fingerprint``."""
        keys = ("attn_window_size", "decoder_rates", "encoder_rates", "sampling_rate", "vq_strides")
        values = self.to_dict()
        return {key: values[key] for key in keys}


@dataclass(frozen=True)
class Stack:
    """The size of a stack of ConvNeXt blocks.

    Attributes:
        dim: channels between the blocks.
        hidden: channels within a block, after its first linear layer.
        blocks: how many blocks there are.
    """

    dim: int
    hidden: int
    blocks: int


@dataclass(frozen=True, kw_only=True)
class SpectralConfig(ModelConfig):
    """The spectral form, without attention or noise: all layers work at the rate of the latent frames.

    The features of a frame are ``LONG_BANDS`` mel bands of a window of ``window_length`` samples,
    ``SHORT_BANDS`` of each of two windows of ``hop_length`` samples that are half a hop apart, and the first
    ``linear_bins`` bins of the long window's spectrum. The decoder makes the spectrum of one window of
    ``window_length`` samples a frame.

    Attributes:
        hop_length: samples per latent frame, a multiple of 4.
        window_length: samples of the long window, a multiple of ``hop_length`` and at least twice that.
        linear_bins: how many bins of the long window's spectrum are features, from 0 Hz on.
        running_phases: whether the decoder's phases count from those of tones at the bins' frequencies that
            run on from frame to frame, instead of from 0 in each frame.
        latent_dim: channels of the latents.
        encoder: size of the encoder's stack.
        decoder: size of the decoder's stack.

    Raises:
        ModelError: a value is of the wrong type, out of range, or contradicts another.
    """

    architecture: ClassVar[str | None] = "spectral"

    sampling_rate: int = 24000
    hop_length: int = 320
    window_length: int = 1280
    linear_bins: int = 0
    running_phases: bool = False
    latent_dim: int = 256
    encoder: Stack = Stack(192, 576, 4)
    decoder: Stack = Stack(320, 960, 7)

    def __post_init__(self) -> None:
        for name in ("encoder", "decoder"):
            object.__setattr__(self, name, _stack(name, getattr(self, name)))
        super().__post_init__()
        _check_int("hop_length", self.hop_length, 4, _MAX_WINDOW // 2)
        _check_int("window_length", self.window_length, 8, _MAX_WINDOW)
        if self.hop_length % 4:
            raise _refusal(f"hop_length {self.hop_length} is not a multiple of 4")
        if self.window_length % self.hop_length or self.window_length < 2 * self.hop_length:
            raise _refusal(
                f"window_length {self.window_length} must be 2, 3, 4, ... times hop_length {self.hop_length}"
            )
        _check_int("linear_bins", self.linear_bins, 0, self.window_length // 2 + 1)
        if not isinstance(self.running_phases, bool):
            raise _refusal("running_phases must be true or false")
        _check_int("latent_dim", self.latent_dim, 1, _MAX_CHANNELS)

    @property
    def latent_channels(self) -> int:
        """Channels of the latent frames."""
        return self.latent_dim

    @property
    def features(self) -> int:
        """Values a frame that the encoder takes."""
        return LONG_BANDS + 2 * SHORT_BANDS + self.linear_bins

    @property
    def bins(self) -> int:
        """Frequencies of the long window's spectrum, from 0 Hz to half the sampling rate."""
        return self.window_length // 2 + 1

    def geometry(self) -> dict[str, Any]:
        """What decoding needs to know and the tensors do not tell, for ``snac.hub.fingerprint``."""
        keys = ["hop_length", "linear_bins", "sampling_rate", "vq_strides", "window_length"]
        if self.running_phases:  # a key that came later: without it fingerprints are as they were
            keys.append("running_phases")
        values = self.to_dict()
        return {"architecture": self.architecture, **{key: values[key] for key in sorted(keys)}}


_NO_OBJECT = "is not a JSON object; is this the config.json of a SNAC model?"


def _known(
    values: Mapping[str, Any], kind: type[ModelConfig] | type[Stack], prefix: str = ""
) -> dict[str, Any]:
    """The values, if each key is that of a field of ``kind``."""
    known = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        if key not in known:
            raise _refusal(f"unknown key {prefix + str(key)!r}{_nearest(str(key), known)}")
    return dict(values)


def _nearest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _stack(name: str, value: Any) -> Stack:
    """A stack of a configuration, checked, from the object of a config.json or from a Stack."""
    if isinstance(value, Stack):
        value = dataclasses.asdict(value)
    keys = [field.name for field in dataclasses.fields(Stack)]
    if not isinstance(value, Mapping):
        raise _refusal(f"{name} must be an object with the keys {', '.join(keys)}")
    values = _known(value, Stack, f"{name}.")
    if missing := [key for key in keys if key not in values]:
        raise _refusal(f"{name}.{missing[0]} is missing")
    for key, high in (("dim", _MAX_CHANNELS), ("hidden", 4 * _MAX_CHANNELS), ("blocks", _MAX_BLOCKS)):
        _check_int(f"{name}.{key}", values[key], 1, high)
    stack = Stack(**values)
    if stack.dim * stack.hidden * stack.blocks > _MAX_STACK_WEIGHTS:
        raise _refusal(
            f"{name} has {stack.blocks} blocks of {stack.dim} x {stack.hidden}, over "
            f"{_MAX_STACK_WEIGHTS} weights"
        )
    return stack


def _check_int(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _refusal(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def _positive_ints(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= _MAX_LEVELS:
        raise _refusal(f"{name} must be a list of 1 to {_MAX_LEVELS} whole numbers")
    for value in values:
        _check_int(name, value, 1, 4096)
    return tuple(values)


def _refusal(text: str) -> ModelError:
    return ModelError(f"model configuration: {text}")
