"""Compose short pieces by chance, the same for the same seed, as training material without an owner.

A piece has a key, a mode, a tempo, a form of two or three sections with a chord progression each, and a
band: lead, counter melody, chords, bass, drums, each on a General MIDI program. The aim is not a good tune
but a wide spread of instruments, registers, densities and dynamics.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from midi import DRUM_CHANNEL, Note, Track, encode

MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
# Scale degrees counted from 0, one chord a bar.
PROGRESSIONS = (
    (0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 0), (5, 3, 0, 4), (0, 2, 3, 4), (1, 4, 0, 0), (0, 6, 5, 4),
    (0, 3, 0, 4), (3, 4, 2, 5), (0, 0, 3, 4), (5, 4, 3, 4), (0, 4, 1, 3), (0, 6, 3, 0), (1, 4, 2, 5),
)  # fmt: skip
# General MIDI programs, counted from 0.
LEADS = (
    *(0, 1, *range(4, 10), 11, 12, 13, 15, 21, 22, *range(24, 31), 40, 41, 42, 45, 46, 52, 53, 54),
    *(*range(56, 62), *range(64, 83), 84, 86, *range(104, 112)),
)
CHORDS = (
    *range(8),
    11,
    *range(16, 22),
    *range(23, 28),
    29,
    45,
    46,
    *range(48, 55),
    61,
    62,
    63,
    *range(88, 96),
)
BASSES = (32, 33, 34, 35, 36, 37, 38, 39, 43, 58, 70, 0, 42, 87)
DRUM_KITS = (0, 0, 0, 8, 16, 24, 25, 32, 40, 48)
# Bands that play without drums: programs from the highest part down.
CHAMBER = (
    (40, 40, 41, 42), (73, 68, 71, 70), (56, 56, 60, 57), (0, 0), (24, 24), (19, 19), (52, 52), (6, 6),
    (46, 73), (48, 48, 43), (11, 12), (40, 0), (42, 0), (71, 0), (73, 24), (64, 65, 66, 67), (14, 9),
    (21, 21),
)  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """What all parts of a piece share: the harmony by bar (scale degrees) and the metre."""

    rng: random.Random
    tonic: int
    scale: tuple[int, ...]
    harmony: tuple[int, ...]
    beats: int
    swing: float

    def pitch(self, degree: int, octave: int) -> int:
        """MIDI pitch of a scale degree (any integer) in an octave (4 holds middle C)."""
        turn, step = divmod(degree, 7)
        return min(127, max(0, 12 * (octave + 1 + turn) + self.tonic + self.scale[step]))

    def played(self, start: float, length: float, pitch: int, velocity: float) -> Note:
        """A note as a player would place it: a little early or late, a little louder or softer."""
        if start % 1.0 == 0.5:
            start += self.swing
        start = max(0.0, start + self.rng.gauss(0.0, 0.008))
        loud = min(127, max(12, round(self.rng.gauss(velocity, 6))))
        return Note(start, max(0.05, length), min(127, max(0, pitch)), loud)


def rhythm(rng: random.Random, beats: int, density: float) -> list[tuple[float, float]]:
    """Cut a bar into (start, length) pairs in quarter notes; ``density`` 0..1 makes them shorter."""
    cuts: list[tuple[float, float]] = []
    now = 0.0
    while now < beats:
        choices = [2.0, 1.0, 1.0] if rng.random() > density else [1.0, 0.5, 0.5, 0.5, 0.25, 0.75, 1.0 / 3.0]
        length = min(rng.choice(choices), beats - now)
        repeat = {0.25: 4, 1.0 / 3.0: 3}.get(length, 1)
        for _ in range(repeat):
            if now < beats:
                cuts.append((now, min(length, beats - now)))
                now = round(now + length, 6)
    return cuts


def melody(frame: Frame, octave: int, density: float, velocity: float) -> list[Note]:
    """A walk over the scale that leans on chord notes on the beat; its motifs of one bar come back."""
    rng = frame.rng
    motifs = [
        [
            (start, length, rng.choice((-2, -1, -1, 0, 1, 1, 2, 4, -4)))
            for start, length in rhythm(rng, frame.beats, density)
        ]
        for _ in range(3)
    ]
    notes: list[Note] = []
    position = rng.choice((0, 2, 4))
    for bar, chord in enumerate(frame.harmony):
        if rng.random() < 0.1:
            continue
        for start, length, step in rng.choice(motifs[:2] if bar % 4 < 3 else motifs):
            position += step
            if start % 1.0 == 0.0 and (position - chord) % 7 not in (0, 2, 4):
                position += rng.choice((-1, 1))
            position = position - 7 if position > 11 else position + 7 if position < -5 else position
            if rng.random() < 0.92:
                accent = 8 if start == 0 else 0
                sound = length * rng.uniform(0.6, 1.0)
                notes.append(
                    frame.played(
                        bar * frame.beats + start, sound, frame.pitch(position, octave), velocity + accent
                    )
                )
    return notes


def held_chords(frame: Frame, octave: int, velocity: float) -> list[Note]:
    """Chords of three or four notes, held for the bar."""
    size = frame.rng.choice((3, 3, 4))
    return [
        frame.played(bar * frame.beats, frame.beats * 0.98, frame.pitch(chord + 2 * tone, octave), velocity)
        for bar, chord in enumerate(frame.harmony)
        for tone in range(size)
    ]


def struck_chords(frame: Frame, octave: int, velocity: float) -> list[Note]:
    """Short chords in a rhythm that every bar repeats, a little spread like a strum."""
    hits = rhythm(frame.rng, frame.beats, frame.rng.uniform(0.3, 0.8))
    spread = frame.rng.choice((0.0, 0.0, 0.02, 0.05))
    return [
        frame.played(
            bar * frame.beats + start + tone * spread,
            length * 0.7,
            frame.pitch(chord + 2 * tone, octave),
            velocity + (6 if start == 0 else 0),
        )
        for bar, chord in enumerate(frame.harmony)
        for start, length in hits
        for tone in range(3)
    ]


def arpeggio(frame: Frame, octave: int, velocity: float) -> list[Note]:
    """Broken chords over one to three octaves in even steps."""
    step = frame.rng.choice((0.5, 0.5, 0.25, 1.0 / 3.0))
    tones = [2 * tone for tone in range(frame.rng.choice((3, 4, 6, 7)))]
    order = frame.rng.choice((tones, tones[::-1], tones + tones[-2:0:-1]))
    length = step * frame.rng.choice((0.5, 0.95, 2.0))
    return [
        frame.played(
            bar * frame.beats + index * step,
            length,
            frame.pitch(chord + order[index % len(order)], octave),
            velocity,
        )
        for bar, chord in enumerate(frame.harmony)
        for index in range(round(frame.beats / step))
    ]


def bass_line(frame: Frame, octave: int, velocity: float) -> list[Note]:
    """Roots, fifths and passing notes: held, pumping, or walking."""
    rng = frame.rng
    style = rng.choice(("held", "pump", "walk", "rhythm"))
    groove = rhythm(rng, frame.beats, 0.5)
    notes: list[Note] = []
    for bar, chord in enumerate(frame.harmony):
        line = {
            "held": [(0.0, float(frame.beats), 0)],
            "pump": [(beat / 2, 0.4, 0) for beat in range(2 * frame.beats)],
            "walk": [
                (float(beat), 0.9, (0, 2, 4, rng.choice((5, 6, 1)))[beat % 4]) for beat in range(frame.beats)
            ],
            "rhythm": [(start, length * 0.8, rng.choice((0, 0, 4, 7))) for start, length in groove],
        }[style]
        notes += [
            frame.played(bar * frame.beats + start, length, frame.pitch(chord + step, octave), velocity)
            for start, length, step in line
        ]
    return notes


def drums(frame: Frame, velocity: float) -> list[Note]:
    """A pattern of kick, snare and cymbals, with a fill every fourth bar and some hand percussion."""
    rng = frame.rng
    beats = frame.beats
    kick = sorted({0.0, *(rng.randrange(2 * beats) / 2 for _ in range(rng.randrange(1, 4)))})
    snare = [float(beat) for beat in range(1, beats, 2)] if beats != 3 else [1.0, 2.0]
    step = rng.choice((0.25, 0.5, 0.5, 1.0))
    cymbal = rng.choice((42, 42, 46, 51, 44, 70))
    hand = [
        (rng.randrange(4 * beats) / 4, rng.choice((39, 54, 56, 60, 61, 63, 64, 69, 75, 76))) for _ in range(3)
    ]
    with_hand = rng.random() < 0.4
    notes: list[Note] = []
    for bar in range(len(frame.harmony)):
        hits = [(beat, 36, velocity + 10) for beat in kick] + [(beat, 38, velocity + 5) for beat in snare]
        hits += [(index * step, cymbal, velocity - 20) for index in range(round(beats / step))]
        if with_hand:
            hits += [(beat, pitch, velocity - 10) for beat, pitch in hand]
        if bar % 4 == 3 and rng.random() < 0.7:
            toms = sorted(rng.choices((41, 43, 45, 47, 48, 50, 38), k=4), reverse=True)
            hits += [(beats - 1 + index / 4, pitch, velocity + 5) for index, pitch in enumerate(toms)]
        if bar % 8 == 0:
            hits.append((0.0, rng.choice((49, 57, 55)), velocity))
        notes += [frame.played(bar * beats + beat, 0.2, pitch, loud) for beat, pitch, loud in hits]
    return notes


def _mix(rng: random.Random, track: Track, bars: int, beats: int) -> Track:
    """Set place, reverberation and slow changes of loudness."""
    track.controls += [(0.0, 10, rng.randrange(24, 104)), (0.0, 91, rng.randrange(0, 90))]
    track.controls.append((0.0, 7, rng.randrange(75, 120)))
    if rng.random() < 0.5:
        low, high = rng.randrange(60, 90), 127
        if rng.random() < 0.5:
            low, high = high, low
        track.controls += [
            (float(bar * beats), 11, round(low + (high - low) * bar / bars)) for bar in range(bars)
        ]
    return track


def _band(frame: Frame) -> list[Track]:
    rng = frame.rng
    accompany: tuple[Callable[[Frame, int, float], list[Note]], ...] = (held_chords, struck_chords, arpeggio)
    tracks = [Track(0, rng.choice(LEADS), melody(frame, rng.choice((4, 5, 5)), rng.uniform(0.2, 0.9), 92))]
    for channel in range(1, 1 + rng.choice((1, 1, 2, 2, 3))):
        part = rng.choice(accompany)
        tracks.append(Track(channel, rng.choice(CHORDS), part(frame, rng.choice((3, 3, 4, 4, 5)), 70)))
    if rng.random() < 0.85:
        tracks.append(Track(5, rng.choice(BASSES), bass_line(frame, rng.choice((1, 2, 2)), 88)))
    if rng.random() < 0.35:
        tracks.append(Track(6, rng.choice(LEADS), melody(frame, rng.choice((3, 4, 6)), 0.3, 70)))
    if rng.random() < 0.8:
        tracks.append(Track(DRUM_CHANNEL, rng.choice(DRUM_KITS), drums(frame, rng.uniform(65, 95))))
    return tracks


def _chamber(frame: Frame) -> list[Track]:
    rng = frame.rng
    programs = rng.choice(CHAMBER)
    tracks: list[Track] = []
    for channel, program in enumerate(programs):
        octave = max(2, 5 - channel) if len(programs) > 2 else 5 - 2 * channel
        if channel == len(programs) - 1:
            part = rng.choice((arpeggio, held_chords, bass_line, struck_chords))
            notes = part(frame, min(octave, 3), 72)
        else:
            notes = melody(frame, octave, rng.uniform(0.2, 0.8), 85 - 6 * channel)
        tracks.append(Track(channel, program, notes))
    return tracks


def compose(seed: int, seconds: float = 70.0) -> bytes:
    """The MIDI file (bytes) of the piece numbered ``seed``, about ``seconds`` long."""
    rng = random.Random(seed)
    beats = rng.choice((4, 4, 4, 4, 3, 3, 5, 6))
    tempo = rng.uniform(62.0, 168.0)
    bars = max(8, 4 * round(seconds * tempo / 60.0 / beats / 4))
    sections = [rng.choice(PROGRESSIONS) + rng.choice(PROGRESSIONS) for _ in range(rng.choice((2, 3)))]
    harmony: list[int] = []
    while len(harmony) < bars:
        harmony += rng.choice(sections)
    scale = MODES[rng.choice(("major", "major", "minor", "minor", *MODES))]
    swing = rng.choice((0.0, 0.0, 0.0, 0.08, 0.16))
    frame = Frame(rng, rng.randrange(12), scale, tuple(harmony[:bars]), beats, swing)
    tracks = _band(frame) if rng.random() < 0.7 else _chamber(frame)
    return encode([_mix(rng, track, bars, beats) for track in tracks], tempo)
