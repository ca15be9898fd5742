"""Files found below a folder, and on their way in and out: opened, guarded, written whole or not at all.

``-`` stands for standard input or output. Every failure of the system that a user can meet comes out as
one line that says what failed, on which path, and what to do. Knows neither audio nor torch.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from snac.files import Replacement
from snaccli.errors import STDIO, FileError, OutputError, OutputExistsError, Remedy, cause, shown
from snaccli.io import elsewhere
from snaccli.io.elsewhere import Part, Window

__all__ = [
    "STDIO",
    "Found",
    "OutputFile",
    "Skip",
    "cause",
    "check_output",
    "is_stdio",
    "make_folder",
    "open_input",
    "open_output",
    "same_file",
    "shown",
    "walk",
]

_SPOOL_MEMORY = 8 << 20  # bytes of piped input held in memory; what exceeds them goes to the disk
_COPY_BYTES = 1 << 20


def is_stdio(path: str | os.PathLike[str]) -> bool:
    """Returns whether `path` is ``-``, that is standard input or output."""
    return str(path) == STDIO


def same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Returns whether two paths lead to one existing file, also through symbolic or hard links."""
    if STDIO in (str(one), str(other)):
        return False
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


def make_folder(folder: str | Path) -> None:
    """Creates `folder`, and those above it, where missing.

    Raises:
        OutputError: it cannot be created.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(
            f"cannot create folder {shown(folder)}: a file of that name is in the way, choose another folder"
        ) from error
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot create folder {shown(folder)}: {cause(error)}") from error


def check_output(output: str | Path, *, source: str | Path | None = None, overwrite: bool = False) -> None:
    """Refuses an output before any work is done for it.

    Devices and named pipes (``/dev/null``) may always be written; only regular files are guarded.

    Args:
        output: path of the file to be written, or ``-``.
        source: path that is read meanwhile; the output must be another file.
        overwrite: whether an existing regular file may be replaced.

    Raises:
        OutputError: the output is the source, exists already, is a folder, or lies where nothing can be
            written.
    """
    if is_stdio(output):
        return
    if source is not None and (same_file(source, output) or str(source) == str(output)):
        raise OutputError("is the input itself", output, remedy=Remedy.OTHER_OUTPUT)
    if elsewhere.is_url(output):
        if not overwrite and elsewhere.exists(str(output)):
            raise OutputExistsError(output)
        return
    mode = _mode(output)
    if mode is None:
        _check_folder(output)
    elif stat.S_ISDIR(mode):
        raise OutputError("is a folder", output, remedy=Remedy.FILE_IN_FOLDER)
    elif stat.S_ISREG(mode) and not overwrite:
        raise OutputExistsError(output)


def _mode(output: str | Path) -> int | None:
    """Returns the mode bits of what `output` leads to, None where nothing is yet."""
    try:
        return os.stat(output).st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unwritable(output, error) from error


def _unwritable(path: str | Path, error: OSError | ValueError) -> OutputError:
    return OutputError(f"cannot be written: {cause(error)}", path)


def _check_folder(output: str | Path) -> None:
    folder = Path(os.path.realpath(output)).parent
    if not folder.is_dir():
        raise OutputError(f"folder {shown(folder)} does not exist", remedy=Remedy.OTHER_FOLDER)
    if not os.access(folder, os.W_OK):
        refused = cause(PermissionError(errno.EACCES, ""))
        raise OutputError(f"cannot write in folder {shown(folder)}: {refused}")


class OutputFile:
    """A binary output whose every failure is an `OutputError` that names it.

    Attributes:
        file: takes the bytes; its failures do not name it.
        path: as the user named it, ``-`` for standard output.
        seekable: whether `seek` works; standard output, devices and pipes only take bytes in order.
    """

    def __init__(self, file: BinaryIO, path: str | Path, *, seekable: bool) -> None:
        self.file = file
        self.path = path
        self.seekable = seekable

    @property
    def name(self) -> str:
        """What messages call it."""
        return shown(self.path, stdio="standard output")

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Writes all of `data`; returns its number of bytes."""
        try:
            self.file.write(data)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to `offset`, as `io.IOBase.seek`."""
        try:
            return self.file.seek(offset, whence)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def tell(self) -> int:
        """Returns the position in bytes."""
        try:
            return self.file.tell()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def flush(self) -> None:
        """Hands everything written so far to the system."""
        try:
            self.file.flush()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def close(self) -> None:
        """Flushes and closes, so that a full disk shows here at the latest."""
        try:
            self.file.close()
        except OSError as error:
            raise _unwritable(self.path, error) from error


@contextlib.contextmanager
def open_output(
    output: str | Path, *, source: str | Path | None = None, overwrite: bool = False
) -> Iterator[OutputFile]:
    """Opens `output` for binary writing; it appears whole at the end of the ``with`` block, or not at all.

    A regular file is written under a temporary name in its own folder and renamed when the block ends
    without an exception; on any exception (KeyboardInterrupt too) the temporary file is removed and an
    earlier file of that name stays as it was. Through a symbolic link the file it leads to is replaced.
    ``-``, devices and named pipes get the bytes as they come. What is to lie at a URL is sent when it is
    whole.

    Args: see `check_output`.

    Raises:
        OutputError: as `check_output`; the output is a terminal; or the system refuses to write.
    """
    if is_stdio(output):
        with _standard_output() as out:
            yield out
        return
    check_output(output, source=source, overwrite=overwrite)
    if elsewhere.is_url(output):
        with elsewhere.sent(str(output)) as file:
            yield OutputFile(file, output, seekable=True)
        return
    mode = _mode(output)
    if mode is not None and not stat.S_ISREG(mode):
        with _device(output) as out:
            yield out
        return
    try:
        new = Replacement(output)
    except OSError as error:
        raise _unwritable(output, error) from error
    try:
        out = OutputFile(new.file, output, seekable=True)
        yield out
        out.close()
    except BaseException:
        new.discard()
        raise
    try:
        new.commit()
    except OSError as error:
        raise _unwritable(output, error) from error


@contextlib.contextmanager
def _device(output: str | Path) -> Iterator[OutputFile]:
    """Opens a device or named pipe, which takes bytes in order and is never renamed over."""
    try:
        file = cast(BinaryIO, open(output, "wb"))  # noqa: SIM115 (closed below, failures named)
    except OSError as error:
        raise _unwritable(output, error) from error
    out = OutputFile(file, output, seekable=False)
    try:
        if file.isatty():
            raise OutputError("is a terminal and takes no binary data", output, remedy=Remedy.NAME_OUTPUT)
        yield out
    except BaseException:
        with contextlib.suppress(OutputError):
            out.close()
        raise
    out.close()


@contextlib.contextmanager
def _standard_output() -> Iterator[OutputFile]:
    stream = getattr(sys.stdout, "buffer", None)
    if stream is None:
        raise OutputError("takes no binary data", STDIO, remedy=Remedy.NAME_OUTPUT)
    if stream.isatty():
        raise OutputError("is a terminal", STDIO, remedy=Remedy.FILE_OR_PIPE)
    out = OutputFile(cast(BinaryIO, stream), STDIO, seekable=False)
    yield out
    out.flush()


def open_input(source: str | Path, *, error: type[FileError] = FileError) -> BinaryIO:
    """Opens `source` for binary reading, seekable whatever it is; once, so that it may be a pipe.

    Standard input (``-``) and pipes (``/dev/fd/63`` of a shell, or what mkfifo makes) are read to their end
    first: into memory up to 8 MiB, into a temporary file beyond. Devices are refused, since they have no end.

    Args:
        source: path or URL, a part of an archive, or ``-``.
        error: the class to raise.

    Raises:
        error: no such file, a folder, a device, a terminal, or not readable.
    """
    try:
        if is_stdio(source):
            stream = getattr(sys.stdin, "buffer", None)
            if stream is None or stream.isatty():
                state = "closed" if sys.stdin is None else "a terminal"
                raise error(f"is {state}: pipe a file in, or name one", source)
            return _spooled(cast(BinaryIO, stream))
        if isinstance(source, Part):
            whole = open_input(source.archive, error=error)
            return io.BufferedReader(Window(whole, source.offset, source.size))
        if elsewhere.is_url(source):
            return elsewhere.open_url(str(source), error=error)
        mode = os.stat(source).st_mode
        if stat.S_ISDIR(mode):
            raise error("is a folder: name a file in it", source)
        if stat.S_ISREG(mode):
            return cast(BinaryIO, open(source, "rb"))
        if not stat.S_ISFIFO(mode):
            raise error("is a device: name a file", source)
        with open(source, "rb") as pipe:
            return _spooled(cast(BinaryIO, pipe))
    except (OSError, ValueError) as failure:
        raise error(f"cannot be read: {cause(failure)}", source) from failure


def _spooled(stream: BinaryIO) -> BinaryIO:
    """Returns all that is left in `stream`, in a file that can seek."""
    spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_MEMORY, prefix="snac-")  # noqa: SIM115 (the caller's)
    try:
        shutil.copyfileobj(stream, spool, _COPY_BYTES)
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return cast(BinaryIO, spool)


class Found(NamedTuple):
    """A file that was found.

    Attributes:
        path: it begins with the folder as it was named.
        below: the part of the path below that folder.
    """

    path: str
    below: str


Skip = Callable[[str, "OSError | None"], None]
"""Told of a folder that was left out: its path, and why it cannot be read, or None for a symbolic link."""


def _unmentioned(path: str, error: OSError | None) -> None: ...


def walk(
    folder: str | os.PathLike[str],
    wanted: Callable[[str], bool],
    *,
    skipped: Skip = _unmentioned,
    avoid: str | os.PathLike[str] | None = None,
) -> Iterator[Found]:
    """Yields the files below a folder, sorted by name within each folder.

    Left out are names that begin with a dot, files and folders alike; symbolic links to folders, which may
    lead in a circle or out of the tree; and pipes, sockets and devices. A symbolic link to a file is a file;
    one that leads nowhere is yielded too, so that whoever opens it says what is wrong. Holds the names of the
    folders that it is in, and nothing else.

    Args:
        folder: where to begin.
        wanted: whether to take a file, by its name.
        skipped: see `Skip`.
        avoid: a folder not to enter, under whatever name it is met.
    """
    shunned = None if avoid is None else os.path.realpath(avoid)
    yield from _below(os.fspath(folder), "", wanted, skipped, shunned)


def _below(
    root: str, below: str, wanted: Callable[[str], bool], skipped: Skip, shunned: str | None
) -> Iterator[Found]:
    place = os.path.join(root, below) if below else root
    if shunned is not None and os.path.realpath(place) == shunned:
        return
    try:
        with os.scandir(place) as entries:
            # Names and kinds only: a folder may hold a million files.
            names = sorted((entry.name, _kind(entry)) for entry in entries if entry.name[0] != ".")
    except OSError as error:
        skipped(place, error)
        return
    for name, kind in names:
        inner = os.path.join(below, name)
        if kind == _FOLDER:
            yield from _below(root, inner, wanted, skipped, shunned)
        elif kind == _LINKED_FOLDER:
            skipped(os.path.join(root, inner), None)
        elif kind == _FILE and wanted(name):
            yield Found(os.path.join(root, inner), inner)


_FILE, _FOLDER, _LINKED_FOLDER, _OTHER = range(4)


def _kind(entry: os.DirEntry[str]) -> int:
    try:
        if entry.is_dir(follow_symlinks=False):
            return _FOLDER
        if entry.is_file():
            return _FILE
        if entry.is_symlink():
            return _LINKED_FOLDER if entry.is_dir() else _FILE if not os.path.exists(entry.path) else _OTHER
    except OSError:  # links in a circle
        return _FILE
    return _OTHER
