"""Weights on disk: read without running anything that is in them, written so that none is half done."""

from __future__ import annotations

import json
import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from snac.config import ModelConfig, WaveformConfig
from snac.errors import ModelError
from snac.hub.registry import CONFIG_FILE, WEIGHTS_FILES

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_NESTED = ("state_dict", "model")  # keys under which training programs put the weights
# Tensors up to this many values (biases, norms, snake parameters) stay in 32 bits in a half-precision export:
# together they are a few percent of a model, and rounding them is what one hears.
_HALF_ABOVE = 4096


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Reads weights from a safetensors file or a checkpoint of ``torch.save``; the content tells which.

    Floating-point values come as float32 on the CPU. The tensors may be views of the mapped file: copy them
    into a model, do not keep them. A dictionary with the weights under ``state_dict`` or ``model`` is
    accepted; keys of the former weight norm (``weight_g``, ``weight_v``) are renamed to the present ones.

    Raises:
        ModelError: the file cannot be read, is not a checkpoint, is cut off, asks to run code, or claims more
            data than it has.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    if head.startswith(b"PK\x03\x04"):
        if path.suffix == ".safetensors":  # torch.load goes by the name
            raise ModelError(f"{path}: is a PyTorch checkpoint by another name: call it {WEIGHTS_FILES[1]}")
        loaded = _load_torch(path)
    elif head[8:9] == b"{":
        loaded = _load_safetensors(path)
    else:
        raise ModelError(f"{path}: {_what_else(head, size)}")
    return {name: _widen(tensor) for name, tensor in _published_names(_tensors(loaded, path, size)).items()}


def check_state_dict(expected: Mapping[str, Tensor], loaded: Mapping[str, Tensor], where: str | Path) -> None:
    """Checks that weights fit a model: the same keys, the same shapes, finite values.

    Args:
        expected: the state dict of the model as its configuration makes it.
        loaded: the weights.
        where: the file they are from, for the message.

    Raises:
        ModelError: names the first key of each kind that is missing, unexpected or of another shape, and how
            many there are; or the first one with values that are not finite.
    """
    shapes = [
        f"{name} is {_shape(loaded[name])} instead of {_shape(tensor)}"
        for name, tensor in expected.items()
        if name in loaded and loaded[name].shape != tensor.shape
    ]
    complaints = [
        _complaint([name for name in expected if name not in loaded], "missing"),
        _complaint([name for name in loaded if name not in expected], "unexpected"),
        _complaint(shapes, "of another shape"),
    ]
    found = ", ".join(complaint for complaint in complaints if complaint)
    if found:
        raise ModelError(f"{where}: these weights do not fit the model's {CONFIG_FILE}: {found}")
    for name, tensor in loaded.items():
        if not tensor.is_floating_point():
            raise ModelError(f"{where}: {name} is of {tensor.dtype}, not of floating point")
        if not _is_finite(tensor):
            raise ModelError(f"{where}: damaged weights: {name} has values that are not finite numbers")


def save_checkpoint(
    folder: str | Path, config: ModelConfig, state_dict: Mapping[str, Tensor], *, half: bool = False
) -> Path:
    """Exports a model: config.json, model.safetensors and, of the published form, pytorch_model.bin.

    The published ``snac`` package then loads the folder, too. All files are written in full before the first
    one takes its name, so that an interrupted export leaves the former one.

    Args:
        folder: made if it does not exist.
        config: the model's configuration.
        state_dict: its weights in the published form, that is before ``SNAC.fold``.
        half: store tensors of more than 4096 values in 16 bits.

    Returns:
        the folder.

    Raises:
        ModelError: the folder cannot be written, or a value is too large for 16 bits.
    """
    folder = Path(folder)
    tensors = {name: _stored(name, tensor, half) for name, tensor in state_dict.items()}
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    safe, pickled = WEIGHTS_FILES
    writers: dict[str, Callable[[str], Any]] = {
        # safetensors' own save_file leaves a file that only its owner may read.
        safe: lambda path: Path(path).write_bytes(save(tensors, metadata={"format": "pt"})),
    }
    if isinstance(config, WaveformConfig):
        writers[pickled] = lambda path: torch.save(tensors, path)
    writers[CONFIG_FILE] = lambda path: Path(path).write_text(text, encoding="utf-8")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_together(folder, writers)
    except (OSError, RuntimeError, SafetensorError) as error:
        # Both libraries report a full disk by errors of their own.
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ModelError(f"{folder}: the model cannot be written: {reason}") from error
    return folder


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: damaged or cut off ({_first_line(error)}): fetch it again") from error


def _load_torch(path: Path) -> Any:
    """A checkpoint of ``torch.save`` through the unpickler that makes tensors and containers only."""
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(f"{path}: damaged or cut off ({_first_line(error)}): fetch it again") from error
    if compressed:
        # torch.save never compresses; what unpacks to more than the file would not be bounded by it.
        raise ModelError(f"{path}: is a compressed archive, not a checkpoint: unpack it and give its folder")
    try:
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)  # 2.2 wants a str
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path}: {_unpickling(str(error))}") from error
    except Exception as error:  # on damaged input the unpickler fails with whatever its own state leads to
        raise ModelError(f"{path}: is no checkpoint, or damaged ({_first_line(error)})") from error


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


def _tensors(loaded: Any, path: Path, size: int) -> dict[str, Tensor]:
    for key in _NESTED:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not loaded:
        raise ModelError(f"{path}: holds no weights (a {type(loaded).__name__}, not a state dict)")
    total = 0
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(f"{path}: holds no weights: {name!r} is a {type(tensor).__name__}, not a tensor")
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise ModelError(f"{path}: {name} is not a plain tensor")
        total += tensor.numel() * tensor.element_size()
    if total > size:
        # A view of stride zero claims any number of values without having them.
        raise ModelError(f"{path}: claims {total} bytes of values in a file of {size}: damaged or forged")
    return loaded


def _published_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        new = re.sub(r"(^|\.)weight_([gv])$", _parametrization, name)
        renamed[new if new not in tensors else name] = tensor
    return renamed


def _parametrization(match: re.Match[str]) -> str:
    return f"{match[1]}parametrizations.weight.original{'gv'.index(match[2])}"


def _widen(tensor: Tensor) -> Tensor:
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().to(device="cpu", dtype=torch.float32)
    if half and tensor.numel() > _HALF_ABOVE:
        tensor = tensor.half()
    if not _is_finite(tensor):
        raise ModelError(f"{name} has values that are not finite numbers{' of 16 bits' if half else ''}")
    return tensor.clone(memory_format=torch.contiguous_format)


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


def _is_finite(tensor: Tensor) -> bool:
    # A sum that is finite has finite terms, and takes a fraction of the time of looking at each.
    return bool(torch.isfinite(tensor.sum(dtype=torch.float32))) or bool(torch.isfinite(tensor).all())


def _complaint(names: list[str], what: str) -> str:
    return f"{len(names)} {what} (the first: {names[0]})" if names else ""


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a scalar"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:120] or type(error).__name__
