"""Audio files of libsndfile's formats. Most have no checksums, so a changed file may well be other sound.

What libsndfile does not know would go to ``ffmpeg``; there is none on the fuzzer's PATH.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from snaccli.audio import open_audio
from snaccli.codec import Codec
from tests.fuzz import mutate
from tests.fuzz.cases import Case, promise
from tests.fuzz.originals import World

FORMATS = (
    ("WAV", "PCM_16", "wav"),
    ("WAV", "FLOAT", "wav"),
    ("WAV", "IMA_ADPCM", "wav"),
    ("WAVEX", "PCM_24", "wav"),
    ("RF64", "PCM_16", "wav"),
    ("FLAC", "PCM_16", "flac"),
    ("OGG", "VORBIS", "ogg"),
    ("OGG", "OPUS", "opus"),
    ("MP3", "MPEG_LAYER_III", "mp3"),
    ("AIFF", "PCM_16", "aiff"),
    ("CAF", "PCM_16", "caf"),
    ("CAF", "ALAC_16", "caf"),
    ("AU", "PCM_16", "au"),
    ("W64", "PCM_16", "w64"),
)
SECONDS_DECODED = 600.0  # of audio that a case decodes at most: some formats repeat a silence in few bytes


class Audio:
    """See :class:`tests.fuzz.cases.Kind`."""

    name = "audio"
    seconds = 0.001
    memory = 2000.0

    def __init__(self, folder: Path) -> None:
        self._world = World(folder)
        self._originals: list[tuple[str, bytes]] = []
        for number, (container, encoding, extension) in enumerate(FORMATS):
            for channels in (1, 2):
                out = io.BytesIO()
                soundfile.write(out, _sound(channels), 8000, format=container, subtype=encoding)
                data = out.getvalue()
                if container == "OGG":  # libsndfile draws the number of the stream
                    data = mended_ogg(data, serial=number)
                self._originals.append((f"case.{extension}", _undated(data)))
        wave = self._originals[0][1]
        unfilled = bytearray(wave)
        unfilled[4:8], unfilled[40:44] = bytes(4), bytes(4)
        self._originals.append(("case.wav", bytes(unfilled)))

    @property
    def _codec(self) -> Codec:
        return self._world.codec

    def case(self, rng: Random) -> Case:
        """See :class:`tests.fuzz.cases.Kind`."""
        origin = rng.randrange(len(self._originals))
        name, data = self._originals[origin]
        others = [other for its, other in self._originals if its == name]
        way = rng.randrange(4)
        if way == 0:
            changed = mutate.mutated(rng, data, others)
        elif way == 1:  # the head, where the sizes stand
            count = rng.choice((16, 64, 128, 512))
            changed = mutate.mutated(rng, data[:count], others) + data[count:]
        elif way == 2:
            changed = _changed_chunk(rng, data)
        else:
            changed = mutate.mutated(rng, data, [other for _, other in self._originals])
        repaired = name.endswith(("ogg", "opus")) and rng.random() < 0.7
        return Case({name: mended_ogg(changed) if repaired else changed}, "", origin, repaired)

    def run(self, case: Case, folder: Path, rng: Random) -> str:
        """See :class:`tests.fuzz.cases.Kind`."""
        ((name, _),) = case.files.items()
        with open_audio(folder / name) as reader:
            rate, channels = reader.rate, reader.channels
            promise(1 <= channels <= 16 and 1 <= rate <= 768_000, "channels or rate out of range")
            most, count, kept = int(SECONDS_DECODED * 8000), 0, []
            for block in reader.blocks(4096):
                promise(block.dtype == np.float32 and block.shape[1] == channels, "a block of another kind")
                promise(bool(np.isfinite(block).all()), "a sample that is not finite")
                count += len(block)
                if count < 20_000:
                    kept.append(block)
                if count > most:
                    return "endless"
            repr(reader.notes)
        if rng.random() < 0.1 and 4000 <= rate <= 96_000:
            recording = self._codec.encode(kept, rate, channels)
            promise(recording.samples == sum(map(len, kept)), "the recording has another length")
        return "read"


def _undated(data: bytes) -> bytes:
    """A WAV file without the time that libsndfile keeps with the peaks of floats."""
    at = data.find(b"PEAK")
    return data if at < 0 else data[: at + 12] + bytes(4) + data[at + 16 :]


def _sound(channels: int) -> np.ndarray:
    rng = np.random.default_rng(channels)
    time = np.arange(1600)[:, None] / 8000
    return 0.3 * np.sin(2 * np.pi * 440 * time * np.arange(1, channels + 1)) + 0.02 * rng.standard_normal(
        (1600, 1)
    )


def _changed_chunk(rng: Random, data: bytes) -> bytes:
    """A file in which the length behind a name of four letters is another, or a chunk stands twice."""
    at = [n for n in range(4, len(data) - 8) if data[n : n + 4].isalpha() and data[n : n + 4].isascii()]
    if not at:
        return mutate.mutated(rng, data)
    place = rng.choice(at[:8]) + 4
    if rng.random() < 0.3:
        piece = data[place - 4 : place + rng.randrange(4, 60)]
        return data[: place - 4] + piece * rng.choice((1, 2, 40)) + data[place - 4 :]
    number = mutate.number(rng)
    layout = rng.choice(("<I", ">I", "<Q", ">Q", "<H", ">H"))
    width = struct.calcsize(layout)
    return data[:place] + struct.pack(layout, number & ((1 << 8 * width) - 1)) + data[place + width :]


def mended_ogg(data: bytes, serial: int | None = None) -> bytes:
    """An Ogg file whose pages have the checksums that fit (RFC 3533), and a serial number if one is given."""
    out, at = bytearray(data), 0
    while out[at : at + 4] == b"OggS" and at + 27 <= len(out):
        table = out[at + 27 : at + 27 + out[at + 26]]
        end = at + 27 + len(table) + sum(table)
        if serial is not None:
            out[at + 14 : at + 18] = struct.pack("<I", serial)
        out[at + 22 : at + 26] = bytes(4)
        out[at + 22 : at + 26] = struct.pack("<I", _ogg_checksum(bytes(out[at:end])))
        at = end
    return bytes(out)


def _table() -> list[int]:
    table = []
    for value in range(256):
        value <<= 24
        for _ in range(8):
            value = value << 1 & 0xFFFFFFFF ^ (0x04C11DB7 if value >> 31 else 0)
        table.append(value)
    return table


_TABLE = _table()


def _ogg_checksum(page: bytes) -> int:
    checksum = 0
    for byte in page:
        checksum = checksum << 8 & 0xFFFFFFFF ^ _TABLE[checksum >> 24 ^ byte]
    return checksum
