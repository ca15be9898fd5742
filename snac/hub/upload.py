"""Publishing a model folder on the Hugging Face Hub. Knows no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from snac.config import ModelConfig
from snac.errors import ModelError
from snac.hub.registry import CONFIG_FILE, PRIOR_FILE, WEIGHTS_FILES, is_repository

_CARD = "README.md"


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
        raise ModelError(f"{repository}: {_reason(error)}") from error
    return str(url)


def _reason(error: Exception) -> str:
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
