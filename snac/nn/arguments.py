"""Checks of what a caller gives to the model: one line that says what is wanted and what was got."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from snac.config import ModelConfig
from snac.errors import InputTypeError, InputValueError


def check_audio(audio: Any, config: ModelConfig, weights: torch.dtype) -> None:
    """Checks audio that is to be encoded.

    Args:
        audio: what the caller gave.
        config: of the model.
        weights: the type of the encoder's weights.

    Raises:
        InputTypeError: it is no tensor, or not of the floating point that the weights take.
        InputValueError: it is not of shape (B, 1, T), or without samples.
    """
    if not isinstance(audio, Tensor):
        hint = ": torch.from_numpy makes one of it" if type(audio).__module__ == "numpy" else ""
        raise InputTypeError(f"{_wanted_audio(config)}, not a {type(audio).__name__}{hint}")
    if not audio.is_floating_point():
        hint = ": divide 16-bit samples by 32768" if audio.dtype == torch.int16 else ""
        raise InputTypeError(f"{_wanted_audio(config)}, not {_name(audio.dtype)}{hint}")
    if audio.dtype == torch.float64 != weights:
        raise InputTypeError(f"{_wanted_audio(config)}, not float64: give audio.float()")
    if audio.ndim != 3 or audio.shape[1] != 1:
        raise InputValueError(f"{_wanted_audio(config)}, not of shape {tuple(audio.shape)}{_remedy(audio)}")
    if audio.shape[0] == 0 or audio.shape[2] == 0:
        raise InputValueError(
            f"{_wanted_audio(config)}, not of shape {tuple(audio.shape)}: there are no samples"
        )


def checked_codes(codes: Any, config: ModelConfig) -> list[Tensor]:
    """Codes that are to be decoded, as int64.

    Raises:
        InputTypeError: they are no list of tensors of whole numbers.
        InputValueError: there is no level or more than the model has, a level is not of shape (B, T) or of a
            length that does not fit the others, or a code is not below the codebook's size.
    """
    wanted = (
        f"codes must be a list of (batch, tokens) int64 tensors, coarse to fine, below {config.codebook_size}"
    )
    if not isinstance(codes, Iterable) or isinstance(codes, (str, bytes, dict)):
        raise InputTypeError(f"{wanted}, not a {type(codes).__name__}")
    levels = list(codes)
    for number, level in enumerate(levels):
        if not isinstance(level, Tensor):
            raise InputTypeError(f"{wanted}; level {number} is a {type(level).__name__}")
        if level.is_floating_point() or level.is_complex() or level.dtype == torch.bool:
            raise InputTypeError(f"{wanted}; level {number} is of {_name(level.dtype)}")
        if level.ndim != 2:
            hint = ": give code.unsqueeze(0)" if level.ndim == 1 else ""
            raise InputValueError(f"{wanted}; level {number} is of shape {tuple(level.shape)}{hint}")
    _check_lengths(levels, config)
    levels = [level.long() for level in levels]
    for number, level in enumerate(levels):
        low, high = int(level.min()), int(level.max())
        if low < 0 or high >= config.codebook_size:
            raise InputValueError(f"{wanted}; level {number} has {low if low < 0 else high}")
    return levels


def _check_lengths(levels: list[Tensor], config: ModelConfig) -> None:
    strides = config.vq_strides
    if not 1 <= len(levels) <= len(strides):
        raise InputValueError(f"codes must have 1 to {len(strides)} levels, not {len(levels)}")
    if len({level.shape[0] for level in levels}) > 1:
        raise InputValueError(f"levels have different batches: {[level.shape[0] for level in levels]}")
    lengths = [level.shape[1] for level in levels]
    frames = {length * stride for length, stride in zip(lengths, strides, strict=False)}
    if len(frames) > 1:
        raise InputValueError(f"levels of {lengths} tokens do not fit the strides {list(strides)}")
    if 0 in frames or levels[0].shape[0] == 0:
        raise InputValueError("codes must have at least one token a level")
    if (total := frames.pop()) % (window := config.attention_window or 1):
        raise InputValueError(
            f"codes of {total} latent frames are no multiple of {window}, the attention's window: add some, "
            f"or leave out {total % window // strides[0]} of the {lengths[0]} tokens of the first level"
        )


def _wanted_audio(config: ModelConfig) -> str:
    return f"audio must be a (batch, 1, samples) tensor of float32 in -1 to 1 at {config.sampling_rate} Hz"


def _remedy(audio: Tensor) -> str:
    """What makes the shape right, where one can tell."""
    if audio.ndim == 1:
        return ": give audio[None, None]"
    if audio.ndim == 2 and audio.shape[0] > audio.shape[1]:
        return ": give audio.T[:, None], each channel by itself"
    if audio.ndim == 2:
        return ": give audio[:, None], each channel by itself"
    if audio.ndim == 3 and audio.shape[2] >= audio.shape[1] > 1:
        return ": give audio.flatten(0, 1)[:, None], each channel by itself"
    return ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
