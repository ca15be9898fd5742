"""Audio files and their samples: reading, resampling, writing, block by block and never as a whole.

Samples are float32 arrays of shape (n, channels), nominally -1 to 1. Knows no torch.
"""

from __future__ import annotations

from snaccli.audio.read import (
    BLOCK_FRAMES,
    FULL_SCALE_LIMIT,
    MAX_CHANNELS,
    MAX_RATE,
    AudioInfo,
    AudioReader,
    open_audio,
    probe,
)
from snaccli.audio.resampling import downmix, fit, resample, resample_span, resampled_length
from snaccli.audio.write import (
    AudioFormat,
    AudioWriter,
    as_16_bits,
    is_audio_name,
    output_format,
    wav_header,
    writable_formats,
)

__all__ = [
    "BLOCK_FRAMES",
    "FULL_SCALE_LIMIT",
    "MAX_CHANNELS",
    "MAX_RATE",
    "AudioFormat",
    "AudioInfo",
    "AudioReader",
    "AudioWriter",
    "as_16_bits",
    "downmix",
    "fit",
    "is_audio_name",
    "open_audio",
    "output_format",
    "probe",
    "resample",
    "resample_span",
    "resampled_length",
    "wav_header",
    "writable_formats",
]
