"""What a codec costs and keeps: bit rate, measures and speed, by encoding and decoding real recordings.

Every recording goes through the same :func:`snaccli.codec.encode_file` and ``decode_file`` that the command
line uses, into a temporary folder, and is then compared with its original at the original rate. Loading
a model and a first warm-up run are left out of the times.
"""

from __future__ import annotations

from snaccli.bench.gallery import Gallery
from snaccli.bench.html import to_html
from snaccli.bench.peers import Peer, PeerError, parse_peers
from snaccli.bench.perceptual import remark
from snaccli.bench.recordings import find_recordings
from snaccli.bench.rendering import to_csv, to_json
from snaccli.bench.results import BenchResult, FileResult
from snaccli.bench.running import run
from snaccli.bench.steps import Tell
from snaccli.bench.terminal import table

__all__ = [
    "BenchResult",
    "FileResult",
    "Gallery",
    "Peer",
    "PeerError",
    "Tell",
    "find_recordings",
    "parse_peers",
    "remark",
    "run",
    "table",
    "to_csv",
    "to_html",
    "to_json",
]
