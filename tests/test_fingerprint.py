from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from snac.config import ModelConfig
from snac.hub.fingerprint import fingerprint

CONFIG = ModelConfig(
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
    assert fingerprint(ModelConfig(), state).hex() == "842a28361a1d8876"


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


def test_folded_and_whole_number_weights_are_refused():
    with pytest.raises(ValueError, match="before the model is folded"):
        fingerprint(CONFIG, {"a.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"steps is of torch\.int64"):
        fingerprint(CONFIG, weights() | {"steps": torch.zeros(1, dtype=torch.int64)})


def test_the_description_names_every_key_of_the_geometry():
    from snac.hub import fingerprint as module

    described = json.loads("".join(module.__doc__.split("::")[1].split("(broken")[0].split()))
    assert tuple(described) == tuple(sorted(described)) == module._GEOMETRY
