"""Finding a model's files: in the package, in a folder, in the cache of the Hugging Face Hub, or on the Hub.

What is in the cache is used without asking the network; ``pull`` is what asks for something newer. So a model
that worked once works without a network, at once, and stays the same until it is pulled again. Cached files
are compared with what the Hub said of them and with the record of their first use (``snac.record``).

Knows no torch. The download part of ``huggingface_hub`` is slow to import, so that happens when it is needed.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import record
from .errors import ModelError, ModelNotFoundError
from .registry import CONFIG_FILE, WEIGHTS_FILES, ModelSource, is_repository, resolve

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# The arguments of hf_hub_download that concern a request, and those that say which file is meant.
_REQUEST_ARGUMENTS = (
    "endpoint",
    "headers",
    "library_name",
    "library_version",
    "proxies",
    "token",
    "user_agent",
)
_FILE_ARGUMENTS = ("endpoint", "repo_type", "subfolder")


@dataclass(frozen=True)
class ModelFiles:
    """The two files of a model.

    Attributes:
        source: what was asked for.
        config: config.json.
        weights: model.safetensors or pytorch_model.bin.
        origin: where they are from, in words.
        repository_folder: the cache folder of the repository; None for a shipped model or a folder.
        commit: the commit of the repository; None likewise.
    """

    source: ModelSource
    config: Path
    weights: Path
    origin: str
    repository_folder: Path | None = None
    commit: str | None = None

    @property
    def name(self) -> str:
        """The model id that files carry."""
        return self.source.name

    @property
    def size_on_disk(self) -> int:
        """Bytes of configuration and weights."""
        return self.config.stat().st_size + self.weights.stat().st_size


class _UnreachableError(ModelNotFoundError):
    """The Hub cannot be asked, so that nothing is known about the model."""


def locate(source: str | os.PathLike[str], *, revision: str | None = None, **hub_kwargs: Any) -> ModelFiles:
    """The files of a model, downloaded if they are not on this machine.

    Args:
        source: a name, a folder, or ``owner/name``, as ``snac.registry.resolve`` takes it.
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
    cached_files = None if hub_kwargs.get("force_download") else _in_cache(wanted, hub_kwargs)
    return _checked(cached_files or _download(wanted, hub_kwargs))


def cached(
    source: str | os.PathLike[str], *, revision: str | None = None, **hub_kwargs: Any
) -> ModelFiles | None:
    """The files of a model if they are on this machine, else None. Neither uses the network nor reads them.

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
    """Fetches the newest files of a model of the Hub, and fetches damaged ones again.

    A shipped model or a folder needs nothing. Without network, what is in the cache will do.

    Raises:
        as ``locate`` does.
    """
    wanted = _wanted(source, revision)
    if wanted.folder is not None:
        return _in_folder(wanted)
    try:
        files = _download(wanted, hub_kwargs)
    except _UnreachableError:
        present = _in_cache(wanted, hub_kwargs)
        if present is None or hub_kwargs.get("force_download"):
            raise
        return _checked(present)
    try:
        return _checked(files)
    except ModelError:
        files = _download(wanted, {**hub_kwargs, "force_download": True})
        return _checked(files, compare_record=False)


def remember(files: ModelFiles, fingerprint: str) -> None:
    """Records the files of a model that has just been loaded; nothing to do for a shipped model or a folder.

    Args:
        files: as ``locate`` gave them.
        fingerprint: of the weights, 16 hex digits.
    """
    if files.repository_folder is None or recorded_fingerprint(files) == fingerprint:
        return
    entries = record.read(files.repository_folder)
    for path, value in ((files.config, ""), (files.weights, fingerprint)):
        entries.pop(_key(files, path), None)  # so that it comes last: the oldest are dropped first
        entries[_key(files, path)] = record.describe(path, value)
    record.write(files.repository_folder, entries)


def recorded_fingerprint(files: ModelFiles) -> str | None:
    """The fingerprint of weights that were loaded before and not touched since, else None. Reads no weights."""
    if files.repository_folder is None:
        return None
    entries = record.read(files.repository_folder)
    for path in (files.config, files.weights):
        entry = entries.get(_key(files, path))
        if entry is None or not entry.is_untouched(path):
            return None
    return entries[_key(files, files.weights)].fingerprint or None


def repository_folder(repository: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder in the cache of ``huggingface_hub`` that belongs to a repository, whether it exists or not."""
    from huggingface_hub import constants

    cache = Path(cache_dir if cache_dir is not None else constants.HF_HUB_CACHE).expanduser()
    return cache / f"models--{repository.replace('/', '--')}"


def _wanted(source: str | os.PathLike[str], revision: str | None) -> ModelSource:
    wanted = resolve(source)
    if revision is None or wanted.repository is None:
        return wanted
    if wanted.revision not in (None, revision):
        raise ModelNotFoundError(f"model {str(source)!r}: revision {revision!r} was asked for, too; give one")
    return replace(wanted, revision=revision)


