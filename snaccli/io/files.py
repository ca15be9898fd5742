"""Files on their way in and out: opened, guarded, written whole or not at all.

``-`` stands for standard input or output. Every failure of the system that a user can meet comes out as
one line that says what failed, on which path, and what to do. Knows neither audio nor torch.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from snaccli.errors import OutputError, SnacError

if sys.platform != "win32":
    import fcntl

__all__ = [
    "STDIO",
    "OutputFile",
    "cause",
    "check_output",
    "is_stdio",
    "make_folder",
    "open_input",
    "open_output",
    "output_path",
    "same_file",
    "shown",
]

STDIO = "-"
"""The name that stands for standard input or standard output."""

_SPOOL_MEMORY = 8 << 20  # bytes of piped input held in memory; what exceeds them goes to the disk
_COPY_BYTES = 1 << 20
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends without it
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)

_TEMPORARY = re.compile(r"\.snac-[0-9a-f]{16}(\.|$)")
_STALE_SECONDS = (
    3600  # without a change; the machine that writes may be another, whose locks do not show here
)

_looked_through: set[Path] = set()

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
    """What went wrong and what to do about it, on one line and without the path.

    A `ValueError` is what Python raises for a path that no system accepts (a NUL byte in it).
    """
    if not isinstance(error, OSError):
        return "not a valid name: check the path"
    known = _CAUSES.get(error.errno or 0)
    return known or str(error.strerror or type(error).__name__).replace("\n", " ")


def is_stdio(path: str | Path) -> bool:
    """Whether `path` is ``-``, that is standard input or output."""
    return str(path) == STDIO


def shown(path: str | Path, *, stdio: str = "standard input") -> str:
    """`path` as a message may show it: on one line, whatever bytes its name holds."""
    if is_stdio(path):
        return stdio
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(path))


def same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to one existing file, also through symbolic or hard links."""
    if is_stdio(one) or is_stdio(other):
        return False
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False


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
        raise OutputError(f"cannot write in folder {shown(folder)}: {_CAUSES[errno.EACCES]}")


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
    with _renamed_at_end(output) as (_, file):
        out = OutputFile(file, shown(output), seekable=True)
        try:
            yield out
            out.close()
        except BaseException:
            with contextlib.suppress(OutputError):
                out.close()  # Windows removes no open file
            raise


@contextlib.contextmanager
def output_path(
    output: str | Path, *, source: str | Path | None = None, overwrite: bool = False
) -> Iterator[Path]:
    """As `open_output`, for writers that insist on a path: yields the temporary one, with the same ending.

    For ``-``, devices and pipes the temporary file lies in the system's temporary folder and is copied at
    the end.
    """
    check_output(output, source=source, overwrite=overwrite)
    mode = None if is_stdio(output) else _mode(output)
    if is_stdio(output) or (mode is not None and not stat.S_ISREG(mode)):
        with (
            open_output(output) as out,
            tempfile.TemporaryDirectory(prefix="snac-", ignore_cleanup_errors=True) as folder,
        ):
            path = Path(folder) / f"output{Path(output).suffix}"
            yield path
            with open(path, "rb") as file:
                shutil.copyfileobj(file, out, _COPY_BYTES)
        return
    with _renamed_at_end(output) as (temporary, file):
        file.close()
        yield temporary


@contextlib.contextmanager
def _renamed_at_end(output: str | Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new temporary file beside `output`, renamed to it at success and removed otherwise.

    Whoever uses it closes it before the end.
    """
    final = Path(os.path.realpath(output))
    # A name of its own, not the output's plus an ending: that may exceed the longest the disk allows.
    ending = final.suffix if len(final.suffix) <= 16 else ""
    temporary = final.with_name(f".snac-{secrets.token_hex(8)}{ending}")
    file = _create(temporary, shown(output))
    try:
        with _claimed(file):
            _remove_stale(final.parent)
            yield temporary, file
            try:
                with contextlib.suppress(FileNotFoundError):
                    shutil.copymode(final, temporary)  # an overwritten file keeps its access rights
                os.replace(temporary, final)
            except OSError as error:
                raise OutputError(f"cannot write {shown(output)}: {cause(error)}") from None
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _create(path: Path, name: str) -> BinaryIO:
    """Create `path` anew with the rights that the umask leaves (tempfile would give 0600)."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY | _CLOEXEC, 0o666)
        return cast(BinaryIO, os.fdopen(descriptor, "w+b"))
    except OSError as error:
        raise OutputError(f"cannot write {name}: {cause(error)}") from None


@contextlib.contextmanager
def _claimed(file: BinaryIO) -> Iterator[None]:
    """Keep a lock on a temporary file, also after it is closed: the process that writes it is alive."""
    if sys.platform == "win32":  # which removes no open file
        yield
        return
    descriptor = os.dup(file.fileno())
    try:
        with contextlib.suppress(OSError):  # a disk without locks, on which nothing is ever found stale
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`; once a folder and process."""
    if folder in _looked_through:
        return
    _looked_through.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.match(entry.name):
                with contextlib.suppress(OSError):
                    _remove_if_stale(entry.path)


def _remove_if_stale(path: str) -> None:
    found = os.lstat(path)
    mine = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    if not (stat.S_ISREG(found.st_mode) and mine and time.time() - found.st_mtime > _STALE_SECONDS):
        return
    if sys.platform == "win32":
        os.unlink(path)
        return
    with open(path, "rb") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while its writer lives
        os.unlink(path)


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
