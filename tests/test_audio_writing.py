"""Audio is written whole or not at all, at the exact length, in whatever format the ending names."""

from __future__ import annotations

import errno
import io
import os
import struct
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snac.files import Replacement
from snaccli.audio import AudioWriter, open_audio, output_format, writable_formats
from snaccli.audio import write as writing
from snaccli.errors import OutputError
from snaccli.io import files

RATE = 24000
EXACT = ("wav", "flac", "aiff", "aif", "caf", "au", "w64", "rf64")


def tone(frames: int = 12_000, channels: int = 2) -> np.ndarray:
    time_s = np.arange(frames)[:, None] / RATE
    return (0.4 * np.sin(2 * np.pi * time_s * (300 + 200 * np.arange(channels)))).astype(np.float32)


def write(path: Path | str, samples: np.ndarray, rate: int = RATE, size: int = 999, **options: Any) -> None:
    with AudioWriter(path, rate, samples.shape[1], **options) as writer:
        for start in range(0, len(samples), size):
            writer.write(samples[start : start + size])
        assert writer.written == len(samples)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


class Stdout:
    def __init__(self, terminal: bool = False) -> None:
        self.buffer = io.BytesIO()
        self.buffer.isatty = lambda: terminal  # type: ignore[method-assign]
        self.buffer.seek = None  # type: ignore[assignment,method-assign]  (a pipe cannot)


@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch) -> Stdout:
    stream = Stdout()
    # Not sys.stdout itself: pytest puts its own back between a fixture and its test.
    monkeypatch.setattr(files, "sys", SimpleNamespace(stdout=stream, platform=sys.platform))
    return stream


class TestFormats:
    @pytest.mark.parametrize("ending", writable_formats())
    @pytest.mark.parametrize("frames", [1, 100, 24_001])
    def test_length_rate_and_sound(self, tmp_path: Path, ending: str, frames: int) -> None:
        samples = tone(frames)
        write(tmp_path / f"a.{ending}", samples)
        assert names(tmp_path) == [f"a.{ending}"]
        found, rate = soundfile.read(tmp_path / f"a.{ending}", dtype="float32", always_2d=True)
        assert (rate, found.shape) == (RATE, (frames, 2))
        if ending in EXACT:
            assert np.abs(found - samples).max() <= 0.5001 / (1 << 15)

    @pytest.mark.parametrize("ending", writable_formats())
    def test_no_samples(self, tmp_path: Path, ending: str) -> None:
        path = tmp_path / f"a.{ending}"
        if ending in ("flac", "opus", "mp3"):  # libsndfile leaves a file that cannot be read
            with pytest.raises(OutputError, match=f"{ending} cannot hold, choose wav"):
                write(path, tone(0))
            assert names(tmp_path) == []
        else:
            write(path, tone(0))
            with open_audio(path) as reader:
                assert (reader.frames, list(reader.blocks())) == (0, [])

    def test_common_endings_can_be_written(self) -> None:
        assert {"wav", "flac", "ogg", "aiff"} <= set(writable_formats())

    @pytest.mark.parametrize(
        ("output", "asked", "ending"),
        [
            ("a.FLAC", None, "flac"),
            ("a", None, "wav"),
            ("-", None, "wav"),
            ("-", "flac", "flac"),
            ("a.wav", ".flac", "flac"),
            ("dir.flac/a", None, "wav"),
        ],
    )
    def test_choice(self, output: str, asked: str | None, ending: str) -> None:
        assert output_format(output, RATE, 1, asked).extension == ending

    @pytest.mark.parametrize("output", ["a.xyz", "a.snac", "a.raw", "a.m4a"])
    def test_unknown_ending_names_those_there_are(self, output: str) -> None:
        with pytest.raises(OutputError, match="wav, flac, ogg") as error:
            output_format(output, RATE, 1)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("ending", "rate", "channels", "said"),
        [
            ("opus", 44100, 1, "8000, 12000, 16000, 24000, 48000.*rate='model'"),
            ("mp3", 96000, 1, "44100, 48000.*rate='model'"),
            ("mp3", 44100, 3, "at most 2 channels"),
            ("flac", 44100, 9, "at most 8 channels"),
            ("flac", 768_000, 1, "wav"),
            ("flac", 65_537, 1, "wav"),
            ("ogg", 200_001, 1, "wav"),
            ("wav", 44100, 17, "at most 16"),
        ],
    )
    def test_limits(self, tmp_path: Path, ending: str, rate: int, channels: int, said: str) -> None:
        with pytest.raises(OutputError, match=said):
            AudioWriter(tmp_path / f"a.{ending}", rate, channels)
        assert names(tmp_path) == []

    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        ending=st.sampled_from(writable_formats()),
        rate=st.one_of(
            st.integers(1, 768_000),
            st.sampled_from((1, 8000, 44100, 65535, 65540, 200_000, 655_350, 768_000)),
        ),
        channels=st.integers(1, 16),
    )
    def test_written_as_asked_or_refused(self, tmp_path: Path, ending: str, rate: int, channels: int) -> None:
        path = tmp_path / f"a.{ending}"
        samples = tone(1500, channels)
        try:
            writer = AudioWriter(path, rate, channels, overwrite=True)
        except OutputError:
            return
        with writer:
            writer.write(samples)
        with open_audio(path) as reader:
            assert (reader.rate, reader.channels) == (rate, channels)
            assert sum(map(len, reader.blocks())) == 1500


