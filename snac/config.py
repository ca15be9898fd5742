"""The configuration of a SNAC model and the geometry that follows from it. Knows no torch."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snac.errors import ModelError

ATTENTION_HEAD = 64
"""Channels a head of the attention."""

# Bounds on what a configuration may ask for: far above every published model, far below what would
# exhaust a machine when a hostile config.json is loaded.
_MAX_CHANNELS = 16384
_MAX_HOP = 65536
_MAX_CODEBOOK_SIZE = 65536
_MAX_LEVELS = 16
_MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelConfig:
    """Constructor arguments of :class:`snac.SNAC`, with the defaults of the published package.

    ``latent_dim`` left at None becomes ``encoder_dim * 2 ** len(encoder_rates)``.

    Raises:
        ModelError: a value is of the wrong type, out of range, or contradicts another.
    """

    sampling_rate: int = 44100
    encoder_dim: int = 64
    encoder_rates: tuple[int, ...] = (3, 3, 7, 7)
    latent_dim: int | None = None
    decoder_dim: int = 1536
    decoder_rates: tuple[int, ...] = (7, 7, 3, 3)
    attn_window_size: int | None = 32
    codebook_size: int = 4096
    codebook_dim: int = 8
    vq_strides: tuple[int, ...] = (8, 4, 2, 1)
    noise: bool = True
    depthwise: bool = True

    def __post_init__(self) -> None:
        for name in ("encoder_rates", "decoder_rates", "vq_strides"):
            object.__setattr__(self, name, _positive_ints(name, getattr(self, name)))
        _check_int("sampling_rate", self.sampling_rate, 1, 768_000)
        _check_int("encoder_dim", self.encoder_dim, 1, _MAX_CHANNELS)
        _check_int("decoder_dim", self.decoder_dim, 1, _MAX_CHANNELS)
        _check_int("codebook_size", self.codebook_size, 2, _MAX_CODEBOOK_SIZE)
        _check_int("codebook_dim", self.codebook_dim, 1, 1024)
        if self.attn_window_size is not None:
            _check_int("attn_window_size", self.attn_window_size, 1, 4096)
        for name in ("noise", "depthwise"):
            if not isinstance(getattr(self, name), bool):
                raise ModelError(f"model configuration: {name} must be true or false")
        if self.latent_dim is None:
            object.__setattr__(self, "latent_dim", self.encoder_dim * 2 ** len(self.encoder_rates))
        _check_int("latent_dim", self.latent_dim, 1, _MAX_CHANNELS)
        self._check_consistency()

    def _check_consistency(self) -> None:
        if math.prod(self.encoder_rates) != math.prod(self.decoder_rates):
            raise ModelError(
                f"model configuration: encoder_rates {list(self.encoder_rates)} and decoder_rates "
                f"{list(self.decoder_rates)} have different products"
            )
        if self.hop_length > _MAX_HOP:
            raise ModelError(f"model configuration: a hop of {self.hop_length} samples is over {_MAX_HOP}")
        if len(self.vq_strides) > _MAX_LEVELS:
            raise ModelError(f"model configuration: more than {_MAX_LEVELS} codebooks")
        if self.latent_dim != self.encoder_dim * 2 ** len(self.encoder_rates):
            raise ModelError(
                f"model configuration: latent_dim {self.latent_dim} does not equal "
                f"encoder_dim x 2^{len(self.encoder_rates)}, which the encoder puts out"
            )
        if self.decoder_dim % 2 ** len(self.decoder_rates):
            raise ModelError(
                f"model configuration: decoder_dim {self.decoder_dim} cannot be halved "
                f"{len(self.decoder_rates)} times"
            )
        for name in ("latent_dim", "decoder_dim"):
            if self.attn_window_size and getattr(self, name) % ATTENTION_HEAD:
                raise ModelError(
                    f"model configuration: {name} {getattr(self, name)} must be a multiple of "
                    f"{ATTENTION_HEAD} where there is attention (attn_window_size)"
                )
        if any(self.vq_strides[0] % stride for stride in self.vq_strides):
            raise ModelError(
                f"model configuration: vq_strides {list(self.vq_strides)} must all divide the first one"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Validates a parsed config.json.

        Raises:
            ModelError: an unknown key (the nearest known one is named), or a bad value.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ModelError(f"model configuration: unknown key {key!r}{hint}")
        return cls(**values)

    @classmethod
    def from_file(cls, path: str | Path) -> ModelConfig:
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
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise ModelError(f"{path}: is not a JSON object; is this the config.json of a SNAC model?")
        try:
            return cls.from_dict(values)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON values; ``from_dict(to_dict())`` gives an equal one."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @property
    def hop_length(self) -> int:
        """Samples per latent frame."""
        return math.prod(self.encoder_rates)

    @property
    def frame_alignment(self) -> int:
        """Latent frames to whose multiple a signal is padded: lcm(first stride, attention window or 1)."""
        return math.lcm(self.vq_strides[0], self.attn_window_size or 1)

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


def _check_int(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ModelError(
            f"model configuration: {name} must be a whole number from {low} to {high}, not {value!r}"
        )


def _positive_ints(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= _MAX_LEVELS:
        raise ModelError(f"model configuration: {name} must be a list of 1 to {_MAX_LEVELS} whole numbers")
    for value in values:
        _check_int(name, value, 1, 4096)
    return tuple(values)
