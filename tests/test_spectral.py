"""The spectral form against golden arrays of the code it was first tried in, and what it promises beyond."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from snac import SNAC, spectrum
from snac.config import ModelConfig, SpectralConfig, Stack

from .golden.make_spectral import GOLDEN, SMALL, renamed
from .published import test_signal

SMALLEST = SpectralConfig(
    sampling_rate=16000,
    hop_length=64,
    window_length=192,
    latent_dim=8,
    encoder=Stack(8, 12, 1),
    decoder=Stack(8, 12, 2),
    codebook_size=32,
    codebook_dim=4,
    vq_strides=(4, 2, 1),
)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


def golden_model(golden: dict[str, np.ndarray], name: str) -> SNAC:
    config = ModelConfig.from_dict(json.loads(golden[f"{name}/config"].tobytes()))
    model = SNAC.from_model_config(config).eval()
    prefix = f"{name}/weights/"
    weights = {
        key.removeprefix(prefix): torch.tensor(golden[key]) for key in golden if key.startswith(prefix)
    }
    model.load_state_dict(weights, strict=True)
    return model


def model_of(config: SpectralConfig = SMALLEST, seed: int = 0) -> SNAC:
    torch.manual_seed(seed)
    return SNAC.from_model_config(config).eval()


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_codes_and_audio_are_those_of_the_prototype(golden: dict[str, np.ndarray], name: str) -> None:
    model = golden_model(golden, name)
    audio = torch.from_numpy(golden[f"{name}/audio"])
    features = model.encoder.features(audio)
    np.testing.assert_allclose(features.numpy(), golden[f"{name}/features"], atol=1e-4)
    codes = model.encode(audio)
    for level, code in enumerate(codes):
        assert code.dtype == torch.int64
        np.testing.assert_array_equal(code.numpy(), golden[f"{name}/codes/{level}"])
    expected = golden[f"{name}/decoded"]
    for audio_hat in (model.decode(codes), model.decode(codes, seed=None), model(audio)[0]):
        np.testing.assert_allclose(audio_hat.numpy(), expected, atol=1e-5 * np.abs(expected).max())


def test_golden_cases_differ_from_silence(golden: dict[str, np.ndarray]) -> None:
    for name in SMALL:
        assert 1e-3 < np.abs(golden[f"{name}/decoded"]).max() < 1e3
        assert len(np.unique(golden[f"{name}/codes/{len(SMALL[name]['vq_strides']) - 1}"])) > 3


def test_names_and_shapes_of_the_state_dict(golden: dict[str, np.ndarray]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in model_of().state_dict().items()}
    assert shapes["encoder.embed.weight"] == (8, 180, 7)
    assert shapes["encoder.blocks.0.depthwise.weight"] == (8, 1, 7)
    assert shapes["encoder.blocks.0.expand.weight"] == (12, 8)
    assert shapes["encoder.project.weight"] == (8, 8)
    assert shapes["decoder.blocks.1.scale"] == (8,)
    assert shapes["decoder.head.weight"] == (194, 8)
    assert shapes["quantizer.quantizers.2.codebook.weight"] == (32, 4)
    assert not any("window" in name or "bank" in name for name in shapes)
    assert set(renamed({"enc.blocks.0.dw": torch.zeros(7, 8)})) == {"encoder.blocks.0.depthwise.weight"}


@torch.no_grad()
def test_features_are_what_their_description_says() -> None:
    config = replace(SMALLEST, linear_bins=5)
    audio = test_signal(512, 16000, 3)
    features = model_of(config).encoder.features(audio)[0].numpy()
    assert features.shape == (config.features, 8)
    signal, frame = audio[0, 0].double().numpy(), 4
    centre = frame * 64 + 32

    def bands(middle: int, length: int, bank: np.ndarray) -> np.ndarray:
        window = np.sin(np.pi * np.arange(length) / length) ** 2
        spectra = np.fft.rfft(signal[middle - length // 2 : middle + length // 2] * window)
        return (np.log(np.maximum(bank @ np.abs(spectra), 1e-4)) + 3) / 3

    expected = (
        bands(centre, 192, spectrum.mel_bank(16000, 192, spectrum.mel_edges(16000, 100))),
        bands(centre - 16, 64, spectrum.mel_bank(16000, 64, spectrum.mel_edges(16000, 40))),
        bands(centre + 16, 64, spectrum.mel_bank(16000, 64, spectrum.mel_edges(16000, 40))),
        bands(centre, 192, np.eye(5, 97)),
    )
    np.testing.assert_allclose(features[:, frame], np.concatenate(expected), atol=1e-4)


@torch.no_grad()
def test_the_waveform_of_low_frequencies_is_among_the_features() -> None:
    """By the description, in double precision."""
    config = replace(SMALLEST, phase_bins=6)
    audio = test_signal(512, 16000, 3)
    features = model_of(config).encoder.features(audio)[0, -12:].numpy()
    signal, window = audio[0, 0].double().numpy(), np.sin(np.pi * np.arange(192) / 192) ** 2
    for frame in (2, 4, 5):
        bins = np.fft.rfft(signal[frame * 64 - 64 : frame * 64 + 128] * window)[:6]
        wanted = bins * ((np.abs(bins) ** 2).sum() + 1e-4) ** -0.35
        np.testing.assert_allclose(features[:6, frame], wanted.real, atol=1e-4)
        np.testing.assert_allclose(features[6:, frame], wanted.imag, atol=1e-4)
    assert not model_of(config).encoder.features(torch.zeros(1, 1, 512))[0, -12:].any()


@torch.no_grad()
def test_phases_of_low_frequencies_are_directions() -> None:
    config = replace(SMALLEST, phase_bins=6, running_phases=True)
    decoder, rng = model_of(config).decoder, np.random.default_rng(0)
    values = rng.normal(size=(1, 9, 2 * 97 + 12)).astype(np.float32)
    magnitude, phase, a, b = np.split(values[0].astype(np.float64), (97, 194, 200), axis=1)
    running = 2 * np.pi * np.outer(np.arange(9), np.arange(97)) / 3
    directions = np.exp(1j * (phase + running))
    directions[:, :6] += a + 1j * b
    wanted = np.concatenate((magnitude, np.angle(directions) - running), axis=1)
    plain = model_of(replace(config, phase_bins=0)).decoder
    expected = plain.samples(torch.from_numpy(wanted[None]).float())
    torch.testing.assert_close(decoder.samples(torch.from_numpy(values)), expected, atol=2e-4, rtol=0)


def test_mel_bands_are_weighted_means() -> None:
    bank = spectrum.mel_bank(24000, 1280, spectrum.mel_edges(24000, 100))
    assert bank.shape == (100, 641)
    np.testing.assert_allclose(bank.sum(1), 1, atol=1e-6)
    centres = bank.argmax(1)
    assert (np.diff(centres) > 0).all()
    assert list(centres[:5]) == [1, 2, 3, 5, 6]  # bins of 18.75 Hz; the mel points are some 18 Hz apart
    assert (bank >= 0).all()


def test_windows_of_overlap_add_are_those_of_torch() -> None:
    for length in (64, 192, 320, 1280):
        np.testing.assert_allclose(spectrum.hann(length), torch.hann_window(length).numpy(), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("first", [None, 0, 3])
def test_the_decoder_inverts_a_spectrum(first: int | None) -> None:
    """The spectra of windows of a signal, as log magnitude and phase, give the signal back.

    Where phases run on, less what they are for tones that began with the recording, ``first`` frames before.
    """
    config = replace(SMALLEST, window_length=256, running_phases=first is not None)
    decoder, hop, window = model_of(config).decoder, 64, torch.hann_window(256)
    signal = test_signal(20 * hop, 16000, 5)[0]
    frames = torch.nn.functional.pad(signal, (96, 96)).unfold(-1, 256, hop) * window
    spectra = torch.fft.rfft(frames)
    phases = spectra.angle()
    if first is not None:
        time = hop * torch.arange(
            first, first + 20, dtype=torch.float64
        )  # samples from the recording's start
        phases = phases - 2 * torch.pi * time[:, None] * torch.arange(129) / 256
    found = decoder.samples(torch.cat((spectra.abs().clamp(min=1e-9).log(), phases.float()), -1), first or 0)
    assert found.shape == signal.shape
    torch.testing.assert_close(found, signal, atol=1e-5, rtol=0)


@torch.no_grad()
def test_log_magnitudes_are_cut_so_that_nothing_overflows() -> None:
    decoder = model_of().decoder
    loud = decoder.samples(torch.full((1, 9, 194), 1e4))
    assert loud.isfinite().all()
    assert torch.equal(
        loud, decoder.samples(torch.cat((torch.full((1, 9, 97), 6.0), loud.new_full((1, 9, 97), 1e4)), 2))
    )


@torch.no_grad()
def test_any_length_and_any_batch() -> None:
    model = model_of()
    for length, frames in ((1, 4), (255, 4), (256, 4), (257, 8)):
        audio = test_signal(length, 16000, 1)
        codes = model.encode(audio)
        assert [code.shape[-1] for code in codes] == [frames // 4, frames // 2, frames]
        audio_hat, same = model(audio)
        assert audio_hat.shape == audio.shape
        assert all(torch.equal(a, b) for a, b in zip(codes, same, strict=True))
        decoded = model.decode(codes)
        assert decoded.shape == (1, 1, frames * 64)
        assert model.decode(codes[:1]).shape == decoded.shape
        batch = model.decode([code.repeat(3, 1) for code in codes])
        torch.testing.assert_close(batch, decoded.repeat(3, 1, 1), atol=1e-5, rtol=1e-4)


def test_every_weight_learns() -> None:
    model = model_of().train()
    audio_hat, _ = model(test_signal(2048, 16000, 2))
    audio_hat.square().mean().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0
        for name, p in model.named_parameters()
        if "codebook" not in name
    )


@torch.no_grad()
def test_under_autocast_features_and_samples_keep_their_precision() -> None:
    model = model_of()
    audio = test_signal(2048, 16000, 2)
    plain = model.encoder.features(audio)
    spectra = torch.randn(1, 8, 194, generator=torch.Generator().manual_seed(0))
    samples = model.decoder.samples(spectra)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.encoder.features(audio), plain)
        assert torch.equal(model.decoder.samples(spectra), samples)
        assert model(audio)[0].isfinite().all()


def test_attributes_are_those_that_both_forms_have() -> None:
    model = model_of()
    assert (model.sampling_rate, model.hop_length, model.latent_dim) == (16000, 64, 8)
    assert (model.n_codebooks, model.codebook_size, model.codebook_dim) == (3, 32, 4)
    assert (model.vq_strides, model.attn_window_size) == ([4, 2, 1], None)
    assert model.preprocess(torch.zeros(2, 1, 257)).shape == (2, 1, 512)


@pytest.mark.parametrize("half", [False, True])
def test_it_is_saved_and_loaded(tmp_path, half: bool) -> None:  # type: ignore[no-untyped-def]
    model = model_of(replace(SMALLEST, codebook_size=2048))
    model.save_pretrained(tmp_path / "model", half=half)
    # The published package cannot load this form, so there is no pickle for it.
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    again = SNAC.from_pretrained(tmp_path / "model")
    assert again.config == model.config
    assert not again.training
    assert (again.fingerprint() == model.fingerprint()) is not half
    with torch.no_grad():
        again.decoder.blocks[1].scale[3] += 1e-3
    assert again.fingerprint() != SNAC.from_pretrained(tmp_path / "model").fingerprint()


def test_its_constants_need_no_torch() -> None:
    code = "import sys, snac.spectrum; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
