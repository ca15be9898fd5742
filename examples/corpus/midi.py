"""Write Standard MIDI Files (format 1): notes, programs, controllers and a tempo, no more.

Source of the byte layout: The Complete MIDI 1.0 Detailed Specification, Standard MIDI Files 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

TICKS = 480  # a quarter note
DRUM_CHANNEL = 9


@dataclass(frozen=True)
class Note:
    """A note; start and length in quarter notes, pitch 0..127, velocity 1..127."""

    start: float
    length: float
    pitch: int
    velocity: int


@dataclass
class Track:
    """The notes of one instrument on its own channel (0..15) with its General MIDI program (0..127).

    ``controls`` holds (quarter, controller, value) triples.
    """

    channel: int
    program: int
    notes: list[Note] = field(default_factory=list)
    controls: list[tuple[float, int, int]] = field(default_factory=list)


def variable_length(value: int) -> bytes:
    """Code a non-negative integer in groups of seven bits, the most significant first."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | (value & 0x7F))
    return bytes(reversed(groups))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + len(body).to_bytes(4, "big") + body


def _track_chunk(events: list[tuple[int, int, bytes]], end: int) -> bytes:
    body = bytearray()
    now = 0
    for tick, _, message in sorted(events):
        body += variable_length(tick - now) + message
        now = tick
    body += variable_length(max(0, end - now)) + b"\xff\x2f\x00"
    return _chunk(b"MTrk", bytes(body))


def _events(track: Track) -> list[tuple[int, int, bytes]]:
    # At one tick: set up, then note offs, then note ons, so that a repeated pitch is not cut at once.
    events = [(0, 0, bytes([0xC0 | track.channel, track.program]))]
    for quarter, controller, value in track.controls:
        events.append((_tick(quarter), 0, bytes([0xB0 | track.channel, controller, value])))
    for note in track.notes:
        start = _tick(note.start)
        stop = max(start + 1, _tick(note.start + note.length))
        events.append((start, 2, bytes([0x90 | track.channel, note.pitch, note.velocity])))
        events.append((stop, 1, bytes([0x80 | track.channel, note.pitch, 0])))
    return events


def _tick(quarter: float) -> int:
    return max(0, round(quarter * TICKS))


def encode(tracks: Iterable[Track], beats_per_minute: float, tail: float = 3.0) -> bytes:
    """The bytes of a MIDI file; it ends ``tail`` quarter notes after the last note."""
    tracks = list(tracks)
    last = max((note.start + note.length for track in tracks for note in track.notes), default=0.0)
    end = _tick(last + tail)
    tempo = b"\xff\x51\x03" + round(60_000_000 / beats_per_minute).to_bytes(3, "big")
    header = b"\x00\x01" + (len(tracks) + 1).to_bytes(2, "big") + TICKS.to_bytes(2, "big")
    chunks = [_chunk(b"MThd", header), _track_chunk([(0, 0, tempo)], 0)]
    chunks += [_track_chunk(_events(track), end) for track in tracks]
    return b"".join(chunks)
