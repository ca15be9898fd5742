"""The stages put together: a recording to a ``.snac`` file, and back.

    audio blocks -> downmix, resample -> tiles -> codes -> coded streams -> container -> file

and the same way back. The recording is never held as a whole; its codes, two bytes each, are.
"""

from __future__ import annotations

from .decoding import DecodeResult, decode_file
from .encoding import EncodeResult, encode_file, encode_samples
from .model import Codec
from .samples import read, write

__all__ = [
    "Codec",
    "DecodeResult",
    "EncodeResult",
    "decode_file",
    "encode_file",
    "encode_samples",
    "read",
    "write",
]
