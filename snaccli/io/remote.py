"""Files that lie elsewhere, by URL: ``s3://``, ``gs://``, ``hf://datasets/...``, ``memory://`` and more.

fsspec, which huggingface_hub brings along, knows the places; a place may need a package of its own (s3fs for
``s3://``), which is named when it is missing. ``file://`` and ``local://`` are plain paths in another
spelling and become these at once. Inputs are read by ranges; outputs are written to the disk first and sent
when they are whole, so that no half file ever has the name of a whole one.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

from snaccli.errors import OutputError, SnacError

__all__ = [
    "exists",
    "is_folder",
    "is_url",
    "join",
    "localised",
    "names",
    "open_url",
    "remove",
    "sent",
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


def join(folder: str, below: str) -> str:
    """Returns the URL of what is called ``below`` in a folder's URL."""
    return f"{folder.rstrip('/')}/{below.replace(chr(92), '/')}" if below else folder


def open_url(url: str, *, error: type[SnacError] = SnacError) -> BinaryIO:
    """Opens a file for binary reading by ranges; it can seek.

    Raises:
        error: there is no such file, it may not be read, or the place needs a package that is not installed.
    """
    return cast(BinaryIO, _Named(_tried(lambda place, path: _opened(place, path), url, error), url, error))


def _opened(place: Any, path: str) -> Any:
    if place.isdir(path):
        raise IsADirectoryError(f"{path} is a folder: name a file in it")
    return place.open(path, "rb", block_size=_READ_AHEAD)


class _Named:
    """A file whose every failure names it; for the rest it is the file that it holds."""

    def __init__(self, file: Any, url: str, error: type[SnacError]) -> None:
        self._file, self._url, self._error = file, url, error

    def read(self, size: int = -1) -> bytes:
        return cast(bytes, self._checked(lambda: self._file.read(size)))

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readline(self, size: int = -1) -> bytes:
        return cast(bytes, self._checked(lambda: self._file.readline(size)))

    def _checked(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as failure:
            raise self._error(_cannot("read", self._url, failure)) from failure

    def __enter__(self) -> _Named:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


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
        SnacError: the place cannot be asked.
    """
    return bool(_tried(lambda place, path: place.isfile(path), url, SnacError))


def is_folder(url: str) -> bool:
    """Whether there is anything below that URL.

    Raises:
        SnacError: the place cannot be asked.
    """
    return bool(_tried(lambda place, path: place.isdir(path), url, SnacError))


def names(url: str) -> list[str]:
    """Returns the names of the files in a folder, sorted; none where there is no such folder."""

    def listed(place: Any, path: str) -> list[str]:
        place.invalidate_cache(path)
        try:
            found = place.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(posixpath.basename(entry["name"]) for entry in found if entry["type"] == "file")

    return cast("list[str]", _tried(listed, url, SnacError))


def walk(url: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """Yields each wanted file below a folder with its path there, sorted by path.

    What begins with a dot is left out, as on the disk.

    Args:
        url: of the folder.
        wanted: whether a file is one to take, by its name.

    Raises:
        SnacError: the place cannot be asked.
    """

    def found(place: Any, path: str) -> list[str]:
        root = place._strip_protocol(path).rstrip("/")
        return [name[len(root) :].lstrip("/") for name in place.find(path)]

    for below in sorted(_tried(found, url, SnacError), key=lambda name: name.split("/")):
        parts = below.split("/")
        if not any(part.startswith(".") for part in parts) and wanted(parts[-1]):
            yield join(url, below), below


def remove(url: str) -> None:
    """Removes a file.

    Raises:
        OutputError: it cannot be removed.
    """
    _tried(lambda place, path: place.rm_file(path), url, OutputError, "remove")


def _tried(work: Callable[[Any, str], Any], url: str, error: type[SnacError], doing: str = "read") -> Any:
    """Runs ``work(file system, path there)``; a failure becomes one line that names the URL."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as missing:
        raise error(f"{url}: URLs need the package fsspec; install it") from missing
    try:
        place, path = url_to_fs(url)
        return work(place, path)
    except ImportError as missing:
        raise error(f"{url}: {_line(missing)}") from missing
    # Each place raises exceptions of its own kinds, which cannot be known here.
    except Exception as failure:
        raise error(_cannot(doing, url, failure)) from failure


def _cannot(doing: str, url: str, failure: Exception) -> str:
    if isinstance(failure, FileNotFoundError):
        return f"cannot {doing} {url}: no such file: check the name"
    if isinstance(failure, PermissionError):
        return f"cannot {doing} {url}: permission denied: check the credentials"
    return f"cannot {doing} {url}: {_line(failure)}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _protocols(place: Any) -> tuple[str, ...]:
    return (place.protocol,) if isinstance(place.protocol, str) else tuple(place.protocol)
