"""Downloading a model from the Hugging Face Hub, and publishing one there.

Each way these fail is one line that says what to do.

Knows no torch. The download part of ``huggingface_hub`` is slow to import: that happens inside the functions.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from snac.config import ModelConfig
from snac.errors import BrokenDownloadError, ModelError, ModelNotFoundError, UnreachableModelError
from snac.hub.registry import CONFIG_FILE, PRIOR_FILE, WEIGHTS_FILES, ModelSource, is_repository

_CARD = "README.md"
_COMMIT = re.compile(r"[0-9a-f]{40}")
# The arguments of hf_hub_download that make the address, and those that make the request.
_ADDRESS_ARGUMENTS = ("endpoint", "repo_type", "subfolder")
_REQUEST_ARGUMENTS = ("headers", "library_name", "library_version", "proxies", "token", "user_agent")


def download(source: ModelSource, hub_kwargs: Mapping[str, Any]) -> tuple[Path, Path]:
    """Configuration and weights of a model of the Hub, of one commit. Files that are up to date are kept.

    A learned prior that lies beside them there comes along.

    Args:
        source: with ``repository`` set.
        hub_kwargs: further arguments of ``hf_hub_download``.

    Raises:
        UnreachableModelError: there is no network, or the Hub does not answer as it should.
        ModelNotFoundError: any other failure.
    """
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE or bool(hub_kwargs.get("local_files_only"))
    if offline and hub_kwargs.get("local_dir") is None:
        setting = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "local_files_only is set"
        raise _not_here(source, hub_kwargs, setting)
    reached = False
    with _quiet():
        try:
            if not offline:
                _probe(source, hub_kwargs)
                reached = True
            return _fetch(source, hub_kwargs)
        except (ModelError, TypeError):  # TypeError: an argument that the Hub's client does not know
            raise
        except Exception as error:
            # The client's failures have no common base: HTTP, sockets, its own, those of its storage backend.
            raise _explained(error, source, hub_kwargs, reached) from error


def repository_folder(repository: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a repository in the cache of ``huggingface_hub``, whether it exists or not."""
    from huggingface_hub import constants

    cache = Path(cache_dir if cache_dir is not None else constants.HF_HUB_CACHE).expanduser()
    return cache / f"models--{repository.replace('/', '--')}"


def cached_commit(folder: Path, revision: str) -> str | None:
    """The commit that a branch or tag had when it was last asked for; None if it never was.

    The cache's layout is documented: refs/<revision> holds a commit, snapshots/<commit> its files.
    """
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        with open(folder / "refs" / revision, encoding="ascii") as file:
            commit = file.read(64).strip()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def cache_place(path: Path) -> tuple[Path | None, str | None]:
    """Repository folder and commit of a file in the cache; None for one that lies elsewhere."""
    for parent in path.parents:
        if parent.parent.name == "snapshots" and _COMMIT.fullmatch(parent.name):
            return parent.parent.parent, parent.name
    return None, None


def _probe(source: ModelSource, hub_kwargs: Mapping[str, Any]) -> None:
    """Asks for the configuration's headers, once: left alone, the client retries for half a minute."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    assert source.repository is not None
    address = {name: hub_kwargs[name] for name in _ADDRESS_ARGUMENTS if name in hub_kwargs}
    url = hf_hub_url(source.repository, CONFIG_FILE, revision=source.revision, **address)
    request = {name: hub_kwargs[name] for name in _REQUEST_ARGUMENTS if name in hub_kwargs}
    timeout = hub_kwargs.get("etag_timeout", constants.HF_HUB_ETAG_TIMEOUT)
    if get_hf_file_metadata(url, timeout=timeout, **request).commit_hash is None:
        reason = "does not answer as the Hub does; is there a sign-in page or a proxy in between?"
        raise _not_here(source, hub_kwargs, f"{_host(hub_kwargs)} {reason}")


def _fetch(source: ModelSource, hub_kwargs: Mapping[str, Any]) -> tuple[Path, Path]:
    from huggingface_hub import hf_hub_download

    assert source.repository is not None
    repository = source.repository
    errors = _client_errors()
    config = Path(hf_hub_download(repository, CONFIG_FILE, revision=source.revision, **hub_kwargs))
    # What follows comes from the commit of the configuration, even if the branch has moved in between.
    revision = cache_place(config)[1] or source.revision

    def fetched(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(repository, name, revision=revision, **hub_kwargs))
        except errors.LocalEntryNotFoundError:
            raise
        except errors.EntryNotFoundError:
            return None

    weights = next(filter(None, map(fetched, WEIGHTS_FILES)), None)
    if weights is None:
        raise ModelNotFoundError(
            f"{repository}: has no weights ({' or '.join(WEIGHTS_FILES)}), so it is not a SNAC model"
        )
    fetched(PRIOR_FILE)
    return config, weights


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the client's warnings about retries off stderr: a failure is told once, in the error."""
    from huggingface_hub.utils import logging as client_logging

    level = client_logging.get_verbosity()
    if not (os.environ.get("HF_DEBUG") or os.environ.get("HF_HUB_VERBOSITY")):
        client_logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        client_logging.set_verbosity(level)


