"""Which names in a folder are those of recordings."""

from __future__ import annotations

import os

__all__ = ["is_audio_name"]

_LIBSNDFILE = "wav wave flac ogg oga opus mp3 aif aiff aifc caf au snd w64 rf64 voc sph"
_FFMPEG = "m4a m4b aac mp4 m4v mka mkv mov webm wma wmv avi amr 3gp ac3 eac3 dts wv ape mp2 spx gsm"
_ENDINGS = frozenset(f".{ending}" for ending in f"{_LIBSNDFILE} {_FFMPEG}".split())


def is_audio_name(name: str) -> bool:
    """Whether a file of this name is worth opening as a recording: by its ending, in any case."""
    return os.path.splitext(name)[1].lower() in _ENDINGS
