"""The bench on a codec made for the purpose: eight bits a sample, so that every figure is known."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.cells import cell_len
from rich.console import Console

from snaccli import audio, bench
from snaccli.bench import BenchResult, FileResult
from snaccli.errors import ModelNotFoundError, UsageError
from snaccli.measures import compare
from tests.pcm_codec import RATE, PcmCodec, PcmRecording, install, tone, write

FILE_KEYS = [
    "path", "duration_s", "bytes", "bitrate_kbps", "raw_bitrate_kbps", "bits_per_token", "snr_db",
    "si_sdr_db", "mel_distance", "lsd_db", "encode_x_realtime", "decode_x_realtime",
]  # fmt: skip


@pytest.fixture(autouse=True)
def pcm_codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The codec of eight bits a sample in place of the real one, but for tests that ask for a real model."""
    real = "tiny_model_folder" in request.fixturenames
    return types.ModuleType("unused") if real else install(monkeypatch)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder of two recordings, one of them stereo at another rate, and a text file."""
    folder = tmp_path / "recordings"
    write(folder / "a.wav", tone(1.0))
    write(folder / "below" / "b.flac", tone(0.5, 44100, channels=2), 44100)
    (folder / "notes.txt").write_text("not audio")
    return folder


def render(results: list[BenchResult], width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(bench.table(results))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


# Figures


def test_figures_of_one_recording(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(2.0))
    (result,) = bench.run([path], ["pcm"], threads=3)
    (file,) = result.files
    samples = soundfile.read(path)[0]
    expected = compare(samples, (np.round(samples * 128)) / 128, RATE)
    overhead = file.bytes - 2 * RATE
    assert 0 < overhead <= 64
    assert file == FileResult(
        path=str(path),
        duration_s=2.0,
        bytes=2 * RATE + overhead,
        bitrate_kbps=pytest.approx(8 * (2 * RATE + overhead) / 2000),
        raw_bitrate_kbps=pytest.approx(8 * RATE / 1000),
        bits_per_token=8.0,
        snr_db=pytest.approx(expected.snr_db),
        si_sdr_db=pytest.approx(expected.si_sdr_db),
        mel_distance=pytest.approx(expected.mel_distance),
        lsd_db=pytest.approx(expected.lsd_db),
        stoi=file.stoi,
        pesq=file.pesq,
        encode_x_realtime=pytest.approx(2.0 / file.encode_s),
        decode_x_realtime=pytest.approx(2.0 / file.decode_s),
        tokens=2 * RATE,
        encode_s=file.encode_s,
        decode_s=file.decode_s,
        levels=({"stride": 1, "tokens": 32000, "bytes": 32000, "bits_per_token": 8.0, "coder": "raw"},),
    )
    assert (result.model, result.device, result.threads) == ("pcm", "cpu", 3)
    assert 30 < expected.snr_db < 50  # the codec keeps the sound: the comparison is of the right signals


def test_raw_rate_counts_the_bits_of_the_codebook(tmp_path: Path) -> None:
    """Not the bits of a packed token: 200 codewords take 7.64 bits, packed 8."""
    (result,) = bench.run([write(tmp_path / "a.wav", tone(1.0))], ["small"])
    assert result.files[0].raw_bitrate_kbps == pytest.approx(math.log2(200) * RATE / 1000)
    assert result.files[0].bits_per_token == 8.0


def test_the_reference_is_downmixed_at_its_own_rate(recordings: Path) -> None:
    (result,) = bench.run([recordings / "below" / "b.flac"], ["pcm"])
    samples = soundfile.read(recordings / "below" / "b.flac")[0].mean(axis=1)
    expected = compare(samples, np.round(samples * 128) / 128, 44100)
    assert result.files[0].snr_db == pytest.approx(expected.snr_db)
    assert result.files[0].mel_distance == pytest.approx(expected.mel_distance)
    assert result.files[0].note == "stereo downmixed to mono"


def test_silence_and_nothing_give_null_not_infinity(tmp_path: Path) -> None:
    paths = [write(tmp_path / "silence.wav", np.zeros(RATE)), write(tmp_path / "tone.wav", tone(0.1))]
    (result,) = bench.run(paths, ["pcm"])
    silence = result.files[0]
    assert (silence.snr_db, silence.si_sdr_db, silence.mel_distance, silence.error) == (None, None, 0.0, None)
    assert result.summary["snr_db"] == result.files[1].snr_db
    json.loads(bench.to_json([result]), parse_constant=pytest.fail)


def test_summary_weighs_rates_by_length_and_decibels_by_recording() -> None:
    def file(**values: Any) -> FileResult:
        return FileResult(path="x", **values)

    level = {"stride": 1, "bits_per_token": 0.0, "coder": "raw"}
    result = BenchResult("m", "f", "cpu", 1, (
        file(duration_s=10.0, bytes=1000, raw_bitrate_kbps=1.0, tokens=800, snr_db=4.0, encode_s=1.0,
             decode_s=4.0, levels=({**level, "tokens": 800, "bytes": 900},)),
        file(duration_s=30.0, bytes=9000, raw_bitrate_kbps=3.0, tokens=7200, snr_db=8.0, si_sdr_db=2.0,
             encode_s=3.0, decode_s=16.0, levels=({**level, "tokens": 7200, "bytes": 8100},)),
        file(error="broken"),
    ))  # fmt: skip
    confidence = result.summary["confidence"]
    assert confidence["bitrate_kbps"] == (0.8, 2.4)  # from two of the one to two of the other
    assert confidence["snr_db"] == (4.0, 8.0)
    assert confidence["si_sdr_db"] is None  # of one recording
    assert {key: value for key, value in result.summary.items() if key != "confidence"} == {
        "duration_s": 20.0,
        "bytes": 5000.0,
        "bitrate_kbps": 2.0,
        "raw_bitrate_kbps": 2.5,
        "bits_per_token": 9.0,
        "snr_db": 6.0,
        "si_sdr_db": 2.0,
        "mel_distance": None,
        "lsd_db": None,
        "stoi": None,
        "pesq": None,
        "encode_x_realtime": 10.0,
        "decode_x_realtime": 2.0,
        "files": 2,
        "failed": 1,
        "total_duration_s": 40.0,
        "total_bytes": 10000,
        "tokens": 8000,
    }


def test_a_decoder_of_other_length_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*arguments: Any, **options: Any) -> Iterator[np.ndarray]:
        yield np.zeros((RATE - 1, 1), np.float32)

    monkeypatch.setattr(PcmCodec, "decode", short)
    (result,) = bench.run([write(tmp_path / "a.wav", tone(1.0))], ["pcm"])
    assert result.files[0].error is not None
    assert "length" in result.files[0].error


# Runs


def test_one_bad_recording_does_not_stop_the_rest(recordings: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_text("hardly audio")
    paths = [broken, tmp_path / "missing.wav", recordings]
    (result,) = bench.run(paths, ["pcm"])
    assert [Path(file.path).name for file in result.files] == ["broken.wav", "missing.wav", "a.wav", "b.flac"]
    assert [file.error is None for file in result.files] == [False, False, True, True]
    assert result.failed == result.files[:2]
    for file in result.failed:
        assert file.error
        assert "\n" not in file.error
        assert all(getattr(file, key) is None for key in FILE_KEYS if key != "path")
    assert result.summary["files"] == 2
    assert result.summary["failed"] == 2


def test_all_failed_leaves_an_empty_summary(tmp_path: Path) -> None:
    results = bench.run([tmp_path / "missing.wav"], ["pcm"])
    assert results[0].summary["bitrate_kbps"] is None
    json.loads(bench.to_json(results), parse_constant=pytest.fail)
    assert "failed" in render(results)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("out of memory\non the device"), "out of memory on the device"),
        (MemoryError(), "not enough memory: close other programs"),
        (OSError(28, "No space left on device"), "no space left on the disk"),
        (TypeError("wrong"), "this is a defect of snac: TypeError: wrong"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_every_error_is_told_on_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    told: str,
) -> None:
    def decode(codec: PcmCodec, recording: PcmRecording, **options: Any) -> Iterator[np.ndarray]:
        if recording.samples != 2 * RATE:  # not the warm-up
            raise error
        yield np.zeros((2 * RATE, 1), np.float32)

    monkeypatch.setattr(PcmCodec, "decode", decode)
    (result,) = bench.run([write(tmp_path / "a.wav", tone(0.2))], ["pcm"])
    (file,) = result.files
    assert file.error is not None
    assert file.error.startswith(told)
    assert "raise error" in file.trace  # the traceback is there for who asks
    assert "trace" not in file.to_dict()


def test_an_interrupt_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*arguments: Any, **options: Any) -> Iterator[np.ndarray]:
        raise KeyboardInterrupt

    monkeypatch.setattr(PcmCodec, "decode", decode)
    with pytest.raises(KeyboardInterrupt):
        bench.run([write(tmp_path / "a.wav", tone(0.2))], ["pcm"])


def test_an_interrupt_within_an_import_ends_the_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pybind11 turns it into an ImportError."""

    def decode(*arguments: Any, **options: Any) -> Iterator[np.ndarray]:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr("snaccli.bench.running._Bench.warm_up", lambda bench: None)
    monkeypatch.setattr(PcmCodec, "decode", decode)
    with pytest.raises(KeyboardInterrupt):
        bench.run([write(tmp_path / name, tone(0.2)) for name in ("a.wav", "b.wav")], ["pcm"])


