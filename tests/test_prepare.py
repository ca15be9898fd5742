"""Data sets: every recording checked, split for good, and written down; interrupted and resumed at will."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli.cli.app import run
from snaccli.cli.ui.console import Console
from snaccli.errors import OutputError, UsageError
from snaccli.training.data import MANIFEST, Row, Settings, prepare, read_rows
from snaccli.training.data import convert as convert_module
from snaccli.training.data.manifest import DatasetError, Manifest, parse_row

RATE = 8000
SETTINGS = Settings(rate=RATE, min_seconds=0.5)


def tone(path: Path, pitch: float = 440, seconds: float = 1.0, rate: int = RATE, level: float = 0.4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, wave, rate)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 recordings of four speakers."""
    for number in range(40):
        tone(tmp_path / "in" / f"speaker{number % 4}" / f"{number}.wav", 200 + 10 * number)
    return tmp_path / "in"


def rows(dataset: Path) -> dict[str, Row]:
    found = [row for _, row in read_rows(dataset / MANIFEST)]
    assert len({row.source for row in found}) == len(found)
    return {os.path.basename(row.source): row for row in found}


def call(*arguments: str | Path) -> tuple[int, str, str]:
    console = Console(io.StringIO(), io.StringIO(), {"COLUMNS": "80"})
    status = run([str(argument) for argument in arguments], console)
    return status, console.stdout.getvalue(), console.stderr.getvalue()  # type: ignore[attr-defined]


def test_recordings_are_split_for_good(folder: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, val_percent=20.0)
    summary = prepare([str(folder)], tmp_path / "one", settings, workers=3)
    assert summary.recordings["train"] + summary.recordings["val"] == 40
    assert 2 <= summary.recordings["val"] <= 16
    first = rows(tmp_path / "one")
    for row in first.values():
        assert row.file is not None
        assert row.file.startswith(f"{row.split}/")
        assert soundfile.info(tmp_path / "one" / row.file).frames == row.frames == RATE
    # Elsewhere, under another name, as FLAC: the same samples, the same side.
    for path in folder.rglob("*.wav"):
        samples, rate = soundfile.read(path, dtype="int16")
        (tmp_path / "other").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "other" / f"{path.stem}.flac", samples, rate)
    prepare([str(tmp_path / "other")], tmp_path / "two", settings)
    second = rows(tmp_path / "two")
    assert {name.split(".")[0]: row.split for name, row in first.items()} == {
        name.split(".")[0]: row.split for name, row in second.items()
    }


def test_a_folder_stays_on_one_side_where_wanted(folder: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, split_by="folder", val_percent=40.0)
    prepare([str(folder)], tmp_path / "out", settings)
    sides: dict[str, set[str | None]] = {}
    for row in rows(tmp_path / "out").values():
        sides.setdefault(os.path.dirname(row.source), set()).add(row.split)
    assert len(sides) == 4
    assert all(len(side) == 1 for side in sides.values())
    assert set.union(*sides.values()) == {"train", "val"}


def test_a_split_that_is_there_is_kept(tmp_path: Path) -> None:
    for number in range(6):
        tone(tmp_path / "in" / ("val" if number < 3 else "train") / f"{number}.wav", 200 + 50 * number)
    prepare([str(tmp_path / "in")], tmp_path / "out", SETTINGS)
    assert [row.split for _, row in sorted(rows(tmp_path / "out").items())] == ["val"] * 3 + ["train"] * 3


def test_small_sets_have_something_to_validate_on(tmp_path: Path) -> None:
    for number in range(3):
        tone(tmp_path / "in" / f"{number}.wav", 200 + 50 * number)
    settings = dataclasses.replace(SETTINGS, val_percent=0.0)
    summary = prepare([str(tmp_path / "in")], tmp_path / "out", settings)
    assert summary.recordings == {"train": 2, "val": 1}
    for row in rows(tmp_path / "out").values():
        assert (tmp_path / "out" / str(row.file)).is_file()
    # And a run more changes nothing.
    assert prepare([str(tmp_path / "in")], tmp_path / "out", settings).recordings == {"train": 2, "val": 1}


def test_what_training_can_read_is_linked_and_the_rest_converted(tmp_path: Path) -> None:
    tone(tmp_path / "in" / "same.wav")
    tone(tmp_path / "in" / "faster.wav", rate=11025)
    soundfile.write(tmp_path / "in" / "stereo.flac", np.random.default_rng(0).normal(0, 0.1, (RATE, 2)), RATE)
    prepare([str(tmp_path / "in")], tmp_path / "out", SETTINGS)
    found = rows(tmp_path / "out")
    assert os.path.samefile(tmp_path / "out" / str(found["same.wav"].file), tmp_path / "in" / "same.wav")
    for name in ("faster.wav", "stereo.flac"):
        info = soundfile.info(tmp_path / "out" / str(found[name].file))
        assert (info.samplerate, info.channels, info.format) == (RATE, 1, "FLAC")
        assert info.frames == found[name].frames == RATE
    assert found["stereo.flac"].channels == 2

    linked = dataclasses.replace(SETTINGS, link=True)
    prepare([str(tmp_path / "in")], tmp_path / "linked", linked)
    for name, row in rows(tmp_path / "linked").items():
        assert os.path.samefile(tmp_path / "linked" / str(row.file), tmp_path / "in" / name)