class TestSamples:
    def test_clipped_and_not_wrapped(self, tmp_path: Path) -> None:
        samples = np.array([-9, -1.0001, -1, 0, 0.99999999, 1, 1.0001, 9], np.float32)[:, None]
        write(tmp_path / "a.wav", samples)
        found, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
        np.testing.assert_allclose(found, np.clip(samples[:, 0], -1, 1), atol=1 / (1 << 15))

    @pytest.mark.parametrize("ending", ["opus", "ogg", "mp3"])
    def test_lossy_formats_take_loud_samples(self, tmp_path: Path, ending: str) -> None:
        write(tmp_path / f"a.{ending}", tone() * 100)
        write(tmp_path / f"b.{ending}", np.clip(tone() * 100, -1, 1))
        loud, clipped = (soundfile.read(tmp_path / f"{name}.{ending}")[0] for name in "ab")
        np.testing.assert_array_equal(loud, clipped)

    def test_sixteen_bits_survive(self, tmp_path: Path) -> None:
        integers = np.arange(-(1 << 15), 1 << 15, dtype=np.int16)
        soundfile.write(tmp_path / "a.wav", integers, RATE)
        with open_audio(tmp_path / "a.wav") as reader:
            write(tmp_path / "b.wav", np.concatenate(list(reader.blocks())))
        np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav", dtype="int16")[0], integers)

    def test_one_channel_may_be_flat(self, tmp_path: Path) -> None:
        with AudioWriter(tmp_path / "a.wav", RATE, 1) as writer:
            writer.write(tone(100, 1)[:, 0])
        assert soundfile.info(tmp_path / "a.wav").frames == 100

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_no_numbers(self, tmp_path: Path, value: float) -> None:
        with pytest.raises(OutputError, match="not a finite number"):
            write(tmp_path / "a.wav", np.full((10, 1), value, np.float32))
        assert names(tmp_path) == []

    def test_outside_a_with_statement(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="with"):
            AudioWriter(tmp_path / "a.wav", RATE, 1).write(tone(1, 1))


class TestWholeOrNothing:
    @pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize("ending", ["wav", "flac", "opus", "mp3"])
    def test_interrupted(self, tmp_path: Path, ending: str, capfd: Any) -> None:
        path = tmp_path / f"a.{ending}"
        path.write_bytes(b"before")

        def interrupted() -> None:
            with AudioWriter(path, RATE, 2, overwrite=True) as writer:
                writer.write(tone())
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert path.read_bytes() == b"before"
        assert names(tmp_path) == [path.name]
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("ending", writable_formats())
    @pytest.mark.parametrize("room", [0, 5000])
    def test_full_disk(
        self, tmp_path: Path, ending: str, room: int, monkeypatch: pytest.MonkeyPatch, capfd: Any
    ) -> None:
        left = [room]
        real = Replacement.__init__

        class Small:
            """A file on a disk that has room for so many bytes."""

            def __init__(self, file: Any) -> None:
                self.file = file

            def write(self, data: bytes) -> int:
                left[0] -= len(data)
                if left[0] < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return int(self.file.write(data))

            def __getattr__(self, name: str) -> Any:
                return getattr(self.file, name)

        def opened(self: Replacement, path: Path) -> None:
            real(self, path)
            self.file = Small(self.file)  # type: ignore[assignment]

        monkeypatch.setattr(Replacement, "__init__", opened)
        noise = np.random.default_rng(0).uniform(-1, 1, (48_000, 2)).astype(np.float32)
        with pytest.raises(OutputError, match="no space left"):
            write(tmp_path / f"a.{ending}", noise)
        assert names(tmp_path) == []
        assert capfd.readouterr() == ("", "")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
    @pytest.mark.parametrize("ending", ["wav", "flac", "opus"])
    def test_device_that_is_full(self, ending: str) -> None:
        with pytest.raises(OutputError, match=r"/dev/full cannot be written: no space left"):
            write("/dev/full", tone(), audio_format=ending)

    def test_existing_file_is_kept(self, tmp_path: Path) -> None:
        write(tmp_path / "a.wav", tone(10))
        before = (tmp_path / "a.wav").read_bytes()
        with pytest.raises(OutputError, match="overwrite=True"):
            write(tmp_path / "a.wav", tone(20))
        with pytest.raises(OutputError, match="input itself"):
            write(tmp_path / "a.wav", tone(20), overwrite=True, source=tmp_path / "a.wav")
        assert (tmp_path / "a.wav").read_bytes() == before
        write(tmp_path / "a.wav", tone(20), overwrite=True)
        assert soundfile.info(tmp_path / "a.wav").frames == 20


