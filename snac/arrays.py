"""Files of arrays in the safetensors format: mapped into memory and read by NumPy alone."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from snac.errors import ModelError

# Of an array: no model's has more than four, and the product of many sizes takes time that grows with the
# square of their number.
_MAX_DIMENSIONS = 8
_MAX_HEADER = 100_000_000  # bytes; the bound of the safetensors format

_KINDS: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, mapped. The layout is that of the format's description.

    https://github.com/huggingface/safetensors#format: the length of a header as 64-bit little-endian integer,
    the header in JSON, then the values of the tensors, one after the other without gaps.

    Raises:
        ModelError: the file cannot be read, or is damaged.
    """
    try:
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {first_line(error)}") from error
    try:
        start = 8 + int.from_bytes(mapped[:8], "little")
        if start > min(8 + _MAX_HEADER, len(mapped)):
            raise ValueError(f"a header of {start - 8} bytes")
        objects = json.loads(mapped[8:start], object_pairs_hook=tuple)  # as pairs: a name may stand twice
        entries: dict[str, Any] = {}
        for name, pairs in objects:
            entry = dict(pairs) if isinstance(pairs, tuple) else pairs
            if name in entries or (isinstance(pairs, tuple) and len(entry) != len(pairs)):
                raise ValueError("a name stands twice in the header")
            entries[name] = entry
        entries.pop("__metadata__", None)
        if not entries:
            raise ValueError("holds no weights")
        arrays, end = {}, 0
        for name, entry in sorted(entries.items(), key=lambda item: tuple(item[1]["data_offsets"])):
            kind, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
            if not all(type(size) is int and size >= 0 for size in (*shape, first, last)):
                raise ValueError(f"{name} has sizes that are no whole numbers")
            if first != end or last < first:
                raise ValueError(f"the values of {name} do not follow those before")
            if len(shape) > _MAX_DIMENSIONS:
                raise ValueError(f"{name} has {len(shape)} dimensions")
            if kind not in _KINDS:
                raise ValueError(f"{name} is of the unknown type {kind!r}")
            dtype, count, end = np.dtype(_KINDS[kind]), math.prod(shape), last
            if count * dtype.itemsize != last - first:
                raise ValueError(f"{name} has {last - first} bytes instead of {count * dtype.itemsize}")
            array = np.frombuffer(mapped, dtype, count, start + first) if count else np.empty(0, dtype)
            if kind == "BF16":  # the upper half of a float32
                array = (array.astype(np.uint32) << 16).view(np.float32)
            if kind == "F64" or (start + first) % dtype.itemsize:
                array = array.astype(np.float32 if kind == "F64" else dtype)
            arrays[name] = array.reshape(shape)
        if start + end != len(mapped):
            raise ValueError(f"{len(mapped)} bytes instead of {start + end}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: damaged or cut off ({first_line(error)}): fetch it again") from error
    return {name: arrays[name] for name in entries}


def metadata_of(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself under ``__metadata__``; nothing if it cannot be read."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            found = json.loads(file.read(min(length, _MAX_HEADER))).get("__metadata__", {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    told = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in told if isinstance(value, str)}


def safetensors_bytes(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file."""
    from safetensors.numpy import save

    content: bytes = save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata)
    )
    return content


def first_line(error: BaseException) -> str:
    """The first line of what an error says, at most 120 characters, or its name."""
    return str(error).partition("\n")[0][:120] or type(error).__name__
