"""The state dict of a model: its fingerprint, and which tensors of which shapes it has. Knows no torch.

A fingerprint is eight bytes that differ when decoding would. A ``.snac`` file carries that of the model that
made it, so any implementation must be able to compute it. It is the BLAKE2b hash (RFC 7693; no key, digest of
8 bytes) of these bytes, one after the other:

1. The twelve ASCII characters ``snac-model-1`` and a line feed (0x0A).
2. What decoding needs to know and the tensors do not tell, as JSON in ASCII without any space, keys in this
   order, whole numbers in decimal, then a line feed. For a model of the published form::

       {"attn_window_size":32,"decoder_rates":[8,8,3,2],"encoder_rates":[2,3,8,8],
        "sampling_rate":32000,"vq_strides":[8,4,2,1]}

   (broken here to fit the page). ``attn_window_size`` is ``null`` for a model without attention. For a model
   of the spectral form::

       {"architecture":"spectral","hop_length":320,"linear_bins":0,"sampling_rate":24000,
        "vq_strides":[8,4,2,1],"window_length":1280}

   (broken likewise).
3. For each tensor of the state dict in the published form (weight norm as
   ``parametrizations.weight.original0`` and ``original1``, never folded; persistent buffers such as
   ``rel_pos.inv_freq`` included), in ascending order of the bytes of its name in UTF-8:

   - the length of the name in bytes, as 32-bit unsigned integer, and the name in UTF-8;
   - the number of dimensions, as 32-bit unsigned integer, and each dimension, as 64-bit unsigned integer;
   - the values in row-major order as IEEE 754 binary32.

   All integers and values are little-endian. Values of 16 bits are widened to 32, which is exact; values of
   64 bits are rounded to nearest. The bits are hashed as they are: 0.0 and -0.0 differ.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from snac.config import ATTENTION_HEAD, ModelConfig, SpectralConfig, Stack, WaveformConfig
from snac.spectrum import TAPS

FINGERPRINT_BYTES = 8
_PREFIX = b"snac-model-1\n"

Shapes = dict[str, tuple[int, ...]]
Layer = tuple[str, str, int, int, int]
"""A layer's name, its kind, a key of ``_TENSORS``, and its outputs, inputs and taps, 0 where it has none."""

_KERNEL = 7  # taps of the convolutions that keep the rate
_UNITS = 3  # residual units a block
_MAGNITUDE, _DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"

# The tensors of a layer of each kind: o outputs, i inputs, k taps. Convolutions other than "plain" have
# weight norm: a magnitude for each slice of the first axis, and a direction.
_TENSORS = {
    "convolution": {"bias": "o", _MAGNITUDE: "o11", _DIRECTION: "oik"},
    "unbiased": {_MAGNITUDE: "o11", _DIRECTION: "oik"},
    "transposed": {"bias": "o", _MAGNITUDE: "i11", _DIRECTION: "iok"},
    "plain": {"weight": "oik", "bias": "o"},
    "linear": {"weight": "oi", "bias": "o"},
    "table": {"weight": "oi"},
    "norm": {"weight": "o", "bias": "o"},
    "snake": {"alpha": "1o1"},
    "vector": {"": "o"},
}


def fingerprint(config: ModelConfig, state_dict: Mapping[str, Any]) -> bytes:
    """The 8-byte fingerprint of a model, as the text of this module defines it.

    It does not depend on the order of the keys, the device, the memory layout, or on whether exactly
    representable values are stored in 16 or 32 bits.

    Args:
        config: the model's configuration.
        state_dict: its weights in the published form: a NumPy array or a torch tensor a name.

    Raises:
        ValueError: a value is not of floating point, or a weight norm was folded.
    """
    digest = hashlib.blake2b(_PREFIX, digest_size=FINGERPRINT_BYTES)
    digest.update(json.dumps(config.geometry(), separators=(",", ":")).encode("ascii") + b"\n")
    if not any(name.endswith(".parametrizations.weight.original0") for name in state_dict):
        raise ValueError("the fingerprint is that of the published form: take it before the model is folded")
    for encoded, name in sorted((name.encode("utf-8"), name) for name in state_dict):
        array = as_float32(name, state_dict[name])
        digest.update(struct.pack("<I", len(encoded)) + encoded)
        digest.update(struct.pack(f"<I{array.ndim}Q", array.ndim, *array.shape))
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.digest()


