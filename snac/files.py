"""Files that appear whole or not at all: written under a temporary name, then renamed. Knows no torch."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

__all__ = ["Replacement", "replacing"]

_BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends without it
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)


class Replacement:
    """A new file in the folder of `path`, which takes its place at the end or is removed.

    Its rights are those that the umask leaves, or those of the file that it replaces; through a symbolic link
    the file it leads to is replaced. A process that is killed in between leaves a file ``.snac-`` and 16
    hexadecimal digits, which anybody may delete.

    Args:
        path: of the file to be made.

    Attributes:
        file: open for writing and reading, as ``w+b``.

    Raises:
        OSError: the system refuses.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._final = Path(os.path.realpath(path))
        # A name of its own, not the final one with something added: that may exceed what the disk allows.
        self._temporary = self._final.with_name(f".snac-{secrets.token_hex(8)}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY | _CLOEXEC
        descriptor = os.open(self._temporary, flags, 0o666)  # tempfile would give 0600
        try:
            self.file: BinaryIO = cast(BinaryIO, os.fdopen(descriptor, "w+b"))
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            self._unlink()
            raise

    def commit(self, *, durable: bool = False) -> None:
        """Closes the file and gives it its name.

        Args:
            durable: wait until the bytes are on the disk before the former file goes, so that not even a
                power cut leaves neither of them.

        Raises:
            OSError: the system refuses; then nothing is left of the new file, and the former stands.
        """
        try:
            if durable and not self.file.closed:
                self.file.flush()
                os.fsync(self.file.fileno())
            self.file.close()
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(self._final, self._temporary)
            os.replace(self._temporary, self._final)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Closes and removes the file; the former one stays as it was. Raises nothing."""
        with contextlib.suppress(OSError):
            self.file.close()  # Windows removes no open file
        self._unlink()

    def _unlink(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[BinaryIO]:
    """Yields the file of a `Replacement`: committed at the end of the block, discarded on any exception.

    Raises:
        OSError: the system refuses.
    """
    new = Replacement(path)
    try:
        yield new.file
    except BaseException:
        new.discard()
        raise
    new.commit(durable=durable)
