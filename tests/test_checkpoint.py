from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from snac.config import ModelConfig, WaveformConfig
from snac.errors import ModelError
from snac.hub.checkpoint import check_finite, check_weights, read_weights, save_checkpoint

CONFIG = WaveformConfig(
    sampling_rate=16000,
    encoder_dim=8,
    encoder_rates=(2, 3),
    decoder_dim=16,
    decoder_rates=(3, 2),
    attn_window_size=None,
    codebook_size=1024,
    vq_strides=(4, 2, 1),
)


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "encoder.parametrizations.weight.original0": torch.rand(8, 1, 1, generator=generator),
        "encoder.parametrizations.weight.original1": torch.randn(8, 1, 7, generator=generator),
        "encoder.bias": torch.randn(8, generator=generator),
        "codebook.weight": torch.randn(1024, 8, generator=generator),
    }


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def shapes() -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights().items()}


def arrays_of(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in state.items()}


def assert_equal(state, expected) -> None:
    assert set(state) == set(expected)
    for name, tensor in expected.items():
        narrow = tensor.dtype == torch.float16
        assert state[name].dtype == (np.float16 if narrow else np.float32)
        np.testing.assert_array_equal(state[name].astype(np.float32), tensor.detach().float().numpy(), name)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


# Reading


def test_formats_are_known_by_content(tmp_path):
    save_file(weights(), tmp_path / "pytorch_model.bin")
    torch.save(weights(), tmp_path / "last.pt")
    for path in tmp_path.iterdir():
        assert_equal(read_weights(path), weights())
        assert_equal(read_weights(str(path)), weights())
    (tmp_path / "last.pt").rename(tmp_path / "model.safetensors")
    assert refusal(tmp_path / "model.safetensors").endswith("by another name: call it pytorch_model.bin")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_widths_become_float32_and_halves_stay(tmp_path, dtype):
    narrow = {name: tensor.to(dtype) for name, tensor in weights().items()}
    save_file(narrow, tmp_path / "a.safetensors")
    torch.save(narrow, tmp_path / "a.bin")
    assert_equal(read_weights(tmp_path / "a.safetensors"), narrow)
    assert_equal(read_weights(tmp_path / "a.bin"), narrow)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_nested_weights_are_found(tmp_path, key):
    torch.save({"step": 7, key: weights(), "optimizer": {"lr": [0.1]}}, tmp_path / "last.pt")
    assert_equal(read_weights(tmp_path / "last.pt"), weights())


def test_keys_of_the_former_weight_norm_are_renamed(tmp_path):
    old = {
        "0.weight_g": torch.rand(8, 1, 1),
        "0.weight_v": torch.randn(8, 1, 7),
        "weight_g": torch.rand(2),
        "0.bias": torch.zeros(8),
        "my_weight_g": torch.zeros(1),
    }
    torch.save(old, tmp_path / "old.bin")
    state = read_weights(tmp_path / "old.bin")
    assert list(state) == [
        "0.parametrizations.weight.original0",
        "0.parametrizations.weight.original1",
        "parametrizations.weight.original0",
        "0.bias",
        "my_weight_g",
    ]
    np.testing.assert_array_equal(state["0.parametrizations.weight.original1"], old["0.weight_v"])


def test_the_former_weight_norm_means_the_same(tmp_path):
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.ConvTranspose1d(4, 6, 4))
    new = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(4, 6, 4))
    torch.save(old.state_dict(), tmp_path / "old.bin")
    new.load_state_dict(tensors(read_weights(tmp_path / "old.bin")))
    x = torch.randn(1, 4, 9)
    torch.testing.assert_close(new(x), old(x))


# Refusing


class Planted:
    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path):
    Planted.target = tmp_path / "ran"
    torch.save(weights() | {"extra": Planted()}, tmp_path / "evil.bin")
    message = refusal(tmp_path / "evil.bin")
    assert message.startswith("refused: the pickle asks for posix.mkdir") or "nt.mkdir" in message
    assert "could run code" in message
    assert "model.safetensors" in message
    (tmp_path / "bare.bin").write_bytes(pickle.dumps(Planted()))
    assert "refused: it is a bare Python pickle" in refusal(tmp_path / "bare.bin")
    assert not Planted.target.exists()
    torch.load(tmp_path / "evil.bin", weights_only=False)
    assert Planted.target.exists()  # so the file was dangerous


