"""Finding a model's files: in the package, in a folder, in the cache of the Hugging Face Hub, or on the Hub.

What is in the cache is used without asking the network; ``pull`` is what asks for something newer. So a model
that worked once works without a network, at once, and stays the same until it is pulled again. Cached files
are compared with what the Hub said of them and with the record of their first use.

The record is one JSON file, ``snac.json``, in the cache folder of a repository. It maps ``<commit>/<file>``,
or the name of a file that was made beside it, to the size in bytes, the time of modification in nanoseconds,
the SHA-256, and beside weights the model's fingerprint. It holds a checksum of itself: a damaged record
counts as none, and so does a missing one. Lying in the cache folder, it goes along when that is copied to
another machine, and is gone when that is deleted.

Knows no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from snac.errors import ChangedModelError, ModelError, ModelNotFoundError, UnreachableModelError
from snac.files import replacing
from snac.hub.network import cache_place, cached_commit, download, repository_folder
from snac.hub.registry import CONFIG_FILE, PRIOR_FILE, WEIGHTS_FILES, ModelSource, is_repository, resolve

RECORD_FILE = "snac.json"
_MAX_BYTES = 1 << 20  # of the record
_MAX_ENTRIES = 200
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelFiles:
    """The two files of a model.

    Attributes:
        source: what was asked for.
        config: config.json.
        weights: model.safetensors or pytorch_model.bin.
        origin: where they are from, in words.
        cache_folder: the folder of the repository in the Hub's cache; None for a shipped model or a folder.
    """

    source: ModelSource
    config: Path
    weights: Path
    origin: str
    cache_folder: Path | None = None

    @property
    def name(self) -> str:
        """The model id that files carry."""
        return self.source.name

    @property
    def prior(self) -> Path | None:
        """The learned prior of its tokens, if one lies beside the weights."""
        path = self.weights.parent / PRIOR_FILE
        return path if path.is_file() else None

    @property
    def size_on_disk(self) -> int:
        """Bytes of configuration and weights."""
        return self.config.stat().st_size + self.weights.stat().st_size


def locate(source: str | os.PathLike[str], *, revision: str | None = None, **hub_kwargs: Any) -> ModelFiles:
    """The files of a model, downloaded if they are not on this machine.

    Args:
        source: a name, a folder, or ``owner/name``, as ``snac.hub.registry.resolve`` takes it.
        revision: branch, tag or commit on the Hub.
        hub_kwargs: further arguments of ``huggingface_hub.hf_hub_download`` (``cache_dir``, ``token``,
            ``local_files_only``, ``force_download``, ...).

    Raises:
        ModelNotFoundError: there is no such model, it cannot be reached, or a file of it is missing.
        ModelError: a cached file is not what was downloaded or published.
    """
    wanted = resolve(source, revision)
    if wanted.folder is not None:
        return _in_folder(wanted, wanted.folder, wanted.place)
    present = None if hub_kwargs.get("force_download") else _in_cache(wanted, hub_kwargs)
    return _checked(present or _downloaded(wanted, hub_kwargs))


def cached(
    source: str | os.PathLike[str], *, revision: str | None = None, **hub_kwargs: Any
) -> ModelFiles | None:
    """The files of a model if they are on this machine, else None; without network, without reading them.

    Raises:
        ModelNotFoundError: ``source`` is neither a name nor a folder nor of the form ``owner/name``.
    """
    wanted = resolve(source, revision)
    if wanted.folder is None:
        return _in_cache(wanted, hub_kwargs)
    try:
        return _in_folder(wanted, wanted.folder, wanted.place)
    except ModelNotFoundError:
        return None


def pull(source: str | os.PathLike[str], *, revision: str | None = None, **hub_kwargs: Any) -> ModelFiles:
    """Fetches the newest files of a model of the Hub, and damaged ones again.

    A shipped model or a folder needs nothing. Without network, what is in the cache will do.

    Raises:
        ModelError, ModelNotFoundError: as ``locate`` does.
    """
    wanted = resolve(source, revision)
    if wanted.folder is not None:
        return _in_folder(wanted, wanted.folder, wanted.place)
    try:
        files = _downloaded(wanted, hub_kwargs)
    except UnreachableModelError:
        present = _in_cache(wanted, hub_kwargs)
        if present is None or hub_kwargs.get("force_download"):
            raise
        return _checked(present)
    try:
        return _checked(files)
    except ModelError:
        files = _downloaded(wanted, {**hub_kwargs, "force_download": True})
        return _checked(files, compare_record=False)


def remember(files: ModelFiles, fingerprint: str, converted: Path | None = None) -> None:
    """Records the files of a model that has just been loaded; does nothing for a shipped model or a folder.

    Args:
        files: as ``locate`` gave them.
        fingerprint: of the model, 16 hex digits.
        converted: a file in the cache folder that was made of the weights.
    """
    if files.cache_folder is None or recorded_fingerprint(files, converted) == fingerprint:
        return
    entries = read_record(files.cache_folder)
    for path, value in ((files.config, ""), (files.weights, fingerprint), (converted, fingerprint)):
        if path is not None:
            entries.pop(_key(files, path), None)  # so that it comes last: the oldest are dropped first
            entries[_key(files, path)] = Entry(
                path.stat().st_size, path.stat().st_mtime_ns, sha256(path), value
            )
    write_record(files.cache_folder, entries)


def recorded_fingerprint(files: ModelFiles, converted: Path | None = None) -> str | None:
    """The fingerprint of a model of the Hub that was loaded before and not touched since, else None.

    Args:
        files: as ``locate`` gave them.
        converted: a file in the cache folder that was made of the weights, which must be untouched, too.
    """
    if files.cache_folder is None:
        return None
    entries = read_record(files.cache_folder)
    for path in (files.config, files.weights, converted):
        if path is not None and not _untouched(path, entries.get(_key(files, path))):
            return None
    return entries[_key(files, converted or files.weights)].fingerprint or None


def _in_folder(
    source: ModelSource, folder: Path, origin: str, cache_folder: Path | None = None
) -> ModelFiles:
    """The files that lie in a folder.

    Raises:
        ModelNotFoundError: one of them does not.
    """
    config = folder / CONFIG_FILE
    weights = next((folder / name for name in WEIGHTS_FILES if (folder / name).is_file()), None)
    if not config.is_file():
        if source.known and source.folder and not folder.is_dir():
            raise ModelNotFoundError(
                f"the shipped model {source.name!r} is missing: install the package again"
            )
        if cache_folder is None and (folder / "snapshots").is_dir():
            return _handed_over(folder)
        raise ModelNotFoundError(f"{folder}: has no {CONFIG_FILE}, so it is not the folder of a model")
    if weights is None:
        raise ModelNotFoundError(f"{folder}: has no weights ({' or '.join(WEIGHTS_FILES)})")
    return ModelFiles(source, config, weights, origin, cache_folder)


def _handed_over(folder: Path) -> ModelFiles:
    """A cache folder of the Hub's client that was copied from another machine and is given as it is."""
    repository = folder.resolve().name.removeprefix("models--").replace("--", "/")
    source = resolve(repository) if is_repository(repository) else ModelSource(repository, folder)
    files = _in_snapshot(source, folder, "main", "")
    if files is None:
        raise ModelNotFoundError(f"{folder}: has no complete copy of the revision 'main': copy it again")
    return _checked(replace(files, origin=f"folder {folder}"))


