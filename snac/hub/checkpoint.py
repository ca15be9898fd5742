"""A model as it lies on a disk: configuration, arrays and fingerprint, to be built from. Knows no torch.

Weights are read without running anything that is in them, and written so that none is half done. A
safetensors file is read by ``snac.arrays``. A pickle of ``torch.save``, as the published ones are, needs
torch, which is imported within the function that reads it. That is done once: beside the record of a
downloaded model, or in the folder of another, a safetensors file is left with the same values, and from then
on nothing imports torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snac.arrays import first_line, metadata_of, read_safetensors, safetensors_bytes
from snac.config import ModelConfig, WaveformConfig
from snac.errors import ModelError
from snac.files import replacing
from snac.hub.locate import ModelFiles, locate, recorded_fingerprint, remember
from snac.hub.registry import CONFIG_FILE, WEIGHTS_FILES
from snac.hub.state import as_float32, fingerprint, state_shapes


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


_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_ARCHIVE = b"PK\x03\x04"  # how a file of torch.save begins
_NESTED = ("state_dict", "model")  # keys under which training programs put the weights
# Tensors up to this many values (biases, norms, snake parameters) stay in 32 bits in a half-precision export:
# together they are a few percent of a model, and rounding them is what one hears.
_HALF_ABOVE = 4096

# How to see the exponents of floating-point numbers: as which integers, by which mask; those of an infinity.
_FLOATS: Mapping[str, tuple[str, int, int]] = {
    "<f2": ("<u2", 0x7FFF, 0x7C00),
    "<f4": ("<u4", 0x7FFFFFFF, 0x7F800000),
}


def is_pickle(path: Path) -> bool:
    """Whether a file is an archive of ``torch.save``, by its content.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(len(_ARCHIVE)) == _ARCHIVE
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads weights from a safetensors file or a checkpoint of ``torch.save``; the content tells which.

    Values are float16 or float32 as they are stored; those of bfloat16 and 64 bits come as float32. The
    arrays are not to be written to: they may be the mapped file itself. A dictionary with the weights under
    ``state_dict`` or ``model`` is accepted; keys of the former weight norm (``weight_g``, ``weight_v``) are
    renamed to the present ones.

    Raises:
        ModelError: the file cannot be read, is not a checkpoint, is cut off, asks to run code, or claims more
            data than it has.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head, size = file.read(64), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    if head.startswith(_ARCHIVE):
        if path.suffix == ".safetensors":  # torch.load goes by the name
            raise ModelError(f"{path}: is a PyTorch checkpoint by another name: call it {WEIGHTS_FILES[1]}")
        arrays = _arrays_of(_load_torch(path), path, size)
    elif head[8:9] == b"{":
        arrays = read_safetensors(path)
        _check_names(arrays, path)
    else:
        raise ModelError(f"{path}: {_what_else(head, size)}")
    return _published_names(arrays)


def check_weights(
    expected: Mapping[str, tuple[int, ...]], weights: Mapping[str, np.ndarray], where: str | Path
) -> None:
    """Checks that weights fit a model: the same names, the same shapes, of floating point.

    Args:
        expected: the shapes that the configuration wants, ``snac.hub.state.state_shapes``.
        weights: the arrays.
        where: the file they are from, for the message.

    Raises:
        ModelError: names the first key of each kind that is missing, unexpected or of another shape, and how
            many there are; or the first array that is not of floating point.
    """
    kinds = {
        "missing": [name for name in expected if name not in weights],
        "unexpected": [name for name in weights if name not in expected],
        "of another shape": [
            f"{name} is {' x '.join(map(str, weights[name].shape)) or 'a scalar'} instead of "
            f"{' x '.join(map(str, shape)) or 'a scalar'}"
            for name, shape in expected.items()
            if name in weights and weights[name].shape != shape
        ],
    }
    found = ", ".join(f"{len(each)} {kind} (the first: {each[0]})" for kind, each in kinds.items() if each)
    if found:
        raise ModelError(f"{where}: these weights do not fit the model's {CONFIG_FILE}: {found}")
    for name, array in weights.items():
        if array.dtype.kind != "f":
            raise ModelError(f"{where}: {name} is of {array.dtype}, not of floating point")


def check_finite(weights: Mapping[str, np.ndarray], where: str | Path) -> None:
    """Checks that all values are finite numbers.

    Raises:
        ModelError: names the first array with values that are not.
    """
    for name, array in weights.items():
        bits, exponent, infinity = _FLOATS.get(array.dtype.str, ("", 0, 0))
        if not bits:
            finite = bool(np.isfinite(array).all())
        else:  # by the bits of their exponents: several times faster
            finite = array.size == 0 or int((array.view(bits) & exponent).max()) < infinity
        if not finite:
            raise ModelError(f"{where}: damaged weights: {name} has values that are not finite numbers")


