"""Audio files and their samples: reading, resampling, writing, block by block and never as a whole.

Samples are float32 arrays of shape (n, channels), nominally -1 to 1. Knows no torch.
"""

from __future__ import annotations

from snaccli.audio.formats import AudioFormat, is_audio_name, named_format, output_format, writable_formats
from snaccli.audio.read import (
    BLOCK_FRAMES,
    MAX_CHANNELS,
    MAX_RATE,
    AudioInfo,
    AudioReader,
    open_audio,
    probe,
)
from snaccli.audio.resampling import (
    cut,
    downmix,
    filter_reach,
    fit,
    resample,
    resample_start,
    resampled_length,
)
from snaccli.audio.write import AudioWriter

__all__ = [
    "BLOCK_FRAMES",
    "MAX_CHANNELS",
    "MAX_RATE",
    "AudioFormat",
    "AudioInfo",
    "AudioReader",
    "AudioWriter",
    "cut",
    "downmix",
    "filter_reach",
    "fit",
    "is_audio_name",
    "named_format",
    "open_audio",
    "output_format",
    "probe",
    "resample",
    "resample_start",
    "resampled_length",
    "writable_formats",
]
