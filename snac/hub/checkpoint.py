"""A model as it lies on a disk: configuration, arrays and fingerprint, to be built from. Knows no torch.

Weights that are a pickle of ``torch.save``, as the published ones are, need torch to be read. That is done
once: beside the record of a downloaded model, or in the folder of another, a safetensors file is left with
the same values, and from then on nothing imports torch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snac.arrays import metadata_of
from snac.config import ModelConfig
from snac.errors import ModelError
from snac.files import replacing
from snac.hub.locate import ModelFiles, locate, recorded_fingerprint, remember
from snac.hub.state import fingerprint, state_shapes
from snac.hub.weights import (
    check_finite,
    check_weights,
    is_pickle,
    read_weights,
    safetensors_bytes,
)


@dataclass(frozen=True)
class Checkpoint:
    """A model that was read from files.

    Attributes:
        name: the model id that files carry.
        config: of either form.
        arrays: the weights by their names in the published state dict, in the width they are stored in
            (float16 or float32), read-only.
        fingerprint: 16 hex digits, see ``snac.hub.state``.
        prior: the file of the learned prior that lies beside the weights, if there is one.
    """

    name: str
    config: ModelConfig
    arrays: Mapping[str, np.ndarray]
    fingerprint: str
    prior: Path | None = None


def load_checkpoint(source: str | os.PathLike[str], **hub_kwargs: Any) -> Checkpoint:
    """Finds a model, downloads it if need be, reads and checks it.

    The weights are hashed once, or not at all if the record of a downloaded model tells their fingerprint.

    Args:
        source: a name, a folder, or ``owner/name``, as ``snac.hub.registry.resolve`` takes it.
        hub_kwargs: ``revision``, and further arguments of ``huggingface_hub.hf_hub_download``.

    Raises:
        ModelNotFoundError: there is no such model, it cannot be reached, or a file of it is missing.
        ModelError: configuration or weights are damaged, refused, or do not belong together.
    """
    files = locate(source, **hub_kwargs)
    config = ModelConfig.from_file(files.config)
    pickled = is_pickle(files.weights)
    if pickled and (converted := _converted(files, config)) is not None:
        return converted
    arrays = read_weights(files.weights)
    check_weights(state_shapes(config), arrays, files.weights)
    known = recorded_fingerprint(files)
    if known is None:
        check_finite(arrays, files.weights)
        known = fingerprint(config, arrays).hex()
        remember(files, known)
    checkpoint = Checkpoint(files.name, config, arrays, known, files.prior)
    if pickled:
        _convert(files, checkpoint)
    return checkpoint


def _converted_path(files: ModelFiles) -> Path:
    """Where the safetensors file of a pickle goes."""
    if files.cache_folder is None:
        return files.weights.with_suffix(".converted.safetensors")
    commit, *rest = files.weights.relative_to(files.cache_folder / "snapshots").with_suffix("").parts
    return files.cache_folder / f"snac-{'-'.join((commit[:12], *rest))}.safetensors"


def _origin(files: ModelFiles) -> dict[str, str]:
    """What tells a pickle from a later one of the same name."""
    status = files.weights.stat()
    return {"pickle_size": str(status.st_size), "pickle_mtime_ns": str(status.st_mtime_ns)}


def _converted(files: ModelFiles, config: ModelConfig) -> Checkpoint | None:
    """The model from the safetensors file that was made of its pickle; None if that is missing or amiss."""
    path = _converted_path(files)
    metadata = metadata_of(path)
    if any(metadata.get(key) != value for key, value in _origin(files).items()):
        return None
    try:
        arrays = read_weights(path)
        check_weights(state_shapes(config), arrays, path)
    except ModelError:
        return None
    known = recorded_fingerprint(files, path)
    if known is None:
        known = fingerprint(config, arrays).hex()
        if known != metadata.get("fingerprint"):
            return None
        remember(files, known, path)
    return Checkpoint(files.name, config, arrays, known, files.prior)


def _convert(files: ModelFiles, checkpoint: Checkpoint) -> None:
    """Leaves a safetensors file for the next time; a folder that cannot be written to stays without."""
    path = _converted_path(files)
    metadata = {"format": "pt", "fingerprint": checkpoint.fingerprint, **_origin(files)}
    with contextlib.suppress(OSError):
        with replacing(path) as file:
            file.write(safetensors_bytes(checkpoint.arrays, metadata))
        remember(files, checkpoint.fingerprint, path)
