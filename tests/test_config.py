"""The configuration of either form: what it says of a model, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from snac.config import ModelConfig, SpectralConfig, Stack, WaveformConfig
from snac.errors import ModelError

SPECTRAL = {
    "architecture": "spectral",
    "sampling_rate": 24000,
    "hop_length": 320,
    "window_length": 1280,
    "linear_bins": 0,
    "phase_bins": 0,
    "running_phases": False,
    "latent_dim": 256,
    "encoder": {"dim": 192, "hidden": 576, "blocks": 4},
    "decoder": {"dim": 320, "hidden": 960, "blocks": 7},
    "codebook_size": 4096,
    "codebook_dim": 8,
    "vq_strides": [8, 4, 2, 1],
}


def test_the_key_architecture_chooses_the_form() -> None:
    assert ModelConfig.from_dict({}) == WaveformConfig()
    assert ModelConfig.from_dict(SPECTRAL) == SpectralConfig()
    for wrong in ("waveform", None, 1, ["spectral"]):
        with pytest.raises(ModelError, match=r"architecture .* is not known: it is 'spectral', or left out"):
            ModelConfig.from_dict({"architecture": wrong})


def test_a_spectral_configuration_round_trips(tmp_path) -> None:  # type: ignore[no-untyped-def]
    config = ModelConfig.from_dict({**SPECTRAL, "linear_bins": 200})
    assert config.to_dict() == {**SPECTRAL, "linear_bins": 200}
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert ModelConfig.from_file(tmp_path / "config.json") == config
    assert "architecture" not in WaveformConfig().to_dict()


def test_geometry_of_a_spectral_model() -> None:
    config = SpectralConfig(linear_bins=200)
    assert (config.frame_rate, config.frame_alignment, config.pad_multiple) == (75, 8, 2560)
    assert config.token_rate == 140.625
    assert config.raw_bitrate == 1687.5
    assert (config.features, config.bins, config.latent_channels) == (380, 641, 256)
    assert config.attention_window is None


@pytest.mark.parametrize(
    "config",
    [
        SpectralConfig(),
        WaveformConfig(attn_window_size=12, vq_strides=(8, 4, 4, 1)),
        WaveformConfig(attn_window_size=None, vq_strides=(3,), encoder_rates=(5,), decoder_rates=(5,)),
    ],
)
def test_frames_of_a_length(config: ModelConfig) -> None:
    unit = config.pad_multiple
    for samples in (0, 1, unit - 1, unit, unit + 1, 7 * unit + 3, 2**48):
        frames = config.frames_for(samples)
        assert frames % config.frame_alignment == 0
        assert samples <= frames * config.hop_length < samples + unit


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hop_length": 322}, "hop_length 322 is not a multiple of 4"),
        ({"hop_length": 0}, "hop_length must be a whole number"),
        ({"hop_length": 1 << 20, "window_length": 1 << 21}, "hop_length must be"),
        ({"hop_length": True}, "hop_length must be"),
        ({"window_length": 1000}, r"window_length 1000 must be 2, 3, 4, \.\.\. times hop_length 320"),
        ({"window_length": 320}, "window_length 320 must be 2"),
        ({"window_length": 1 << 30}, "window_length must be"),
        ({"window_length": 1280.5}, "window_length must be"),
        ({"window_length": float("inf")}, "window_length must be"),
        ({"latent_dim": "256"}, "latent_dim must be"),
        ({"vq_strides": [8, 4, 2, True]}, "vq_strides must be"),
        ({"linear_bins": -1}, "linear_bins must be a whole number from 0 to 641"),
        ({"linear_bins": 642}, "linear_bins must be"),
        ({"phase_bins": 642}, "phase_bins must be a whole number from 0 to 641"),
        ({"running_phases": 1}, "running_phases must be true or false"),
        ({"latent_dim": 1 << 20}, "latent_dim must be"),
        ({"latent_dim": None}, "latent_dim must be"),
        ({"encoder": 4}, "encoder must be an object with the keys dim, hidden, blocks"),
        ({"encoder": {"dim": 4, "hidden": 4}}, r"encoder\.blocks is missing"),
        ({"decoder": {"dim": 4, "hiden": 4, "blocks": 1}}, r"'decoder\.hiden'; did you mean 'hidden'"),
        ({"decoder": {"dim": 4, "hidden": "4", "blocks": 1}}, r"decoder\.hidden must be"),
        ({"decoder": {"dim": 4, "hidden": 4, "blocks": 0}}, r"decoder\.blocks must be"),
        ({"decoder": {"dim": 4, "hidden": 4, "blocks": 10**9}}, r"decoder\.blocks must be"),
        ({"decoder": {"dim": 10**5, "hidden": 4, "blocks": 1}}, r"decoder\.dim must be"),
        ({"encoder": {"dim": 16384, "hidden": 65536, "blocks": 64}}, "encoder has .* weights"),
        ({"sampling_rate": 10**7}, "sampling_rate"),
        ({"codebook_size": 1}, "codebook_size"),
        ({"codebook_dim": 10**6}, "codebook_dim"),
        ({"vq_strides": [4, 3]}, "must all divide"),
        ({"vq_strides": [1] * 17}, "vq_strides must be a list of 1 to 16"),
        ({"vq_strides": "84"}, "vq_strides"),
        ({"noise": True}, "unknown key 'noise'"),
        ({"window": 1280}, "did you mean 'window_length'"),
    ],
)
def test_spectral_configurations_that_cannot_work_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        ModelConfig.from_dict({**SPECTRAL, **change})
    assert str(caught.value).startswith("model configuration: ")
    assert "\n" not in str(caught.value)


def test_whole_numbers_of_every_type_are_taken_and_become_plain_ones() -> None:
    config = ModelConfig.from_dict(
        {
            **SPECTRAL,
            "sampling_rate": 24000.0,
            "codebook_size": np.int64(4096),
            "latent_dim": np.float32(256),
            "vq_strides": [np.int32(8), 4.0, 2, 1],
            "encoder": {"dim": np.uint8(192), "hidden": 576.0, "blocks": 4},
        }
    )
    assert config == SpectralConfig()
    assert json.loads(json.dumps(config.to_dict())) == SPECTRAL
    for wrong in (np.bool_(True), np.float32("nan"), np.int64(10**6), 10**400, np.array([64, 64]), None):
        with pytest.raises(ModelError, match="codebook_size must be"):
            ModelConfig.from_dict({"codebook_size": wrong})


def test_a_changed_copy_is_checked_too() -> None:
    assert replace(SpectralConfig(), encoder=Stack(8, 16, 1)).encoder == Stack(8, 16, 1)
    with pytest.raises(ModelError, match=r"encoder\.dim"):
        replace(SpectralConfig(), encoder=Stack(0, 16, 1))


def test_torch_is_not_imported() -> None:
    code = "import sys, snac, snac.config; snac.config.SpectralConfig(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
