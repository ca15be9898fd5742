"""Making a data set: each recording found, checked, put on its side, linked or converted, written down."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snaccli.audio import is_audio_name
from snaccli.errors import UsageError
from snaccli.io.files import cause, make_folder, open_output, shown
from snaccli.io.files import walk as walk_folder
from snaccli.training.data.convert import Converter
from snaccli.training.data.manifest import (
    MANIFEST,
    SPLITS,
    DatasetError,
    Manifest,
    Row,
    Summary,
    identity,
    read_rows,
)
from snaccli.workers import ordered_map

__all__ = ["Found", "Settings", "check_inputs", "prepare", "walk"]


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
        if _is_below(path, target):
            raise UsageError(f"{shown(name)} lies in the data set {shown(output)}: choose another folder")


def walk(inputs: Sequence[str], output: str, remark: Remark = lambda text: None) -> Iterator[Found]:
    """Yields the recordings below the inputs, sorted by name within each folder.

    Holds the names of the folders it is in, and nothing else; where an input lies within another also those
    of the recordings, of which each is met once. What begins with a dot, links to folders and the data set
    itself are left out.

    Args:
        inputs: folders or files.
        output: folder of the data set.
        remark: told of what was left out but might be missed.
    """
    roots = list(dict.fromkeys(map(os.path.abspath, inputs)))
    # One within another is walked as well: what begins with a dot, or is linked, is met in no other way.
    order = sorted(os.path.join(root, "") for root in roots)
    nested = any(inner.startswith(outer) for outer, inner in itertools.pairwise(order))
    met: set[str] = set()
    for found in itertools.chain.from_iterable(_of_root(root, output, remark) for root in roots):
        if found.path not in met:
            yield found
        if nested:
            met.add(found.path)


def _of_root(path: str, output: str, remark: Remark) -> Iterator[Found]:
    if os.path.isfile(path):
        yield Found(path, "", None)
    elif all(os.path.isdir(os.path.join(path, split)) for split in SPLITS):
        for split in SPLITS:
            yield from _below(os.path.join(path, split), split, output, remark)
    else:
        yield from _below(path, None, output, remark)


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(os.path.join(root, ""))


def _below(root: str, split: str | None, avoid: str, remark: Remark) -> Iterator[Found]:
    def skipped(path: str, error: OSError | None) -> None:
        why = "linked folder not followed" if error is None else f"left out: {cause(error)}"
        remark(f"{shown(path)}: {why}")

    for path, below in walk_folder(root, is_audio_name, skipped=skipped, avoid=avoid):
        yield Found(path, os.path.dirname(below).replace(os.sep, "/"), split)


SETTINGS = "dataset.json"
_WORK = ".work"

Progress = Callable[[int, int, "Row | None"], None]
Remark = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How a data set is made; kept in it, since its recordings must all be made alike.

    Attributes:
        rate: Hz of what training reads.
        val_percent: share of the recordings that go to val/.
        split_by: ``recording``, or ``folder`` to keep each folder on one side.
        link: link every recording that can be read as it is, instead of converting it.
        min_seconds: shorter recordings are refused.
        max_clipping: share of clipped samples above which a recording is refused.
    """

    rate: int = 24000
    val_percent: float = 5.0
    split_by: str = "recording"
    link: bool = False
    min_seconds: float = 0.5
    max_clipping: float = 0.01


def prepare(
    inputs: Sequence[str],
    output: str | Path,
    settings: Settings,
    *,
    workers: int = 1,
    progress: Progress = lambda done, total, row: None,
    remark: Remark = lambda text: None,
) -> Summary:
    """Makes a data set of the recordings below `inputs`, or brings it up to date.

    The manifest grows by a line a recording, so what was interrupted goes on where it stopped. Recordings
    that have changed since are made again; those that are gone from an input named again leave the data
    set. Memory: eight bytes a recording, whatever its length.

    Args:
        inputs: folders, or files. A folder with train/ and val/ in it keeps that split.
        output: folder of the data set; made if missing.
        settings: as they were, where the data set exists.
        workers: recordings at a time.
        progress: called with the recordings done, those in all, and the row that was just written.
        remark: told of folders and links that were left out.

    Raises:
        UsageError: the inputs and the output do not fit together, or the settings are not as they were.
        DatasetError: no recording can be used, or the manifest is damaged.
        OutputError: the disk refuses to write.
    """
    folder = Path(output)
    check_inputs(inputs, str(folder))
    _check_settings(folder, settings)
    shutil.rmtree(folder / _WORK, ignore_errors=True)  # what a killed run has left
    manifest = Manifest(folder / MANIFEST)
    try:
        known = _Known(folder / MANIFEST)
        _add_rows(inputs, folder, settings, manifest, known, workers, progress, remark)
        _settle(inputs, folder, manifest, known)
    finally:
        manifest.close()
        shutil.rmtree(folder / _WORK, ignore_errors=True)
    summary = Summary.of((row for _, row in read_rows(folder / MANIFEST)), settings.rate)
    summary.write(folder)
    if not summary.recordings["train"]:
        raise DatasetError(_nothing(summary, folder))
    return summary


def _nothing(summary: Summary, folder: Path) -> str:
    refused = sum(summary.refused.values())
    if not refused:
        return "no audio files there: nothing to train on"
    source, problem = summary.examples[0]
    return f"nothing to train on: all {refused} recordings were refused, {shown(source)} as {problem}"


