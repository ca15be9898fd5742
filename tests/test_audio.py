"""Recordings of every kind are read whole, in blocks; what cannot be read is refused in one line."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from snaccli.audio import AudioInfo, AudioWriter, open_audio, probe, writable_formats
from snaccli.audio.structure import scan_mpeg, scan_ogg
from snaccli.errors import AudioError

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")
RATE = 24000


def tone(frames: int = 12_000, channels: int = 2) -> np.ndarray:
    time_s = np.arange(frames)[:, None] / RATE
    return (0.4 * np.sin(2 * np.pi * time_s * (300 + 200 * np.arange(channels)))).astype(np.float32)


def recorded(path: Path, samples: np.ndarray, rate: int = RATE, **options: Any) -> Path:
    with AudioWriter(path, rate, samples.shape[1], **options) as writer:
        writer.write(samples)
    return path


def read(path: Path | str, frames: int = 4096) -> np.ndarray:
    with open_audio(path) as reader:
        parts = list(reader.blocks(frames))
        assert all(len(part) == frames for part in parts[:-1])
        return np.concatenate([np.zeros((0, reader.channels), np.float32), *parts])


def refusal(path: Path | str) -> str:
    """The one line that reading this file ends with."""
    with pytest.raises(AudioError) as error:
        read(path)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty-path").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty-path"))


class TestFormats:
    @pytest.mark.parametrize("ending", writable_formats())
    def test_blocks_are_the_whole(self, tmp_path: Path, ending: str, no_ffmpeg: None) -> None:
        path = recorded(tmp_path / f"a.{ending}", tone())
        whole, rate = soundfile.read(path, dtype="float32", always_2d=True)
        with open_audio(path) as reader:
            assert (reader.rate, reader.channels, reader.frames) == (rate, 2, 12_000)
            assert reader.notes == ()
        for frames in (1000, 12_000, 100_000):
            np.testing.assert_allclose(read(path, frames), whole, rtol=0, atol=1e-6 if ending == "mp3" else 0)
        assert np.abs(whole - tone())[2000:-2000].max() < 0.02

    @pytest.mark.parametrize(
        "encoding", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "MS_ADPCM"]
    )
    def test_encodings_of_wav(self, tmp_path: Path, encoding: str, no_ffmpeg: None) -> None:
        soundfile.write(tmp_path / "a.wav", tone(), RATE, encoding)
        found = read(tmp_path / "a.wav")[:12_000]
        assert np.abs(found - tone()).max() < 0.05

    def test_probe(self, tmp_path: Path) -> None:
        path = recorded(tmp_path / "a.flac", tone())
        assert probe(path) == AudioInfo(str(path), "FLAC", "PCM_16", RATE, 2, 12_000, 0.5)

    def test_recording_of_no_samples(self, tmp_path: Path) -> None:
        path = recorded(tmp_path / "a.wav", tone(0))
        assert probe(path).frames == 0
        assert read(path).shape == (0, 2)

    @pytest.mark.parametrize("rate", [1, 11, 7999, 768_000])
    @pytest.mark.parametrize("channels", [1, 16])
    def test_limits_of_rate_and_channels(self, tmp_path: Path, rate: int, channels: int) -> None:
        path = recorded(tmp_path / "a.wav", tone(100, channels), rate)
        with open_audio(path) as reader:
            assert (reader.rate, reader.channels) == (rate, channels)
        assert read(path).shape == (100, channels)

    def test_flac_of_unknown_length(self, tmp_path: Path, no_ffmpeg: None) -> None:
        data = bytearray(recorded(tmp_path / "a.flac", tone()).read_bytes())
        data[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
        data[22:26] = bytes(4)
        (tmp_path / "a.flac").write_bytes(data)
        assert probe(tmp_path / "a.flac").frames is None
        np.testing.assert_allclose(read(tmp_path / "a.flac"), tone(), atol=1e-4)

    def test_wav_of_unknown_length(self, tmp_path: Path, no_ffmpeg: None) -> None:
        data = bytearray(recorded(tmp_path / "a.wav", tone()).read_bytes())
        for place in (4, 40):
            data[place : place + 4] = b"\xff\xff\xff\xff"
        (tmp_path / "a.wav").write_bytes(data)
        np.testing.assert_allclose(read(tmp_path / "a.wav"), tone(), atol=1e-4)

    @pytest.mark.parametrize(
        "name",
        [
            "-i.wav",
            "a b.wav",
            "%03d.wav",
            "file:x.wav",
            "héé.wav",
            "a.raw",
            "a.dat",
            "no ending",
            "concat:a|b",
        ],
    )
    def test_names(self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if os.name == "nt" and set(name) & set(":|"):
            pytest.skip("not a name on Windows")
        recorded(tmp_path / "x.wav", tone()).rename(tmp_path / name)
        monkeypatch.chdir(tmp_path)
        assert len(read(name)) == 12_000
        assert len(read(Path(name))) == 12_000

    @posix
    def test_name_that_is_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / os.fsdecode(b"\xff\n.wav")
        try:
            recorded(tmp_path / "x.wav", tone()).rename(path)
        except OSError:
            pytest.skip("the disk takes UTF-8 names only")
        assert len(read(path)) == 12_000
        path.write_bytes(b"nonsense")
        refusal(path).encode()

    @pytest.mark.parametrize("tool", ["flac", "opusenc", "sox"])
    def test_files_of_other_programs(self, tmp_path: Path, tool: str) -> None:
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
        source = recorded(tmp_path / "a.wav", tone())
        output = tmp_path / {"flac": "b.flac", "opusenc": "b.opus", "sox": "b.aiff"}[tool]
        options = {"flac": ["-s", "-o", output, source], "opusenc": ["--quiet", source, output]}
        subprocess.run([tool, *options.get(tool, [source, output])], check=True, timeout=300)
        assert probe(output).rate == RATE
        assert read(output).shape == (12_000, 2)


class TestStandardInput:
    def pipe(self, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
        class Stream:
            buffer = io.BytesIO(data)

        monkeypatch.setattr(sys, "stdin", Stream())

    @pytest.mark.parametrize("ending", ["wav", "flac", "opus", "mp3"])
    def test_any_format(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
        path = recorded(tmp_path / f"a.{ending}", tone())
        self.pipe(monkeypatch, path.read_bytes())
        np.testing.assert_array_equal(read("-"), read(path))

    def test_errors_name_it(self, monkeypatch: pytest.MonkeyPatch, no_ffmpeg: None) -> None:
        for data, said in {
            b"": "standard input is empty",
            b"nonsense": "standard input cannot be read",
        }.items():
            self.pipe(monkeypatch, data)
            assert refusal("-").startswith(said)


class TestRefusals:
    def test_what_is_not_a_recording(self, tmp_path: Path, no_ffmpeg: None) -> None:
        (tmp_path / "empty.wav").touch()
        (tmp_path / "text.wav").write_text("hello, world\n" * 1000)
        (tmp_path / "random.mp3").write_bytes(random.Random(0).randbytes(50_000))
        (tmp_path / "list.m3u8").write_text("#EXTM3U\nfile:///etc/passwd\n")
        (tmp_path / "a.snac").write_bytes(b"SNAC" + bytes(100))
        for name, said in {
            "none.wav": "no such file",
            ".": "is a folder",
            "empty.wav": "is empty (0 bytes)",
            "text.wav": "install ffmpeg",
            "random.mp3": "install ffmpeg",
            "list.m3u8": "is a playlist",
            "a.snac": "decode_file turns it into audio",
        }.items():
            text = refusal(tmp_path / name)
            assert said in text
            assert str(tmp_path / name) in text

    @pytest.mark.parametrize(
        ("value", "said"),
        [(np.nan, "not a number"), (np.inf, "infinite"), (-np.inf, "infinite"), (32768.0, "32768")],
    )
    @pytest.mark.parametrize("frame", [0, 5999, 11_999])
    def test_samples_that_are_no_sound(self, tmp_path: Path, value: float, said: str, frame: int) -> None:
        samples = tone()
        samples[frame, 1] = value
        samples[-1, 0] = np.nan if frame == 0 else samples[-1, 0]
        soundfile.write(tmp_path / "a.wav", samples, RATE, "FLOAT")
        text = refusal(tmp_path / "a.wav")
        assert said in text
        assert f"at {frame / RATE:.6g} s" in text

    def test_doubles_beyond_single_precision(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.wav", np.array([0.0, 1e300]), RATE, "DOUBLE")
        assert "infinite" in refusal(tmp_path / "a.wav")

    def test_loud_floats_are_sound(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.wav", tone() * 20, RATE, "FLOAT")
        assert read(tmp_path / "a.wav").max() > 7

    def test_too_many_channels(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.wav", tone(100, 17), RATE)
        assert "17 channels" in refusal(tmp_path / "a.wav")

    @pytest.mark.parametrize("rate", [0, 768_001, 0x7FFFFFFF])
    def test_rates_out_of_range(self, tmp_path: Path, rate: int, no_ffmpeg: None) -> None:
        data = bytearray(recorded(tmp_path / "a.wav", tone()).read_bytes())
        data[24:28] = struct.pack("<I", rate)
        (tmp_path / "a.wav").write_bytes(data)
        text = refusal(tmp_path / "a.wav")
        assert f"{rate} Hz" in text or "cannot be read" in text or "damaged" in text

    @pytest.mark.parametrize(
        "ending", ["wav", "flac", "ogg", "opus", "mp3", "aiff", "caf", "au", "w64", "rf64"]
    )
    @pytest.mark.parametrize("part", [0.3, 0.9])
    def test_cut_off(self, tmp_path: Path, ending: str, part: float, no_ffmpeg: None) -> None:
        data = recorded(tmp_path / f"a.{ending}", tone(48_000)).read_bytes()
        (tmp_path / f"a.{ending}").write_bytes(data[: int(part * len(data))])
        text = refusal(tmp_path / f"a.{ending}")
        assert "cut off" in text or "damaged" in text
        assert "ffmpeg -i" in text

    def test_disk_that_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from snaccli.audio import read as reading

        path = recorded(tmp_path / "a.wav", tone())

        class Failing(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell() > 4000:
                    raise OSError(errno.EIO, "Input/output error")
                return super().read(size)

        class Opened:
            def __init__(self, *_: Any, **__: Any) -> None: ...

            def __enter__(self) -> io.BytesIO:
                return Failing(path.read_bytes())

            def __exit__(self, *_: Any) -> None: ...

        monkeypatch.setattr(reading, "open_input", Opened)
        assert refusal(path) == f"{path} cannot be read: Input/output error"

    def test_damage_never_escapes(self, tmp_path: Path, no_ffmpeg: None, capfd: Any) -> None:
        """Changed bytes give sound or an AudioError; nothing but libsndfile's MP3 decoder prints anything."""
        rng = random.Random(7)
        for ending in ("wav", "flac", "ogg", "opus", "mp3", "aiff", "caf", "au", "w64", "rf64"):
            whole = recorded(tmp_path / f"a.{ending}", tone(4000)).read_bytes()
            path = tmp_path / f"b.{ending}"
            for _ in range(25):
                data = bytearray(whole)
                for _ in range(rng.choice((1, 3, 30))):
                    place = int(rng.random() ** 2 * len(data))
                    data[place : place + rng.choice((0, 1, 4))] = rng.randbytes(rng.choice((0, 1, 4)))
                path.write_bytes(data)
                with contextlib.suppress(AudioError), open_audio(path) as reader:
                    for _block in itertools.islice(reader.blocks(1000), 200):
                        pass
        out, err = capfd.readouterr()
        own = re.compile(r"libmpg123[/\\]|^\s*(note|warning): |^\s*$", re.IGNORECASE)
        assert out == ""
        assert [line for line in err.splitlines() if not own.search(line)] == []


