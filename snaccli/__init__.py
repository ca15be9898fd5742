"""The ``.snac`` file format and the ``snac`` command line.

``encode_file`` and ``decode_file`` do what the commands do; ``read`` and ``write`` take and give samples.
Importing ``snaccli`` imports neither NumPy nor torch. NumPy comes with the first use of a function; torch is
for GPUs, arithmetic in 16 bits, and weights that are a pickle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snaccli.errors import SnacError

if TYPE_CHECKING:
    from snaccli.codec import Codec, DecodeResult, EncodeResult, decode_file, encode_file, read, write

__all__ = [
    "Codec",
    "DecodeResult",
    "EncodeResult",
    "SnacError",
    "decode_file",
    "encode_file",
    "read",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from snaccli import codec

        return getattr(codec, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
