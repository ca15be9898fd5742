"""Finding files below a folder: one walker, with one rule for what is left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = ["Found", "Skip", "walk"]


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
