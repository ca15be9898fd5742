"""Files that are none of this disk: elsewhere by URL, or within a tar archive, read in place.

fsspec, which huggingface_hub brings along, knows the places of URLs (``s3://``, ``gs://``,
``hf://datasets/...``, ``memory://`` and more); a place may need a package of its own (s3fs for ``s3://``),
which is named when it is missing. ``file://`` and ``local://`` are plain paths in another spelling and become
these at once. Inputs are read by ranges; outputs are written to the disk first and sent when they are whole,
so that no half file ever has the name of a whole one.

A file within a tar archive is a part of the archive's bytes under a name of its own.
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from snaccli.errors import FileError, OutputError

__all__ = [
    "Part",
    "Window",
    "exists",
    "identity",
    "is_folder",
    "is_url",
    "join",
    "key",
    "localised",
    "members",
    "names",
    "open_url",
    "remove",
    "sent",
    "tar_files",
    "walk",
]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: "c://" is a disk of Windows
_LOCAL = ("file", "local")
_READ_AHEAD = 1 << 20  # bytes that a request reads at least


def is_url(path: str | Path) -> bool:
    """Whether a path is the URL of something elsewhere (after :func:`localised`, not on this disk)."""
    return _URL.match(str(path)) is not None


def localised(path: str) -> str:
    """Returns the plain path that a ``file://`` or ``local://`` URL stands for; any other path as it is."""
    scheme, separator, rest = path.partition("://")
    if not separator or scheme.lower() not in _LOCAL:
        return path
    if scheme.lower() == "file":
        parts = urlsplit(path)
        if parts.netloc in ("", "localhost"):
            return unquote(parts.path)
    return rest


def identity(path: str) -> str:
    """Returns one name for all spellings of a path, also through symbolic links; a URL as it is."""
    return path if _URL.match(path) else os.path.normcase(os.path.realpath(path))


def join(folder: str, below: str) -> str:
    """Returns the URL of what is called ``below`` in a folder's URL."""
    return f"{folder.rstrip('/')}/{below.replace(chr(92), '/')}" if below else folder


def open_url(url: str, *, error: type[FileError] = FileError) -> BinaryIO:
    """Opens a file for binary reading by ranges; it can seek.

    Raises:
        error: there is no such file, it may not be read, or a package that the place needs is missing.
    """
    return io.BufferedReader(_Remote(_tried(_opened, url, error), url, error))


def _opened(place: Any, path: str) -> Any:
    if place.isdir(path):
        raise IsADirectoryError(f"{path} is a folder: name a file in it")
    return place.open(path, "rb", block_size=_READ_AHEAD)


class _Remote(io.RawIOBase):
    """A file elsewhere whose every failure names it."""

    def __init__(self, file: Any, url: str, error: type[FileError]) -> None:
        self._file, self._url, self._error = file, url, error

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._file.read(len(view))
        # Each place raises exceptions of its own kinds, which cannot be known here.
        except Exception as failure:
            raise self._error(_problem("read", failure), self._url) from failure
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


@contextlib.contextmanager
def sent(url: str) -> Iterator[BinaryIO]:
    """Yields a file on the disk; its bytes become the file at ``url`` if the block ends without an exception.

    Raises:
        OutputError: it cannot be sent; what stood there before stays.
    """
    with tempfile.TemporaryDirectory(prefix="snac-", ignore_cleanup_errors=True) as folder:
        local = posixpath.join(folder, "output")
        with open(local, "w+b") as file:
            yield cast(BinaryIO, file)
        _tried(lambda place, path: _send(place, local, path), url, OutputError, "write")


def _send(place: Any, local: str, path: str) -> None:
    with contextlib.suppress(NotImplementedError):
        place.makedirs(posixpath.dirname(path), exist_ok=True)
    if "memory" in _protocols(place):  # whose put_file shows a file that is not whole
        with open(local, "rb") as file:
            place.pipe_file(path, file.read())
        return
    place.put_file(local, path)  # what stores offer shows a file when it is complete, not before


def exists(url: str) -> bool:
    """Whether there is a file of that URL.

    Raises:
        FileError: the place cannot be asked.
    """
    return bool(_tried(lambda place, path: place.isfile(path), url, FileError))


def is_folder(url: str) -> bool:
    """Whether there is anything below that URL.

    Raises:
        FileError: the place cannot be asked.
    """
    return bool(_tried(lambda place, path: place.isdir(path), url, FileError))


def names(url: str) -> list[str]:
    """Returns the names of the files in a folder, sorted; none where there is no such folder."""

    def listed(place: Any, path: str) -> list[str]:
        place.invalidate_cache(path)
        try:
            found = place.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(posixpath.basename(entry["name"]) for entry in found if entry["type"] == "file")

    return cast("list[str]", _tried(listed, url, FileError))


