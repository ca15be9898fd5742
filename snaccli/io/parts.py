"""Files within a tar archive, read in place: a part of the archive's bytes under a name of its own."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from snaccli.errors import FileError

__all__ = ["Part", "Window", "key", "members", "tar_files"]

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
    def of(cls, archive: str, member: tarfile.TarInfo, beside: tuple[tuple[str, int, int], ...] = ()) -> Part:
        """The part that a member of an archive is."""
        part = cls(f"{archive}/{member.name}")
        part.archive, part.below = archive, member.name
        part.offset, part.size, part.beside = member.offset_data, member.size, beside
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

    A sample is what follows one another with the same name up to the first dot, as in WebDataset.

    Args:
        archive: its path or URL.
        file: that, opened; seekable.
        wanted: whether a file is one to take, by its name.

    Raises:
        FileError: it is no tar archive, is compressed, or is damaged.
    """
    sample: list[tarfile.TarInfo] = []
    for member in tar_files(archive, file):
        if sample and key(member.name) != key(sample[0].name):
            yield from _parts(archive, sample, wanted)
            sample = []
        sample.append(member)
    yield from _parts(archive, sample, wanted)


def tar_files(archive: str, file: BinaryIO, error: type[FileError] = FileError) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar archive, from where ``file`` stands on.

    Raises:
        error: it is no tar archive, is compressed, or is damaged.
    """
    try:
        with tarfile.open(fileobj=_Bounded(file), mode="r:") as opened:  # type: ignore[call-overload]
            while (member := opened.next()) is not None:
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


def _parts(archive: str, sample: list[tarfile.TarInfo], wanted: Callable[[str], bool]) -> Iterator[Part]:
    for member in sample:
        if wanted(member.name):
            beside = tuple(
                (other.name, other.offset_data, other.size)
                for other in sample
                if other is not member and other.size <= _SMALL and not wanted(other.name)
            )
            yield Part.of(archive, member, beside)


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
