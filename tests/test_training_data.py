"""Where segments come from, the configuration of a run, and its schedule."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from snac.errors import ModelError
from snaccli.errors import AudioError, UsageError
from snaccli.training.config import AugmentationConfig, Stage, TrainConfig
from snaccli.training.data import Settings, prepare
from snaccli.training.data.loader import Loader, SegmentSampler, band_limited
from snaccli.training.data.manifest import DatasetError
from snaccli.training.data.sources import FolderAudio, PackedAudio, open_source, validation_segments
from snaccli.training.schedule import Schedule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from .training_runs import MODEL, RATE, make_config, pack, recordings

ROOT = Path(__file__).resolve().parent.parent
PLAIN = AugmentationConfig(speed=0, mix=0, level=0)


def pitch(wave: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(wave)))) * RATE / len(wave)


def test_segments_stay_within_their_recording(tmp_path: Path) -> None:
    packed = PackedAudio(pack(tmp_path / "a.npy"), RATE)
    assert packed.samples == 13300
    rng = np.random.default_rng(0)
    pitches = set()
    for _ in range(40):
        segment = packed.segment(rng, 2000)
        wave, (name,) = segment.samples, segment.names
        assert wave.shape == (2000,)
        assert segment.bandwidth_hz == RATE / 2
        spectrum = np.abs(np.fft.rfft(wave))
        pitches.add(round(pitch(wave) / 200))
        assert round(pitch(wave) / 200) == int(name) + 1
        assert spectrum.max() ** 2 > 0.5 * (spectrum**2).sum() or not wave[300:].any()
    assert pitches >= {1, 2}


def test_items_depend_on_seed_step_and_number_alone(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.npy")
    sampler = SegmentSampler({path: 1.0}, RATE, AugmentationConfig(), seed=5)
    batch = sampler.batch(7, 1024, 3).audio
    assert batch.shape == (3, 1, 1024)
    assert batch.dtype == np.float32
    assert np.abs(batch).max() <= 1
    sampler.batch(8, 1024, 3)
    np.testing.assert_array_equal(batch[2, 0], sampler.item(7, 2, 1024).samples)
    assert not np.array_equal(batch, sampler.batch(8, 1024, 3).audio)
    other = SegmentSampler({path: 1.0}, RATE, AugmentationConfig(), seed=6)
    assert not np.array_equal(batch, other.batch(7, 1024, 3).audio)


@pytest.mark.parametrize(("workers", "processes"), [(0, False), (3, False), (0, True), (3, True)])
def test_loaders_of_several_processes_divide_the_batch(tmp_path: Path, workers: int, processes: bool) -> None:
    sampler = SegmentSampler({pack(tmp_path / "a.npy"): 1.0}, RATE, AugmentationConfig(), seed=5)
    schedule = Schedule([Stage(0.128, 4, 2), Stage(0.256, 8, 2)], 13300, RATE, 32)
    loaders = [Loader(sampler, schedule, workers, index, 2, processes=processes) for index in range(2)]
    for step in range(4):
        part = schedule.at(step)
        parts = [loader(step) for loader in loaders]
        assert [len(each.audio) for each in parts] == [part.batch // 2] * 2
        whole = sampler.batch(step, part.segment, part.batch)
        np.testing.assert_array_equal(np.concatenate([each.audio for each in parts]), whole.audio)
        joined = np.concatenate([each.bandwidth_hz for each in parts])
        np.testing.assert_array_equal(joined, whole.bandwidth_hz)
    assert len(loaders[0].names(0)) >= 2
    for loader in loaders:
        loader.close()


@pytest.mark.parametrize("processes", [False, True])
def test_recordings_that_are_gone_are_told_by_any_worker(tmp_path: Path, processes: bool) -> None:
    folder = recordings(tmp_path / "data")
    sampler = SegmentSampler({str(folder): 1.0}, RATE, AugmentationConfig(), seed=5)
    loader = Loader(sampler, Schedule([Stage(0.128, 4, 2)], 13300, RATE, 32), 2, 0, 1, processes=processes)
    loader(0)
    for path in (folder / "train").iterdir():
        path.unlink()
    with pytest.raises(AudioError, match="cannot be read"):
        loader(2)
    loader.close()


def test_packed_audio_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = Path(pack(tmp_path / "a.npy"))
    text = path.with_suffix(".json").read_text()
    path.with_suffix(".json").write_text(text.replace('"length": 300', '"length": 301'))
    with pytest.raises(AudioError, match="reach beyond"):
        PackedAudio(path, RATE)
    with pytest.raises(AudioError, match="cannot be read"):
        PackedAudio(tmp_path / "missing.npy", RATE)


@pytest.mark.parametrize(
    "rows",
    [
        {"start": 0},
        [{"length": 300}],
        [{"start": "x", "length": 300}],
        [[0, 300]],
        [{"start": 0, "length": 1 << 70}],
        [{"start": 1 << 62, "length": 1 << 62}],
        [{"start": 0, "length": -1}],
        [{"start": 0, "length": 300, "bandwidth_hz": -1}],
        7,
    ],
)
def test_packed_audio_with_forged_rows_is_refused(tmp_path: Path, rows: object) -> None:
    path = Path(pack(tmp_path / "a.npy"))
    path.with_suffix(".json").write_text(json.dumps(rows))
    with pytest.raises(AudioError, match="pack it again"):
        PackedAudio(path, RATE)


def test_validation_segments_are_spread_over_the_whole(tmp_path: Path) -> None:
    sources = [open_source(pack(tmp_path / "a.npy"), "val", RATE)]
    segments = [segment.samples for segment in validation_segments(sources, 1000, 5)]
    assert [segment.shape for segment in segments] == [(1000,)] * 5
    assert not np.array_equal(segments[0], segments[-1])
    folder = [open_source(str(recordings(tmp_path / "data")), "val", RATE)]
    pitches = {round(pitch(found.samples), -1) for found in validation_segments(folder, 4000, 8)}
    assert pitches == {300, 320, 340, 360}


def test_folders_give_their_side_only_with_and_without_a_manifest(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "data", rate=16000)
    prepare([str(folder)], tmp_path / "dataset", Settings(rate=RATE))
    for place in (folder, tmp_path / "dataset"):
        source = FolderAudio(place, "train", RATE)
        assert source.samples == 4 * 2 * RATE
        rng = np.random.default_rng(0)
        pitches = {round(pitch(source.segment(rng, 4000).samples), -1) for _ in range(30)}
        assert pitches == {200, 220, 240, 260}
    segment = source.segment(rng, 3 * RATE)
    wave, (name,) = segment.samples, segment.names
    assert wave.shape == (3 * RATE,)
    assert not wave[2 * RATE + 10 :].any()
    assert Path(name).parts[-3] == "train"


def test_a_recording_that_has_gone_is_passed_over(tmp_path: Path) -> None:
    folder = recordings(tmp_path / "data")
    prepare([str(folder)], tmp_path / "dataset", Settings(rate=RATE))
    sampler = SegmentSampler({str(tmp_path / "dataset"): 1.0}, RATE, PLAIN, seed=0)
    (folder / "train" / "0.wav").unlink()
    for step in range(20):
        assert sampler.item(step, 0, 500).samples.any()
    for path in (folder / "train").iterdir():
        path.unlink()
    with pytest.raises(AudioError, match="cannot be read"):
        sampler.item(0, 0, 500)


def test_the_bandwidth_of_a_segment_follows_speed_and_mixture(tmp_path: Path) -> None:
    path = Path(pack(tmp_path / "a.npy"))
    rows = json.loads(path.with_suffix(".json").read_text())
    for row, bandwidth in zip(rows, (4000, 2000, 2000), strict=True):
        row["bandwidth_hz"] = bandwidth
    path.with_suffix(".json").write_text(json.dumps(rows))
    faster = SegmentSampler({str(path): 1.0}, RATE, AugmentationConfig(speed=1, mix=0), seed=0)
    found = {(item.names, round(item.bandwidth_hz)) for item in (faster.item(i, 0, 500) for i in range(200))}
    of_second = {bandwidth for names, bandwidth in found if names == ("1",)}
    assert min(of_second) < 1700
    assert 2300 < max(of_second) <= 2500
    assert max(bandwidth for _, bandwidth in found) == RATE / 2
    mixed = SegmentSampler({str(path): 1.0}, RATE, AugmentationConfig(speed=0, mix=1), seed=0)
    for item in (mixed.item(i, 0, 500) for i in range(20)):
        assert item.bandwidth_hz == min(4000 if name == "0" else 2000 for name in item.names)
    first, last = [
        s.bandwidth_hz for s in validation_segments([open_source(str(path), "val", RATE)], 1000, 2)
    ]
    assert (first, last) == (4000, 2000)


def test_folders_without_recordings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DatasetError, match="holds no recording"):
        FolderAudio(tmp_path, "train", RATE)


def test_band_limits_take_the_highs_away(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, 48000).astype(np.float32)
    narrow = band_limited(wave, 24000, rng, AugmentationConfig(band_limit=1.0))
    power = np.abs(np.fft.rfft(narrow)) ** 2
    assert power[23000:].mean() < 1e-3 * power[:6000].mean()
    same = band_limited(wave, 24000, rng, AugmentationConfig(band_limit=0.0))
    assert same is wave


def test_without_augmentation_segments_are_the_recording(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        soundfile.write(tmp_path / split / "a.wav", wave, RATE, subtype="FLOAT")
    sampler = SegmentSampler({str(tmp_path): 1.0}, RATE, PLAIN, seed=0)
    segment = sampler.item(0, 0, 1000).samples
    places = np.flatnonzero(wave == segment[0])
    assert any(np.array_equal(wave[place : place + 1000], segment) for place in places)


def test_a_schedule_goes_through_its_stages() -> None:
    stages = [Stage(0.13, 4, steps=10), Stage(0.26, 2, epochs=2)]
    schedule = Schedule(stages, samples=100_000, rate=RATE, pad_multiple=32, warmup_steps=4, decay=0.5)
    first, second = schedule.parts
    assert (first.segment, second.segment) == (1024, 2080)
    assert (first.steps, second.steps) == (10, 2 * 25)
    assert (schedule.at(9).index, schedule.at(10).index, schedule.at(999).index) == (0, 1, 1)
    factors = [schedule.rate_factor(step) for step in range(schedule.steps)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[29] == 1
    assert factors[-1] == pytest.approx(1 / 30)
    asked = [step for step in range(1, 61) if schedule.validates(step, 0)]
    assert asked == [10, 35, 60], "the end of the first stage, then each epoch"
    with pytest.raises(UsageError, match="batch of 4 cannot be divided among 3"):
        Schedule(stages, 100, RATE, 32, divisor=3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepz = 3", "unknown key 'stepz'"),
        ("learning_rat = 3", "did you mean 'learning_rate'"),
        ("learning_rate = 'many'", "learning_rate must be a number"),
        ("learning_rate = nan", "learning_rate must be a number"),
        ("compile = 1", "compile must be true or false"),
        ("betas = [0.9]", "betas are two numbers"),
        ("freeze = 'encoder'", "freeze must be a list"),
        ("precision = 'fp8'", "fp32, bf16 or auto"),
        ("ema = 1.0", "ema must be from 0"),
        ("[data]\nsegmnt = 1", "unknown key 'segmnt'"),
        ("[data]\nworkrs = 1", "did you mean 'workers'"),
        ("[weights]\nmell = 1", "did you mean 'mel'"),
        ("[weights]\nmel = -1", "weights.mel must be from 0"),
        ("[[stages]]\nseconds = 1\nbatch = 4", "either steps or epochs"),
        ("[[stages]]\nsteps = 1\nepochs = 1\nseconds = 1\nbatch = 4", "either steps or epochs"),
        ("[[stages]]\nsteps = 1\nseconds = 1", "'batch' is missing"),
        ("[stages]\nsteps = 1", r"\[\[stages\]\]"),
        ("stages = []", r"no \[\[stages\]\]"),
        ("init = ''", "no model"),
    ],
)
def test_configurations_with_mistakes_are_refused(text: str, words: str) -> None:
    given = tomllib.loads(text)
    whole: dict[str, Any] = {"init": "mini", "stages": [{"steps": 1, "seconds": 1.0, "batch": 4}]} | given
    whole["data"] = {"train": "x"} | given.get("data", {})
    with pytest.raises(UsageError, match=words):
        TrainConfig.from_dict(whole)


def test_paths_in_a_configuration_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    text = 'init = "mini"\n[[stages]]\nsteps = 1\nseconds = 1\nbatch = 4\n[data]\ntrain = "set"\n'
    (tmp_path / "sub" / "run.toml").write_text(text)
    config = TrainConfig.from_toml(tmp_path / "sub" / "run.toml")
    assert config.data.train == {str(tmp_path / "sub" / "set"): 1.0}
    assert config.data.validation == (str(tmp_path / "sub" / "set"),)
    monkeypatch.chdir(tmp_path)
    changes = ["data.train=other", "stages.0.batch=8", "weights.mel=1", "learning_rate=1e-5", "init=24khz"]
    config = TrainConfig.from_toml("sub/run.toml", changes, init="mini")
    assert config.data.train == {str(tmp_path / "other"): 1.0}
    assert (config.stages[0].batch, config.weights.mel, config.learning_rate) == (8, 1.0, 1e-5)
    assert config.init == "mini"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("batch", "write key=value"),
        ("stages.7.batch=3", "there is no stages.7"),
        ("stages.0.batch.x=3", "there is no"),
        ("weights.mell=3", "did you mean 'mel'"),
        ("=3", "write key=value"),
    ],
)
def test_changes_with_mistakes_are_refused(tmp_path: Path, change: str, words: str) -> None:
    text = 'init = "mini"\n[[stages]]\nsteps = 1\nseconds = 1\nbatch = 4\n[data]\ntrain = "set"\n'
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        TrainConfig.from_toml(tmp_path / "run.toml", [change])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("run.toml", "run.toml: cannot be read as TOML: "),
        ("missing.toml", "missing.toml: cannot be read as a configuration: no such file"),
        ("", ": cannot be read as a configuration: is a folder, not a file"),
    ],
)
def test_files_that_are_no_toml_are_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "run.toml").write_text("nonsense")
    with pytest.raises(UsageError, match=words):
        TrainConfig.from_toml(tmp_path / name)


def test_a_model_that_cannot_be_is_refused() -> None:
    with pytest.raises(ModelError, match="did you mean 'encoder_dim'"):
        make_config("x.npy", model=MODEL | {"encoder_dimm": 3})


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "train").glob("*.toml")), ids=lambda path: path.name
)
def test_the_configurations_of_the_examples_are_read(path: Path) -> None:
    config = TrainConfig.from_toml(path)
    assert config.stages
    # What makes each of them what it is.
    described = {"mini-start.toml": "model", "24khz-small.toml": "model", "decoder.toml": "freeze"}
    assert getattr(config, described.get(path.name, "init"))
