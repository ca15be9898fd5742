"""A model as it is read from files: checked by its configuration, converted once, hashed once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, load_file
from safetensors.torch import save_file

from snac import SNAC
from snac.config import ModelConfig, SpectralConfig, Stack, WaveformConfig
from snac.errors import ModelError
from snac.hub import checkpoint as module
from snac.hub import locate as hub
from snac.hub.checkpoint import Checkpoint, load_checkpoint, read_weights, save_checkpoint
from snac.hub.state import fingerprint, state_shapes

from .golden.make_spectral import SMALL as SPECTRAL
from .published import FULL, SMALL

TINY = WaveformConfig(
    sampling_rate=16000, encoder_dim=8, encoder_rates=(2, 3), decoder_dim=16, decoder_rates=(3, 2),
    attn_window_size=None, codebook_size=64, vq_strides=(2, 1),
)  # fmt: skip


def weights_of(config: ModelConfig = TINY) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return SNAC.from_model_config(config).state_dict()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with both kinds of weights."""
    return save_checkpoint(tmp_path / "tiny", TINY, weights_of())


@pytest.fixture
def pickled(folder: Path) -> Path:
    """A model with a pickle alone, as the published ones are."""
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize(
    "config",
    [
        *(ModelConfig.from_dict(values) for values in (*SMALL.values(), *SPECTRAL.values(), FULL["24khz"])),
        TINY,
        replace(TINY, noise=False, depthwise=False),
        SpectralConfig(linear_bins=7, encoder=Stack(4, 6, 3), decoder=Stack(6, 4, 1), vq_strides=(2,)),
    ],
)
def test_shapes_are_those_of_the_modules(config: ModelConfig) -> None:
    with torch.device("meta"):
        expected = SNAC.from_model_config(config).state_dict()
    assert state_shapes(config) == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    assert list(state_shapes(config)) == list(expected)


def test_it_is_what_was_saved(folder: Path) -> None:
    found = load_checkpoint(folder)
    assert (found.name, found.config) == ("tiny", TINY)
    assert (
        found.fingerprint
        == SNAC.from_pretrained(folder).fingerprint()
        == fingerprint(TINY, weights_of()).hex()
    )
    assert set(found.arrays) == set(state_shapes(TINY))
    for name, tensor in weights_of().items():
        np.testing.assert_array_equal(found.arrays[name], tensor.numpy(), name)
        assert not found.arrays[name].flags.writeable


def test_halves_stay_halves_and_are_mapped(tmp_path: Path) -> None:
    config = replace(TINY, codebook_size=4096)
    folder = save_checkpoint(tmp_path / "tiny", config, weights_of(config), half=True)
    arrays = load_checkpoint(folder).arrays
    codebook = arrays["quantizer.quantizers.0.codebook.weight"]
    assert codebook.dtype == np.float16
    assert codebook.base is not None  # a view of the file, not a copy
    assert arrays["encoder.block.0.bias"].dtype == np.float32
    assert all(array.flags.aligned for array in arrays.values())
    same = load_file(folder / "model.safetensors")
    assert all(np.array_equal(array, same[name]) for name, array in arrays.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float16])
def test_other_widths_keep_their_fingerprint(tmp_path: Path, dtype: torch.dtype) -> None:
    narrow = {name: tensor.to(dtype) for name, tensor in weights_of().items()}
    folder = save_checkpoint(tmp_path / "tiny", TINY, narrow)
    expected = load_checkpoint(folder).fingerprint
    save_file(narrow, folder / "model.safetensors")
    found = load_checkpoint(folder)
    assert found.fingerprint == expected
    assert all(array.dtype.itemsize <= 4 for array in found.arrays.values())


# Refusing


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_of_another_configuration_are_refused(folder: Path) -> None:
    values = TINY.to_dict() | {"codebook_size": 65}
    (folder / "config.json").write_text(json.dumps(values))
    expected = (
        "2 of another shape (the first: quantizer.quantizers.0.codebook.weight is 64 x 8 instead of 65 x 8)"
    )
    assert refusal(folder).endswith(
        f"model.safetensors: these weights do not fit the model's config.json: {expected}"
    )


def test_a_configuration_that_asks_for_gigabytes_costs_nothing(folder: Path) -> None:
    large = {"encoder_dim": 1024, "latent_dim": None, "decoder_dim": 16384, "codebook_size": 65536}
    (folder / "config.json").write_text(json.dumps(TINY.to_dict() | large))
    assert "do not fit" in refusal(folder)


def test_values_that_are_not_numbers_are_refused(folder: Path) -> None:
    for dtype in (torch.float32, torch.float16):
        state = {name: tensor.to(dtype) for name, tensor in weights_of().items()}
        state["encoder.block.0.bias"][3] = float("inf")
        save_file(state, folder / "model.safetensors")
        assert "damaged weights: encoder.block.0.bias has values that are not finite" in refusal(folder)


