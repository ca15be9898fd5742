"""A model beside Opus and Codec 2, on the same recordings, by the same measures, as Markdown.

    python -m tests.benchmarks.peers [-m MODEL] [--against CODEC:RATE,...] [RECORDING...]

What `snac bench --against` measures, but with all recordings first brought to 24 kHz mono, so that no codec
pays for a band that a 24 kHz model cannot have. Needs opusenc, opusdec, c2enc and c2dec (Debian: opus-tools,
codec2), and snaccli[metrics] for STOI and PESQ.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from snaccli import audio
from snaccli.bench import BenchResult, find_recordings, parse_peers, run
from snaccli.bench.results import FIGURES

RATE = 24_000
COLUMNS = ("bitrate_kbps", "mel_distance", "lsd_db", "si_sdr_db", "stoi", "pesq")


def reference(path: Path, folder: Path) -> Path:
    """The recording as everybody gets it: mono, 24 kHz, 16 bits."""
    target = folder / f"{path.stem}.wav"
    with audio.open_audio(path) as original, audio.AudioWriter(target, RATE, 1) as writer:
        for block in audio.resample(audio.downmix(original.blocks()), original.rate, RATE, 1):
            writer.write(block)
    return target


def row(name: str, result: BenchResult, number: int) -> str:
    """One line of the table."""
    file = result.files[number]
    if file.error is not None:
        return f"| {name} | {result.label} | {file.error} |"
    shown = [figure.text(getattr(file, figure.key)) for figure in FIGURES if figure.key in COLUMNS]
    return f"| {name} | {result.label} | {' | '.join(shown)} |"


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recordings", nargs="*", help="by default those of examples/audio")
    parser.add_argument("-m", "--model", default="mini")
    parser.add_argument("--against", action="append", help="by default opus:6,12 and codec2:1200,3200")
    arguments = parser.parse_args()
    peers = parse_peers(arguments.against or ["opus:6,12", "codec2:1200,3200"])
    for peer in peers:
        peer.check()
    recordings = find_recordings(arguments.recordings)
    with tempfile.TemporaryDirectory() as folder:
        copies = [reference(path, Path(folder)) for path in recordings]
        results = run(copies, [arguments.model], against=peers)
    names = {figure.key: f"{figure.name} {figure.unit}".strip() for figure in FIGURES}
    shown = [names[figure.key] for figure in FIGURES if figure.key in COLUMNS]
    print(f"| recording | codec | {' | '.join(shown)} |")
    print("|---" * (2 + len(shown)) + "|")
    for number, path in enumerate(recordings):
        for result in results:
            print(row(path.stem, result, number))


if __name__ == "__main__":
    main()