def _in_folder(source: ModelSource) -> ModelFiles:
    folder = source.folder
    assert folder is not None
    if (folder / "snapshots").is_dir() and not (folder / CONFIG_FILE).exists():
        return _handed_over(folder)
    config, weights = _pair(folder)
    if not folder.is_dir():
        raise ModelNotFoundError(f"the shipped model {source.name!r} is missing: install the package again")
    if config is None:
        raise ModelNotFoundError(f"{folder}: has no {CONFIG_FILE}, so it is not the folder of a model")
    if weights is None:
        raise ModelNotFoundError(f"{folder}: has no weights ({' or '.join(WEIGHTS_FILES)})")
    return ModelFiles(source, config, weights, "shipped" if source.known else f"folder {folder}")


def _handed_over(folder: Path) -> ModelFiles:
    """A cache folder of the Hub's client that was copied from another machine and given as it is."""
    repository = folder.resolve().name.removeprefix("models--").replace("--", "/")
    source = resolve(repository) if is_repository(repository) else ModelSource(repository, folder)
    files = _in_snapshot(source, folder, "main", "")
    if files is None:
        raise ModelNotFoundError(f"{folder}: has no complete copy of its revision 'main': copy it again")
    return _checked(replace(files, origin=f"folder {folder}"))


def _in_cache(source: ModelSource, hub_kwargs: Mapping[str, Any]) -> ModelFiles | None:
    if hub_kwargs.get("local_dir") is not None or hub_kwargs.get("repo_type") not in (None, "model"):
        return None
    assert source.repository is not None
    folder = repository_folder(source.repository, hub_kwargs.get("cache_dir"))
    return _in_snapshot(source, folder, source.revision or "main", hub_kwargs.get("subfolder") or "")


def _in_snapshot(source: ModelSource, folder: Path, revision: str, subfolder: str) -> ModelFiles | None:
    """The layout is documented: refs/<revision> holds a commit, snapshots/<commit> its files."""
    commit = revision
    if not _COMMIT.fullmatch(revision):
        try:
            with open(folder / "refs" / revision, encoding="ascii") as file:
                commit = file.read(41).strip()
        except (OSError, ValueError):
            return None
        if not _COMMIT.fullmatch(commit):
            return None
    config, weights = _pair(folder / "snapshots" / commit / subfolder)
    if config is None or weights is None:
        return None
    return ModelFiles(source, config, weights, f"{source.repository} at {commit[:12]}", folder, commit)


def _pair(folder: Path) -> tuple[Path | None, Path | None]:
    config = folder / CONFIG_FILE
    weights = (folder / name for name in WEIGHTS_FILES)
    return config if config.is_file() else None, next((path for path in weights if path.is_file()), None)


def _checked(files: ModelFiles, *, compare_record: bool = True) -> ModelFiles:
    """Compares cached files with what is known of them; a file that is as recorded is not read."""
    if files.repository_folder is None:
        return files
    entries = record.read(files.repository_folder) if compare_record else {}
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
    raise ModelError(
        f"{path}: is not the file that was {when}: {found}; fetch it again with "
        f"`snac models pull {files.source.spelling}`"
    )


def _sha256_of_blob(path: Path) -> str | None:
    """What the Hub said the content is: the client names a large file's blob after its SHA-256."""
    # One hop only: the blob may in turn be a link into a store that names files by another hash.
    target = Path(os.readlink(path)) if path.is_symlink() else path
    return target.name if target.parent.name == "blobs" and _SHA256.fullmatch(target.name) else None


def _key(files: ModelFiles, path: Path) -> str:
    assert files.repository_folder is not None
    return path.relative_to(files.repository_folder / "snapshots").as_posix()


def _download(source: ModelSource, hub_kwargs: Mapping[str, Any]) -> ModelFiles:
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE or bool(hub_kwargs.get("local_files_only"))
    if offline and hub_kwargs.get("local_dir") is None:
        setting = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "local_files_only is set"
        raise _UnreachableError(_not_here(source, hub_kwargs, setting))
    with _quiet():
        try:
            if not offline:
                _probe(source, hub_kwargs)
            return _fetch(source, hub_kwargs)
        except (ModelError, TypeError):  # TypeError: an argument that the Hub's client does not know
            raise
        except Exception as error:
            # The client's failures have no common base: HTTP, sockets, its own, those of its storage backend.
            raise _explained(error, source, hub_kwargs) from error


