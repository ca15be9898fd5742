"""How names, errors and quantities are worded on one line of a terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping

from snac.errors import BrokenDownloadError, ChangedModelError, UnreachableModelError
from snaccli.errors import (
    FileError,
    ParameterError,
    RemediedError,
    Remedy,
    SnacError,
    UnknownModelError,
    cause,
    printable,
    shown,
)

__all__ = ["bitrate", "clock", "count", "explain", "joined", "size", "speed", "usage"]


def joined(*parts: str) -> str:
    """Returns what is told of a file or of a run, as one line; empty parts are left out."""
    return "  ".join(part for part in parts if part)


REMEDIES: Mapping[Remedy, str] = {
    Remedy.OVERWRITE: ": give -f to overwrite it",
    Remedy.OTHER_OUTPUT: ": choose another output with -o",
    Remedy.FILE_IN_FOLDER: ": name a file in it with -o",
    Remedy.OTHER_FOLDER: ": create it, or choose another with -o",
    Remedy.NAME_OUTPUT: ": name a file with -o",
    Remedy.FILE_OR_PIPE: ": redirect it, or name a file with -o",
    Remedy.NAME_MODEL: "; name the model, or its folder, with -m",
    Remedy.OTHER_MODEL: "; name the right one with -m",
    Remedy.OTHER_MODEL_OR_FORCE: "; name the right model with -m, or force it with --any-weights",
    Remedy.SALVAGE: "; get the file again, or decode what is intact of it with --salvage",
    Remedy.OTHER_FORMAT_OR_RATE: ": choose another format such as wav or flac, or --rate model",
    Remedy.ALREADY_CODED: ": `snac decode` turns it into audio",
    Remedy.NAME_PRIOR: "; name its file with --prior, or put it beside the weights as prior.safetensors; "
    "'snac models pull MODEL' fetches that of a model of the Hub",
    Remedy.OTHER_PRIOR: "; name the right one with --prior, or code without one: --no-prior",
    Remedy.SMALLER_IDS: "; choose a smaller --start-id",
    Remedy.SAME_FORMAT: "; choose another folder, or the same --format",
    Remedy.TOKEN_FILE: "; give what 'snac tokens export' writes, or a JSON list of ids",
    Remedy.RESUME: "; --resume goes on from there",
    Remedy.PREPARE: ": `snac prepare` makes a folder for training",
}
"""The remedies as the options of the command line."""

RESUMABLE: Mapping[Remedy, str] = {
    **REMEDIES,
    Remedy.OVERWRITE: ": give -f to overwrite it, or --skip-existing",
}
"""The same for commands that have ``--skip-existing``."""

OPTIONS = {"levels": "--levels", "changes": "--set", "against": "--against"}
"""The parameters of the library that errors name, as the options of the command line."""


def explain(
    error: BaseException, subject: str | None = None, remedies: Mapping[Remedy, str] = REMEDIES
) -> str:
    """Returns the one line that tells the user of `error`.

    Args:
        error: what went wrong.
        subject: the name of the file at fault, which leads the line unless the error begins with it.
        remedies: `REMEDIES` or `RESUMABLE`, as the command at hand has options.
    """
    text = printable(" ".join(_words(error, subject, remedies).split()))
    if subject is None or (isinstance(error, FileError) and error.path == subject):
        return text
    return f"{shown(subject)}: {text}"


def _words(error: BaseException, subject: str | None, remedies: Mapping[Remedy, str]) -> str:
    if isinstance(error, FileError):
        return error.line(remedies)
    if isinstance(error, ParameterError):
        option = OPTIONS.get(error.parameter, f"--{error.parameter.replace('_', '-')}")
        return f"{option} {error.value}: {error.problem}"
    if isinstance(error, (RemediedError, UnknownModelError)) and error.remedy is not None:
        return error.problem + remedies[error.remedy]
    if isinstance(error, (UnreachableModelError, BrokenDownloadError, ChangedModelError)):
        return _fetch(error)
    if isinstance(error, SnacError):
        return str(error)
    if isinstance(error, OSError):
        named = error.filename is not None and os.fsdecode(error.filename) != subject
        return f"{shown(os.fsdecode(error.filename))}: {cause(error)}" if named else cause(error)
    if isinstance(error, MemoryError):
        return "not enough memory: close other programs, or use fewer --jobs"
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"this is a defect of snac: {what}: run again with --debug and report the traceback"


def _fetch(error: UnreachableModelError | BrokenDownloadError | ChangedModelError) -> str:
    """Returns what is told of a model whose files are missing or amiss, with the command that fetches it."""
    command = f"`snac models pull {error.name}`"
    if isinstance(error, BrokenDownloadError):
        return f"{error.repository}: the download broke off ({error.reason}): run {command}"
    if isinstance(error, ChangedModelError):
        return f"{error.path}: {error.problem}; fetch it again with {command}"
    folder = error.cache_folder
    return (
        f"model {error.name!r} is not on this machine ({error.reason}): run {command} on a connected machine "
        f"and copy the folder {folder.name} of its cache into {folder.parent} here, or give any folder with "
        "config.json and weights as -m FOLDER"
    )


def usage(message: str) -> str:
    """Returns what the parser of the command line complains of, as one line in the manner of the others."""
    text = printable(" ".join(message.split())).rstrip(".")
    return text[:1].lower() + text[1:]


def clock(seconds: float) -> str:
    """Returns a length of time: ``4.2 s`` below a minute, ``3:25`` or ``1:02:03`` above.

    >>> clock(4.2), clock(59.97), clock(205), clock(3723.4)
    ('4.2 s', '1:00', '3:25', '1:02:03')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(amount: int) -> str:
    """Returns a number of bytes in decimal units: ``812 B``, ``36.4 kB``, ``1.2 MB``.

    >>> size(812), size(36_400), size(999_950), size(1_234_567_890)
    ('812 B', '36.4 kB', '1.0 MB', '1.2 GB')
    """
    if amount < 1000:
        return f"{amount} B"
    scaled = float(amount)
    for unit in ("kB", "MB", "GB"):
        scaled /= 1000
        if round(scaled, 1) < 1000:
            return f"{scaled:.1f} {unit}"
    return f"{scaled / 1000:.1f} TB"


def bitrate(bits_per_second: float) -> str:
    """Returns a bit rate in kbit/s with three figures.

    >>> bitrate(1423), bitrate(984), bitrate(64_000)
    ('1.42 kbit/s', '0.98 kbit/s', '64.00 kbit/s')
    """
    return f"{bits_per_second / 1000:.2f} kbit/s"


def speed(audio_seconds: float, wall_seconds: float) -> str:
    """Returns how many times faster than playing it the work was.

    >>> speed(36, 2), speed(1, 2), speed(1, 0)
    ('18x real time', '0.5x real time', '')
    """
    if wall_seconds <= 0 or audio_seconds <= 0:
        return ""
    factor = audio_seconds / wall_seconds
    return f"{factor:.0f}x real time" if factor >= 9.95 else f"{factor:.1f}x real time"


def count(number: int, noun: str) -> str:
    """Returns ``1 file`` or ``3 files``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