def _in_cache(source: ModelSource, hub_kwargs: Mapping[str, Any]) -> ModelFiles | None:
    if hub_kwargs.get("local_dir") is not None or hub_kwargs.get("repo_type") not in (None, "model"):
        return None
    assert source.repository is not None
    folder = repository_folder(source.repository, hub_kwargs.get("cache_dir"))
    return _in_snapshot(source, folder, source.revision or "main", hub_kwargs.get("subfolder") or "")


def _in_snapshot(source: ModelSource, folder: Path, revision: str, subfolder: str) -> ModelFiles | None:
    commit = cached_commit(folder, revision)
    if commit is None:
        return None
    try:
        return _in_folder(source, folder / "snapshots" / commit / subfolder, _origin(source, commit), folder)
    except ModelNotFoundError:
        return None


def _downloaded(source: ModelSource, hub_kwargs: Mapping[str, Any]) -> ModelFiles:
    config, weights = download(source, hub_kwargs)
    folder, commit = cache_place(config)
    return ModelFiles(source, config, weights, _origin(source, commit), folder)


def _origin(source: ModelSource, commit: str | None) -> str:
    return f"{source.repository} at {commit[:12]}" if commit else f"{source.repository}"


def _checked(files: ModelFiles, *, compare_record: bool = True) -> ModelFiles:
    """Compares cached files with what is known of them; a file that is as recorded is not read."""
    if files.cache_folder is None:
        return files
    entries = read_record(files.cache_folder) if compare_record else {}
    for path in (files.config, files.weights):
        entry = entries.get(_key(files, path))
        if _untouched(path, entry):
            continue
        published = files.source.known.files.get(path.name) if files.source.known else None
        if published is not None and files.source.revision is None:
            _compare(files, path, "published", published.sha256, published.size)
        elif stored := _sha256_of_blob(path):
            _compare(files, path, "downloaded", stored)
        elif entry is not None:
            _compare(files, path, "first used", entry.sha256, entry.size)
    return files


