"""What a codec costs and keeps: bit rate, measures and speed, by encoding and decoding real recordings.

Every recording goes through the same :func:`snaccli.codec.encode_file` and ``decode_file`` that the command
line uses, into a temporary folder, and is then compared with its original at the original rate. Loading
a model and a first warm-up run are left out of the times.
"""

from __future__ import annotations

from snaccli.bench.recordings import find_recordings
from snaccli.bench.rendering import table, to_csv, to_json
from snaccli.bench.results import BenchResult, FileResult
from snaccli.bench.running import Progress, run

__all__ = ["BenchResult", "FileResult", "Progress", "find_recordings", "run", "table", "to_csv", "to_json"]
