"""The stages put together: a recording to a ``.snac`` file, and back.

    audio blocks -> downmix, resample -> tiles -> codes -> coded streams -> container -> file

and the same way back. The recording is never held as a whole; its codes, two bytes each, are.
"""

from __future__ import annotations

from snaccli.codec.decoding import DecodeResult, decode_file
from snaccli.codec.encoding import EncodeResult, encode_file, encode_samples
from snaccli.codec.model import Codec
from snaccli.codec.samples import read, write

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
