"""Losses, discriminators and what training adds to the quantiser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from pesq import pesq
from pystoi import stoi

from snac.config import ModelConfig
from snac.nn.model import SNAC
from snaccli.training.codec import ReconstructionLosses
from snaccli.training.config import COMPARISONS, LossWeights, SpectraConfig
from snaccli.training.discriminators import (
    Discriminators,
    PeriodDiscriminator,
    SpectrumDiscriminator,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from snaccli.training.losses import (
    DisturbanceLoss,
    IntelligibilityLoss,
    LowBandLoss,
    MagnitudeLoss,
    PhaseLoss,
    SpectralLoss,
)
from snaccli.training.processes import StepNoise, generator
from snaccli.training.quantise import CodebookUsage, fit_codebooks, quantise, soften

from .training_runs import MODEL, RATE

LATENT = 16
EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "audio"


@pytest.fixture
def model() -> SNAC:
    torch.manual_seed(0)
    return SNAC.from_model_config(ModelConfig.from_dict(MODEL | {"attn_window_size": None}))


def test_spectral_loss_is_zero_for_equals_and_grows_with_level() -> None:
    loss = SpectralLoss(RATE)
    audio = 0.1 * torch.randn(2, 4096)
    assert all(float(part) == 0 for part in loss(audio, audio))
    losses = [float(loss(audio * gain, audio)[1]) for gain in (0.9, 0.5, 0.1)]
    assert losses == sorted(losses)
    # A gain is the same step in every band: its logarithm.
    assert losses[1] == pytest.approx(np.log10(2), rel=0.02)


def test_losses_of_a_batch_are_means_of_its_clips() -> None:
    torch.manual_seed(0)
    audio = torch.randn(3, 4096) * torch.tensor([[0.3], [0.01], [0.001]])
    decoded = audio + 0.05 * torch.randn(3, 4096)
    spectral, low_band = SpectralLoss(RATE, (1024, 2048), (512,)), LowBandLoss(RATE)
    envelopes = IntelligibilityLoss(RATE)
    for loss in (lambda a, b: spectral(a, b)[0], lambda a, b: spectral(a, b)[1], low_band, envelopes):
        parts = [float(loss(decoded[i : i + 1], audio[i : i + 1])) for i in range(3)]
        assert float(loss(decoded, audio)) == pytest.approx(np.mean(parts), rel=1e-5)


def test_low_band_loss_hears_low_phases_and_no_high_ones() -> None:
    loss = LowBandLoss(RATE, cutoff=1000)
    time = torch.arange(8192) / RATE
    low, high = 0.3 * torch.sin(2 * np.pi * 300 * time)[None], 0.3 * torch.sin(2 * np.pi * 3000 * time)[None]
    assert float(loss(low + high, low)) < 0.02
    assert float(loss(torch.zeros_like(low), low)) == pytest.approx(1, abs=0.01)
    assert float(loss(-low, low)) == pytest.approx(2, abs=0.02)
    # Each clip counts by its own loudness.
    quiet = torch.cat((low, 0.05 * low))
    assert float(loss(torch.zeros_like(quiet), quiet)) == pytest.approx(1, abs=0.05)


def test_intelligibility_loss_is_what_stoi_lacks() -> None:
    """Against an implementation that no one here wrote."""
    audio, rate = soundfile.read(EXAMPLES / "speech-nl.flac", dtype="float32")
    audio = soxr.resample(audio[: 5 * rate], rate, 24_000)
    loss = IntelligibilityLoss(24_000)
    noise = np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32)
    for level in (0.001, 0.01, 0.03, 0.1):
        noisy = audio + level * noise
        got = float(loss(torch.from_numpy(noisy)[None], torch.from_numpy(audio)[None]))
        assert 1 - got == pytest.approx(stoi(audio, noisy, 24_000), abs=0.04)


@pytest.mark.parametrize("length", [700, 4096, 16_000])
def test_intelligibility_loss_has_finite_gradients_everywhere(length: int) -> None:
    loss = IntelligibilityLoss(RATE)
    torch.manual_seed(0)
    audio = torch.randn(2, length) * torch.tensor([[0.3], [0.0]])
    for decoded in (torch.zeros(2, length), audio.clone(), 0.01 * torch.randn(2, length)):
        decoded.requires_grad_()
        loss(decoded, audio).backward()
        assert decoded.grad is not None
        assert decoded.grad.isfinite().all()
    assert float(loss(audio, audio)) == pytest.approx(0, abs=1e-5)
    assert float(loss(0.1 * audio, audio)) == pytest.approx(0, abs=0.01)


def full_band(count: int, rate: int = RATE) -> torch.Tensor:
    return torch.full((count,), rate / 2)


def test_magnitude_losses_are_zero_for_equals_and_count_each_clip_by_itself() -> None:
    torch.manual_seed(0)
    loss = MagnitudeLoss(RATE, (256, 1024, 2048))
    audio = torch.randn(3, 8192) * torch.tensor([[0.3], [0.03], [0.1]])
    assert [float(part) for part in loss(audio, audio, full_band(3))] == [0, 0, 0]
    halved = loss(audio / 2, audio, full_band(3))
    # A gain is the same step in every band and bin; square roots of halves miss 1 - sqrt(1 / 2) of the sum.
    assert [float(part) for part in halved] == pytest.approx([np.log10(2), np.log10(2), 0.293], rel=0.02)
    noisy = audio + 0.05 * torch.randn(3, 8192)
    parts = [loss(noisy[i : i + 1], audio[i : i + 1], full_band(1)) for i in range(3)]
    whole = [float(part) for part in loss(noisy, audio, full_band(3))]
    assert whole == pytest.approx(
        np.mean([[float(part) for part in clip] for clip in parts], axis=0), rel=1e-4
    )


def test_what_lies_above_the_bandwidth_of_a_recording_costs_nothing() -> None:
    torch.manual_seed(0)
    low = 0.03 * torch.randn(1, 16_384)
    high = 0.3 * torch.hann_window(16_384) * torch.sin(2 * np.pi * 3500 * torch.arange(16_384) / RATE)
    for loss in (MagnitudeLoss(RATE, (1024,)), DisturbanceLoss(RATE)):
        open_, limited = (loss(low + high, low, torch.tensor([hz])) for hz in (4000.0, 2500.0))
        for more, less in zip(
            *(part if isinstance(part, tuple) else (part,) for part in (open_, limited)), strict=True
        ):
            assert float(less) < 0.05 * float(more)


def test_disturbance_goes_with_pesq() -> None:
    """Against an implementation that no one here wrote: ever more noise, and music-like damage."""
    audio, rate = soundfile.read(EXAMPLES / "speech-nl.flac", dtype="float32")
    audio = soxr.resample(audio[: 5 * rate], rate, 24_000)
    loss = DisturbanceLoss(24_000)
    noise = np.random.default_rng(0).standard_normal(len(audio)).astype(np.float32)
    ours, theirs = [], []
    for level in (0.0003, 0.001, 0.003, 0.01, 0.03):
        noisy = audio + level * noise
        ours.append(
            float(loss(torch.from_numpy(noisy)[None], torch.from_numpy(audio)[None], full_band(1, 24_000)))
        )
        theirs.append(pesq(16_000, *(soxr.resample(wave, 24_000, 16_000) for wave in (audio, noisy)), "wb"))
    assert ours == sorted(ours)
    assert theirs == sorted(theirs, reverse=True)
    # P.862.2 bends the score that is 4.5 less the disturbance: straightened, the two should be on a line.
    straight = (3.8224 - np.log(4 / (np.array(theirs) - 0.999) - 1)) / 1.3669
    assert np.corrcoef(ours, straight)[0, 1] < -0.95


def test_phases_may_be_others_if_they_advance_alike() -> None:
    loss = PhaseLoss(RATE)
    time = torch.arange(16_384) / RATE

    def tone(hz: float, phase: float = 0.0) -> torch.Tensor:
        return 0.3 * torch.sin(2 * np.pi * hz * time + phase)[None]

    def advance(decoded: torch.Tensor, target: torch.Tensor) -> float:
        return float(loss(decoded, target)[0])

    def phase(decoded: torch.Tensor, target: torch.Tensor) -> float:
        return float(loss(decoded, target)[1])

    assert advance(tone(440), tone(440)) == pytest.approx(0, abs=0.005)
    assert advance(0.1 * tone(440, 1.0), tone(440)) < 0.05
    # 256 samples on, a tone 8 Hz higher is 2 pi 8 256 / 8000 = 1.61 ahead.
    assert advance(tone(448), tone(440)) == pytest.approx(1 - np.cos(1.61), abs=0.1)
    # The phases themselves do count below 1200 Hz, whatever the loudness, and nothing above.
    assert phase(0.1 * tone(440), tone(440)) == pytest.approx(0, abs=0.005)
    assert phase(tone(440, 1.0), tone(440)) == pytest.approx(1 - np.cos(1.0), abs=0.05)
    mixed, upset = (tone(440) + 0.5 * tone(2200, shift) for shift in (0.0, 2.0))
    assert phase(upset, mixed) < 0.05
    torch.manual_seed(0)
    noise = torch.randn(2, 1, 16_384)
    assert advance(noise[0], noise[1]) > 0.4
    assert phase(noise[0], noise[1]) == pytest.approx(1, abs=0.15)
    assert loss(noise[0], torch.zeros(1, 16_384))[0] == pytest.approx(0, abs=0.01)
    assert loss(noise[0], torch.zeros(1, 16_384))[1] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("length", [700, 4096])
def test_spectral_losses_have_finite_gradients_everywhere(length: int) -> None:
    torch.manual_seed(0)
    audio = torch.randn(2, length) * torch.tensor([[0.3], [0.0]])
    for decoded in (torch.zeros(2, length), audio.clone(), 0.01 * torch.randn(2, length)):
        decoded.requires_grad_()
        parts = (*MagnitudeLoss(RATE, (256, 1024))(decoded, audio, full_band(2)),)
        parts = (
            *parts,
            DisturbanceLoss(RATE)(decoded, audio, full_band(2)),
            *PhaseLoss(RATE)(decoded, audio),
        )
        sum(parts).backward()
        assert decoded.grad is not None
        assert decoded.grad.isfinite().all()


def test_only_losses_with_a_weight_are_computed() -> None:
    audio = torch.randn(2, 4096)
    for wanted in (("mel",), ("waveform", "compressed", "disturbance"), COMPARISONS):
        values = {name: 1.0 if name in wanted else 0.0 for name in COMPARISONS}
        weights = LossWeights(**values)
        losses = ReconstructionLosses(RATE, SpectraConfig(), weights.reconstruction())
        assert set(losses(0.9 * audio, audio, full_band(2))) == set(wanted)


def test_period_discriminators_see_each_phase_alone() -> None:
    torch.manual_seed(0)
    judge = PeriodDiscriminator(5, channels=2)
    audio = torch.randn(1, 1, 1003)
    changed = audio.clone()
    changed[..., 2::5] += 1
    before, after = judge(audio)[-1], judge(changed)[-1]
    assert torch.equal(before[..., :2], after[..., :2])
    assert torch.equal(before[..., 3:], after[..., 3:])
    assert not torch.allclose(before[..., 2], after[..., 2])


def test_spectrum_discriminators_hear_phases() -> None:
    torch.manual_seed(0)
    judge = SpectrumDiscriminator(256, channels=2)
    audio = torch.randn(1, 1, 2048)
    assert not torch.allclose(judge(audio)[-1], judge(-audio)[-1])
    assert len(judge(audio)) == 5 * 5 + 1


def test_discriminators_learn_to_tell_noise_from_tones() -> None:
    torch.manual_seed(0)
    judges = Discriminators([2, 3], [128], 2)
    optimizer = torch.optim.Adam(judges.parameters(), lr=3e-3)
    tones = torch.sin(torch.arange(1024) * torch.rand(4, 1))[:, None]
    noise = 0.7 * torch.randn(4, 1, 1024)
    losses = []
    for _ in range(60):
        loss = discriminator_loss(judges(tones), judges(noise))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0]
    with torch.no_grad():
        assert float(adversarial_loss(judges(noise))) > 4 * float(adversarial_loss(judges(tones)))
    assert feature_loss(judges(tones), judges(tones)).item() == 0
    assert feature_loss(judges(tones), judges(noise)).item() > 0


def test_noise_of_a_batch_does_not_depend_on_how_it_is_divided() -> None:
    like = torch.zeros(4, 3, 10)
    whole = StepNoise(1, step=5).draw(2, 10, like)
    assert whole.shape == (4, 1, 10)
    parts = [StepNoise(1, step=5, first_item=first).draw(2, 10, like[:2]) for first in (0, 2)]
    assert torch.equal(whole, torch.cat(parts))
    for other in (StepNoise(2, step=5), StepNoise(1, step=6)):
        assert not torch.equal(whole, other.draw(2, 10, like))
    assert not torch.equal(whole, StepNoise(1, step=5).draw(3, 10, like))


def test_the_stand_in_for_codebooks_is_noise_of_the_size_of_their_error(model: SNAC) -> None:
    z = torch.randn(2, LATENT, 64, requires_grad=True)
    soft, distance = soften(model.quantizer, z, StepNoise(0))
    again, _ = soften(model.quantizer, z, StepNoise(1))
    assert soft.shape == z.shape
    assert not torch.equal(soft, again)
    (soft.square().mean() + distance).backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert z.grad.abs().sum() > 0
    # One level of it: points of the sphere, as far apart as 32 codewords on it would have them.
    level = next(model.quantizer.levels())
    unit = torch.nn.functional.normalize(level.project(z), dim=1)
    even = 32 ** (-1 / 3)
    moved = torch.nn.functional.normalize(unit + even / 2 * torch.randn_like(unit), dim=1)
    assert 0.5 * even < (moved - unit).norm(dim=1).mean().item() < 1.5 * even


def test_quantising_for_training_equals_the_model(model: SNAC) -> None:
    z = torch.randn(2, LATENT, 8)
    result = quantise(model.quantizer, z)
    z_q, codes = model.quantizer(z)
    torch.testing.assert_close(result.z_q, z_q)
    assert all(torch.equal(a, b) for a, b in zip(result.indices, codes, strict=True))
    (result.commitment + result.codebook).backward()  # type: ignore[no-untyped-call]
    assert all(level.codebook.weight.grad is not None for level in model.quantizer.levels())


def test_fitted_codebooks_quantise_better_than_drawn_ones(model: SNAC) -> None:
    latents = [torch.randn(4, LATENT, 32) for _ in range(4)]
    before = quantise(model.quantizer, latents[0]).commitment
    assert fit_codebooks(model.quantizer, latents, generator(0), unit=True) == [256, 512]
    assert quantise(model.quantizer, latents[0]).commitment < 0.7 * before


def test_refitted_codebooks_keep_the_lengths_of_latents(model: SNAC) -> None:
    latents = [5 * torch.randn(4, LATENT, 32) for _ in range(4)]
    level = next(iter(model.quantizer.levels()))
    lengths = level.project(latents[0]).norm(dim=1).mean()
    fit_codebooks(model.quantizer, latents, generator(0), unit=False)
    # Each word is the mean of points of several directions: somewhat shorter than they are.
    assert 0.6 * lengths < level.codebook.weight.norm(dim=1).mean() < lengths


def test_frozen_codebooks_are_neither_fitted_nor_revived(model: SNAC) -> None:
    coarse, fine = model.quantizer.levels()
    fine.requires_grad_(False)
    before = coarse.codebook.weight.clone(), fine.codebook.weight.clone()
    latents = [torch.randn(4, LATENT, 32)]
    fit_codebooks(model.quantizer, latents, generator(0), unit=True)
    assert not torch.equal(coarse.codebook.weight, before[0])
    usage = CodebookUsage(model.quantizer, horizon=1.0)
    for _ in range(20):
        result = quantise(model.quantizer, torch.zeros(1, LATENT, 32))
        usage.update(result.indices, result.projected)
    assert usage.revive(generator(0)) == [31, 0]
    assert torch.equal(fine.codebook.weight, before[1])


def test_idle_codewords_move_and_busy_ones_stay(model: SNAC) -> None:
    usage = CodebookUsage(model.quantizer, horizon=1.0)
    z = torch.randn(1, LATENT, 2).repeat(1, 1, 32)
    for _ in range(20):
        result = quantise(model.quantizer, z)
        usage.update(result.indices, result.projected)
    used = result.indices[1].unique()
    kept = model.quantizer.quantizers[1].codebook.weight[used].clone()  # type: ignore[union-attr, index]
    before = usage.perplexity()
    revived = usage.revive(generator(0))
    assert revived[1] == 32 - len(used)
    assert torch.equal(model.quantizer.quantizers[1].codebook.weight[used], kept)  # type: ignore[union-attr, index]
    assert before[1] < 4
    assert usage.revive(generator(1)) == [0, 0]
