"""What a codec costs and keeps: bit rate, measures and speed, by encoding and decoding real recordings.

Every recording is coded to the bytes of a ``.snac`` file and back by the command line's codec, and
compared with its original at the original rate. Reading recordings, loading a model and a first warm-up
run are left out of the times.
"""

from __future__ import annotations

from snaccli.bench.gallery import Gallery
from snaccli.bench.html import to_html
from snaccli.bench.peers import Peer, PeerError, parse_peers
from snaccli.bench.perceptual import remark
from snaccli.bench.results import BenchResult, FileResult, to_csv, to_json
from snaccli.bench.running import find_recordings, run
from snaccli.bench.terminal import table

__all__ = [
    "BenchResult",
    "FileResult",
    "Gallery",
    "Peer",
    "PeerError",
    "find_recordings",
    "parse_peers",
    "remark",
    "run",
    "table",
    "to_csv",
    "to_html",
    "to_json",
]
