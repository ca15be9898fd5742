"""Errors and exit statuses of the command line and its library.

Every error a user can meet derives from :class:`SnacError`; its message is one line that says what is
wrong and what to do. Anything else that escapes is a defect of the program. Knows no torch.
"""

from __future__ import annotations

from enum import IntEnum

from snac.errors import ModelError, ModelNotFoundError, SnacError

__all__ = [
    "AudioError",
    "ContainerError",
    "ExitStatus",
    "HeaderDamagedError",
    "ModelError",
    "ModelMismatchError",
    "ModelNotFoundError",
    "NotSnacFileError",
    "OutputError",
    "SnacError",
    "StreamDamagedError",
    "StreamInvalidError",
    "TrailingDataError",
    "TruncatedError",
    "UnsupportedVersionError",
    "UsageError",
]


class ExitStatus(IntEnum):
    """What the process returns to its caller."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130


class UsageError(SnacError):
    """The command was called in a way that cannot work, whatever the files hold (exit status 2)."""


class AudioError(SnacError):
    """An audio file cannot be read, or holds samples that cannot be coded."""


class OutputError(SnacError):
    """An output cannot be written: it exists, equals the input, or the disk refuses it."""


class ContainerError(SnacError):
    """A ``.snac`` file is not one, is of another version, or is damaged. Base of the container's errors."""


class ModelMismatchError(SnacError):
    """A file was made with other weights than the model at hand (the fingerprints differ)."""


class NotSnacFileError(ContainerError):
    """The bytes do not begin as a ``.snac`` file does."""


class UnsupportedVersionError(ContainerError):
    """The file is of a version, or uses a feature, that this program does not know."""


class HeaderDamagedError(ContainerError):
    """The header's checksum or a value in it is wrong; nothing after it can be trusted."""


class TruncatedError(ContainerError):
    """The file ends before its header or its last stream does."""


class StreamDamagedError(ContainerError):
    """A stream's bytes do not match their checksum.

    Attributes:
        level: its level, counted from 0, the coarsest.
        channel: its channel, counted from 0.
    """

    def __init__(self, message: str, level: int, channel: int) -> None:
        super().__init__(message)
        self.level = level
        self.channel = channel


class TrailingDataError(ContainerError):
    """There are bytes after the last stream."""


class StreamInvalidError(ContainerError):
    """A stream is whole but holds no tokens that a coder wrote, or needs what is not at hand."""
