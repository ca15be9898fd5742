"""Finding the recordings below folders, one after another and in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from snaccli.audio import is_audio_name
from snaccli.errors import UsageError
from snaccli.io.files import cause, shown
from snaccli.io.files import walk as walk_folder
from snaccli.training.data.manifest import SPLITS

__all__ = ["Found", "check_inputs", "walk"]

Remark = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """One recording.

    Attributes:
        path: absolute.
        folder: of it, relative to the input, with ``/``; what keeps a folder on one side.
        split: ``train`` or ``val`` where the input has these folders, else None.
    """

    path: str
    folder: str
    split: str | None


def check_inputs(inputs: Sequence[str], output: str) -> None:
    """Refuses inputs that are not there, or lie in the data set.

    Raises:
        UsageError: names the input.
    """
    target = os.path.realpath(output)
    for name in inputs:
        if not os.path.exists(name):
            raise UsageError(f"{shown(name)}: no such file or folder: check the name")
        path = os.path.realpath(name)
        if path == target or path.startswith(target + os.sep):
            raise UsageError(f"{shown(name)} lies in the data set {shown(output)}: choose another folder")


def walk(inputs: Sequence[str], output: str, remark: Remark = lambda text: None) -> Iterator[Found]:
    """Yields the recordings below the inputs, sorted by name within each folder.

    Holds the names of the folders it is in, and nothing else. What begins with a dot, links to folders and
    the data set itself are left out.

    Args:
        inputs: folders or files.
        output: folder of the data set.
        remark: told of what was left out but might be missed.
    """
    for name in inputs:
        path = os.path.abspath(name)
        if os.path.isfile(path):
            yield Found(path, "", None)
        elif all(os.path.isdir(os.path.join(path, split)) for split in SPLITS):
            for split in SPLITS:
                yield from _below(os.path.join(path, split), split, output, remark)
        else:
            yield from _below(path, None, output, remark)


def _below(root: str, split: str | None, avoid: str, remark: Remark) -> Iterator[Found]:
    def skipped(path: str, error: OSError | None) -> None:
        why = "linked folder not followed" if error is None else f"left out: {cause(error)}"
        remark(f"{shown(path)}: {why}")

    for path, below in walk_folder(root, is_audio_name, skipped=skipped, avoid=avoid):
        yield Found(path, os.path.dirname(below).replace(os.sep, "/"), split)