def _compare(files: ModelFiles, path: Path, when: str, wanted: str, size: int | None = None) -> None:
    actual = path.stat().st_size
    if size is not None and actual != size:
        found = f"it has {actual} bytes instead of {size}"
    elif (digest := sha256(path)) != wanted:
        found = f"its SHA-256 begins with {digest[:12]} instead of {wanted[:12]}"
    else:
        return
    raise ChangedModelError(files.source.spelling, path, f"is not the file that was {when}: {found}")


def _sha256_of_blob(path: Path) -> str | None:
    """What the Hub said the content is: its client names the blob of a large file after the SHA-256."""
    # One hop only: the blob may in turn be a link into a store that names files by another hash.
    target = Path(os.readlink(path)) if path.is_symlink() else path
    return target.name if target.parent.name == "blobs" and _SHA256.fullmatch(target.name) else None


def _key(files: ModelFiles, path: Path) -> str:
    """What the record calls a file: ``<commit>/<file>``, or the name of one that lies beside the record."""
    assert files.cache_folder is not None
    if path.parent == files.cache_folder:
        return path.name
    return path.relative_to(files.cache_folder / "snapshots").as_posix()


# The record


@dataclass(frozen=True)
class Entry:
    """What is recorded of one file."""

    size: int
    mtime_ns: int
    sha256: str
    fingerprint: str = ""


def read_record(folder: Path) -> dict[str, Entry]:
    """The entries of the record in ``folder``; none if it is missing, unreadable or damaged."""
    try:
        with open(folder / RECORD_FILE, "rb") as file:
            data = json.loads(file.read(_MAX_BYTES + 1))
        if data["checksum"] != _checksum(data["files"]):
            return {}
        return {name: Entry(**values) for name, values in data["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def write_record(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Replaces the record, atomically. A folder that cannot be written to is left without one."""
    files = {name: asdict(entry) for name, entry in list(entries.items())[-_MAX_ENTRIES:]}
    text = json.dumps({"checksum": _checksum(files), "files": files}, indent=1)
    with contextlib.suppress(OSError), replacing(folder / RECORD_FILE) as file:
        file.write(text.encode())


def _untouched(path: Path, entry: Entry | None) -> bool:
    """Whether size and time of modification are those recorded, which costs no reading."""
    status = path.stat()
    return entry is not None and (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)


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