def _probe(source: ModelSource, hub_kwargs: Mapping[str, Any]) -> None:
    """Asks for the configuration's header once; left alone, the client retries for half a minute."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    assert source.repository is not None
    where = {name: hub_kwargs[name] for name in _FILE_ARGUMENTS if name in hub_kwargs}
    url = hf_hub_url(source.repository, CONFIG_FILE, revision=source.revision, **where)
    request = {name: hub_kwargs[name] for name in _REQUEST_ARGUMENTS if name in hub_kwargs}
    timeout = hub_kwargs.get("etag_timeout", constants.HF_HUB_ETAG_TIMEOUT)
    get_hf_file_metadata(url, timeout=timeout, **request)


def _fetch(source: ModelSource, hub_kwargs: Mapping[str, Any]) -> ModelFiles:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError

    assert source.repository is not None
    config = Path(hf_hub_download(source.repository, CONFIG_FILE, revision=source.revision, **hub_kwargs))
    folder, commit = _cache_place(config)
    for name in WEIGHTS_FILES:
        try:
            # Of the same commit, even if the branch has moved in between.
            path = hf_hub_download(source.repository, name, revision=commit or source.revision, **hub_kwargs)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
        origin = f"{source.repository} at {(commit or 'its newest')[:12]}"
        return ModelFiles(source, config, Path(path), origin, folder, commit)
    raise ModelNotFoundError(
        f"{source.repository}: has no weights ({' or '.join(WEIGHTS_FILES)}), so it is not a SNAC model"
    )


def _cache_place(path: Path) -> tuple[Path | None, str | None]:
    """Repository folder and commit of a file in the cache; neither when it lies elsewhere (``local_dir``)."""
    for parent in path.parents:
        if parent.parent.name == "snapshots" and _COMMIT.fullmatch(parent.name):
            return parent.parent.parent, parent.name
    return None, None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the client's warnings about retries off stderr: a failure is told once, in the error."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if not (os.environ.get("HF_DEBUG") or os.environ.get("HF_HUB_VERBOSITY")):
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _explained(error: Exception, source: ModelSource, hub_kwargs: Mapping[str, Any]) -> ModelNotFoundError:
    """One line for a failure of the Hub's client: what is wrong, and what to do."""
    from huggingface_hub import utils

    what, host = source.repository, _host(hub_kwargs)
    again = f"run `snac models pull {source.spelling}`"
    status = getattr(getattr(error, "response", None), "status_code", None)
    text = str(error)
    if isinstance(error, utils.GatedRepoError):
        return ModelNotFoundError(
            f"{what}: access is restricted: ask for it at https://{host}/{what}, then `hf auth login`"
        )
    if isinstance(error, utils.RepositoryNotFoundError):
        return ModelNotFoundError(
            f"{host} has no repository {what!r}, or it is private: check the name, or `hf auth login`"
        )
    if isinstance(error, utils.RevisionNotFoundError):
        return ModelNotFoundError(f"{what}: has no revision {source.revision!r}")
    if isinstance(error, utils.HFValidationError):
        return ModelNotFoundError(f"{what!r} is not the name of a repository on the Hugging Face Hub")
    if isinstance(error, utils.EntryNotFoundError) and not isinstance(error, utils.LocalEntryNotFoundError):
        return ModelNotFoundError(f"{what}: has no {CONFIG_FILE}, so it is not a SNAC model")
    if status in (401, 403):
        return ModelNotFoundError(
            f"{what}: {host} refuses access ({status}): check the token, or `hf auth login`"
        )
    if status is not None and status >= 400:
        return _UnreachableError(f"{what}: {host} answers {status}: try again later, {again}")
    if _errno(error) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return ModelNotFoundError(
            f"{what}: no space left in {_cache(source, hub_kwargs).parent}: make room, or set HF_HOME to a folder "
            "on another disk"
        )
    if _errno(error) in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ModelNotFoundError(
            f"{what}: cannot write to {_cache(source, hub_kwargs).parent}: set HF_HOME to a folder of yours"
        )
    if "Consistency check failed" in text or "RemoteProtocol" in type(error).__name__:
        return ModelNotFoundError(f"{what}: the download broke off: {again} to fetch it again")
    reason = text.partition("\n")[0][:100] or type(error).__name__
    return _UnreachableError(_not_here(source, hub_kwargs, f"{host} cannot be reached: {reason}"))


def _not_here(source: ModelSource, hub_kwargs: Mapping[str, Any], reason: str) -> str:
    folder = _cache(source, hub_kwargs)
    return (
        f"model {source.spelling!r} is not on this machine ({reason}): run `snac models pull {source.spelling}` on "
        f"a connected machine and copy the folder {folder.name} that it names into {folder.parent} here, or "
        f"give any folder with {CONFIG_FILE} and weights as -m FOLDER"
    )


def _cache(source: ModelSource, hub_kwargs: Mapping[str, Any]) -> Path:
    assert source.repository is not None
    return repository_folder(source.repository, hub_kwargs.get("cache_dir"))


def _host(hub_kwargs: Mapping[str, Any]) -> str:
    from huggingface_hub import constants

    endpoint = str(hub_kwargs.get("endpoint") or constants.ENDPOINT)
    return urlsplit(endpoint).netloc or endpoint


def _errno(error: BaseException | None) -> int | None:
    """The first errno in a chain of exceptions."""
    while error is not None:
        number = getattr(error, "errno", None)
        if isinstance(number, int):
            return number
        error = error.__cause__ or error.__context__
    return None