def _check_settings(folder: Path, settings: Settings) -> None:
    """Writes the settings of a new data set; compares those of one that is there."""
    path = folder / SETTINGS
    try:
        former = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if folder.is_dir() and any(folder.iterdir()):
            raise UsageError(f"{shown(folder)} holds other files: choose a new folder") from error
        make_folder(folder)
        with open_output(path) as out:
            out.write((json.dumps(dataclasses.asdict(settings), indent=2) + "\n").encode())
        return
    except (OSError, ValueError) as error:
        raise DatasetError(f"{shown(path)} cannot be read ({error}): choose a new folder") from error
    for name, value in dataclasses.asdict(settings).items():
        before = former.get(name) if isinstance(former, dict) else None
        if before != value:
            raise UsageError(
                f"{shown(folder)} was prepared with {name} {before}, not {value}: give the same, "
                "or choose a new folder"
            )


class _Known:
    """Which recordings the manifest has already: eight bytes each, and one bit whether it was met again."""

    def __init__(self, path: Path) -> None:
        found = array("Q", (row.identity for _, row in read_rows(path)))
        identities = np.frombuffer(found, dtype=np.uint64) if found else np.empty(0, np.uint64)
        self._order = np.argsort(identities, kind="stable")
        self._sorted = identities[self._order]
        self.met = np.zeros(len(identities), dtype=bool)

    def meet(self, wanted: int) -> bool:
        """Whether the recording is known as it is; notes that it is there still."""
        place = int(np.searchsorted(self._sorted, np.uint64(wanted)))
        if place == len(self._sorted) or int(self._sorted[place]) != wanted:
            return False
        self.met[self._order[place]] = True
        return True


def _add_rows(
    inputs: Sequence[str],
    folder: Path,
    settings: Settings,
    manifest: Manifest,
    known: _Known,
    workers: int,
    progress: Progress,
    remark: Remark,
) -> None:
    total = sum(1 for _ in walk(inputs, str(folder)))
    progress(0, total, None)
    stop = threading.Event()
    convert = Converter(folder, folder / _WORK, settings.rate, settings.link, stop)

    def work(found: Found) -> Row | None:
        try:
            status = os.stat(found.path)
            size, modified = status.st_size, status.st_mtime_ns
        except OSError:
            size, modified = 0, 0  # the reader says why
        if known.meet(identity(found.path, size, modified)):
            return None
        return _row(found, size, modified, settings, convert)

    found = walk(inputs, str(folder), remark)
    with contextlib.closing(ordered_map(work, found, workers, stop=stop)) as rows:
        for done, row in enumerate(rows, 1):
            if row is not None:
                manifest.append(row)
            progress(done, total, row)


def _row(found: Found, size: int, modified: int, settings: Settings, convert: Converter) -> Row:
    def decide(digest: str) -> tuple[str, str]:
        key = digest if settings.split_by == "recording" else _hash(found.folder)
        below = int(key, 16) < settings.val_percent / 100 * 2**64
        return key, found.split or ("val" if below else "train")

    row = Row(found.path, size, modified)
    return convert(row, decide, min_seconds=settings.min_seconds, max_clipping=settings.max_clipping)


def _hash(text: str) -> str:
    return f"{identity(text, 0, 0):016x}"


def _settle(inputs: Sequence[str], folder: Path, manifest: Manifest, known: _Known) -> None:
    """Drops what is gone or has changed, and sees to it that there is something to validate on."""
    roots, gone = list(map(os.path.abspath, inputs)), ~known.met
    for index, (_, row) in enumerate(read_rows(manifest.path)):
        if index >= len(gone):
            break
        gone[index] &= any(_is_below(row.source, root) for root in roots)
    moved = _key_for_validation(_kept(manifest.path, gone))
    if not gone.any() and moved is None:
        return

    def rows() -> Iterator[Row]:
        for index, (_, row) in enumerate(read_rows(manifest.path)):
            if index < len(gone) and gone[index]:
                dropped.add(row.file)
            elif row.split == "train" and row.key == moved:
                yield _moved(row, folder)
            else:
                yield row

    dropped: set[str | None] = set()
    manifest.rewrite(rows())
    dropped.difference_update(row.file for _, row in read_rows(manifest.path))
    for file in filter(None, dropped):
        with contextlib.suppress(OSError):
            os.unlink(folder / file)


def _kept(path: Path, gone: np.ndarray) -> Iterator[Row]:
    for index, (_, row) in enumerate(read_rows(path)):
        if index >= len(gone) or not gone[index]:
            yield row


def _key_for_validation(rows: Iterator[Row]) -> str | None:
    """The key that moves to val/ where the hash has put none there and there are several to choose from."""
    lowest: str | None = None
    several = False
    for row in rows:
        if row.split == "val":
            return None
        if row.split == "train":
            several = several or (lowest is not None and row.key != lowest)
            lowest = row.key if lowest is None else min(lowest, row.key)
    return lowest if several else None


def _moved(row: Row, folder: Path) -> Row:
    assert row.file is not None
    file = SPLITS[1] + row.file.removeprefix(SPLITS[0])
    make_folder((folder / file).parent)
    # A rewrite that was interrupted may have moved it already.
    with contextlib.suppress(FileNotFoundError):
        os.replace(folder / row.file, folder / file)
    return dataclasses.replace(row, split=SPLITS[1], file=file)
