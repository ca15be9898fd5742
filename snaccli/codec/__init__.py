"""The stages put together: a recording to a ``.snac`` file, and back.

    audio blocks -> downmix, resample -> engine -> Recording -> coded streams -> container -> file

and the same way back. The recording is never held as a whole; its codes, two bytes each, are.
"""

from __future__ import annotations

from snaccli.codec.api import DecodeResult, EncodeResult, decode_file, encode_file, read, write
from snaccli.codec.codec import Codec
from snaccli.codec.pool import ModelPool
from snaccli.codec.recording import WHOLE, CodedRecording, Recording, Span, dumps, loads

__all__ = [
    "WHOLE",
    "Codec",
    "CodedRecording",
    "DecodeResult",
    "EncodeResult",
    "ModelPool",
    "Recording",
    "Span",
    "decode_file",
    "dumps",
    "encode_file",
    "loads",
    "read",
    "write",
]