def header(entries: object, values: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + values


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "content",
    [
        header({"a": entry(offsets=(0, 1 << 60))}, bytes(8)),  # more values than bytes
        header({"a": entry(shape=(1 << 60,))}, bytes(8)),
        header({"a": entry(shape=(-2,))}, bytes(8)),
        header({"a": entry(shape=(2.0,))}, bytes(8)),
        header({"a": entry(shape=(True, 2))}, bytes(8)),
        header({"a": entry(shape="22")}, bytes(8)),
        header({"a": entry(shape=None)}, bytes(8)),
        header({"a": entry(offsets=(8, 0))}, bytes(8)),
        header({"a": entry(offsets=(0, 8, 16))}, bytes(8)),
        header({"a": entry(offsets=(-8, 0))}, bytes(8)),
        header({"a": entry(offsets=("0", "8"))}, bytes(8)),
        header({"a": entry(dtype="F8_E4M3", shape=(8,))}, bytes(8)),
        header({"a": entry(dtype="O")}, bytes(8)),
        header({"a": entry(dtype=["F32"])}, bytes(8)),
        header({"a": entry()}, bytes(9)),  # bytes that belong to nothing
        header({"a": entry()}, bytes(7)),
        header({"a": entry(), "b": entry()}, bytes(8)),  # both claim the same bytes
        header({"a": entry(), "b": entry(offsets=(16, 24))}, bytes(24)),  # a gap
        header(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32"}}'),
        header({"a": 1}),
        header({"a": {}}),
        header({"__metadata__": {"format": "pt"}}),
        header(b"{" * 100_000),
        header(b'{"a": NaN}'),
    ],
)
def test_forged_headers_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="damaged or cut off") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_values_that_are_not_aligned_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    values = np.arange(3, dtype="<f4")
    content = header(
        {"h": entry("F16", (1,), (0, 2)), "v": entry("F32", (3,), (2, 14))}, b"\0<" + values.tobytes()
    )
    path.write_bytes(content)
    found = read_weights(path)
    assert found["v"].flags.aligned
    np.testing.assert_array_equal(found["v"], values)
    assert found["h"][0] == 1


# Pickles


def without_torch(folder: Path, *more: str) -> str:
    """The fingerprint of a model as a fresh process finds it in which torch cannot be imported."""
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from snac.hub.checkpoint import load_checkpoint\n"
        f"print(load_checkpoint({str(folder)!r}, {', '.join(more)}).fingerprint)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_safetensors_need_no_torch(folder: Path) -> None:
    assert without_torch(folder) == load_checkpoint(folder).fingerprint


def test_a_pickle_in_a_folder_is_converted_once(pickled: Path) -> None:
    first = load_checkpoint(pickled)
    assert sorted(path.name for path in pickled.iterdir()) == [
        "config.json", "pytorch_model.bin", "pytorch_model.converted.safetensors",
    ]  # fmt: skip
    assert without_torch(pickled) == first.fingerprint
    again = load_checkpoint(pickled)
    assert (again.name, again.config, again.fingerprint) == (first.name, first.config, first.fingerprint)
    assert all(np.array_equal(array, first.arrays[name]) for name, array in again.arrays.items())


def test_a_new_pickle_is_not_taken_for_the_old_one(pickled: Path) -> None:
    first = load_checkpoint(pickled)
    changed = weights_of()
    changed["decoder.model.0.bias"] += 1
    torch.save(changed, pickled / "pytorch_model.bin")
    found = load_checkpoint(pickled)
    assert found.fingerprint == fingerprint(TINY, changed).hex() != first.fingerprint
    assert without_torch(pickled) == found.fingerprint


def same_values(path: Path, content: bytes) -> bool:
    """Whether a safetensors file holds the same; the order of its metadata is left to chance."""
    found, expected = load_file(path), load(content)
    return set(found) == set(expected) and all(np.array_equal(found[name], expected[name]) for name in found)


def test_a_damaged_conversion_is_made_again(pickled: Path) -> None:
    expected = load_checkpoint(pickled).fingerprint
    path = pickled / "pytorch_model.converted.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", b"{}", whole[:-4] + b"\0\0\0\x41"):
        path.write_bytes(damaged)
        assert load_checkpoint(pickled).fingerprint == expected
        assert same_values(path, whole)


def test_a_folder_that_cannot_be_written_to_stays_without(
    pickled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "replacing", refuse)
    assert load_checkpoint(pickled).fingerprint == fingerprint(TINY, weights_of()).hex()
    assert len(list(pickled.iterdir())) == 2


@pytest.fixture
def cached(pickled: Path, tmp_path: Path) -> Path:
    """The same in the layout of the Hub's cache."""
    cache = tmp_path / "cache" / "models--me--voice"
    snapshot = cache / "snapshots" / ("0123456789" * 4)
    shutil.copytree(pickled, snapshot)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(snapshot.name)
    return cache


def load_cached(cached: Path) -> Checkpoint:
    return load_checkpoint("me/voice", cache_dir=cached.parent)


def test_a_pickle_of_the_hub_is_converted_beside_the_record(cached: Path) -> None:
    found = load_cached(cached)
    assert found.name == "me/voice"
    assert sorted(path.name for path in cached.iterdir() if path.is_file()) == [
        "snac-012345678901-pytorch_model.safetensors", hub.RECORD_FILE,
    ]  # fmt: skip
    assert without_torch(Path("me/voice"), f"cache_dir={str(cached.parent)!r}") == found.fingerprint
    entries = hub.read_record(cached)
    assert [entry.fingerprint for entry in entries.values()] == ["", found.fingerprint, found.fingerprint]


def test_what_the_record_holds_is_not_hashed_again(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_cached(cached)
    monkeypatch.setattr(module, "fingerprint", lambda *arguments: pytest.fail("hashed"))
    monkeypatch.setattr(hub, "sha256", lambda path: pytest.fail("read"))
    assert load_cached(cached).fingerprint == found.fingerprint


def test_a_conversion_that_was_touched_is_hashed_and_made_again_if_it_differs(cached: Path) -> None:
    found = load_cached(cached)
    path = next(cached.glob("snac-*.safetensors"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert load_cached(cached).fingerprint == found.fingerprint
    assert same_values(path, whole)


def test_each_load_of_a_folder_hashes_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []

    def counted(config: ModelConfig, arrays: object) -> bytes:
        hashed.append(config)
        return bytes(8)

    monkeypatch.setattr(module, "fingerprint", counted)
    assert load_checkpoint(folder).fingerprint == "00" * 8
    assert len(hashed) == 1