class TestLargeFiles:
    @pytest.fixture(autouse=True)
    def small_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for ending in ("wav", "aiff"):
            kind = replace(writing._FORMATS[ending], most_bytes=4000)
            monkeypatch.setitem(writing._FORMATS, ending, kind)

    def test_becomes_rf64_where_the_length_is_known(self, tmp_path: Path) -> None:
        write(tmp_path / "a.wav", tone(1001), frames=1001)
        write(tmp_path / "b.wav", tone(1000), frames=1000)
        assert soundfile.info(tmp_path / "a.wav").format == "RF64"
        assert soundfile.info(tmp_path / "a.wav").frames == 1001
        assert soundfile.info(tmp_path / "b.wav").format == "WAV"

    def test_refused_where_it_is_not(self, tmp_path: Path) -> None:
        write(tmp_path / "a.wav", tone(1000))
        for ending, options in {"wav": {}, "aiff": {"frames": 1001}}.items():
            with pytest.raises(OutputError, match="4 GiB, choose w64"):
                write(tmp_path / f"b.{ending}", tone(1001), **options)
        assert names(tmp_path) == ["a.wav"]

    def test_stream_has_no_limit(self, stdout: Stdout) -> None:
        write("-", tone(3000))
        found, _ = soundfile.read(io.BytesIO(stdout.buffer.getvalue()))
        assert found.shape == (3000, 2)


class TestStandardOutput:
    @pytest.mark.parametrize("frames", [0, 1, 2500])
    @pytest.mark.parametrize("channels", [1, 2])
    def test_wav_is_that_of_a_file(self, tmp_path: Path, stdout: Stdout, frames: int, channels: int) -> None:
        samples = tone(frames, channels)
        write("-", samples, frames=frames)
        data = stdout.buffer.getvalue()
        assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
        assert len(data) % 2 == 0
        write(tmp_path / "a.wav", samples)
        expected, _ = soundfile.read(tmp_path / "a.wav", dtype="float32", always_2d=True)
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            assert (file.samplerate, file.subtype) == (RATE, "PCM_16")
            np.testing.assert_array_equal(file.read(dtype="float32", always_2d=True), expected)

    def test_plain_wav_is_byte_for_byte_that_of_a_file(self, tmp_path: Path, stdout: Stdout) -> None:
        write("-", tone(777), frames=777)
        write(tmp_path / "a.wav", tone(777))
        assert stdout.buffer.getvalue() == (tmp_path / "a.wav").read_bytes()

    def test_wav_of_unknown_length(self, stdout: Stdout) -> None:
        write("-", tone())
        data = stdout.buffer.getvalue()
        assert data[4:8] == data[40:44] == b"\xff\xff\xff\xff"
        assert len(data) == 44 + 12_000 * 4

    def test_wav_streams(self, stdout: Stdout) -> None:
        with AudioWriter("-", RATE, 1) as writer:
            writer.write(tone(1000, 1))
            assert len(stdout.buffer.getvalue()) == 44 + 2000
            writer.write(tone(1000, 1))
        assert len(stdout.buffer.getvalue()) == 44 + 4000

    def test_length_beyond_the_header(self, stdout: Stdout) -> None:
        with AudioWriter("-", RATE, 1, frames=1 << 31) as writer:
            assert stdout.buffer.getvalue()[40:44] == b"\xff\xff\xff\xff"
            writer.frames = 0
            with pytest.raises(ValueError, match="announced"):
                writer.__exit__(None, None, None)

    def test_announced_length_is_kept(self, stdout: Stdout) -> None:
        with pytest.raises(ValueError, match="announced"):
            write("-", tone(10), frames=11)

    @pytest.mark.parametrize("ending", [e for e in writable_formats() if e != "wav"])
    def test_other_formats(self, stdout: Stdout, ending: str) -> None:
        write("-", tone(), audio_format=ending)
        with soundfile.SoundFile(io.BytesIO(stdout.buffer.getvalue())) as file:
            assert file.read(always_2d=True).shape == (12_000, 2)

    def test_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stream = Stdout(terminal=True)
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(OutputError, match="is a terminal"):
            write("-", tone())
        assert stream.buffer.getvalue() == b""

    @pytest.mark.skipif(os.name != "posix", reason="POSIX only")
    def test_through_a_pipe(self) -> None:
        program = textwrap.dedent(
            """
            import numpy as np
            from snaccli.audio import AudioWriter
            for ending in ("wav", "flac"):
                with AudioWriter("-", 24000, 1, audio_format=ending) as writer:
                    writer.write(np.zeros(1000, np.float32))
            """
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=300)
        assert done.stderr == b""
        assert done.stdout[:4] == b"RIFF"
        assert done.stdout[44 + 2000 :][:4] == b"fLaC"
