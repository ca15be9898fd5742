"""Errors and exit statuses of the command line and its library, and what messages call files.

Every error a user can meet derives from :class:`SnacError`; ``str(error)`` is one line that says what is
wrong and what to do, in the terms of somebody who calls the library. What is said differently at a shell is
held as fields (:class:`Remedy` and the attributes of the named classes), from which the command line makes
its own line. Anything else that escapes is a defect of the program. Knows no torch.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from enum import Enum, IntEnum

from snac.errors import ModelError, ModelNotFoundError, SnacError

__all__ = [
    "STDIO",
    "AudioError",
    "ContainerError",
    "ExitStatus",
    "FileError",
    "HeaderDamagedError",
    "LevelsError",
    "ModelError",
    "ModelMismatchError",
    "ModelNotFoundError",
    "NotSnacFileError",
    "OutputError",
    "OutputExistsError",
    "ParameterError",
    "PriorError",
    "RemediedError",
    "Remedy",
    "SnacError",
    "StreamDamagedError",
    "StreamInvalidError",
    "TrailingDataError",
    "TruncatedError",
    "UnknownModelError",
    "UnsupportedVersionError",
    "UsageError",
    "WeightsMismatchError",
    "about",
    "cause",
    "printable",
    "shown",
]

Path = str | os.PathLike[str]


class ExitStatus(IntEnum):
    """What the process returns to its caller."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130


class Remedy(Enum):
    """What to do about an error, where a library's caller and a shell spell it differently.

    The values are the ends of messages for callers of the library.
    """

    OVERWRITE = ": overwrite=True replaces it"
    OTHER_OUTPUT = ": choose another output"
    FILE_IN_FOLDER = ": name a file in it"
    OTHER_FOLDER = ": create it, or choose another"
    NAME_OUTPUT = ": name a file as the output"
    FILE_OR_PIPE = ": redirect it, or name a file as the output"
    NAME_MODEL = "; give model=, its name or its folder"
    OTHER_MODEL = "; give the right one as model="
    OTHER_MODEL_OR_FORCE = "; give the right one as model=, or force it with any_weights=True"
    SALVAGE = "; get the file again, or decode what is intact of it with salvage=True"
    OTHER_FORMAT_OR_RATE = ": choose another format such as wav or flac, or rate='model'"
    ALREADY_CODED = ": decode_file turns it into audio"
    NAME_PRIOR = "; give its file as prior=, or put it beside the weights as prior.safetensors"
    OTHER_PRIOR = "; give the right one as prior=, or prior=False to code without"
    SMALLER_IDS = "; choose a smaller start_id"
    SAME_FORMAT = "; choose another folder, or the same format"
    TOKEN_FILE = "; give what export_file writes, or a JSON list of ids"
    RESUME = "; resume() goes on from there"
    PREPARE = ": snaccli.training.data.prepare makes a folder for training"


