"""The model against golden arrays of the published package, and what it promises beyond it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from snac import SNAC, ModelError
from snac.config import ModelConfig
from snac.nn import layers as tensors
from snac.nn.layers import SeededNoise, Snake1d
from snac.noise import Noise, gaussian

from .published import FULL, GOLDEN, SMALL, test_signal


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


def golden_model(golden: dict[str, np.ndarray], name: str) -> SNAC:
    model = SNAC(**json.loads(golden[f"{name}/config"].tobytes())).eval()
    prefix = f"{name}/weights/"
    weights = {
        key.removeprefix(prefix): torch.tensor(golden[key]) for key in golden if key.startswith(prefix)
    }
    assert list(weights) == list(model.state_dict())
    model.load_state_dict(weights, strict=True)
    return model


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_codes_and_audio_are_those_of_the_published_package(
    golden: dict[str, np.ndarray], name: str, folded: bool
) -> None:
    whole = golden_model(golden, name)
    model = whole.fold() if folded else whole
    audio = torch.from_numpy(golden[f"{name}/audio"])
    codes = model.encode(audio)
    for level, code in enumerate(codes):
        np.testing.assert_array_equal(code.numpy(), golden[f"{name}/codes/{level}"])
    decoded = model.decode(codes, seed=None)
    np.testing.assert_allclose(decoded.numpy(), golden[f"{name}/decoded"], atol=1e-5)
    np.testing.assert_allclose(
        decoded[..., : audio.shape[-1]].numpy(), golden[f"{name}/audio_hat"], atol=1e-5, err_msg="forward"
    )


def test_golden_cases_differ_from_silence(golden: dict[str, np.ndarray]) -> None:
    for name in SMALL:
        assert np.abs(golden[f"{name}/decoded"]).max() > 1e-3
        assert len(np.unique(golden[f"{name}/codes/{len(SMALL[name]['vq_strides']) - 1}"])) > 3


def test_training_form_gives_the_same_as_inference(golden: dict[str, np.ndarray]) -> None:
    model = golden_model(golden, "odd-attention")
    audio = torch.from_numpy(golden["odd-attention/audio"])
    with torch.enable_grad():
        with_gradients, codes = model(audio)
    with torch.no_grad():
        without, same = model(audio)
    assert all(torch.equal(a, b) for a, b in zip(codes, same, strict=True))
    torch.testing.assert_close(with_gradients, without, atol=1e-5, rtol=0)
    with_gradients.square().mean().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for name, p in model.named_parameters()
        if "codebook" not in name
    )


def test_snake_gradient_is_the_numerical_one() -> None:
    snake = Snake1d(3).double()
    with torch.no_grad():
        snake.alpha.copy_(torch.tensor([0.4, 1.0, 2.5]).reshape(1, 3, 1))
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, alpha: snake._parameters.update(alpha=alpha) or snake(x), (x, snake.alpha)
    )


@pytest.mark.parametrize(
    ("name", "keys", "rate", "hop"), [("24khz", 269, 24000, 512), ("44khz", 286, 44100, 384)]
)
def test_published_configurations(name: str, keys: int, rate: int, hop: int) -> None:
    model = SNAC(**FULL[name])
    assert len(model.state_dict()) == keys
    assert (model.sampling_rate, model.hop_length) == (rate, hop)
    assert model.latent_dim == FULL[name]["encoder_dim"] * 16
    assert model.n_codebooks == len(FULL[name]["vq_strides"])


def test_geometry_of_the_published_models() -> None:
    tokens = {name: ModelConfig.from_dict(config).token_rate for name, config in FULL.items()}
    assert {name: round(rate) for name, rate in tokens.items()} == {"24khz": 82, "32khz": 156, "44khz": 215}
    assert ModelConfig.from_dict(FULL["32khz"]).raw_bitrate == pytest.approx(1875)


def test_padding_is_to_whole_windows_and_coarse_tokens() -> None:
    model = SNAC(**SMALL["odd-attention"])  # hop 15, window 8, first stride 8
    for length, padded in ((0, 0), (1, 120), (120, 120), (121, 240)):
        assert model.preprocess(torch.zeros(1, 1, length)).shape[-1] == padded


def test_attributes_that_are_changed_count() -> None:
    model = SNAC(**SMALL["even-depthwise"])
    hop, first = model.hop_length, model.vq_strides[0]
    assert model.preprocess(torch.zeros(1, 1, 1)).shape[-1] == hop * first
    model.attn_window_size = 3 * first
    assert model.preprocess(torch.zeros(1, 1, 1)).shape[-1] == 3 * hop * first


@torch.no_grad()
def test_noise_is_fresh_where_the_decoder_trains() -> None:
    model = SNAC(**SMALL["even-depthwise"]).eval()
    codes = model.encode(test_signal(3000, 8000, 1))
    assert torch.equal(model.decode(codes), model.decode(codes))
    model.decoder.train()
    assert not torch.allclose(model.decode(codes), model.decode(codes), atol=1e-4)
    model.train().decoder.eval()
    assert torch.equal(model.decode(codes), model.decode(codes))


FRESH = [
    ({"encoder_dim": 8, "decoder_dim": 32, "attn_window_size": None}, 748.9649, 2597.581),
    (
        {"encoder_dim": 16, "decoder_dim": 256, "attn_window_size": 8, "depthwise": False},
        3804.3842,
        35580.951,
    ),
]
"""Sums of the weights and of their magnitudes that the published package draws after manual_seed(7)."""


@pytest.mark.parametrize(("form", "total", "magnitude"), FRESH)
def test_fresh_weights_are_those_of_the_published_package(
    form: dict[str, object], total: float, magnitude: float
) -> None:
    sizes = {"encoder_rates": np.array([2, 3]), "decoder_rates": [3, 2], "vq_strides": (4, 2, 1)}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = SNAC(24000.0, codebook_size=np.int64(64), codebook_dim=4, **sizes, **form)  # type: ignore[arg-type]
    weights = [tensor.double() for tensor in model.state_dict().values()]
    assert sum(float(each.sum()) for each in weights) == pytest.approx(total, abs=0.01)
    assert sum(float(each.abs().sum()) for each in weights) == pytest.approx(magnitude, abs=0.01)


@torch.no_grad()
def test_decoding_twice_gives_the_same_and_batches_do_not_matter(golden: dict[str, np.ndarray]) -> None:
    model = golden_model(golden, "even-depthwise")
    codes = model.encode(test_signal(3000, 8000, 1))
    alone = model.decode(codes)
    torch.manual_seed(99)
    assert torch.equal(alone, model.decode(codes))
    batch = model.decode([code.repeat(3, 1) for code in codes])
    torch.testing.assert_close(batch, alone.repeat(3, 1, 1), atol=1e-6, rtol=0)
    assert not torch.allclose(alone, model.decode(codes, seed=1), atol=1e-4)
    assert not torch.allclose(alone, model.decode(codes, seed=None), atol=1e-4)


@torch.no_grad()
def test_fewer_levels_decode_and_wrong_ones_are_refused(golden: dict[str, np.ndarray]) -> None:
    model = golden_model(golden, "odd-attention")
    codes = model.encode(test_signal(500, 8000, 1))
    full = model.decode(codes)
    assert model.decode(codes[:2]).shape == full.shape
    with pytest.raises(ValueError, match="1 to 4 levels"):
        model.decode([])
    with pytest.raises(ValueError, match="do not fit the strides"):
        model.decode([codes[0], codes[1][:, :-1]])


def test_noise_is_standard_normal_and_a_function_of_its_place() -> None:
    places = np.arange(200_000)
    noise = gaussian(3, 1, places)
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01
    assert abs(float((noise[1:] * noise[:-1]).mean())) < 0.01
    assert np.array_equal(noise[777:900], gaussian(3, 1, places[777:900]))
    for other in (gaussian(4, 1, places), gaussian(3, 2, places), gaussian(3, 1, places + 2**32)):
        assert abs(float((noise * other).mean())) < 0.01


def test_noise_keeps_its_values() -> None:
    """Files decode to the same sound in every version: these numbers must never change."""
    pinned = [-0.113389, -0.300353, 0.536911]
    np.testing.assert_allclose(gaussian(0, 0, np.arange(3)), pinned, atol=1e-5)


def test_noise_is_that_of_plain_integers() -> None:
    mask = 0xFFFFFFFF

    def mix(x: int) -> int:
        x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
        x = ((x ^ (x >> 15)) * 0x846CA68B) & mask
        return x ^ (x >> 16)

    def reference(seed: int, layer: int, place: int) -> float:
        key = mix(mix(mix((seed & mask) ^ 0x9E3779B9) ^ (seed >> 32 & mask)) ^ layer)
        state = mix((place & mask) ^ mix((place >> 32) ^ key))
        uniform = ((mix(state ^ 0x3C6EF372) >> 9) + 0.5) / 2**23
        return math.sqrt(-2 * math.log(uniform)) * math.cos(
            2 * math.pi * (mix(state ^ 0xDAA66D2B) >> 8) / 2**24
        )

    places = [0, 1, 12345, 2**32 - 1, 2**32, 2**40 + 17]
    for seed, layer in ((0, 0), (7, 3), (2**63 + 11, 1), (-5, 2)):
        expected = [reference(seed, layer, place) for place in places]
        np.testing.assert_allclose(gaussian(seed, layer, np.array(places)), expected, atol=2e-5)


def test_noise_of_tensors_is_that_of_the_engine() -> None:
    like = torch.zeros(2, 4, 1)
    for seed, layer, first in ((0, 0, 0), (7, 3, 12345), (2**63 + 11, 1, 2**32 - 50), (-5, 2, 2**40)):
        expected = Noise.seeded(seed).draw(layer, first, 100)
        drawn = tensors.gaussian(seed, layer, first, 100, like)
        assert drawn.shape == (1, 1, 100)
        np.testing.assert_array_equal(drawn[0, 0].numpy(), expected)
        # As a GPU computes it.
        on_device = tensors._gaussian_on_device(seed, layer, first, 100, torch.device("cpu"))
        np.testing.assert_allclose(on_device.numpy(), expected, atol=2e-5)
        assert tensors.gaussian(seed, layer, first, 9, like.double()).dtype == torch.float64
    whole = SeededNoise(5).draw(2, 100, like)
    assert torch.equal(whole[..., 30:], tensors.gaussian(5, 2, 30, 70, like))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder_rates": [2, 4, 8]}, "different products"),
        ({"latent_dim": 100}, "latent_dim 100"),
        ({"vq_strides": [4, 3]}, "must all divide"),
        ({"decoder_dim": 1040, "attn_window_size": 32}, "decoder_dim 1040 must be a multiple of 64"),
        ({"codebook_size": 10**9}, "codebook_size"),
        ({"encoder_dim": "48"}, "encoder_dim"),
        ({"encoder_dim": 10**6}, "encoder_dim"),
        ({"noise": 1}, "noise"),
        ({"vq_strides": []}, "vq_strides"),
        ({"vq_stride": [1]}, "did you mean 'vq_strides'"),
        ({"decoder_dim": 1020}, "halved"),
    ],
)
def test_configurations_that_cannot_work_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        ModelConfig.from_dict({**FULL["24khz"], **change})


def test_configuration_round_trip() -> None:
    config = ModelConfig.from_dict(FULL["32khz"])
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert SNAC().config.to_dict()["vq_strides"] == [8, 4, 2, 1]


def test_save_load_fold_and_fingerprint(tmp_path, golden: dict[str, np.ndarray]) -> None:  # type: ignore[no-untyped-def]
    model = golden_model(golden, "even-depthwise")
    model.save_pretrained(tmp_path / "model")
    again = SNAC.from_pretrained(tmp_path / "model")
    assert not again.training
    assert again.fingerprint() == model.fingerprint()
    fingerprint = again.fingerprint()
    assert again.fold().fingerprint() == fingerprint
    again.save_pretrained(tmp_path / "again")
    assert SNAC.from_pretrained(tmp_path / "again").fingerprint() == fingerprint
    with torch.no_grad():
        model.decoder.model[-2].bias += 1e-3
    assert model.fingerprint() != fingerprint


@torch.no_grad()
@pytest.mark.parametrize("name", ["even-depthwise", "no-noise-attention"])
def test_folding_leaves_the_model_as_it_is(tmp_path, golden: dict[str, np.ndarray], name: str) -> None:  # type: ignore[no-untyped-def]
    model = golden_model(golden, name).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    folded = model.fold()
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    codes = model.eval().encode(test_signal(3000, 8000, 1))
    expected = model.decode(codes)
    for parameter in model.parameters():
        parameter.zero_()
    torch.testing.assert_close(folded.decode(codes), expected, atol=1e-5, rtol=0)  # it has weights of its own
    assert folded.fingerprint() != model.fingerprint()
    model.save_pretrained(tmp_path / "still-published")
    assert SNAC.from_pretrained(tmp_path / "still-published").fingerprint() == model.fingerprint()
