"""A fingerprint of a model: eight bytes that differ when decoding would.

A ``.snac`` file carries the fingerprint of the model that made it, so any implementation must be able to
compute it. It is the BLAKE2b hash (RFC 7693; no key, digest of 8 bytes) of these bytes, one after the other:

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
from collections.abc import Mapping
from typing import Any

import numpy as np

from snac.config import ModelConfig

FINGERPRINT_BYTES = 8
_PREFIX = b"snac-model-1\n"


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