class FileError(SnacError):
    """An error about one file, or about what a file holds.

    Args:
        problem: what is wrong. With `path`, the rest of a sentence whose subject is the file, such as ``is
            empty``; without it, a whole sentence.
        path: of the file, ``-`` for a standard stream; None where it is not known or no file is at fault.
        remedy: what ends the message.

    Attributes: those arguments, of the same names.
    """

    joint = " "  # between a file's name and the problem
    stdio = "standard input"

    def __init__(self, problem: str, path: Path | None = None, *, remedy: Remedy | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = None if path is None else os.fspath(path)
        self.remedy = remedy

    def __str__(self) -> str:
        return self.line({})

    def line(self, words: Mapping[Remedy, str]) -> str:
        """Returns the message on one line, with other words for some remedies."""
        remedy = "" if self.remedy is None else words.get(self.remedy, self.remedy.value)
        return self.subject + self.problem + remedy

    @property
    def subject(self) -> str:
        """What the message begins with: the file's name and what joins it to the problem, or nothing."""
        return "" if self.path is None else shown(self.path, stdio=self.stdio) + self.joint


@contextlib.contextmanager
def about(path: Path | None) -> Iterator[None]:
    """Gives this path to errors about a file that leave the block without one."""
    try:
        yield
    except FileError as error:
        if error.path is None and path is not None:
            error.path = os.fspath(path)
        raise


class RemediedError(SnacError):
    """An error whose remedy a library's caller and a shell may spell differently.

    Attributes:
        problem: what is wrong.
        remedy: what ends the message; None where `problem` has all there is to say.
    """

    def __init__(self, problem: str, *, remedy: Remedy | None = None) -> None:
        super().__init__(problem if remedy is None else problem + remedy.value)
        self.problem, self.remedy = problem, remedy


class UsageError(RemediedError):
    """The call cannot work, whatever the files hold (exit status 2)."""


class ParameterError(UsageError):
    """A parameter has a value that cannot be.

    Attributes:
        parameter: its name in Python, such as ``changes``.
        value: what was given for it, as a message may show it.
        problem: what is wrong with it, and what to do.
    """

    def __init__(self, parameter: str, value: str, problem: str) -> None:
        super().__init__(f"{parameter}={value}: {problem}")
        self.parameter, self.value, self.problem = parameter, value, problem


class LevelsError(ParameterError):
    """More levels were asked for than there are, or fewer than one.

    Attributes:
        wanted: what was asked for.
        available: number there is.
        where: what has them, such as ``the file`` or ``the model 'mini'``.
    """

    def __init__(self, wanted: object, available: int, where: str = "the file") -> None:
        super().__init__("levels", repr(wanted), f"{where} has {available} levels; choose 1 to {available}")
        self.wanted, self.available, self.where = wanted, available, where


class AudioError(FileError):
    """An audio file cannot be read, or holds samples that cannot be coded."""


class OutputError(FileError):
    """An output cannot be written: it exists, equals the input, or the disk refuses it."""

    stdio = "standard output"


class OutputExistsError(OutputError):
    """There is a file at `path` already, and leave to replace it was not given."""

    def __init__(self, path: Path) -> None:
        super().__init__("exists already", path, remedy=Remedy.OVERWRITE)


class UnknownModelError(ModelError):
    """A file names a model that is not one of the known ones, or none.

    A file must not choose what is downloaded, nor which folder is read, so the caller has to name the model.

    Attributes:
        model: the name in the file, None where it gives none.
        remedy: ``Remedy.NAME_MODEL``.
    """

    remedy = Remedy.NAME_MODEL

    def __init__(self, model: str | None) -> None:
        told = "does not say which model its tokens are of" if model is None else f"was made with {model!r}"
        self.problem = f"the file {told}"
        super().__init__(self.problem + self.remedy.value)
        self.model = model


class ModelMismatchError(FileError):
    """What a file holds is not of the model at hand."""

    joint = ": "


class WeightsMismatchError(ModelMismatchError):
    """A file was made with other weights than those of the model at hand: their fingerprints differ.

    Attributes:
        file_model: the model that the file names, None where it names none.
        file_fingerprint: 16 hex digits, of the weights it was made with.
        model: name of the model at hand.
        fingerprint: 16 hex digits, of its weights.
    """

    def __init__(
        self,
        file_model: str | None,
        file_fingerprint: str,
        model: str,
        fingerprint: str,
        *,
        path: Path | None = None,
        remedy: Remedy = Remedy.OTHER_MODEL_OR_FORCE,
    ) -> None:
        named = "a model" if file_model is None else repr(file_model)
        super().__init__(
            f"the file was made with {named} of fingerprint {file_fingerprint}, the model {model!r} here has "
            f"{fingerprint}",
            path,
            remedy=remedy,
        )
        self.file_model, self.file_fingerprint = file_model, file_fingerprint
        self.model, self.fingerprint = model, fingerprint


class PriorError(FileError):
    """A learned prior cannot be read, is not one, or is of other weights than the model at hand."""


class ContainerError(FileError):
    """A ``.snac`` file is not one, is of another version, or is damaged. Base of the container's errors.

    The problem is a sentence of its own, with a path or without.
    """

    joint = ": "


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

    def __init__(self, problem: str, level: int, channel: int, *, remedy: Remedy | None = None) -> None:
        super().__init__(problem, remedy=remedy)
        self.level = level
        self.channel = channel


class TrailingDataError(ContainerError):
    """There are bytes after the last stream."""


class StreamInvalidError(ContainerError):
    """A stream is whole but holds no tokens that a coder wrote, or needs what is not at hand."""


# What messages call files, and what the system says of them

STDIO = "-"
"""The name that stands for standard input or standard output."""

_CAUSES = {
    errno.ENOSPC: "no space left on the disk: free some, or write to another folder",
    errno.EFBIG: "larger than the disk or a limit set here allows: write to another folder",
    errno.EACCES: "permission denied: check the access rights",
    errno.EPERM: "permission denied: check the access rights",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.ENAMETOOLONG: "the name is too long: shorten it",
    errno.ENOENT: "no such file: check the name",
    errno.ENOTDIR: "a part of the path is a file, not a folder: check the path",
    errno.EISDIR: "is a folder, not a file: name a file",
    errno.ELOOP: "symbolic links that lead in a circle: mend them or choose another path",
    errno.EMFILE: "too many open files: run fewer jobs at a time",
    errno.EPIPE: "the program that was to read it has ended",
}
if hasattr(errno, "EDQUOT"):
    _CAUSES[errno.EDQUOT] = "the disk quota is used up: free some space, or write to another folder"


def cause(error: OSError | ValueError) -> str:
    """Returns what went wrong and what to do about it, on one line and without the path.

    A `ValueError` is what Python raises for a path that no system accepts (a NUL byte in it).
    """
    if not isinstance(error, OSError):
        return "not a valid name: check the path"
    known = _CAUSES.get(error.errno or 0)
    return known or str(error.strerror or type(error).__name__).replace("\n", " ")


def shown(path: str | os.PathLike[str], *, stdio: str = "standard input") -> str:
    r"""Returns a path as a message may show it: one line, no control codes, no bytes that are not text.

    ``-`` is shown as `stdio`.

    >>> shown("two\nlines")
    'two\\nlines'
    """
    name = os.fspath(path)
    if name == STDIO:
        return stdio
    return name if name.isprintable() else printable(name)


def printable(text: str) -> str:
    """Returns the text with what does not print escaped."""
    return text if text.isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte of the name that is not UTF-8, as Python smuggles it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