def save_checkpoint(
    folder: str | Path, config: ModelConfig, state_dict: Mapping[str, Any], *, half: bool = False
) -> Path:
    """Exports a model: config.json, model.safetensors and, of the published form, pytorch_model.bin.

    The published ``snac`` package then loads the folder, too. All files are written in full before the first
    one takes its name, so that an interrupted export leaves the former one.

    Args:
        folder: made if it does not exist.
        config: the model's configuration.
        state_dict: its weights in the published form: a NumPy array or a torch tensor a name.
        half: store tensors of more than 4096 values in 16 bits.

    Returns:
        the folder.

    Raises:
        ModelError: the folder cannot be written, or a value is too large for 16 bits.
    """
    folder = Path(folder)
    arrays = {name: _stored(name, value, half) for name, value in state_dict.items()}
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    safe, pickled = WEIGHTS_FILES
    writers: dict[str, Callable[[str], Any]] = {
        safe: lambda path: Path(path).write_bytes(safetensors_bytes(arrays, {"format": "pt"}))
    }
    if isinstance(config, WaveformConfig):
        writers[pickled] = lambda path: _save_torch(arrays, path)
    writers[CONFIG_FILE] = lambda path: Path(path).write_text(text, encoding="utf-8")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_together(folder, writers)
    except (OSError, RuntimeError) as error:
        # torch reports a full disk by an error of its own.
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ModelError(f"{folder}: the model cannot be written: {reason}") from error
    return folder


def _load_torch(path: Path) -> Any:
    """A checkpoint of ``torch.save`` through the unpickler that makes tensors and containers only."""
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(f"{path}: damaged or cut off ({first_line(error)}): fetch it again") from error
    if compressed:
        # torch.save never compresses; what unpacks to more than the file would not be bounded by it.
        raise ModelError(f"{path}: is a compressed archive, not a checkpoint: unpack it and give its folder")
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path}: {_unpickling(str(error))}") from error
    except Exception as error:  # on damaged input the unpickler fails with whatever its own state leads to
        raise ModelError(f"{path}: is no checkpoint, or damaged ({first_line(error)})") from error


def _arrays_of(loaded: Any, path: Path, size: int) -> dict[str, np.ndarray]:
    """The arrays that a checkpoint of ``torch.save`` holds; those of 16 and 32 bits are the mapped file."""
    import torch

    for key in _NESTED:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not loaded:
        raise ModelError(f"{path}: holds no weights (a {type(loaded).__name__}, not a state dict)")
    _check_names((name for name in loaded if isinstance(name, str)), path)
    total = 0
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ModelError(f"{path}: holds no weights: {name!r} is a {type(tensor).__name__}, not a tensor")
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise ModelError(f"{path}: {name} is not a plain tensor")
        total += tensor.numel() * tensor.element_size()
    if total > size:
        # A view of stride zero claims any number of values without having them.
        raise ModelError(f"{path}: claims {total} bytes of values in a file of {size}: damaged or forged")
    kept = (torch.float16, torch.float32)
    return {
        name: (tensor.float() if tensor.is_floating_point() and tensor.dtype not in kept else tensor)
        .detach()
        .numpy()
        for name, tensor in loaded.items()
    }


def _unpickling(message: str) -> str:
    wanted = re.search(r"GLOBAL (\S+)", message)
    if wanted or "Unsupported class" in message or "reduce for unrecognized" in message:
        what = f"asks for {wanted.group(1)}" if wanted else "holds objects other than tensors"
        return f"refused: the pickle {what}, and reading that could run code; export it as {WEIGHTS_FILES[0]}"
    return "is no checkpoint, or damaged: fetch it again"


def _what_else(head: bytes, size: int) -> str:
    if size == 0:
        return "is empty: fetch it again"
    if head.startswith(_LFS_POINTER):
        return "is a Git LFS pointer, not the weights: run `git lfs pull` where it was cloned"
    if head.lstrip()[:1] == b"<":
        return "is a web page, not weights: fetch the file itself"
    if head[:1] == b"\x80":
        return (
            "refused: it is a bare Python pickle (PyTorch wrote such before 1.6), and reading that could run "
            f"code; export it as {WEIGHTS_FILES[0]}"
        )
    return "is neither safetensors nor a PyTorch checkpoint: damaged, or not weights"


def _check_names(names: Iterable[str], path: Path) -> None:
    """Refuses names that messages could not show on a line."""
    if not all(map(str.isprintable, names)):
        raise ModelError(f"{path}: damaged: the name of a tensor does not print: fetch it again")


def _published_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed = {}
    for name, array in arrays.items():
        new = re.sub(r"(^|\.)weight_([gv])$", _parametrization, name)
        renamed[new if new not in arrays else name] = array
    return renamed


def _parametrization(match: re.Match[str]) -> str:
    return f"{match[1]}parametrizations.weight.original{'gv'.index(match[2])}"


def _stored(name: str, value: Any, half: bool) -> np.ndarray:
    array = as_float32(name, value)
    if half and array.size > _HALF_ABOVE:
        with np.errstate(over="ignore"):
            array = array.astype(np.float16)
    if not np.isfinite(array).all():
        raise ModelError(f"{name} has values that are not finite numbers{' of 16 bits' if half else ''}")
    return array


def _save_torch(arrays: Mapping[str, np.ndarray], path: str) -> None:
    import torch

    torch.save({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, path)


def _write_together(folder: Path, writers: Mapping[str, Callable[[str], Any]]) -> None:
    """Writes each file under a temporary name, and gives them their own when all are on the disk."""
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary:
        for name, write in writers.items():
            path = os.path.join(temporary, name)
            write(path)
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        for name in writers:
            os.replace(os.path.join(temporary, name), folder / name)