def test_what_is_no_use_is_left_out_and_named(tmp_path: Path) -> None:
    tone(tmp_path / "in" / "good.wav")
    tone(tmp_path / "in" / "short.wav", seconds=0.3)
    tone(tmp_path / "in" / "silent.wav", level=1e-4)
    soundfile.write(tmp_path / "in" / "nothing.wav", np.zeros(0), RATE)
    clipped = np.clip(5 * np.sin(np.arange(RATE) / 20), -1, 1)
    soundfile.write(tmp_path / "in" / "clipped.wav", clipped, RATE)
    (tmp_path / "in" / "broken.wav").write_bytes(b"RIFF of nothing")
    (tmp_path / "in" / "notes.txt").write_text("not audio")
    none = dataclasses.replace(SETTINGS, min_seconds=0.0, rate=RATE // 2)  # FLAC holds no empty recording
    assert prepare([str(tmp_path / "in")], tmp_path / "any", none).refused["short"] == 1
    summary = prepare([str(tmp_path / "in")], tmp_path / "out", SETTINGS)
    assert summary.refused == {"short": 2, "silent": 1, "clipped": 1, "unreadable": 1}
    found = rows(tmp_path / "out")
    assert {name for name, row in found.items() if row.problem is None} == {"good.wav"}
    assert all(row.file is None and row.split is None for row in found.values() if row.problem)
    files = [path for split in ("train", "val") for path in (tmp_path / "out" / split).rglob("*.*")]
    assert len(files) == 1
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["refused"] == summary.refused


def test_levels_and_bandwidth_are_noted(tmp_path: Path) -> None:
    tone(tmp_path / "in" / "a.wav", level=0.5)
    half = np.concatenate((0.5 * np.sin(np.arange(RATE)), np.zeros(RATE)))
    soundfile.write(tmp_path / "in" / "b.wav", half, RATE)
    prepare([str(tmp_path / "in")], tmp_path / "out", dataclasses.replace(SETTINGS, rate=16000))
    found = rows(tmp_path / "out")
    assert found["a.wav"].peak_db == pytest.approx(-6.02, abs=0.05)
    assert found["a.wav"].rms_db == pytest.approx(-9.03, abs=0.05)
    assert found["b.wav"].silence == pytest.approx(0.5, abs=0.01)
    assert found["a.wav"].bandwidth_hz == RATE / 2


def test_an_interrupted_run_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, row: Row | None) -> None:
        if done == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([str(folder)], tmp_path / "out", SETTINGS, workers=2, progress=interrupt)
    # As a crash leaves it: a line half written, a file half made.
    with open(tmp_path / "out" / MANIFEST, "ab") as file:
        file.write(b'{"source": "half')
    (tmp_path / "out" / ".work").mkdir(exist_ok=True)
    (tmp_path / "out" / ".work" / "half.flac").write_bytes(b"fLaC")
    made: list[Row] = []

    def note(done: int, total: int, row: Row | None) -> None:
        assert total == 40
        if row is not None:
            made.append(row)

    prepare([str(folder)], tmp_path / "out", SETTINGS, progress=note)
    assert len(made) == 25
    prepare([str(folder)], tmp_path / "whole", SETTINGS)
    parts, whole = rows(tmp_path / "out"), rows(tmp_path / "whole")
    assert parts == whole
    assert not (tmp_path / "out" / ".work").exists()


def test_a_set_follows_its_folders(folder: Path, tmp_path: Path) -> None:
    prepare([str(folder)], tmp_path / "out", SETTINGS)
    before = rows(tmp_path / "out")
    (folder / "speaker0" / "0.wav").unlink()
    tone(folder / "speaker1" / "1.wav", 999, seconds=2)
    tone(tmp_path / "more" / "new.wav", 777)
    prepare([str(folder), str(tmp_path / "more")], tmp_path / "out", SETTINGS)
    after = rows(tmp_path / "out")
    assert set(after) == set(before) - {"0.wav"} | {"new.wav"}
    assert after["1.wav"].duration_s == 2
    assert after["2.wav"] == before["2.wav"]
    files = {path for split in ("train", "val") for path in (tmp_path / "out" / split).rglob("*.wav")}
    assert files == {tmp_path / "out" / str(row.file) for row in after.values()}
    # What came from a folder that is not named again stays.
    prepare([str(folder)], tmp_path / "out", SETTINGS)
    assert rows(tmp_path / "out") == after


def test_inputs_within_inputs_are_met_once(folder: Path, tmp_path: Path) -> None:
    inputs = [str(folder / "speaker1"), str(folder), str(folder), str(folder / "speaker0" / "0.wav")]
    for _ in range(2):  # the second run finds all that the first made
        prepare(inputs, tmp_path / "out", SETTINGS)
        found = rows(tmp_path / "out")
        assert len(found) == 40
        assert all((tmp_path / "out" / str(row.file)).exists() for row in found.values())


