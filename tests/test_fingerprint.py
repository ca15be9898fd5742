from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from snac.config import ModelConfig, SpectralConfig, WaveformConfig
from snac.hub.state import fingerprint

CONFIG = WaveformConfig(
    sampling_rate=16000,
    encoder_dim=16,
    encoder_rates=(2, 3),
    decoder_dim=64,
    decoder_rates=(3, 2),
    attn_window_size=None,
    codebook_size=16,
    vq_strides=(4, 2, 1),
)
G, V = "a.parametrizations.weight.original0", "a.parametrizations.weight.original1"


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        V: torch.randn(3, 4, 5, generator=generator),
        G: torch.rand(3, 1, 1, generator=generator),
        "a.bias": torch.randn(3, generator=generator),
        "ü.codebook.weight": torch.randn(16, 8, generator=generator),
    }


def test_it_is_what_its_description_says():
    """The text of the module, followed with struct and numpy alone."""
    data = b"snac-model-1\n"
    data += (
        b'{"attn_window_size":null,"decoder_rates":[3,2],"encoder_rates":[2,3],'
        b'"sampling_rate":16000,"vq_strides":[4,2,1]}\n'
    )
    for name in ("a.bias", G, V, "ü.codebook.weight"):
        values = weights()[name].numpy()
        data += struct.pack("<I", len(name.encode())) + name.encode()
        data += struct.pack("<I", values.ndim) + b"".join(struct.pack("<Q", n) for n in values.shape)
        data += struct.pack(f"<{values.size}f", *values.ravel().tolist())
    assert fingerprint(CONFIG, weights()) == hashlib.blake2b(data, digest_size=8).digest()


def test_golden_value():
    """Never changes: files carry it."""
    arange = np.arange(6, dtype="<f4").reshape(3, 2)
    state = {G: torch.from_numpy(arange), "b": torch.tensor([-0.0, 1e-40, 0.1])}
    assert fingerprint(WaveformConfig(), state).hex() == "842a28361a1d8876"


def test_order_of_keys_and_layout_do_not_matter():
    state = weights()
    reordered = dict(reversed(state.items()))
    strided = {name: tensor.transpose(0, -1).contiguous().transpose(0, -1) for name, tensor in state.items()}
    assert not strided[V].is_contiguous()
    parameters = {name: torch.nn.Parameter(tensor) for name, tensor in state.items()}
    expected = fingerprint(CONFIG, state)
    assert len(expected) == 8
    for other in (reordered, strided, parameters):
        assert fingerprint(CONFIG, other) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_width_of_storage_does_not_matter(dtype):
    narrow = {name: tensor.to(dtype) for name, tensor in weights().items()}
    wide = {name: tensor.float() for name, tensor in narrow.items()}
    assert fingerprint(CONFIG, narrow) == fingerprint(CONFIG, wide) != fingerprint(CONFIG, weights())


@pytest.mark.parametrize("name", list(weights()))
def test_any_bit_of_any_tensor_matters(name):
    state = weights()
    state[name].view(-1).view(torch.int32)[-1] ^= 1
    assert fingerprint(CONFIG, state) != fingerprint(CONFIG, weights())


def test_names_and_shapes_matter():
    expected = fingerprint(CONFIG, weights())
    for change in (
        lambda state: state | {"b.bias": state.pop("a.bias")},
        lambda state: state | {V: state[V].reshape(3, 5, 4)},
        lambda state: state | {V: state[V].reshape(-1)},
        lambda state: state | {"more": torch.zeros(0)},
    ):
        assert fingerprint(CONFIG, change(weights())) != expected


@pytest.mark.parametrize(
    "change",
    [
        {"vq_strides": (4, 2, 2)},
        {"sampling_rate": 24000},
        {"attn_window_size": 8},
        {"encoder_rates": (3, 2)},
        {"decoder_rates": (2, 3)},
    ],
)
def test_what_the_tensors_do_not_tell_matters(change):
    other = replace(CONFIG, **change)
    assert fingerprint(other, weights()) != fingerprint(CONFIG, weights())


SPECTRAL = SpectralConfig(vq_strides=(4, 2, 1), linear_bins=8)


def test_of_a_spectral_model_it_is_what_its_description_says():
    data = b"snac-model-1\n"
    data += (
        b'{"architecture":"spectral","hop_length":320,"linear_bins":8,"sampling_rate":24000,'
        b'"vq_strides":[4,2,1],"window_length":1280}\n'
    )
    for name, values in sorted(weights().items()):
        data += struct.pack("<I", len(name.encode())) + name.encode()
        data += struct.pack("<I", values.ndim) + b"".join(struct.pack("<Q", n) for n in values.shape)
        data += values.numpy().astype("<f4").tobytes()
    assert fingerprint(SPECTRAL, weights()) == hashlib.blake2b(data, digest_size=8).digest()


def test_keys_that_came_later_are_told_only_where_they_say_something():
    assert not {"phase_bins", "running_phases"} & SPECTRAL.geometry().keys()
    told = list(replace(SPECTRAL, running_phases=True).geometry())
    assert told == sorted(told)
    assert told.index("running_phases") == told.index("linear_bins") + 1
    told = list(replace(SPECTRAL, phase_bins=3, running_phases=True).geometry())
    assert told == sorted(told)
    assert told.index("phase_bins") == told.index("linear_bins") + 1 == told.index("running_phases") - 1


@pytest.mark.parametrize(
    "change",
    [
        {"sampling_rate": 16000},
        {"hop_length": 640},
        {"window_length": 640},
        {"linear_bins": 7},
        {"running_phases": True},
        {"phase_bins": 3},
    ],
)
def test_what_the_tensors_of_a_spectral_model_do_not_tell_matters(change):
    other = replace(SPECTRAL, **change)
    assert fingerprint(other, weights()) != fingerprint(SPECTRAL, weights())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_arrays_have_the_fingerprint_of_tensors_without_torch(dtype):
    tensors = {
        name: torch.from_numpy(tensor.numpy().astype(np.float16)) for name, tensor in weights().items()
    }
    arrays = {name: tensor.numpy().astype(dtype) for name, tensor in tensors.items()}
    strided = {name: np.asfortranarray(array) for name, array in arrays.items()}
    assert fingerprint(CONFIG, arrays) == fingerprint(CONFIG, strided) == fingerprint(CONFIG, tensors)
    with pytest.raises(ValueError, match="steps is of int64"):
        fingerprint(CONFIG, arrays | {"steps": np.zeros(1, np.int64)})
    code = "import sys, snac.hub.state; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_folded_and_whole_number_weights_are_refused():
    with pytest.raises(ValueError, match="before the model is folded"):
        fingerprint(CONFIG, {"a.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"steps is of torch\.int64"):
        fingerprint(CONFIG, weights() | {"steps": torch.zeros(1, dtype=torch.int64)})


@pytest.mark.parametrize(("part", "config"), [(1, CONFIG), (2, SPECTRAL)])
def test_the_description_names_every_key_of_the_geometry(part: int, config: ModelConfig):
    from snac.hub import state as module

    text = module.__doc__.split("::\n")[part].partition("(broken")[0]
    described = json.loads("".join(text.split()))
    assert tuple(described) == tuple(sorted(described)) == tuple(config.geometry())