def walk(url: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """Yields each wanted file below a folder with its path there, sorted by path.

    What begins with a dot is left out, as on the disk.

    Args:
        url: of the folder.
        wanted: whether a file is one to take, by its name.

    Raises:
        FileError: the place cannot be asked.
    """

    def found(place: Any, path: str) -> list[str]:
        root = place._strip_protocol(path).rstrip("/")
        return [name[len(root) :].lstrip("/") for name in place.find(path)]

    for below in sorted(_tried(found, url, FileError), key=lambda name: name.split("/")):
        parts = below.split("/")
        if not any(part.startswith(".") for part in parts) and wanted(parts[-1]):
            yield join(url, below), below


def remove(url: str) -> None:
    """Removes a file.

    Raises:
        OutputError: it cannot be removed.
    """
    _tried(lambda place, path: place.rm_file(path), url, OutputError, "remove")


def _tried(work: Callable[[Any, str], Any], url: str, error: type[FileError], doing: str = "read") -> Any:
    """Runs ``work(file system, path there)``; a failure becomes one line that names the URL."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as missing:
        raise error("is a URL, for which the package fsspec is needed: install it", url) from missing
    try:
        place, path = url_to_fs(url)
        return work(place, path)
    except (FileError, KeyboardInterrupt):
        raise
    # Each place raises exceptions of its own kinds, which cannot be known here.
    except Exception as failure:
        raise error(_problem(doing, failure), url) from failure


def _problem(doing: str, failure: Exception) -> str:
    done = {"read": "cannot be read", "write": "cannot be written", "remove": "cannot be removed"}[doing]
    if isinstance(failure, FileNotFoundError):
        return f"{done}: no such file: check the name"
    if isinstance(failure, PermissionError):
        return f"{done}: permission denied: check the credentials"
    if isinstance(failure, ImportError):  # it says which package
        return f"{done}: {_line(failure)}: pip install what is missing"
    if "Protocol not known" in str(failure):
        return f"{done}: no place of that kind is known: check how the URL begins"
    return f"{done}: {_line(failure)}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _protocols(place: Any) -> tuple[str, ...]:
    return (place.protocol,) if isinstance(place.protocol, str) else tuple(place.protocol)


_SMALL = 1 << 20  # bytes of what stands beside a recording and may be copied with it


class Part(str):
    """The name of a file within another, ``ARCHIVE/NAME``, with the place of its bytes.

    A text, so that it may stand wherever the name of a file does; ``snaccli.io.files.open_input`` opens it.

    Attributes:
        archive: path or URL of the file that holds it.
        below: its name there.
        offset: of its first byte.
        size: in bytes.
        beside: name, offset and size of small files that share its name up to the first dot.
    """

    archive: str
    below: str
    offset: int
    size: int
    beside: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, archive: str, member: tarfile.TarInfo) -> Part:
        """The part that a member of an archive is, with nothing beside it yet."""
        part = cls(f"{archive}/{member.name}")
        part.archive, part.below = archive, member.name
        part.offset, part.size, part.beside = member.offset_data, member.size, ()
        return part

    def within(self, archive: str) -> Part:
        """The same part under another name of the archive."""
        part = _restored(f"{archive}/{self.below}", dict(self.__dict__))
        part.archive = archive
        return part

    def __reduce__(self) -> Any:
        return _restored, (str(self), self.__dict__)


def _restored(name: str, state: dict[str, Any]) -> Part:
    part = Part(name)
    part.__dict__.update(state)
    return part


def members(archive: str, file: BinaryIO, wanted: Callable[[str], bool]) -> Iterator[Part]:
    """The wanted files of a tar archive, in its order, each with the small files of the same sample.

    A sample is what has the same name up to the first dot, as in WebDataset, but wherever it stands: an
    archive that was made of ``*.wav *.txt`` has all recordings before the first transcript. So all of the
    archive's list is read before the first file is yielded.

    Args:
        archive: its path or URL.
        file: that, opened; seekable.
        wanted: whether a file is one to take, by its name.

    Raises:
        FileError: it is no tar archive, is compressed, or is damaged.
    """
    parts: list[Part] = []
    beside: dict[str, dict[str, tuple[str, int, int]]] = {}  # the last of a name counts, as for tar
    for member in tar_files(archive, file):
        if wanted(member.name):
            parts.append(Part.of(archive, member))
        elif member.size <= _SMALL:
            sample = beside.setdefault(key(member.name), {})
            sample[member.name] = member.name, member.offset_data, member.size
    for part in parts:
        part.beside = tuple(beside.get(key(part.below), {}).values())
        yield part


def tar_files(archive: str, file: BinaryIO, error: type[FileError] = FileError) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar archive, from where ``file`` stands on.

    Raises:
        error: it is no tar archive, is compressed, or is damaged.
    """
    try:
        with tarfile.open(fileobj=_Bounded(file), mode="r:") as opened:  # type: ignore[call-overload]
            for member in opened:  # next() fails at an empty archive before Python 3.11
                opened.members = []  # else the list of all grows
                if member.size < 0:
                    raise tarfile.TarError(f"{member.name!r} has a size below 0")
                if member.isreg():
                    yield member
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError) as failure:
        raise error(f"is no tar archive that can be read: {failure}", archive) from failure


class _Bounded:
    """A file of which a header cannot have more read, and room made for, than there is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.tell, self.seek = file, file.tell, file.seek
        start = file.tell()
        self._size = file.seek(0, io.SEEK_END)
        file.seek(start)

    def read(self, count: int) -> bytes:
        """Reads, as ``io.RawIOBase.read``."""
        return self._file.read(max(0, min(count, self._size - self._file.tell())))


def key(name: str) -> str:
    """The name up to the first dot of its last component: what the files of a sample share."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(".", 1)[0]


class Window(io.RawIOBase):
    """The bytes ``offset`` to ``offset + size`` of a file, as a file that closes the other with itself."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves, as ``io.IOBase.seek``."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Reads into a buffer; returns the number of bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        self._file.seek(self._offset + self._at)
        data = self._file.read(count)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Closes both."""
        self._file.close()
        super().close()
