"""The training loop: it learns, stops and resumes exactly, and keeps what it had when something fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from snac.nn.model import SNAC
from snaccli.errors import ModelError, UsageError
from snaccli.training import codec
from snaccli.training.config import TrainConfig
from snaccli.training.export import export
from snaccli.training.launched import StopRequest
from snaccli.training.loop import Interrupted, Trainer
from snaccli.training.processes import StepNoise
from snaccli.training.quantise import soften
from snaccli.training.state import (
    BEST,
    LAST,
    AveragedWeights,
    JsonLog,
    TensorBoard,
    TrainingError,
    spectrogram,
    write_checkpoint,
)
from snaccli.training.validation import BASELINE

from .training_runs import MODEL, RATE, SPECTRAL, SPECTRAL_WEIGHTS, make_config, pack, recordings

ADVERSARIAL = {
    "weights": {"adversarial": 1.0, "feature": 1.0},
    "adversarial": {"start": 2, "channels": 1, "periods": [2, 3], "windows": [128]},
}


class Rows:
    """A report that keeps what it is told, and may cut the power."""

    def __init__(self, cut_at: int | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.heard: list[str] = []
        self.cut_at = cut_at

    def row(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.cut_at is not None and row["step"] >= self.cut_at:
            raise PowerCutError

    def audio(self, step: int, name: str, samples: np.ndarray, rate: int) -> None:
        assert samples.dtype == np.float32
        self.heard.append(name)

    def close(self) -> None:
        pass


class PowerCutError(Exception):
    pass


@pytest.fixture
def packed(tmp_path: Path) -> str:
    return pack(tmp_path / "train.npy")


@pytest.fixture
def config(packed: str) -> TrainConfig:
    return make_config(packed)


def same_weights(one: Trainer, other: Trainer) -> None:
    states = zip(one.model.state_dict().items(), other.model.state_dict().items(), strict=True)
    for (name, a), (_, b) in states:
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"ema": 0.9, "accumulate": 2, "precision": "bf16", "scale_layers": True},
        {"unquantised_steps": 0, **ADVERSARIAL},
        {"model": SPECTRAL, "weights": SPECTRAL_WEIGHTS, "ema": 0.9, "codebook_rate": 4.0},
        {"stages": [{"steps": 5, "seconds": 0.128, "batch": 2}, {"epochs": 4, "seconds": 0.256, "batch": 4}]},
    ],
    ids=["plain", "averaged parts in bf16", "adversarial", "spectral", "stages"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, packed: str, values: dict) -> None:
    config = make_config(packed, **values)
    whole = Trainer(config, tmp_path / "whole")
    whole.run()
    cut = Trainer(config, tmp_path / "parts", reports=[Rows(cut_at=10)])
    with pytest.raises(PowerCutError):
        cut.run()
    resumed = Trainer(config, tmp_path / "parts")
    assert resumed.resume()
    assert resumed.step == 9
    resumed.run()
    assert resumed.step == whole.step == whole.schedule.steps
    same_weights(whole, resumed)
    assert resumed.progress == whole.progress
    if whole.average is not None and resumed.average is not None:
        for name, weight in whole.average.weights.items():
            assert torch.equal(weight, resumed.average.weights[name]), name


def test_a_run_in_pieces_equals_a_run_at_once(tmp_path: Path, config: TrainConfig) -> None:
    whole = Trainer(config, tmp_path / "whole")
    whole.run()
    for _ in range(3):
        piece = Trainer(config, tmp_path / "pieces")
        piece.resume()
        piece.run(limit=4)
    assert piece.step == 12
    same_weights(whole, piece)


def test_the_loss_falls(tmp_path: Path, packed: str) -> None:
    config = make_config(packed, stages=[{"steps": 60, "seconds": 0.128, "batch": 4}], unquantised_steps=20)
    rows = Rows()
    trainer = Trainer(config, tmp_path / "run", reports=[rows])
    trainer.run()
    (row,) = trainer.progress.table()
    assert row["last"]["mel"] < 0.7 * row["baseline"]["mel"]
    assert row["improvement_percent"] > 20
    baseline = json.loads((tmp_path / "run" / BASELINE).read_text())["stages"]
    assert [(entry["segment"], entry["metrics"]) for entry in baseline] == [(1024, row["baseline"])]
    assert rows.rows[0]["baseline"] == row["baseline"], "measured before the first step"
    assert any(len(entry["perplexity"]) == 2 for entry in rows.rows if "perplexity" in entry)
    assert "example 0/decoded" in rows.heard


def test_scaled_layers_pass_the_signal_on(tmp_path: Path, packed: str) -> None:
    plain = Trainer(make_config(packed), tmp_path / "plain")
    scaled = Trainer(make_config(packed, scale_layers=True), tmp_path / "scaled")
    audio = torch.from_numpy(scaled.sampler.batch(scaled.schedule.steps, 1024, 4).audio)  # what they saw
    for layers in (1, 2, 3, 4):
        outputs = scaled.model.encoder.block[:layers](audio).detach()
        torch.testing.assert_close(outputs.var((0, 2)), torch.ones(outputs.shape[1]), atol=1e-3, rtol=0)
        torch.testing.assert_close(outputs.mean((0, 2)), torch.zeros(outputs.shape[1]), atol=1e-3, rtol=0)
    changes = []
    for trainer in (plain, scaled):
        latents = trainer.model.encoder(audio).detach()
        changes.append(float(latents.std((0, 2)).norm() / latents.mean((0, 2)).norm()))
    assert changes[0] < 0.5, "as drawn, latents hardly change over time"
    assert changes[1] > 5
    again = Trainer(make_config(packed, scale_layers=True), tmp_path / "again")
    same_weights(scaled, again)


def test_the_last_scaled_layer_is_as_loud_as_the_audio(tmp_path: Path, packed: str) -> None:
    model = Trainer(make_config(packed, scale_layers=True), tmp_path / "scaled").model
    audio = 0.1 * torch.sin(torch.arange(4096) / 3 + 2 * torch.rand(4, 1, 1))
    noise = StepNoise(0)
    codec.scale_layers(model, audio, noise)
    decoded = model.decoder(soften(model.quantizer, model.encoder(audio), noise)[0], noise).detach()
    assert float(decoded.std()) == pytest.approx(float(audio.std()), rel=0.05)


@pytest.mark.parametrize("values", [{"model": SPECTRAL}, {"init": "mini"}])
def test_only_fresh_models_of_the_published_form_are_scaled(packed: str, values: dict) -> None:
    with pytest.raises(UsageError, match="scale_layers is for fresh models"):
        make_config(packed, scale_layers=True, **values)


def test_the_spectral_form_learns_by_its_own_losses(tmp_path: Path, packed: str) -> None:
    rows = Rows()
    config = make_config(
        packed,
        model=SPECTRAL,
        weights=SPECTRAL_WEIGHTS,
        stages=[{"steps": 60, "seconds": 0.128, "batch": 4}],
        unquantised_steps=20,
    )
    trainer = Trainer(config, tmp_path / "run", reports=[rows])
    trainer.run()
    (row,) = trainer.progress.table()
    assert row["improvement_percent"] > 20
    for name in ("log_mel", "log_magnitude", "compressed", "disturbance", "advance", "phase"):
        assert row["last"][name] < row["baseline"][name]
    assert not {"mel", "stft", "waveform"} & {name for row in rows.rows for name in row}
    model = SNAC.from_pretrained(export(trainer, tmp_path / "model"))
    assert model.config == trainer.model.config
    card = (tmp_path / "model" / "README.md").read_text()
    assert "log_mel 15" in card
    assert "2 blocks of 16 / 32 channels" in card


def test_codewords_may_move_faster_than_the_rest(tmp_path: Path, packed: str) -> None:
    config = make_config(packed, unquantised_steps=0, codebook_rate=0.0, revive_every=0)
    trainer = Trainer(config, tmp_path / "run")
    trainer.run(limit=1)  # fits the codebooks first
    level = next(trainer.model.quantizer.levels())
    before = level.codebook.weight.clone(), level.in_proj.bias.clone()
    trainer.run(limit=2)
    assert torch.equal(level.codebook.weight, before[0])
    assert not torch.equal(level.in_proj.bias, before[1])


def test_compiling_for_many_shapes_is_allowed_by_the_name_each_torch_knows() -> None:
    older, newer = SimpleNamespace(cache_size_limit=8), SimpleNamespace(recompile_limit=8)
    for config in (older, newer):
        codec._allow_shapes(config, 256)
    assert (vars(older), vars(newer)) == ({"cache_size_limit": 256}, {"recompile_limit": 256})
    codec._allow_shapes(torch._dynamo.config, 256)
    names = [name for name in ("cache_size_limit", "recompile_limit") if hasattr(torch._dynamo.config, name)]
    assert {getattr(torch._dynamo.config, name) for name in names} == {256}


@pytest.mark.parametrize(
    ("folder", "remedy"),
    [
        ("/env", r"install a C\+\+ compiler"),
        ("/my env", r"in a folder without a space in its name \(/my env/"),
    ],
)
def test_where_nothing_can_be_compiled_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, folder: str, remedy: str
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("g++ failed\n  on line 3")

    monkeypatch.setattr(torch, "__file__", f"{folder}/torch/__init__.py")
    with pytest.raises(UsageError, match=rf"g\+\+ failed on line 3\): .*{remedy}.*, or set compile=false"):
        codec._try(failing, "cpu")


def test_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(codec, "_cpu_flags", lambda: {"avx2", "avx512_bf16"})
    assert codec.computes_in_bf16("auto", cpu)
    monkeypatch.setattr(codec, "_cpu_flags", lambda: {"avx2"})
    assert not codec.computes_in_bf16("auto", cpu)
    assert codec.computes_in_bf16("bf16", cpu)
    assert not codec.computes_in_bf16("fp32", cpu)


def test_adversarial_training_has_its_losses_and_spares_the_export(tmp_path: Path, packed: str) -> None:
    rows = Rows()
    config = make_config(packed, unquantised_steps=0, **ADVERSARIAL)
    trainer = Trainer(config, tmp_path / "run", reports=[rows])
    assert trainer.adversary is not None
    before = [weight.clone() for weight in trainer.adversary.discriminators.parameters()]
    trainer.run()
    last = [row for row in rows.rows if "loss" in row][-1]
    assert {"adversarial", "feature", "discriminator"} <= last.keys()
    after = list(trainer.adversary.discriminators.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    model = SNAC.from_pretrained(export(trainer, tmp_path / "model"))
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), "as it is now, not as it validated best"


@pytest.mark.parametrize("parts", [("encoder", "quantizer"), ("decoder",), ("encoder.block.0", "quantizer")])
def test_frozen_parts_keep_their_weights(tmp_path: Path, packed: str, parts: tuple[str, ...]) -> None:
    config = make_config(packed, freeze=list(parts), unquantised_steps=0)
    trainer = Trainer(config, tmp_path / "run")
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.run(limit=6)
    # Fresh codebooks are fitted where they are not frozen.
    for name, weight in trainer.model.state_dict().items():
        frozen = any(name.startswith(f"{part}.") for part in parts)
        assert not frozen or torch.equal(weight, before[name]), name
    assert any(not torch.equal(trainer.model.state_dict()[name], weight) for name, weight in before.items())


@pytest.mark.parametrize(
    ("parts", "words"),
    [(["encodr"], "did you mean 'encoder'"), (["encoder", "quantizer", "decoder"], "nothing to train")],
)
def test_freezing_what_is_not_there(tmp_path: Path, packed: str, parts: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Trainer(make_config(packed, freeze=parts), tmp_path / "run")


def test_a_model_is_trained_on(tmp_path: Path, packed: str) -> None:
    first = Trainer(make_config(packed), tmp_path / "first")
    first.run(limit=6)
    folder = export(first, tmp_path / "model")
    values: dict[str, Any] = {"init": str(folder), "unquantised_steps": 0}
    second = Trainer(make_config(packed, **values), tmp_path / "second")
    trained = SNAC.from_pretrained(folder).state_dict()
    assert all(torch.equal(weight, trained[name]) for name, weight in second.model.state_dict().items())
    second.run(limit=2)
    with pytest.raises(UsageError, match=r"encoder_dim 8, but .* has 4"):
        Trainer(make_config(packed, **values, model=MODEL | {"encoder_dim": 8}), tmp_path / "third")
    with pytest.raises(ModelError):
        Trainer(make_config(packed, init="no such model"), tmp_path / "third")


def test_a_model_named_where_its_shape_belongs(packed: str) -> None:
    with pytest.raises(UsageError, match="init names a model"):
        make_config(packed, model="mini")


def test_a_shape_of_another_form_than_the_model_to_start_from(packed: str, tmp_path: Path) -> None:
    config = make_config(packed, init="mini", model={"sampling_rate": RATE})
    with pytest.raises(UsageError, match=r"\[model\] has .*, but mini has .*: leave \[model\] out"):
        Trainer(config, tmp_path / "run")


@pytest.mark.parametrize("half", [False, True])
def test_an_exported_model_can_be_used(tmp_path: Path, packed: str, half: bool) -> None:
    trainer = Trainer(make_config(packed, half=half), tmp_path / "run")
    trainer.run()
    model = SNAC.from_pretrained(export(trainer, tmp_path / "model"))
    assert model.config == trainer.model.config
    best = torch.load(tmp_path / "run" / BEST, weights_only=True)
    for name, weight in best["model"].items():
        torch.testing.assert_close(model.state_dict()[name], weight, atol=1e-3, rtol=1e-3)
    card = (tmp_path / "model" / "README.md").read_text()
    assert model.fingerprint() in card
    assert f"after step {best['step']} of 12" in card
    assert f"{best['metrics']['loss']:.4f}" in card


def test_a_fresh_folder_has_nothing_to_resume(tmp_path: Path, config: TrainConfig) -> None:
    assert not Trainer(config, tmp_path / "run").resume()


def test_a_checkpoint_of_another_model_is_named(tmp_path: Path, packed: str, config: TrainConfig) -> None:
    trainer = Trainer(config, tmp_path / "run")
    trainer.save()
    wider = make_config(packed, model=MODEL | {"encoder_dim": 8})
    with pytest.raises(TrainingError, match="does not fit"):
        Trainer(wider, tmp_path / "run").resume()
    (tmp_path / "run" / LAST).write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match="no checkpoint, or damaged"):
        trainer.resume()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    tmp_path: Path, config: TrainConfig
) -> None:
    trainer = Trainer(config, tmp_path / "run")
    trainer.save()
    kept = (tmp_path / "run" / LAST).read_bytes()
    with torch.no_grad():
        trainer.model.decoder.model[-2].bias.fill_(float("nan"))
    trainer.progress.baseline = {"1024": {"loss": 1.0}}
    with pytest.raises(TrainingError, match=r"not finite at step 0: loss, .*mel, .*in a batch of \d"):
        trainer.run()
    assert (tmp_path / "run" / LAST).read_bytes() == kept


def test_a_request_to_stop_writes_a_checkpoint_first(tmp_path: Path, config: TrainConfig) -> None:
    stop = StopRequest()

    class Presses(Rows):
        def row(self, row: dict[str, Any]) -> None:
            stop.number = 2 if "codebooks_fitted_to" in row else 0

    trainer = Trainer(config, tmp_path / "run", reports=[Presses()])
    with pytest.raises(Interrupted, match="stopped after step 5 of 12") as caught:
        trainer.run(stop=stop)
    assert caught.value.status == 130
    resumed = Trainer(config, tmp_path / "run")
    assert resumed.resume()
    assert resumed.step == 5


def test_a_full_disk_keeps_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / LAST, {"step": 1})
    kept = (tmp_path / LAST).read_bytes()

    def full(state: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"no space left on the disk: .*; the former checkpoint stands"):
        write_checkpoint(tmp_path / LAST, {"step": 2})
    assert (tmp_path / LAST).read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == [LAST]


def test_averaged_weights_lag_behind_and_leave_no_trace() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    average = AveragedWeights(layer, 0.5)
    torch.nn.init.ones_(layer.weight)
    average.update()
    assert average.weights["weight"].item() == pytest.approx(0.9)
    for _ in range(20):
        average.update()
    assert average.weights["weight"].item() == pytest.approx(1, abs=1e-4)
    torch.nn.init.zeros_(layer.weight)
    with average.in_place():
        assert layer.weight.item() == pytest.approx(1, abs=1e-4)
    assert layer.weight.item() == 0


def test_folders_are_trained_on(tmp_path: Path) -> None:
    data = recordings(tmp_path / "data", rate=11025)
    trainer = Trainer(make_config(str(data)), tmp_path / "run")
    trainer.run(limit=2)
    assert trainer.sampler.samples == pytest.approx(4 * 2 * RATE, rel=0.01)


def test_the_log_forgets_what_is_done_again(tmp_path: Path) -> None:
    log = JsonLog(tmp_path)
    for step in (10, 20, 30):
        log.row({"step": step})
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 4')
    log.forget_after(20)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        10,
        20,
    ]


def test_tensorboard_gets_scalars_and_sound(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, 0)
    board.row({"step": 1, "loss": 2.0, "perplexity": [3.0, 4.0], "validation": {"mel": 1.0}})
    board.audio(1, "example", 0.5 * np.sin(np.arange(4000, dtype=np.float32)), RATE)
    board.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    written = events.read_bytes()
    for tag in (b"train/loss", b"train/perplexity/1", b"validation/mel", b"example/spectrogram"):
        assert tag in written


ON_A_FULL_DISK = """
import resource, sys, time
from pathlib import Path
from snaccli.errors import OutputError
from snaccli.training.state import TensorBoard

board = TensorBoard(Path(sys.argv[1]), 0)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
try:
    for step in range(1000):  # the error comes from a thread, so some time after
        board.row({"step": step, "loss": 1.0})
    board.close()
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="limits on the size of files: not on Windows")
def test_tensorboard_names_the_folder_that_a_full_disk_strikes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    named = f"cannot write {tmp_path / 'tensorboard'}: "
    assert done.stdout.startswith(named + "larger than the disk"), done.stderr


def test_a_spectrogram_has_its_tone_at_its_height() -> None:
    tone = 0.99 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    picture = spectrogram(tone)
    assert picture.shape[0] == 256
    assert picture.max() == pytest.approx(1, abs=0.02)
    assert np.argmax(picture[:, 5]) == 256 - 64
