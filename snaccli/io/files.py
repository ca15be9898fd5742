"""Files on their way in and out: opened, guarded, written whole or not at all.

``-`` stands for standard input or output. Every failure of the system that a user can meet comes out as
one line that says what failed, on which path, and what to do. Knows neither audio nor torch.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from snac.files import Replacement
from snaccli.errors import OutputError, SnacError
from snaccli.io.names import STDIO, cause, is_stdio, same_file, shown

__all__ = [
    "STDIO",
    "OutputFile",
    "cause",
    "check_output",
    "is_stdio",
    "make_folder",
    "open_input",
    "open_output",
    "same_file",
    "shown",
]

_SPOOL_MEMORY = 8 << 20  # bytes of piped input held in memory; what exceeds them goes to the disk
_COPY_BYTES = 1 << 20


def make_folder(folder: str | Path) -> None:
    """Create `folder`, and those above it, where missing.

    Raises:
        OutputError: it cannot be created.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(
            f"cannot create folder {shown(folder)}: a file of that name is in the way, choose another folder"
        ) from None
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot create folder {shown(folder)}: {cause(error)}") from None


def check_output(output: str | Path, *, source: str | Path | None = None, overwrite: bool = False) -> None:
    """Refuse an output before any work is done for it.

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
    name = shown(output)
    if source is not None and same_file(source, output):
        raise OutputError(f"{name} is the input itself: choose another output with -o")
    mode = _mode(output)
    if mode is None:
        _check_folder(output)
    elif stat.S_ISDIR(mode):
        raise OutputError(f"{name} is a folder: name a file in it with -o")
    elif stat.S_ISREG(mode) and not overwrite:
        raise OutputError(f"{name} exists already: -f (--force) overwrites it")


def _mode(output: str | Path) -> int | None:
    """Mode bits of what `output` leads to, None where nothing is yet."""
    try:
        return os.stat(output).st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {shown(output)}: {cause(error)}") from None


def _check_folder(output: str | Path) -> None:
    folder = Path(os.path.realpath(output)).parent
    if not folder.is_dir():
        raise OutputError(f"folder {shown(folder)} does not exist: create it, or choose another with -o")
    if not os.access(folder, os.W_OK):
        refused = cause(PermissionError(errno.EACCES, ""))
        raise OutputError(f"cannot write in folder {shown(folder)}: {refused}")


class OutputFile:
    """A binary output whose every failure is an `OutputError` that names it.

    Attributes:
        name: what messages call it.
        seekable: whether `seek` works; standard output, devices and pipes only take bytes in order.
    """

    def __init__(self, file: BinaryIO, name: str, *, seekable: bool) -> None:
        self._file = file
        self.name = name
        self.seekable = seekable

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of `data`; returns its number of bytes."""
        with self._named():
            self._file.write(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset`, as `io.IOBase.seek`."""
        with self._named():
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Position in bytes."""
        with self._named():
            return self._file.tell()

    def flush(self) -> None:
        """Hand everything written so far to the system."""
        with self._named():
            self._file.flush()

    def close(self) -> None:
        """Flush and close, so that a full disk shows here at the latest."""
        with self._named():
            self._file.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write {self.name}: {cause(error)}") from None


@contextlib.contextmanager
def open_output(
    output: str | Path, *, source: str | Path | None = None, overwrite: bool = False
) -> Iterator[OutputFile]:
    """Open `output` for binary writing; it appears complete at the end of the ``with`` block, or not at all.

    A regular file is written under a temporary name in its own folder and renamed when the block ends
    without an exception; on any exception (KeyboardInterrupt too) the temporary file is removed and an
    earlier file of that name stays as it was. Through a symbolic link the file it leads to is replaced.
    ``-``, devices and named pipes get the bytes as they come.

    Args: see `check_output`.

    Raises:
        OutputError: as `check_output`; the output is a terminal; or the system refuses to write.
    """
    if is_stdio(output):
        with _standard_output() as out:
            yield out
        return
    check_output(output, source=source, overwrite=overwrite)
    mode = _mode(output)
    if mode is not None and not stat.S_ISREG(mode):
        with _device(output) as out:
            yield out
        return
    try:
        new = Replacement(output)
    except OSError as error:
        raise OutputError(f"cannot write {shown(output)}: {cause(error)}") from error
    try:
        out = OutputFile(new.file, shown(output), seekable=True)
        yield out
        out.close()
    except BaseException:
        new.discard()
        raise
    try:
        new.commit()
    except OSError as error:
        raise OutputError(f"cannot write {shown(output)}: {cause(error)}") from error


@contextlib.contextmanager
def _device(output: str | Path) -> Iterator[OutputFile]:
    """A device or named pipe, which takes bytes in order and is never renamed over."""
    name = shown(output)
    try:
        file = cast(BinaryIO, open(output, "wb"))  # noqa: SIM115 (closed below, failures named)
    except OSError as error:
        raise OutputError(f"cannot write {name}: {cause(error)}") from None
    out = OutputFile(file, name, seekable=False)
    try:
        if file.isatty():
            raise OutputError(f"{name} is a terminal and takes no binary data: name a file with -o")
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
        raise OutputError("standard output takes no binary data: name a file with -o")
    if stream.isatty():
        raise OutputError("standard output is a terminal: redirect it, or name a file with -o")
    out = OutputFile(cast(BinaryIO, stream), "standard output", seekable=False)
    yield out
    out.flush()


@contextlib.contextmanager
def open_input(source: str | Path, *, error: type[SnacError] = SnacError) -> Iterator[BinaryIO]:
    """Open `source` for binary reading, seekable whatever it is.

    Standard input (``-``) and named pipes are read to their end first: into memory up to 8 MiB, into a
    temporary file beyond. Devices are refused, since they have no end.

    Args:
        source: path, or ``-``.
        error: the class to raise.

    Raises:
        error: no such file, a folder, a device, a terminal, or not readable.
    """
    name = shown(source)
    with contextlib.ExitStack() as stack:
        try:
            if is_stdio(source):
                stream = getattr(sys.stdin, "buffer", None)
                if stream is None or stream.isatty():
                    raise error("standard input is a terminal: pipe a file in, or name one")
                file = _spooled(cast(BinaryIO, stream), stack)
            else:
                mode = os.stat(source).st_mode
                if stat.S_ISDIR(mode):
                    raise error(f"{name} is a folder: name a file in it")
                if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                    raise error(f"{name} is a device: name a file")
                file = cast(BinaryIO, stack.enter_context(open(source, "rb")))
                if stat.S_ISFIFO(mode):
                    file = _spooled(file, stack)
        except (OSError, ValueError) as failure:
            raise error(f"cannot read {name}: {cause(failure)}") from None
        yield file


def _spooled(stream: BinaryIO, stack: contextlib.ExitStack) -> BinaryIO:
    """All that is left in `stream`, in a file that can seek."""
    spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_MEMORY, prefix="snac-")  # noqa: SIM115 (on the stack)
    file = stack.enter_context(spool)
    shutil.copyfileobj(stream, file, _COPY_BYTES)
    file.seek(0)
    return cast(BinaryIO, file)
