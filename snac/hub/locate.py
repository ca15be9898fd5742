"""Finding a model's files: in the package, in a folder, in the cache of the Hugging Face Hub, or on the Hub.

What is in the cache is used without asking the network; ``pull`` is what asks for something newer. So a model
that worked once works without a network, at once, and stays the same until it is pulled again. Cached files
are compared with what the Hub said of them and with the record of their first use (``snac.hub.record``).

Knows no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snac.errors import ChangedModelError, ModelError, ModelNotFoundError, UnreachableModelError
from snac.hub import record
from snac.hub.download import cache_place, cached_commit, download, repository_folder
from snac.hub.registry import CONFIG_FILE, WEIGHTS_FILES, ModelSource, is_repository, resolve

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
    wanted = _wanted(source, revision)
    if wanted.folder is not None:
        return _in_folder(wanted)
    present = None if hub_kwargs.get("force_download") else _in_cache(wanted, hub_kwargs)
    return _checked(present or _downloaded(wanted, hub_kwargs))


def cached(
    source: str | os.PathLike[str], *, revision: str | None = None, **hub_kwargs: Any
) -> ModelFiles | None:
    """The files of a model if they are on this machine, else None; without network, without reading them.

    Raises:
        ModelNotFoundError: ``source`` is neither a name nor a folder nor of the form ``owner/name``.
    """
    wanted = _wanted(source, revision)
    if wanted.folder is None:
        return _in_cache(wanted, hub_kwargs)
    try:
        return _in_folder(wanted)
    except ModelNotFoundError:
        return None


def pull(source: str | os.PathLike[str], *, revision: str | None = None, **hub_kwargs: Any) -> ModelFiles:
    """Fetches the newest files of a model of the Hub, and damaged ones again.

    A shipped model or a folder needs nothing. Without network, what is in the cache will do.

    Raises:
        ModelError, ModelNotFoundError: as ``locate`` does.
    """
    wanted = _wanted(source, revision)
    if wanted.folder is not None:
        return _in_folder(wanted)
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
    entries = record.read(files.cache_folder)
    for path, value in ((files.config, ""), (files.weights, fingerprint), (converted, fingerprint)):
        if path is not None:
            entries.pop(_key(files, path), None)  # so that it comes last: the oldest are dropped first
            entries[_key(files, path)] = record.describe(path, value)
    record.write(files.cache_folder, entries)


def recorded_fingerprint(files: ModelFiles, converted: Path | None = None) -> str | None:
    """The fingerprint of a model of the Hub that was loaded before and not touched since, else None.

    Args:
        files: as ``locate`` gave them.
        converted: a file in the cache folder that was made of the weights, which must be untouched, too.
    """
    if files.cache_folder is None:
        return None
    entries = record.read(files.cache_folder)
    for path in (files.config, files.weights, converted):
        if path is not None and not _is_untouched(path, entries.get(_key(files, path))):
            return None
    return entries[_key(files, converted or files.weights)].fingerprint or None


def _is_untouched(path: Path, entry: record.Entry | None) -> bool:
    return entry is not None and entry.is_untouched(path)


def _wanted(source: str | os.PathLike[str], revision: str | None) -> ModelSource:
    wanted = resolve(source)
    if revision is None or wanted.repository is None:
        return wanted
    if wanted.revision not in (None, revision):
        raise ModelNotFoundError(f"model {str(source)!r}: revision {revision!r} was asked for, too: give one")
    return replace(wanted, revision=revision)


def _in_folder(source: ModelSource) -> ModelFiles:
    folder = source.folder
    assert folder is not None
    if (folder / "snapshots").is_dir() and not (folder / CONFIG_FILE).exists():
        return _handed_over(folder)
    if not folder.is_dir():
        raise ModelNotFoundError(f"the shipped model {source.name!r} is missing: install the package again")
    config, weights = _pair(folder)
    if config is None:
        raise ModelNotFoundError(f"{folder}: has no {CONFIG_FILE}, so it is not the folder of a model")
    if weights is None:
        raise ModelNotFoundError(f"{folder}: has no weights ({' or '.join(WEIGHTS_FILES)})")
    return ModelFiles(source, config, weights, "shipped" if source.known else f"folder {folder}")


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
    config, weights = _pair(folder / "snapshots" / commit / subfolder)
    if config is None or weights is None:
        return None
    return ModelFiles(source, config, weights, _origin(source, commit), folder)


def _downloaded(source: ModelSource, hub_kwargs: Mapping[str, Any]) -> ModelFiles:
    config, weights = download(source, hub_kwargs)
    folder, commit = cache_place(config)
    return ModelFiles(source, config, weights, _origin(source, commit), folder)


def _origin(source: ModelSource, commit: str | None) -> str:
    return f"{source.repository} at {commit[:12]}" if commit else f"{source.repository}"


def _pair(folder: Path) -> tuple[Path | None, Path | None]:
    config = folder / CONFIG_FILE
    weights = (folder / name for name in WEIGHTS_FILES)
    return config if config.is_file() else None, next((path for path in weights if path.is_file()), None)


def _checked(files: ModelFiles, *, compare_record: bool = True) -> ModelFiles:
    """Compares cached files with what is known of them; a file that is as recorded is not read."""
    if files.cache_folder is None:
        return files
    entries = record.read(files.cache_folder) if compare_record else {}
    for path in (files.config, files.weights):
        entry = entries.get(_key(files, path))
        if entry is not None and entry.is_untouched(path):
            continue
        published = files.source.known.files.get(path.name) if files.source.known else None
        if published is not None and files.source.revision is None:
            _compare(files, path, "published", published.sha256, published.size)
        elif stored := _sha256_of_blob(path):
            _compare(files, path, "downloaded", stored)
        elif entry is not None:
            _compare(files, path, "first used", entry.sha256, entry.size)
    return files


def _compare(files: ModelFiles, path: Path, when: str, sha256: str, size: int | None = None) -> None:
    actual = path.stat().st_size
    if size is not None and actual != size:
        found = f"it has {actual} bytes instead of {size}"
    elif (digest := record.sha256(path)) != sha256:
        found = f"its SHA-256 begins with {digest[:12]} instead of {sha256[:12]}"
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