def test_inputs_that_no_other_input_leads_to_are_met(folder: Path, tmp_path: Path) -> None:
    tone(folder / ".hidden" / "hidden.wav")
    shutil.copy(folder / "speaker0" / "0.wav", folder / "odd.dat")
    (folder / "linked").symlink_to(tone(tmp_path / "elsewhere" / "far.wav").parent)
    inputs = [str(folder / name) for name in ("", ".hidden", "odd.dat", "linked")]
    for _ in range(2):
        prepare(inputs, tmp_path / "out", SETTINGS)
        assert {"hidden.wav", "odd.dat", "far.wav", "39.wav"} < set(rows(tmp_path / "out"))


def test_a_file_that_another_row_names_stays(folder: Path, tmp_path: Path) -> None:
    prepare([str(folder)], tmp_path / "out", SETTINGS)
    lines = (tmp_path / "out" / MANIFEST).read_text().splitlines(keepends=True)
    (tmp_path / "out" / MANIFEST).write_text("".join([*lines, lines[-1]]))
    prepare([str(folder)], tmp_path / "out", SETTINGS)
    assert all((tmp_path / "out" / str(row.file)).exists() for row in rows(tmp_path / "out").values())


def test_a_full_disk_stops_the_run_and_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, target: Path) -> None:
        if "12-" in target.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.symlink(source, target)

    monkeypatch.setattr(convert_module, "_link", full)
    with pytest.raises(OutputError, match="no space left"):
        prepare([str(folder)], tmp_path / "out", SETTINGS)
    kept = rows(tmp_path / "out")
    assert 0 < len(kept) < 40
    monkeypatch.undo()
    prepare([str(folder)], tmp_path / "out", SETTINGS)
    assert len(rows(tmp_path / "out")) == 40


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"file": "/etc/passwd"}, "not in the data set"),
        ({"file": "train/../../x"}, "not in the data set"),
        ({"frames": -1}, "not a row"),
        ({"frames": "many"}, "frames is"),
        ({"split": "test"}, "not a row"),
        ({"surprise": 1}, "not a row"),
    ],
)
def test_forged_rows_are_refused(tmp_path: Path, values: dict, words: str) -> None:
    line = json.dumps({"source": "/a.wav", "size": 1, "modified_ns": 1, **values}).encode()
    with pytest.raises(ValueError, match=words):
        parse_row(line)
    (tmp_path / MANIFEST).write_bytes(line + b"\n")
    with pytest.raises(DatasetError, match="damaged at byte 0"):
        list(read_rows(tmp_path / MANIFEST))


def test_names_of_any_bytes_survive_the_manifest(tmp_path: Path) -> None:
    row = Row("/caf\udce9/a\nb.wav", 1, 2, problem="short: 0.1 s")
    manifest = Manifest(tmp_path / MANIFEST)
    manifest.append(row)
    manifest.close()
    assert [found for _, found in read_rows(tmp_path / MANIFEST)] == [row]


def test_sets_are_not_mixed_up(folder: Path, tmp_path: Path) -> None:
    prepare([str(folder)], tmp_path / "out", SETTINGS)
    with pytest.raises(UsageError, match="prepared with rate 8000, not 16000"):
        prepare([str(folder)], tmp_path / "out", dataclasses.replace(SETTINGS, rate=16000))
    tone(tmp_path / "other" / "precious.wav")
    with pytest.raises(UsageError, match="holds other files"):
        prepare([str(folder)], tmp_path / "other", SETTINGS)
    with pytest.raises(UsageError, match="lies in the data set"):
        prepare([str(tmp_path / "out" / "train")], tmp_path / "out", SETTINGS)
    with pytest.raises(UsageError, match="no such file"):
        prepare([str(tmp_path / "missing")], tmp_path / "new", SETTINGS)


def test_the_set_itself_is_not_walked(folder: Path) -> None:
    prepare([str(folder)], folder / "dataset", SETTINGS)
    prepare([str(folder)], folder / "dataset", SETTINGS)
    assert len(rows(folder / "dataset")) == 40


def test_the_command_tells_what_it_made(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.wav").write_bytes(b"RIFF of nothing")
    arguments = ("prepare", folder, "-o", tmp_path / "out", "--rate", RATE, "--val", 20)
    status, out, err = call(*arguments)
    assert status == 0, err
    assert "train:" in out
    assert "1 unreadable" in err
    assert "broken.wav" in err
    status, out, _ = call(*arguments, "--json")
    value = json.loads(out)
    assert value["recordings"]["train"] + value["recordings"]["val"] == 40
    assert value["seconds"]["val"] > 0
    status, out, err = call(*arguments, "--rate", 16000)
    assert status == 2
    assert "give the same" in err


def test_an_empty_folder_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    status, _, err = call("prepare", tmp_path / "in", "-o", tmp_path / "out")
    assert status == 1
    assert "nothing to train on" in err
    (tmp_path / "in" / "broken.wav").write_bytes(b"RIFF of nothing")
    status, _, err = call("prepare", tmp_path / "in", "-o", tmp_path / "out")
    assert status == 1
    assert "all 1 recordings were refused" in err
    shutil.rmtree(tmp_path / "out")