def test_a_whole_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.bin")
    assert refusal(tmp_path / "module.bin").startswith("refused: the pickle asks for torch.nn.modules")


def test_the_format_before_torch_1_6_is_refused(tmp_path):
    torch.save(weights(), tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert "refused: it is a bare Python pickle (PyTorch wrote such before 1.6)" in refusal(
        tmp_path / "old.bin"
    )


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4b8164cc\nsize 79488254\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (LFS, "is a Git LFS pointer, not the weights: run `git lfs pull`"),
        (b"<!DOCTYPE html><html>sign in</html>", "is a web page"),
        (b"\n  <html>", "is a web page"),
        (b"garbage of no kind", "is neither safetensors nor a PyTorch checkpoint"),
        (b"\0" * 100, "is neither safetensors nor a PyTorch checkpoint"),
        (b"PK\x03\x04 and no more", "damaged or cut off"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "damaged or cut off"),
        (b"\x02\0\0\0\0\0\0\0{", "damaged or cut off"),
        (b"\x02\0\0\0\0\0\0\0{}", "holds no weights"),
    ],
)
def test_what_is_not_weights_is_named(tmp_path, content, message):
    path = tmp_path / "weights"
    path.write_bytes(content)
    assert message in refusal(path)


def test_a_file_that_cannot_be_read(tmp_path):
    assert "cannot be read: No such file" in refusal(tmp_path / "missing")
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_cut_off_anywhere_is_refused(tmp_path, name):
    save_checkpoint(tmp_path, CONFIG, weights())
    whole = (tmp_path / name).read_bytes()
    path = tmp_path / f"cut-{name}"
    for length in [*range(0, 200, 7), *range(200, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refusal(path)


def test_flipped_bits_never_get_through_as_another_error(tmp_path):
    """Changed values are for the hashes to find; anything else must be a ModelError."""
    save_checkpoint(tmp_path, CONFIG, {"a.bias": torch.arange(8.0)})
    path, refused = tmp_path / "flipped", 0
    for name in ("model.safetensors", "pytorch_model.bin"):
        whole = (tmp_path / name).read_bytes()
        for position in range(0, len(whole), 3):
            flipped = whole[position] ^ 1 << position % 8
            path.write_bytes(whole[:position] + bytes([flipped]) + whole[position + 1 :])
            try:
                read_weights(path)
            except ModelError:
                refused += 1
    assert refused > 20


def test_more_values_than_bytes_are_refused(tmp_path):
    """A view of stride zero would become terabytes when it is copied."""
    torch.save({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "a.bin")
    assert "claims 4398046511104 bytes of values in a file of" in refusal(tmp_path / "a.bin")


def test_a_compressed_archive_is_refused(tmp_path):
    plain, packed = io.BytesIO(), tmp_path / "packed.bin"
    torch.save({"a": torch.zeros(1 << 20)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert packed.stat().st_size < 10_000
    assert "is a compressed archive" in refusal(packed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no weights (a list, not a state dict)"),
        ({}, "holds no weights (a dict, not a state dict)"),
        ({"a": 1}, "'a' is a int, not a tensor"),
        ({7: torch.zeros(1)}, "7 is a Tensor, not a tensor"),
        ({"model": {"a": "b"}}, "'a' is a str, not a tensor"),
        ({"a": torch.zeros(4).to_sparse()}, "a is not a plain tensor"),
    ],
)
def test_checkpoints_without_weights_are_named(tmp_path, content, message):
    torch.save(content, tmp_path / "a.bin")
    assert message in refusal(tmp_path / "a.bin")


# Fitting a model


def test_weights_that_fit():
    arrays = dict(reversed(arrays_of(weights()).items()))
    check_weights(shapes(), arrays, "here")
    check_finite(arrays, "here")


def test_weights_that_do_not_fit_are_named():
    loaded = weights()
    del loaded["encoder.bias"], loaded["encoder.parametrizations.weight.original0"]
    loaded["codebook.weight"] = torch.zeros(4, 4096)
    loaded |= {"x.bias": torch.zeros(1), "y": torch.zeros(1), "z": torch.zeros(1)}
    with pytest.raises(ModelError) as caught:
        check_weights(shapes(), arrays_of(loaded), "folder/model.safetensors")
    assert str(caught.value) == (
        "folder/model.safetensors: these weights do not fit the model's config.json: "
        "2 missing (the first: encoder.parametrizations.weight.original0), "
        "3 unexpected (the first: x.bias), "
        "1 of another shape (the first: codebook.weight is 4 x 4096 instead of 1024 x 8)"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_numbers(value):
    loaded = weights()
    loaded["encoder.bias"][3] = value
    with pytest.raises(ModelError, match=r"encoder\.bias has values that are not finite numbers"):
        check_finite(arrays_of(loaded), "here")


def test_large_finite_values_are_fine():
    loaded = weights() | {"encoder.bias": torch.full((8,), 3e38)}
    check_finite(arrays_of(loaded), "here")


def test_whole_numbers_are_no_weights():
    loaded = weights() | {"encoder.bias": torch.zeros(8, dtype=torch.int64)}
    with pytest.raises(ModelError, match=r"encoder.bias is of int64"):
        check_weights(shapes(), arrays_of(loaded), "here")


# Writing


def test_an_export_reads_back(tmp_path):
    folder = save_checkpoint(tmp_path / "a" / "b", CONFIG, weights())
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
    ]
    assert_equal(read_weights(folder / "model.safetensors"), weights())
    assert_equal(read_weights(folder / "pytorch_model.bin"), weights())
    assert ModelConfig.from_file(folder / "config.json") == CONFIG


def test_an_export_replaces_the_former_one(tmp_path):
    save_checkpoint(tmp_path, CONFIG, {"a": torch.zeros(3)})
    save_checkpoint(tmp_path, CONFIG, weights())
    assert_equal(read_weights(tmp_path / "model.safetensors"), weights())
    assert len(list(tmp_path.iterdir())) == 3


def test_shared_and_strided_tensors_can_be_exported(tmp_path):
    tensor = torch.randn(6, 4)
    state = {"a": tensor, "b": tensor, "c": tensor.t(), "d": nn.Parameter(tensor[:, 1])}
    save_checkpoint(tmp_path, CONFIG, state)
    for name in ("model.safetensors", "pytorch_model.bin"):
        assert_equal(read_weights(tmp_path / name), state)


def test_half_precision_keeps_small_tensors_whole(tmp_path):
    save_checkpoint(tmp_path, CONFIG, weights(), half=True)
    stored = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    kept = [name for name, tensor in stored.items() if tensor.dtype == torch.float32]
    assert stored["codebook.weight"].dtype == torch.float16
    assert len(kept) == len(stored) - 1
    expected = weights() | {"codebook.weight": weights()["codebook.weight"].half()}
    for name in ("model.safetensors", "pytorch_model.bin"):
        assert_equal(read_weights(tmp_path / name), expected)


def test_values_too_large_for_half_precision_are_refused(tmp_path):
    with pytest.raises(ModelError, match="a has values that are not finite numbers of 16 bits"):
        save_checkpoint(tmp_path / "new", CONFIG, {"a": torch.full((5000,), 1e5)}, half=True)
    assert not (tmp_path / "new").exists()


def test_a_failed_export_leaves_the_former_one(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, CONFIG, weights())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(tensors, path):
        Path(path).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(ModelError, match="the model cannot be written: No space left on device"):
        save_checkpoint(tmp_path, CONFIG, {"a": torch.zeros(3)})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelError, match=r"the model cannot be written: (File exists|Not a directory)"):
        save_checkpoint(tmp_path / "file", CONFIG, weights())


def test_a_full_disk_is_one_line(tmp_path):
    resource = pytest.importorskip("resource")  # a limit on the size of files stands for the disk
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(ModelError) as caught:
            save_checkpoint(tmp_path, CONFIG, {"a": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value).startswith(f"{tmp_path}: the model cannot be written: ")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_config_is_plain_json(tmp_path):
    save_checkpoint(tmp_path, CONFIG, weights())
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["encoder_rates"] == [2, 3]
    assert values["attn_window_size"] is None


def test_exported_files_may_be_read_like_any_other(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    folder = save_checkpoint(tmp_path / "model", CONFIG, weights())
    for path in folder.iterdir():
        assert path.stat().st_mode == plain.stat().st_mode, path.name
