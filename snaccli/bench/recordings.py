"""Which recordings to measure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from snaccli import audio
from snaccli.errors import UsageError
from snaccli.io.walk import walk

__all__ = ["find_recordings"]


def find_recordings(inputs: Sequence[str | Path]) -> list[Path]:
    """The recordings to measure.

    Args:
        inputs: files, taken as named, and folders, walked recursively for the endings of audio files (see
            `snaccli.io.walk` for what is left out); when empty, the recordings that a checkout ships in
            examples/audio are taken, else those in examples/audio of the current folder.

    Returns:
        Each file once, in the order named; those of a folder sorted.

    Raises:
        UsageError: an input is ``-``, a folder holds no audio, or there is nothing to take by default.
    """
    if not inputs:
        return _shipped_recordings()
    found: dict[Path, None] = {}
    for given in inputs:
        if str(given) == "-":
            raise UsageError("bench reads each recording twice and cannot take standard input: name files")
        path = Path(given)
        if not path.is_dir():
            found[path] = None
            continue
        inside = _audio_files(path)
        if not inside:
            raise UsageError(f"no audio files in the folder {path}: name files, or a folder that holds some")
        found.update(dict.fromkeys(inside))
    return list(found)


def _audio_files(folder: Path) -> list[Path]:
    return [Path(found.path) for found in walk(folder, audio.is_audio_name)]


def _shipped_recordings() -> list[Path]:
    for base in (Path(__file__).resolve().parents[2], Path.cwd()):
        folder = base / "examples" / "audio"
        if folder.is_dir() and (found := _audio_files(folder)):
            return found
    raise UsageError("no recordings are shipped with this installation: name files or folders to measure")
