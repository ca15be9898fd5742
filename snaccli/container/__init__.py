"""The ``.snac`` file, version 1: header, table of streams, payloads. docs/format.md is the normative text.

The container knows bytes and the coders' numbers, not what the coders do; it knows no torch. Whatever a
file claims is checked against the bytes that would have to be there before anything is allocated.
"""

from snaccli.container.header import Header, Layout, StreamEntry
from snaccli.container.payloads import Damage, describe, pack, read_header, unpack, verify

__all__ = [
    "Damage",
    "Header",
    "Layout",
    "StreamEntry",
    "describe",
    "pack",
    "read_header",
    "unpack",
    "verify",
]
