"""Render composed pieces through a soundfont with fluidsynth to mono FLAC files."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
from compose import compose
from pack import PEAK, RATE

SYNTH_RATE = 48_000  # the synthesiser aliases near its own limit, so it runs above RATE


def render(midi: bytes, soundfont: Path, target: Path) -> None:
    """Play ``midi`` (bytes of a file) through ``soundfont`` into ``target``: mono FLAC at RATE, peak PEAK."""
    # Without a soundfont it can read, fluidsynth quietly plays the system's own, whose licence may differ.
    if not soundfont.is_file():
        raise FileNotFoundError(f"no such soundfont: {soundfont}")
    with tempfile.TemporaryDirectory() as folder:
        score, wav = Path(folder, "score.mid"), Path(folder, "score.wav")
        score.write_bytes(midi)
        command = ["fluidsynth", "-n", "-i", "-q", "-o", "synth.dynamic-sample-loading=1"]
        command += ["-o", "synth.default-soundfont="]
        command += ["-r", str(SYNTH_RATE), "-g", "0.5", "-T", "wav", "-O", "float", "-F", str(wav)]
        subprocess.run([*command, str(soundfont), str(score)], check=True, stdout=subprocess.DEVNULL)
        samples, rate = soundfile.read(wav, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, RATE, quality="HQ")
    peak = float(np.abs(mono).max(initial=0.0))
    if peak < 1e-3:
        raise RuntimeError(f"{target.name}: {soundfont.name} rendered silence")
    part = target.with_name(target.name + ".part")
    soundfile.write(part, mono * (PEAK / peak), RATE, format="FLAC", subtype="PCM_16")
    os.replace(part, target)


def render_pieces(soundfonts: list[Path], folder: Path, count: int, seconds: float = 70.0) -> list[Path]:
    """Render pieces 0..count-1, the soundfonts in turn, into ``folder``; those already there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = [folder / f"piece-{seed:03}.flac" for seed in range(count)]
    for seed, target in enumerate(targets):
        if not target.exists():
            render(compose(seed, seconds), soundfonts[seed % len(soundfonts)], target)
    return targets
