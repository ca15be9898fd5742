"""How files, and what the system says of them, are called in messages; ``-`` is a standard stream."""

from __future__ import annotations

import errno
import os

__all__ = ["STDIO", "cause", "is_stdio", "printable", "same_file", "shown"]

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


def is_stdio(path: str | os.PathLike[str]) -> bool:
    """Returns whether `path` is ``-``, that is standard input or output."""
    return str(path) == STDIO


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


def same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Returns whether two paths lead to one existing file, also through symbolic or hard links."""
    if STDIO in (str(one), str(other)):
        return False
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False
