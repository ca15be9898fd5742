"""The core of training: data, losses, restarts of codewords, exact resume."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from snac.config import ModelConfig
from snac.snac import SNAC
from snaccli.errors import AudioError, UsageError
from snaccli.training.config import DataConfig, TrainConfig
from snaccli.training.data import PackedAudio, SegmentSampler, validation_segments
from snaccli.training.losses import LowBandLoss, SpectralLoss
from snaccli.training.quantise import CodebookUsage, fit_codebooks, quantise, soften
from snaccli.training.trainer import CHECKPOINT, Trainer, TrainingError

RATE = 8000
ROOT = Path(__file__).resolve().parent.parent


def pack(path: Path, lengths: tuple[int, ...] = (9000, 4000, 300)) -> str:
    """Tones of one pitch a row, so that a segment tells which row it is from."""
    waves = [0.4 * np.sin(2 * np.pi * 200 * (i + 1) * np.arange(n) / RATE) for i, n in enumerate(lengths)]
    np.save(path, (np.concatenate(waves) * 32767).astype(np.int16))
    starts = np.cumsum([0, *lengths[:-1]])
    rows = [
        {"name": str(i), "start": int(start), "length": length, "bandwidth_hz": RATE / 2}
        for i, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]
    path.with_suffix(".json").write_text(json.dumps(rows))
    return str(path)


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    model = ModelConfig.from_dict(
        {
            "sampling_rate": RATE,
            "encoder_dim": 4,
            "encoder_rates": [4, 4],
            "decoder_dim": 16,
            "decoder_rates": [4, 4],
            "attn_window_size": None,
            "codebook_size": 32,
            "codebook_dim": 4,
            "vq_strides": [2, 1],
        }
    )
    train = pack(tmp_path / "train.npy")
    data = DataConfig(train={train: 1.0}, validation=[train], segment=1024, batch=2)
    return TrainConfig(
        model=model,
        data=data,
        steps=12,
        unquantised_steps=4,
        fit_seconds=1.0,
        decay_steps=4,
        revive_every=3,
        checkpoint_every=3,
        validate_every=6,
        learning_rate=2e-3,
    )


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, config: TrainConfig) -> None:
    whole = Trainer(config, tmp_path / "whole")
    whole.run()

    class PowerCutError(Exception):
        pass

    def cut(row: dict) -> None:
        if row.get("step") == 10:
            raise PowerCutError

    first = Trainer(config, tmp_path / "parts")
    with pytest.raises(PowerCutError):
        first.run(cut)
    second = Trainer(config, tmp_path / "parts")
    assert second.resume()
    assert second.step == 9
    second.run()
    for (name, a), (_, b) in zip(
        whole.model.state_dict().items(), second.model.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_an_exported_model_can_be_used(tmp_path: Path, config: TrainConfig) -> None:
    trainer = Trainer(config, tmp_path / "run")
    model = SNAC.from_pretrained(trainer.export(tmp_path / "model"))
    assert model.config == config.model
    for name, weight in trainer.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, atol=1e-3, rtol=1e-3)


def test_the_command_trains_resumes_and_exports(tmp_path: Path, config: TrainConfig) -> None:
    text = (ROOT / "examples" / "train" / "mini.toml").read_text()
    for name in ("speech_train", "music_train", "speech_val", "music_val"):
        pack(tmp_path / f"{name}.npy")
    text = text.replace("../../corpus/", "").replace("compile = true", "compile = false")
    text = re.sub(r"(?m)^(steps|unquantised_steps|decay_steps|batch) = .*$", r"\1 = 1", text)
    (tmp_path / "mini.toml").write_text("fit_seconds = 1\n" + text)
    command = [sys.executable, "-m", "snaccli.training", "mini.toml", "run", "--export", "model"]
    for words in ('"step": 1', "resumed at step 1"):
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
    assert SNAC.from_pretrained(tmp_path / "model").config.hop_length == 320


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_a_fresh_folder_has_nothing_to_resume(tmp_path: Path, config: TrainConfig) -> None:
    assert not Trainer(config, tmp_path / "run").resume()


def test_a_checkpoint_of_another_model_is_named(tmp_path: Path, config: TrainConfig) -> None:
    trainer = Trainer(config, tmp_path / "run")
    trainer.save()
    wider = dataclasses.replace(config.model, encoder_dim=8, latent_dim=32)
    with pytest.raises(TrainingError, match="does not fit"):
        Trainer(dataclasses.replace(config, model=wider), tmp_path / "run").resume()
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match="does not fit"):
        trainer.resume()


def test_the_loss_falls(tmp_path: Path, config: TrainConfig) -> None:
    trainer = Trainer(dataclasses.replace(config, steps=60, unquantised_steps=20), tmp_path / "run")
    before = trainer.validate()
    trainer.run()
    assert trainer.validate()["mel"] < 0.7 * before["mel"]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    tmp_path: Path, config: TrainConfig
) -> None:
    trainer = Trainer(config, tmp_path / "run")
    trainer.save()
    kept = (tmp_path / "run" / CHECKPOINT).read_bytes()
    with torch.no_grad():
        trainer.model.decoder.model[-2].bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite at step 0"):
        trainer.run()
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == kept


def test_segments_stay_within_their_recording(tmp_path: Path) -> None:
    packed = PackedAudio(pack(tmp_path / "a.npy"), RATE)
    rng = np.random.default_rng(0)
    pitches = set()
    for _ in range(40):
        wave = packed.segment(rng, 2000)
        assert wave.shape == (2000,)
        spectrum = np.abs(np.fft.rfft(wave))
        pitches.add(round(float(np.argmax(spectrum)) * RATE / 2000 / 200))
        assert spectrum.max() ** 2 > 0.5 * (spectrum**2).sum() or not wave[300:].any()
    assert pitches >= {1, 2}


def test_batches_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.npy")
    sampler = SegmentSampler({path: 1.0}, RATE, 1024, 3, seed=5)
    batch = sampler(7)
    assert batch.shape == (3, 1, 1024)
    assert batch.dtype == np.float32
    assert np.abs(batch).max() <= 1
    sampler(8)
    np.testing.assert_array_equal(batch, sampler(7))
    assert not np.array_equal(batch, sampler(8))
    assert not np.array_equal(batch, SegmentSampler({path: 1.0}, RATE, 1024, 3, seed=6)(7))


def test_packed_audio_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = Path(pack(tmp_path / "a.npy"))
    rows = json.loads(path.with_suffix(".json").read_text())
    rows[-1]["length"] += 1
    path.with_suffix(".json").write_text(json.dumps(rows))
    with pytest.raises(AudioError, match="reach beyond"):
        PackedAudio(path, RATE)
    with pytest.raises(AudioError, match="cannot be read"):
        PackedAudio(tmp_path / "missing.npy", RATE)


def test_validation_segments_are_spread_over_the_whole(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.npy")
    segments = list(validation_segments([path], RATE, 1000, count=5))
    assert [segment.shape for segment in segments] == [(1, 1, 1000)] * 5
    assert not np.array_equal(segments[0], segments[-1])


def test_spectral_loss_is_zero_for_equals_and_grows_with_level() -> None:
    loss = SpectralLoss(RATE)
    audio = 0.1 * torch.randn(2, 4096)
    assert all(float(part) == 0 for part in loss(audio, audio))
    losses = [float(loss(audio * gain, audio)[1]) for gain in (0.9, 0.5, 0.1)]
    assert losses == sorted(losses)
    # A gain is the same step in every band: its logarithm.
    assert losses[1] == pytest.approx(np.log10(2), rel=0.02)


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


def test_the_stand_in_for_codebooks_is_noise_of_the_size_of_their_error(config: TrainConfig) -> None:
    torch.manual_seed(0)
    quantizer = SNAC.from_model_config(config.model).quantizer
    z = torch.randn(2, config.model.latent_dim or 0, 64, requires_grad=True)
    soft, distance = soften(quantizer, z)
    again, _ = soften(quantizer, z)
    assert soft.shape == z.shape
    assert not torch.equal(soft, again)
    (soft.square().mean() + distance).backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert z.grad.abs().sum() > 0
    # One level of it: points of the sphere, as far apart as 32 codewords on it would have them.
    level = next(quantizer.levels())
    unit = torch.nn.functional.normalize(level.project(z), dim=1)
    even = 32 ** (-1 / 3)
    moved = torch.nn.functional.normalize(unit + even / 2 * torch.randn_like(unit), dim=1)
    assert 0.5 * even < float((moved - unit).norm(dim=1).mean()) < 1.5 * even


def test_quantising_for_training_equals_the_model(config: TrainConfig) -> None:
    model = SNAC.from_model_config(config.model)
    z = torch.randn(2, config.model.latent_dim or 0, 8)
    result = quantise(model.quantizer, z)
    z_q, codes = model.quantizer(z)
    torch.testing.assert_close(result.z_q, z_q)
    assert all(torch.equal(a, b) for a, b in zip(result.indices, codes, strict=True))
    (result.commitment + result.codebook).backward()
    assert all(level.codebook.weight.grad is not None for level in model.quantizer.levels())


def test_fitted_codebooks_quantise_better_than_drawn_ones(config: TrainConfig) -> None:
    torch.manual_seed(0)
    quantizer = SNAC.from_model_config(config.model).quantizer
    latents = [torch.randn(4, config.model.latent_dim or 0, 32) for _ in range(4)]
    before = quantise(quantizer, latents[0]).commitment
    assert fit_codebooks(quantizer, latents) == [256, 512]
    assert quantise(quantizer, latents[0]).commitment < 0.7 * before


def test_idle_codewords_move_and_busy_ones_stay(config: TrainConfig) -> None:
    torch.manual_seed(0)
    quantizer = SNAC.from_model_config(config.model).quantizer
    usage = CodebookUsage(quantizer, horizon=1.0)
    z = torch.randn(1, config.model.latent_dim or 0, 2).repeat(1, 1, 32)
    for _ in range(20):
        result = quantise(quantizer, z)
        usage.update(result)
    used = result.indices[1].unique()
    kept = quantizer.quantizers[1].codebook.weight[used].clone()
    before = usage.perplexity()
    revived = usage.revive()
    assert revived[1] == 32 - len(used)
    assert torch.equal(quantizer.quantizers[1].codebook.weight[used], kept)
    assert before[1] < 4
    assert usage.revive() == [0, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepz = 3", "did you mean 'steps'"),
        ("steps = 'many'", "steps must be a number"),
        ("[data]\nsegmnt = 1", "did you mean 'segment'"),
        ("[weights]\nmell = 1", "did you mean 'mel'"),
        ("nonsense", "TOML"),
        ("[data]\nsegment = 1000\n[model]\nattn_window_size = 0", "multiple of"),
    ],
)
def test_configurations_with_mistakes_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        TrainConfig.from_toml(tmp_path / "run.toml")


def test_paths_in_a_configuration_are_relative_to_it(tmp_path: Path) -> None:
    text = "[model]\nattn_window_size = 0\nencoder_rates = [4, 4]\ndecoder_rates = [4, 4]\n"
    (tmp_path / "run.toml").write_text(text + '[data]\nvalidation = ["v.npy"]\n[data.train]\n"t.npy" = 1\n')
    config = TrainConfig.from_toml(tmp_path / "run.toml")
    assert config.data.train == {str(tmp_path / "t.npy"): 1.0}
    assert config.data.validation == [str(tmp_path / "v.npy")]
    assert config.model.attn_window_size is None