def _client_errors() -> Any:
    # All versions from 0.24 on export their exceptions here, though not all say so in their types.
    from huggingface_hub import utils

    return utils


def _explained(
    error: Exception, source: ModelSource, hub_kwargs: Mapping[str, Any], reached: bool
) -> ModelNotFoundError:
    """The one line for a failure of the Hub's client, before or after the Hub was reached."""
    what, host, errors = source.repository, _host(hub_kwargs), _client_errors()
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        page = f"https://{host}/{what}"
        return ModelNotFoundError(f"{what}: access is restricted: ask for it at {page}, then `hf auth login`")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelNotFoundError(
            f"{host} has no repository {what!r}, or it is private: check the name, or `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFoundError(f"{what}: has no revision {source.revision or 'main'!r}")
    if isinstance(error, errors.HFValidationError):
        return ModelNotFoundError(f"{what!r} is not the name of a repository on the Hugging Face Hub")
    if isinstance(error, errors.EntryNotFoundError) and status is not None:
        return ModelNotFoundError(f"{what}: has no {CONFIG_FILE}, so it is not a SNAC model")
    if status in (401, 403):
        return ModelNotFoundError(
            f"{what}: {host} refuses access ({status}): check the token (`hf auth login`)"
        )
    if status is not None and status >= 400:
        return _not_here(source, hub_kwargs, f"{host} answers {status}, try again later")
    return _explained_locally(error, source, hub_kwargs, reached)


def _explained_locally(
    error: Exception, source: ModelSource, hub_kwargs: Mapping[str, Any], reached: bool
) -> ModelNotFoundError:
    """The one line for a failure that is not an answer of the Hub: disk, connection."""
    what, cache, number = source.repository, _folder(source, hub_kwargs).parent, _errno(error)
    text = str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return ModelNotFoundError(
            f"{what}: no space left in {cache}: make room, or set HF_HOME to a folder on another disk"
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ModelNotFoundError(f"{what}: cannot write to {cache}: set HF_HOME to a folder of yours")
    reason = text.partition("\n")[0][:100] or type(error).__name__
    if reached:
        return BrokenDownloadError(source.spelling, str(what), reason)
    return _not_here(source, hub_kwargs, f"{_host(hub_kwargs)} cannot be reached: {reason}")


def _not_here(source: ModelSource, hub_kwargs: Mapping[str, Any], reason: str) -> UnreachableModelError:
    return UnreachableModelError(source.spelling, reason, _folder(source, hub_kwargs))


def _folder(source: ModelSource, hub_kwargs: Mapping[str, Any]) -> Path:
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


def push(
    folder: str | Path, repository: str, *, private: bool = False, message: str = "", **hub_kwargs: Any
) -> str:
    """Uploads a model's configuration, weights, learned prior and card; nothing else that lies in the folder.

    Args:
        folder: with config.json and weights.
        repository: ``owner/name``; made if it does not exist.
        private: whether it is made private; one that exists stays as it is.
        message: of the commit.
        hub_kwargs: of ``huggingface_hub.HfApi``: ``endpoint``, ``token``.

    Returns:
        the address of the repository.

    Raises:
        ModelError: the folder holds no model, or the Hub refuses or cannot be reached.
    """
    folder = Path(folder)
    if not is_repository(repository):
        raise ModelError(f"{repository!r} is not the name of a repository: give owner/name")
    if not folder.is_dir():
        raise ModelError(f"{folder}: is not a folder: name the model that training has exported")
    ModelConfig.from_file(folder / CONFIG_FILE)
    names = [name for name in (CONFIG_FILE, *WEIGHTS_FILES, PRIOR_FILE, _CARD) if (folder / name).is_file()]
    if not set(WEIGHTS_FILES) & set(names):
        raise ModelError(f"{folder}: has no weights ({' or '.join(WEIGHTS_FILES)})")
    from huggingface_hub import HfApi

    try:
        api = HfApi(**hub_kwargs)
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            allow_patterns=names,
            commit_message=message or f"Upload {repository.partition('/')[2]}",
        )
    except Exception as error:  # the client's own errors, the network's, and those of what it is built on
        raise ModelError(f"{repository}: {_refusal(error)}") from error
    return str(url)


def _refusal(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401 or type(error).__name__ == "LocalTokenNotFoundError":
        return "the Hub does not know you: `hf auth login`, or set HF_TOKEN to a token that may write"
    if status == 403:
        return "this token may not write there: choose your own name, or a token with write access"
    if (
        os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
        or type(error).__name__ == "OfflineModeIsEnabled"
    ):
        return "HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it"
    text = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    return f"the Hub refused ({status}): {text}" if status else f"the Hub cannot be reached: {text}"
