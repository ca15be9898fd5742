"""The record of downloaded files: what each was when a model was first loaded from it.

One JSON file, ``snac.json``, in the cache folder of a repository. It maps ``<commit>/<file>``, or the name
of a file that was made beside it, to the size in bytes, the time of modification in nanoseconds, the
SHA-256, and beside weights the model's fingerprint. It holds a checksum of itself: a damaged record counts
as none, and so does a missing one. Lying in the cache folder, it goes along when that is copied to another
machine, and is gone when that is deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from snac.files import replacing

RECORD_FILE = "snac.json"
_MAX_BYTES = 1 << 20
_MAX_ENTRIES = 200


@dataclass(frozen=True)
class Entry:
    """What is recorded of one file."""

    size: int
    mtime_ns: int
    sha256: str
    fingerprint: str = ""

    def is_untouched(self, path: Path) -> bool:
        """Whether size and time of modification are still those recorded, which costs no reading."""
        status = path.stat()
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


def read(folder: Path) -> dict[str, Entry]:
    """The entries of the record in ``folder``; none if it is missing, unreadable or damaged."""
    try:
        with open(folder / RECORD_FILE, "rb") as file:
            data = json.loads(file.read(_MAX_BYTES + 1))
        if data["checksum"] != _checksum(data["files"]):
            return {}
        return {name: Entry(**values) for name, values in data["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def write(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Replaces the record, atomically. A folder that cannot be written to is left without one."""
    files = {name: asdict(entry) for name, entry in list(entries.items())[-_MAX_ENTRIES:]}
    text = json.dumps({"checksum": _checksum(files), "files": files}, indent=1)
    with contextlib.suppress(OSError), replacing(folder / RECORD_FILE) as file:
        file.write(text.encode())


def describe(path: Path, fingerprint: str = "") -> Entry:
    """The entry of a file as it is now; reads the whole of it."""
    status = path.stat()
    return Entry(status.st_size, status.st_mtime_ns, sha256(path), fingerprint)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits; computed once for a file that is not touched in between."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=32)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _checksum(files: object) -> str:
    text = json.dumps(files, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).hexdigest()