class TestStandardError:
    """It belongs to the process: reading a file takes nothing of it away, and nothing is put in its place."""

    def test_what_others_print_while_an_mp3_is_read_gets_through_at_once(
        self, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = recorded(tmp_path / "a.mp3", tone(40_000))
        before, within = os.fstat(2), []
        read = soundfile.SoundFile.read

        def watched(*arguments: Any, **options: Any) -> Any:
            within.append(os.fstat(2))
            os.write(2, b"Warning: a program's own line\n\n")
            return read(*arguments, **options)

        monkeypatch.setattr(soundfile.SoundFile, "read", watched)
        with open_audio(path) as reader:
            for _block in reader.blocks(1000):
                assert capfd.readouterr().err == "Warning: a program's own line\n\n"
        assert len(within) > 10
        assert all(os.path.samestat(status, before) for status in within)


def mpeg_frames(bitrates: list[int]) -> bytes:
    """MPEG 1 layer 3 frames of silence at 44.1 kHz, mono, with these indices into the table of bit rates."""
    table = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    return b"".join(
        (bytes((0xFF, 0xFB, index << 4, 0xC0)) + bytes(2000))[: 144 * table[index] * 1000 // 44100]
        for index in bitrates
    )


class TestMpeg:
    def test_counts_frames(self) -> None:
        found = scan_mpeg(io.BytesIO(mpeg_frames([9, 14, 1, 5])))
        assert found is not None
        assert (found.frames, found.frame_length, found.tagged) == (4 * 1152, 1152, False)

    def test_skips_tags_and_junk(self) -> None:
        art = b"ID3\x04\x00\x00" + bytes((0, 0, 2, 0)) + b"\xff\xfb\x90\xc0" * 64
        data = art + mpeg_frames([9] * 3) + b"junk" * 100 + mpeg_frames([9] * 2) + b"TAG" + bytes(125)
        found = scan_mpeg(io.BytesIO(data))
        assert found is not None
        assert found.frames == 5 * 1152

    @pytest.mark.parametrize("data", [b"", b"\xff", b"ID3", b"\xff\xff\xff\xff" * 1000, bytes(3 << 20)])
    def test_nothing_to_count(self, data: bytes) -> None:
        assert scan_mpeg(io.BytesIO(data)) is None

    @staticmethod
    def untagged(path: Path) -> bytes:
        """An MP3 that begins at a high bit rate, without the frame that tells its length."""
        loud = np.random.default_rng(0).uniform(-0.9, 0.9, (2 * RATE, 1)).astype(np.float32)
        data = recorded(path, np.concatenate([loud, np.zeros((6 * RATE, 1), np.float32)])).read_bytes()
        at = data.index(b"\xff", 1)
        while data[at : at + 2] != data[:2]:
            at = data.index(b"\xff", at + 1)
        return data[at:]

    def test_libsndfile_would_lose_the_end(self, tmp_path: Path, no_ffmpeg: None) -> None:
        path = tmp_path / "a.mp3"
        data = self.untagged(path)
        path.write_bytes(data)
        assert soundfile.info(path).frames < 6 * RATE  # or the guard is not needed any more
        assert "shorter than what it holds" in refusal(path)

    def test_joined_files(self, tmp_path: Path, no_ffmpeg: None) -> None:
        data = recorded(tmp_path / "a.mp3", tone()).read_bytes()
        (tmp_path / "b.mp3").write_bytes(data * 2)
        assert "shorter than what it holds" in refusal(tmp_path / "b.mp3")

    def test_cut_off_is_seen_at_once(self, tmp_path: Path, no_ffmpeg: None) -> None:
        data = recorded(tmp_path / "a.mp3", tone(48_000)).read_bytes()
        (tmp_path / "a.mp3").write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(AudioError, match=r"cut off after 1\.\d+ s of 2\.00 s"):
            probe(tmp_path / "a.mp3")

    def test_mpeg_in_wav(self, tmp_path: Path, no_ffmpeg: None) -> None:
        """libsndfile guesses its length, and would end there."""
        data = mpeg_frames([9] * 40)
        layout = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 44100, 16000, 1, 0, 12, 1, 2, 417, 1, 1393)
        chunks = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout
        chunks += b"fact" + struct.pack("<II", 4, 40 * 1152) + b"data" + struct.pack("<I", len(data)) + data
        (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
        assert "install ffmpeg" in refusal(tmp_path / "a.wav")

    def test_constant_bit_rate_without_length(self, tmp_path: Path, no_ffmpeg: None) -> None:
        (tmp_path / "a.mp3").write_bytes(mpeg_frames([9] * 40))
        with open_audio(tmp_path / "a.mp3") as reader:
            assert reader.frames is None
            assert reader.expected_frames == 40 * 1152
            assert abs(sum(map(len, reader.blocks())) - 40 * 1152) <= 2 * 1152


class TestOgg:
    def test_joined(self, tmp_path: Path, no_ffmpeg: None) -> None:
        data = recorded(tmp_path / "a.ogg", tone()).read_bytes()
        assert scan_ogg(io.BytesIO(data)) == scan_ogg(io.BytesIO(data + b"trailing"))
        (tmp_path / "b.ogg").write_bytes(data * 2)
        assert scan_ogg(io.BytesIO(data * 2)).joined
        assert "joined" in refusal(tmp_path / "b.ogg")

    def test_cut_between_pages(self, tmp_path: Path, no_ffmpeg: None) -> None:
        data = recorded(tmp_path / "a.opus", tone(96_000)).read_bytes()
        (tmp_path / "b.opus").write_bytes(data[: data.rindex(b"OggS")])
        with open_audio(tmp_path / "b.opus") as reader:
            assert len(reader.notes) == 1
            assert "cut off" in reader.notes[0]

    def test_every_cut_within_a_page_is_seen(self, tmp_path: Path) -> None:
        data = recorded(tmp_path / "a.opus", tone(96_000)).read_bytes()
        last = data.rindex(b"OggS")
        for size in range(last + 1, len(data), 37):
            assert scan_ogg(io.BytesIO(data[:size])).cut
        whole = scan_ogg(io.BytesIO(data))
        assert (whole.joined, whole.cut, whole.ended) == (False, False, True)


# A "#!" line cannot name an interpreter whose path has a space: the shell starts it, Python skips that line.
FAKE = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import json, os, sys, time
folder = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(folder, "calls"), "a") as log:
    log.write(json.dumps(sys.argv) + "\\n")
with open(os.path.join(folder, os.path.basename(sys.argv[0]) + ".body")) as file:
    exec(file.read())
"""

ANSWER = """
import struct
out = sys.stdout.buffer
out.write(b".snd" + struct.pack(">5I", 32, 0xFFFFFFFF, 6, 24000, 2) + b"comment\\0")
"""


@posix
class TestFfmpeg:
    """Against a stand-in on the PATH, so that it is tested where there is no ffmpeg too."""

    @pytest.fixture(autouse=True)
    def stand_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = tmp_path / "bin"
        self.folder.mkdir()
        monkeypatch.setenv("PATH", str(self.folder))
        self.source = tmp_path / "a.m4a"
        self.source.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(1000))

    def program(self, body: str, name: str = "ffmpeg") -> None:
        (self.folder / name).write_text(FAKE.format(python=sys.executable))
        (self.folder / name).chmod(0o755)
        (self.folder / f"{name}.body").write_text(textwrap.dedent(body))

    def calls(self) -> list[list[str]]:
        import json

        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def test_samples_arrive(self) -> None:
        values = tone(5000).astype(">f4").tobytes()
        (self.folder / "samples").write_bytes(values)
        self.program(ANSWER + "out.write(open(os.path.join(folder, 'samples'), 'rb').read())")
        with open_audio(self.source) as reader:
            assert reader.info == AudioInfo(str(self.source), "ffmpeg", "float", RATE, 2, None, None)
            parts = list(reader.blocks(999))
        assert [len(part) for part in parts] == [999] * 5 + [5]
        np.testing.assert_array_equal(np.concatenate(parts), tone(5000))

    def test_is_called_with_care(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.program(ANSWER + "out.write(bytes(800))")
        monkeypatch.chdir(self.source.parent)
        self.source.rename("-y.m4a")
        assert len(read("-y.m4a")) == 100
        (arguments,) = self.calls()
        assert arguments[arguments.index("-i") + 1] == "file:-y.m4a"
        assert arguments[arguments.index("-protocol_whitelist") + 1] == "file,pipe"
        assert "-nostdin" in arguments

    def test_duration_comes_from_ffprobe(self) -> None:
        self.program(ANSWER + "out.write(bytes(800))")
        self.program('print(\'{"format": {"duration": "12.5"}}\')', "ffprobe")
        with open_audio(self.source) as reader:
            assert reader.frames is None
            assert reader.expected_frames == 12.5 * RATE
        self.program('print(\'{"format": {"duration": "nan"}}\')', "ffprobe")
        assert probe(self.source).duration_s is None
        self.program("print('nonsense'); sys.exit(1)", "ffprobe")
        assert probe(self.source).duration_s is None

    def test_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.program(ANSWER + "out.write(open(sys.argv[sys.argv.index('-i') + 1][5:], 'rb').read(800))")

        class Stream:
            buffer = io.BytesIO(bytes(5000))

        monkeypatch.setattr(sys, "stdin", Stream())
        assert len(read("-")) == 100

    def test_complaints(self) -> None:
        moov = "[mov,mp4 @ 0x55e] moov atom not found\\n"
        for body, said in {
            "sys.stderr.write('bad\\nfile:/x/y.m4a: Invalid data\\n'); sys.exit(1)": "(ffmpeg: Invalid data)",
            "sys.stderr.write('[mp3 @ 0x55e] no sync\\n'); sys.exit(1)": "(ffmpeg: no sync)",
            "sys.stderr.write('Stream map 0:a:0 matches no streams.\\n'); sys.exit(1)": "holds no audio",
            f"sys.stderr.write('{moov}'); sys.exit(1)": "is cut off",
            ANSWER + "out.write(bytes(804)); sys.stderr.write('partial file\\n')": "is cut off",
            ANSWER
            + "out.write(bytes(800)); sys.stderr.write('bands\\n'); sys.exit(69)": "is damaged (ffmpeg:",
            ANSWER: "holds no audio",
            "sys.stdout.buffer.write(bytes(100))": "is not audio",
            "sys.stdout.buffer.write(b'.snd' + bytes(100))": "update it",
            ANSWER.replace("24000, 2", "24000, 17") + "time.sleep(60)": "17 channels",
            ANSWER.replace("24000, 2", "0, 2") + "time.sleep(60)": "0 Hz",
            ANSWER + "out.write(struct.pack('>f', float('nan')) * 200)": "(NaN) at 0 s",
        }.items():
            self.program(body)
            text = refusal(self.source)
            assert said in text
            assert str(self.source) in text

    def test_endless_messages_do_not_block(self) -> None:
        self.program(ANSWER + "sys.stderr.write('warning\\n' * 100_000); out.write(bytes(800))")
        assert len(read(self.source)) == 100

    def test_process_ends_with_the_reader(self) -> None:
        self.program(
            ANSWER
            + """
            open(os.path.join(folder, "pid"), "w").write(str(os.getpid()))
            while True:
                out.write(bytes(8000))
            """.replace("\n            ", "\n")
        )
        with open_audio(self.source) as reader:
            blocks = reader.blocks(100)
            assert next(blocks).shape == (100, 2)
        number = int((self.folder / "pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)

    def test_program_that_does_not_start(self) -> None:
        (self.folder / "ffmpeg").write_text("#!/nowhere/at/all\n")
        (self.folder / "ffmpeg").chmod(0o755)
        assert "does not start" in refusal(self.source)

    def test_formats_of_libsndfile_do_without(self, tmp_path: Path) -> None:
        self.program("sys.exit('called')")
        recorded(tmp_path / "a.wav", tone())
        assert len(read(tmp_path / "a.wav")) == 12_000
        assert not (self.folder / "calls").exists()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")
class TestRealFfmpeg:
    def converted(self, tmp_path: Path, *options: str) -> Path:
        source = recorded(tmp_path / "a.wav", tone(48_000))
        output = tmp_path / options[-1]
        command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(source), *options[:-1], str(output)]
        if subprocess.run(command, timeout=300, capture_output=True).returncode:
            pytest.skip("this ffmpeg cannot write that")
        return output

    def test_m4a(self, tmp_path: Path) -> None:
        path = self.converted(tmp_path, "-c:a", "aac", "b.m4a")
        found = read(path)
        assert abs(len(found) - 48_000) < 2048
        assert np.abs(found[8000:40_000] - tone(48_000)[8000:40_000]).max() < 0.05
        with open_audio(path) as reader:
            assert reader.expected_frames == pytest.approx(48_000, abs=2048)

    def test_cut_off(self, tmp_path: Path) -> None:
        path = self.converted(tmp_path, "-c:a", "aac", "b.m4a")
        path.write_bytes(path.read_bytes()[:-500])
        assert "cut off" in refusal(path)

    def test_no_audio_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("hello\n" * 3000)
        text = refusal(tmp_path / "a.txt")
        assert "audio" in text

    def test_untagged_mp3_is_read_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mp3"
        path.write_bytes(TestMpeg.untagged(path))
        assert abs(len(read(path)) - 8 * RATE) < 3000

    def test_joined_ogg_is_read_whole(self, tmp_path: Path) -> None:
        data = recorded(tmp_path / "a.ogg", tone()).read_bytes()
        (tmp_path / "a.ogg").write_bytes(data * 2)
        assert abs(len(read(tmp_path / "a.ogg")) - 24_000) < 1000


class TestUnfinished:
    """Headers whose sizes were never filled in: the samples behind them are read, and a note says so."""

    SAMPLES = 32_000

    def written(self, kind: str, subtype: str = "PCM_16") -> bytearray:
        file = io.BytesIO()
        soundfile.write(file, tone(self.SAMPLES, 1), RATE, format=kind, subtype=subtype)
        return bytearray(file.getvalue())

    def check(self, path: Path, data: bytes, *, said: bool = True) -> None:
        path.write_bytes(data)
        with open_audio(path) as reader:
            samples = np.concatenate(list(reader.blocks()))
            assert (len(reader.notes) == 1) == said
            assert not said or "empty" in reader.notes[0]
        np.testing.assert_allclose(samples, tone(self.SAMPLES, 1), atol=2e-4)

    @pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24")])
    def test_wav(self, tmp_path: Path, kind: str, subtype: str) -> None:
        data = self.written(kind, subtype)
        place = data.index(b"data")
        data[place + 4 : place + 8] = bytes(4)
        for riff in (0, place, 0xFFFFFFFF):
            data[4:8] = struct.pack("<I", riff)
            self.check(tmp_path / "a.wav", data)
        info = probe(tmp_path / "a.wav")
        assert info.duration_s == self.SAMPLES / RATE

    def test_rf64(self, tmp_path: Path) -> None:
        data = self.written("RF64")
        place = data.index(b"ds64")
        data[place + 8 : place + 32] = bytes(24)
        self.check(tmp_path / "a.rf64", data)
        place = data.index(b"data")
        data[place + 4 : place + 8] = bytes(4)
        self.check(tmp_path / "a.rf64", data)

    def test_w64(self, tmp_path: Path) -> None:
        data = self.written("W64")
        place = data.index(b"data")
        data[16:24] = bytes(8)
        for stated in (0, 24):  # the chunk's own head counts
            data[place + 16 : place + 24] = struct.pack("<Q", stated)
            self.check(tmp_path / "a.w64", data, said=False)  # libsndfile does so by itself

    def test_aiff(self, tmp_path: Path) -> None:
        data = self.written("AIFF")
        common, sound = data.index(b"COMM"), data.index(b"SSND")
        data[4:8] = bytes(4)
        data[common + 10 : common + 14] = bytes(4)
        self.check(tmp_path / "a.aiff", data, said=False)
        data[sound + 4 : sound + 8] = struct.pack(">I", 8)
        self.check(tmp_path / "a.aiff", data)

    def test_caf(self, tmp_path: Path) -> None:
        data = self.written("CAF")
        place = data.index(b"data")
        for stated, said in ((4, True), (0, False), (-1, False)):  # -1 means just that
            data[place + 4 : place + 12] = struct.pack(">q", stated)
            self.check(tmp_path / "a.caf", data, said=said)

    def test_au(self, tmp_path: Path) -> None:
        data = self.written("AU")
        data[8:12] = bytes(4)
        self.check(tmp_path / "a.au", data)

    @pytest.mark.parametrize("kind", ["WAV", "AIFF", "CAF", "AU", "RF64", "W64"])
    def test_what_is_empty_stays_empty(self, tmp_path: Path, kind: str) -> None:
        soundfile.write(tmp_path / "a", np.zeros((0, 1)), RATE, format=kind, subtype="PCM_16")
        with open_audio(tmp_path / "a") as reader:
            assert list(reader.blocks()) == []
            assert reader.notes == ()

    def test_chunks_behind_no_samples_are_no_samples(self, tmp_path: Path) -> None:
        for kind, order, layout in (("WAV", "<", "I"), ("AIFF", ">", "I")):
            file = io.BytesIO()
            soundfile.write(file, np.zeros((0, 1)), RATE, format=kind, subtype="PCM_16")
            tail = b"LIST" + struct.pack(order + layout, 300) + bytes(300)
            (tmp_path / "a").write_bytes(file.getvalue() + tail * 3)
            assert read(tmp_path / "a").shape == (0, 1)

    def test_a_pipe_may_be_unfinished(self, tmp_path: Path) -> None:
        data = self.written("WAV")
        place = data.index(b"data")
        data[4:8] = data[place + 4 : place + 8] = bytes(4)
        (tmp_path / "a.wav").write_bytes(data)
        with (
            (tmp_path / "a.wav").open("rb") as file,
            subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE) as process,
        ):
            assert process.stdout is not None
            if not os.path.isdir("/dev/fd"):
                pytest.skip("no /dev/fd")
            assert len(read(f"/dev/fd/{process.stdout.fileno()}")) == self.SAMPLES


def test_a_peak_far_above_full_scale_is_told(tmp_path: Path) -> None:
    for peak, said in ((0.9, 0), (1.3, 0), (300.0, 1)):
        samples = np.zeros(20_000, np.float32)
        samples[12_345] = -peak
        soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
        with open_audio(tmp_path / "a.wav") as reader:
            assert reader.notes == ()
            for _block in reader.blocks():
                pass
            assert reader.peak == np.float32(peak)
            assert len(reader.notes) == said
            assert not said or "300 times full scale" in reader.notes[0]