def as_float32(name: str, value: Any) -> np.ndarray:
    """The values in row-major order as little-endian float32; a copy only where they are something else.

    Args:
        name: of the values, for the message.
        value: a NumPy array or a torch tensor.

    Raises:
        ValueError: the values are not of floating point.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f":
            raise ValueError(f"{name} is of {value.dtype}, not of floating point")
    else:  # a tensor of torch, which is not imported here
        if not value.is_floating_point():
            raise ValueError(f"{name} is of {value.dtype}, not of floating point")
        value = value.detach().cpu().float().numpy()
    array: np.ndarray = np.asarray(value, dtype="<f4", order="C")
    return array


def state_shapes(config: ModelConfig) -> Shapes:
    """The names and shapes of a model's state dict in the published form, in its order."""
    if isinstance(config, SpectralConfig):
        encoder = _stack("encoder", config.features, config.encoder, ("project", config.latent_dim))
        decoder = _stack("decoder", config.latent_dim, config.decoder, ("head", config.spectrum_values))
    else:
        assert isinstance(config, WaveformConfig)
        encoder, decoder = _waveform_encoder(config), _waveform_decoder(config)
    shapes: Shapes = {}
    for name, kind, outputs, inputs, taps in (*encoder, *_quantizer(config), *decoder):
        sizes = {"o": outputs, "i": inputs, "k": taps, "1": 1}
        for tensor, shape in _TENSORS[kind].items():
            shapes[f"{name}.{tensor}".rstrip(".")] = tuple(sizes[size] for size in shape)
    return shapes


def _quantizer(config: ModelConfig) -> Iterator[Layer]:
    latent, dim = config.latent_channels, config.codebook_dim
    for level in range(len(config.vq_strides)):
        name = f"quantizer.quantizers.{level}"
        yield f"{name}.in_proj", "convolution", dim, latent, 1
        yield f"{name}.out_proj", "convolution", latent, dim, 1
        yield f"{name}.codebook", "table", config.codebook_size, dim, 0


def _stack(name: str, inputs: int, size: Stack, last: tuple[str, int]) -> Iterator[Layer]:
    """A stack of ConvNeXt blocks, and a linear layer of this name and with so many outputs."""
    yield f"{name}.embed", "plain", size.dim, inputs, TAPS
    yield f"{name}.norm", "norm", size.dim, 0, 0
    for block in range(size.blocks):
        within = f"{name}.blocks.{block}"
        yield f"{within}.scale", "vector", size.dim, 0, 0
        yield f"{within}.depthwise", "plain", size.dim, 1, TAPS
        yield f"{within}.norm", "norm", size.dim, 0, 0
        yield f"{within}.expand", "linear", size.hidden, size.dim, 0
        yield f"{within}.contract", "linear", size.dim, size.hidden, 0
    yield f"{name}.final_norm", "norm", size.dim, 0, 0
    yield f"{name}.{last[0]}", "linear", last[1], size.dim, 0


def _waveform_encoder(config: WaveformConfig) -> Iterator[Layer]:
    width, number = config.encoder_dim, 0
    yield "encoder.block.0", "convolution", width, 1, _KERNEL
    for number, stride in enumerate(config.encoder_rates, 1):
        block = f"encoder.block.{number}.block"
        for unit in range(_UNITS):
            yield from _unit(f"{block}.{unit}", width, config.depthwise)
        yield f"{block}.{_UNITS}", "snake", width, 0, 0
        yield f"{block}.{_UNITS + 1}", "convolution", 2 * width, width, 2 * stride
        width *= 2
    if config.attn_window_size is not None:
        number += 1
        yield from _attention(f"encoder.block.{number}", width)
    yield f"encoder.block.{number + 1}", "convolution", width, 1 if config.depthwise else width, _KERNEL


def _waveform_decoder(config: WaveformConfig) -> Iterator[Layer]:
    latent, width, number = config.latent_channels, config.decoder_dim, 0
    if config.depthwise:
        yield "decoder.model.0", "convolution", latent, 1, _KERNEL
        yield "decoder.model.1", "convolution", width, latent, 1
        number = 1
    else:
        yield "decoder.model.0", "convolution", width, latent, _KERNEL
    if config.attn_window_size is not None:
        number += 1
        yield from _attention(f"decoder.model.{number}", width)
    for stride in config.decoder_rates:
        number += 1
        block, first = f"decoder.model.{number}.block", 3 if config.noise else 2
        yield f"{block}.0", "snake", width, 0, 0
        yield f"{block}.1", "transposed", width // 2, width, 2 * stride
        width //= 2
        if config.noise:
            yield f"{block}.2.linear", "unbiased", width, width, 1
        for unit in range(first, first + _UNITS):
            yield from _unit(f"{block}.{unit}", width, config.depthwise)
    yield f"decoder.model.{number + 1}", "snake", width, 0, 0
    yield f"decoder.model.{number + 2}", "convolution", 1, width, _KERNEL


def _unit(name: str, channels: int, depthwise: bool) -> Iterator[Layer]:
    yield f"{name}.block.0", "snake", channels, 0, 0
    yield f"{name}.block.1", "convolution", channels, 1 if depthwise else channels, _KERNEL
    yield f"{name}.block.2", "snake", channels, 0, 0
    yield f"{name}.block.3", "convolution", channels, channels, 1


def _attention(name: str, channels: int) -> Iterator[Layer]:
    yield f"{name}.norm", "norm", channels, 0, 0
    yield f"{name}.to_qkv", "table", 3 * channels, channels, 0
    yield f"{name}.rel_pos.inv_freq", "vector", ATTENTION_HEAD // 2, 0, 0
    yield f"{name}.to_out", "table", channels, channels, 0