def test_what_computes_measures_is_imported_before_the_first_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[str] = []
    monkeypatch.setattr("snaccli.bench.perceptual.import_module", imported.append)
    monkeypatch.setattr("snaccli.bench.perceptual.missing", lambda: ["pesq"])
    bench.run([write(tmp_path / "a.wav", tone(0.2))], ["pcm"])
    assert imported == ["pystoi"]

    def broken(name: str) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr("snaccli.bench.perceptual.import_module", broken)
    with pytest.raises(KeyboardInterrupt):
        bench.run([tmp_path / "a.wav"], ["pcm"])


def test_models_are_loaded_before_anything_is_coded(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coded: list[Any] = []
    monkeypatch.setattr(PcmCodec, "encode", lambda *args, **options: coded.append(args))
    with pytest.raises(ModelNotFoundError, match="missing-model"):
        bench.run([recordings], ["pcm", "missing-model"])
    assert not coded


def test_several_models(recordings: Path) -> None:
    results = bench.run([recordings], ["one", "two", "one"])
    assert [result.model for result in results] == ["one", "two"]
    assert [len(result.files) for result in results] == [2, 2]
    with pytest.raises(UsageError, match="no model"):
        bench.run([recordings], [])


def test_progress_rises_from_nothing_to_the_whole(recordings: Path) -> None:
    told: list[tuple[float, str]] = []
    bench.run([recordings], ["one", "two"], progress=lambda fraction, what: told.append((fraction, what)))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert {"one: a.wav", "one: b.flac", "two: a.wav", "two: b.flac"} <= {what for _, what in told}
    assert {f for f, what in told if what == "two: a.wav"} >= {0.25, 0.375, 0.5}


def test_nothing_stays_behind(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = {path: path.read_bytes() for path in recordings.rglob("*") if path.is_file()}
    bench.run([recordings, tmp_path / "missing.wav"], ["pcm"])
    assert list(scratch.iterdir()) == []
    assert {path: path.read_bytes() for path in recordings.rglob("*") if path.is_file()} == before


def test_the_real_codec(tiny_model_folder: Path, recording: Path, tmp_path: Path) -> None:
    """Random weights: nothing is said of quality, but every figure is there and fits the others."""
    broken = tmp_path / "broken.wav"
    broken.write_text("hardly audio")
    told: list[float] = []
    (result,) = bench.run(
        [recording, broken],
        [str(tiny_model_folder)],
        device="cpu",
        threads=1,
        progress=lambda fraction, what: told.append(fraction),
    )
    assert (result.model, result.device, result.threads) == (tiny_model_folder.name, "cpu", 1)
    assert len(result.fingerprint) == 16
    file = result.files[0]
    assert file.error is None
    assert all(getattr(file, key) is not None for key in FILE_KEYS)
    assert file.duration_s == pytest.approx(3.0)
    assert [level["stride"] for level in file.levels] == [8, 4, 2, 1]
    frames = file.levels[-1]["tokens"]
    assert frames * 32 >= 3 * 16000
    assert file.tokens == frames + frames // 2 + frames // 4 + frames // 8
    assert file.bits_per_token <= 8.01
    assert file.raw_bitrate_kbps == pytest.approx(8 * file.tokens / 3000)
    assert file.bitrate_kbps <= file.raw_bitrate_kbps + 8 * 64 / 3000
    assert str(broken) in result.failed[0].failure
    assert told == sorted(told)
    json.loads(bench.to_json([result]), parse_constant=pytest.fail)


# Inputs


def test_hidden_files_and_folders_are_left_out(recordings: Path) -> None:
    """As `snac encode` leaves them out: the copies that macOS makes, and folders of deleted files."""
    (recordings / "._a.wav").write_bytes(b"of macOS")
    write(recordings / ".trash" / "x.wav", tone(0.1))
    assert [path.name for path in bench.find_recordings([recordings])] == ["a.wav", "b.flac"]
    (result,) = bench.run([recordings], ["pcm"])
    assert result.failed == ()


def test_a_recording_is_opened_once(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = audio.open_audio

    def counting(path: Path) -> Any:
        opened.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(audio, "open_audio", counting)
    bench.run([recordings], ["one", "two"])
    assert opened == ["a.wav", "b.flac"]


def test_folders_are_walked_and_repeats_dropped(recordings: Path) -> None:
    a, b = recordings / "a.wav", recordings / "below" / "b.flac"
    assert bench.find_recordings([recordings]) == [a, b]
    assert bench.find_recordings([str(b), recordings, a]) == [b, a]
    write(recordings / "._a.wav", tone(0.1))
    write(recordings / ".trash" / "c.wav", tone(0.1))
    assert bench.find_recordings([recordings]) == [a, b], "hidden files and folders are left out"
    assert bench.find_recordings([recordings / "notes.txt"]) == [recordings / "notes.txt"]


def test_inputs_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="standard input"):
        bench.find_recordings(["-"])
    with pytest.raises(UsageError, match="no audio files in the folder"):
        bench.find_recordings([tmp_path])


def test_without_inputs_the_shipped_recordings_are_taken(
    tmp_path: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages" / "snaccli" / "bench" / "running.py"
    monkeypatch.setattr("snaccli.bench.running.__file__", str(installed))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="name files or folders"):
        bench.find_recordings([])
    shipped = write(tmp_path / "examples" / "audio" / "speech.wav", tone(0.1))
    assert bench.find_recordings([]) == [shipped]
    beside = write(tmp_path / "site-packages" / "examples" / "audio" / "speech.wav", tone(0.1))
    assert bench.find_recordings([]) == [beside]


# Renderings


def test_json_has_the_documented_keys(recordings: Path) -> None:
    results = bench.run([recordings], ["one", "two"])
    one = json.loads(bench.to_json(results[:1]))
    assert {"model", "device", "threads", "files", "summary"} <= set(one)
    assert all(set(FILE_KEYS) <= set(file) for file in one["files"])
    assert set(FILE_KEYS) - {"path"} <= set(one["summary"])
    assert [entry["model"] for entry in json.loads(bench.to_json(results))] == ["one", "two"]


def test_csv_has_a_row_a_model_and_recording(recordings: Path, tmp_path: Path) -> None:
    odd = write(tmp_path / 'odd, "name".wav', tone(0.1))
    results = bench.run([recordings, odd, tmp_path / "missing.wav"], ["one", "two"])
    text = bench.to_csv(results)
    assert "\r" not in text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert set(FILE_KEYS) <= set(rows[0])
    assert [row["model"] for row in rows] == ["one"] * 4 + ["two"] * 4
    assert rows[2]["path"] == str(odd)
    for row, file in zip(rows[:3], results[0].files[:3], strict=True):
        assert float(row["bitrate_kbps"]) == file.bitrate_kbps
        assert row["error"] == ""
    assert rows[3]["bitrate_kbps"] == ""
    assert rows[3]["error"] == results[0].files[3].error


def test_table_shows_every_figure_and_the_summary(recordings: Path, tmp_path: Path) -> None:
    results = bench.run([recordings, tmp_path / "missing.wav"], ["pcm"])
    text = render(results)
    assert "pcm on cpu, 2 threads" in text
    (row,) = [line for line in text.splitlines() if "a.wav" in line]
    file = results[0].files[0]
    figures = (
        file.duration_s, file.bitrate_kbps, file.raw_bitrate_kbps, file.bits_per_token, file.snr_db,
        file.si_sdr_db, file.mel_distance, file.lsd_db, file.stoi, file.pesq, file.encode_x_realtime,
        file.decode_x_realtime,
    )  # fmt: skip
    decimals = (1, 2, 2, 2, 1, 1, 1, 1, 2, 2, 1, 1)
    told = ["-" if value is None else f"{value:.{n}f}" for value, n in zip(figures, decimals, strict=True)]
    assert row.split()[1:] == told
    assert any(line.startswith("mean of 2") for line in text.splitlines())
    assert any("failed: " in line and "missing.wav" in line for line in text.splitlines())


@pytest.mark.parametrize(
    ("width", "left_out", "shown_names"),
    [
        (120, "", ["a recording with a name of some length 1.wav", "短い名前ではない録音ファイル 2.wav"]),
        (80, "raw rate, length", ["a recordin…ngth 1.wav", "短い名前で…イル 2.wav"]),
        (
            60,
            "raw rate, length, LSD, SNR, encode, PESQ",
            ["a recording…ength 1.wav", "短い名前で…ァイル 2.wav"],
        ),
    ],
)
def test_table_fits_the_terminal(width: int, left_out: str, shown_names: list[str]) -> None:
    values = dict.fromkeys([*FILE_KEYS[1:], "stoi", "pesq"], 10.0) | {
        "encode_x_realtime": 110.0,
        "decode_x_realtime": 110.0,
    }
    names = "a recording with a name of some length 1.wav", "短い名前ではない録音ファイル 2.wav"
    done = tuple(FileResult(path=f"/music/{name}", **values) for name in names)
    broken = FileResult(path="/music/broken.wav", error="hardly audio")
    text = render([BenchResult("m", "f", "cpu", 1, (*done, broken))], width=width)
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= width
    for name in shown_names:
        (row,) = [line for line in lines if line.startswith(name)]
        assert "…" not in row[len(name) :]
        assert row.split()[-1] == "110.0"
    (row,) = [line for line in lines if line.startswith("broken.wav")]
    assert row.split()[1:] == ["failed"]
    told = f"no room for {left_out}: a wider terminal, CSV and JSON have them"
    assert (told in " ".join(text.split())) == bool(left_out)
    assert ("no room" in text) == bool(left_out)


@pytest.mark.parametrize(
    "name", ["[red]markup[/red].wav", "escape\x1b[2J.wav", "line\nbreak.wav", "byte\udcff.wav"]
)
def test_odd_names_cannot_steer_the_terminal(name: str) -> None:
    result = BenchResult("[bold]m", "f", "cpu", 1, (FileResult(path=f"/x/{name}", error="broken"),))
    text = render([result], width=200)
    assert "[bold]m on cpu" in text
    assert "\x1b" not in text
    assert ("[red]markup[/red].wav" in text) == (name.startswith("[red]"))
    assert len(text.splitlines()) < 9
    bench.to_csv([result]).encode()
    assert json.loads(bench.to_json([result]))["files"][0]["path"] == f"/x/{name}"


def test_importing_the_bench_brings_no_torch() -> None:
    script = "import sys, snaccli.bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
