"""Recordings as arrays, after the manner of soundfile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from snaccli.audio import MAX_CHANNELS, MAX_RATE
from snaccli.codec.decoding import DecodeOptions, read_coded, start_decoding
from snaccli.codec.encoding import encode_samples
from snaccli.codec.model import Codec
from snaccli.errors import AudioError
from snaccli.io.files import open_output


def read(path: str | Path, *, model: str | Codec | None = None) -> tuple[npt.NDArray[np.float32], int]:
    """Decodes a whole ``.snac`` file.

    Args:
        path: of the file.
        model: to decode with; by default the one the file names, if that is one of the known ones.

    Returns:
        samples, float32, nominally -1 to 1, of shape (n,) for one channel and (n, channels) for more, and
        their rate in Hz: those of the recording that was encoded.

    Raises:
        SnacError: a named subclass: the file or the model cannot be used.
    """
    options = DecodeOptions(model=model)
    coded = read_coded(path, options)
    channels = coded.header.channels
    blocks = start_decoding(coded, options).blocks
    samples = np.concatenate([np.zeros((0, channels), np.float32), *blocks])
    return samples[:, 0] if channels == 1 else samples, coded.rate


def write(
    path: str | Path,
    samples: npt.ArrayLike,
    rate: int,
    *,
    model: str | Codec = "mini",
    overwrite: bool = True,
) -> int:
    """Encodes samples to a ``.snac`` file.

    Args:
        path: of the file, replaced if it exists (unless ``overwrite`` is False), whole or not at all.
        samples: floats, nominally -1 to 1, of shape (n,) or (n, channels); each channel is coded by itself.
            Integers are refused: their full scale is not known here.
        rate: in Hz, 1 to 768,000.
        model: to encode with.
        overwrite: whether an existing file may be replaced.

    Returns:
        the size of the file in bytes.

    Raises:
        AudioError: the samples are not such an array, or hold NaN or infinite values.
        SnacError: a named subclass: the model cannot be used, or the file cannot be written.
    """
    array = np.asarray(samples)
    if not np.issubdtype(array.dtype, np.floating) or array.ndim not in (1, 2):
        raise AudioError(f"samples are {array.dtype} {array.shape}; give floats (n,) or (n, channels)")
    array = array.astype(np.float32, copy=False).reshape(len(array), -1) if array.size else _empty(array)
    if not 1 <= array.shape[1] <= MAX_CHANNELS:
        raise AudioError(f"samples have {array.shape[1]} channels; give 1 to {MAX_CHANNELS}")
    if not 1 <= rate <= MAX_RATE:
        raise AudioError(f"a rate of {rate} Hz is not in 1..{MAX_RATE}")
    if not np.isfinite(array).all():
        raise AudioError("samples hold NaN or infinite values; mend them first")
    codec = model if isinstance(model, Codec) else Codec.load(model)
    data, _ = encode_samples(codec, [array], rate, array.shape[1])
    with open_output(path, overwrite=overwrite) as file:
        file.write(data)
    return len(data)


def _empty(array: np.ndarray) -> np.ndarray:
    return np.zeros((0, array.shape[1] if array.ndim == 2 else 1), dtype=np.float32)
