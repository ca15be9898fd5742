import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "examples" / "corpus"
AUDIO = ROOT / "examples" / "audio"
sys.path.insert(0, str(CORPUS))

import compose  # noqa: E402
import midi  # noqa: E402
import pack  # noqa: E402
import render  # noqa: E402
import sources  # noqa: E402


def write_tone(
    path: Path, seconds: float = 0.2, rate: int = 24_000, level: float = 0.5, channels: int = 1
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.repeat(tone[:, None], channels, axis=1), rate, subtype="PCM_16")
    return path


def clip(path: Path, *more: Path) -> pack.Clip:
    return pack.Clip(path.stem, (path, *more), 12_000, "speech", "CC0-1.0", "test")


def read_variable(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    while True:
        value = value << 7 | data[at] & 0x7F
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def read_midi(data: bytes) -> list[list[tuple[int, bytes]]]:
    """The (tick, message) pairs of each track; fails where the file is not well formed."""
    assert data[:8] == b"MThd\x00\x00\x00\x06"
    count = int.from_bytes(data[10:12], "big")
    tracks: list[list[tuple[int, bytes]]] = []
    at = 14
    while at < len(data):
        assert data[at : at + 4] == b"MTrk"
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")
        at += 8
        tick, events = 0, []
        while at < end:
            delta, at = read_variable(data, at)
            tick += delta
            size = 3 + data[at + 2] if data[at] == 0xFF else 2 if data[at] >> 4 == 0xC else 3
            message = data[at : at + size]
            assert message[0] == 0xFF or max(message[1:]) < 128
            events.append((tick, message))
            at += size
        assert at == end
        assert events[-1][1] == b"\xff\x2f\x00"
        tracks.append(events)
    assert len(tracks) == count
    return tracks


@pytest.mark.parametrize(
    ("value", "coded"),
    [(0, "00"), (0x40, "40"), (0x7F, "7f"), (0x80, "8100"), (0x3FFF, "ff7f"), (0x0FFFFFFF, "ffffff7f")],
)
def test_variable_length_follows_the_examples_of_the_specification(value: int, coded: str) -> None:
    assert midi.variable_length(value).hex() == coded


def test_same_seed_same_piece() -> None:
    assert compose.compose(7) == compose.compose(7)
    assert len({compose.compose(seed) for seed in range(10)}) == 10


@pytest.mark.parametrize("seed", range(25))
def test_pieces_are_sound_midi_of_the_asked_length(seed: int) -> None:
    tracks = read_midi(compose.compose(seed, seconds=30.0))
    tempo = int.from_bytes(tracks[0][0][1][3:], "big") / 1e6
    seconds = max(track[-1][0] for track in tracks) / midi.TICKS * tempo
    assert 20 < seconds < 50
    for track in tracks[1:]:
        kinds = Counter(message[0] >> 4 for _, message in track)
        assert kinds[0xC] == 1
        assert kinds[0x9] == kinds[0x8] > 0


def test_pieces_vary_in_instruments_and_tempo() -> None:
    tracks = [read_midi(compose.compose(seed, seconds=15.0)) for seed in range(60)]
    programs = {
        message[1] for piece in tracks for track in piece for _, message in track if message[0] >> 4 == 0xC
    }
    tempos = {piece[0][0][1] for piece in tracks}
    assert len(programs) > 60
    assert len(tempos) > 50


def test_rendered_pieces_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str]] = []

    def fake(score: bytes, soundfont: Path, target: Path) -> None:
        made.append((soundfont.name, target.name))
        target.touch()

    monkeypatch.setattr(render, "render", fake)
    fonts = [Path("a.sf2"), Path("b.sf3")]
    render.render_pieces(fonts, tmp_path, 2, seconds=5)
    paths = render.render_pieces(fonts, tmp_path, 3, seconds=5)
    assert made == [("a.sf2", "piece-000.flac"), ("b.sf3", "piece-001.flac"), ("a.sf2", "piece-002.flac")]
    assert [path.name for path in paths] == ["piece-000.flac", "piece-001.flac", "piece-002.flac"]


def test_a_soundfont_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.sf2"):
        render.render(b"", tmp_path / "none.sf2", tmp_path / "piece.flac")


@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="needs fluidsynth")
def test_a_soundfont_that_is_damaged_is_not_replaced_by_another(tmp_path: Path) -> None:
    touch(tmp_path, "empty.sf2")
    with pytest.raises((RuntimeError, subprocess.CalledProcessError)):
        render.render(compose.compose(0, seconds=5), tmp_path / "empty.sf2", tmp_path / "piece.flac")
    assert not (tmp_path / "piece.flac").exists()


def test_pack_offsets_lead_to_the_recordings(tmp_path: Path) -> None:
    clips = [
        clip(write_tone(tmp_path / "a.wav", 0.30)),
        clip(write_tone(tmp_path / "empty.wav", 0.0)),
        clip(write_tone(tmp_path / "b.wav", 0.25, rate=48_000, channels=2)),
        clip(write_tone(tmp_path / "c.wav", 0.10, level=0.1)),
    ]
    rows = pack.write_pack(clips, tmp_path / "out")
    data = np.load(tmp_path / "out.npy", mmap_mode="r")
    assert data.dtype == np.int16
    assert [(row.name, row.start, row.length) for row in rows] == [
        ("a", 0, 7_200), ("b", 7_200, 6_000), ("c", 13_200, 2_400),
    ]  # fmt: skip
    assert len(data) == 15_600
    assert [pack.Row(**row) for row in json.loads((tmp_path / "out.json").read_text())] == rows
    for row, source in zip(rows, (clips[0], clips[2], clips[3]), strict=True):
        np.testing.assert_array_equal(data[row.start : row.start + row.length], pack.read_clip(source))
    exact = soundfile.read(tmp_path / "a.wav", dtype="int16")[0]
    assert np.abs(data[:7_200].astype(int) - exact).max() <= 1
    assert abs(np.abs(data[7_200:13_200]).max() - 0.5 * 32_768) < 400


def test_stems_are_mixed_and_kept_from_clipping(tmp_path: Path) -> None:
    long = write_tone(tmp_path / "long.wav", 0.2, level=0.8)
    short = write_tone(tmp_path / "short.wav", 0.1, level=0.8)
    mix = pack.read_clip(clip(long, short)).astype(float)
    assert len(mix) == 4_800
    assert np.abs(mix).max() == pytest.approx(pack.PEAK * 32_767, abs=2)
    assert np.abs(mix[:2_400]).max() == pytest.approx(2 * np.abs(mix[2_400:]).max(), rel=0.01)


def test_an_interrupted_pack_leaves_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = clip(write_tone(tmp_path / "a.wav"))

    def interrupted(path: Path, rate: int) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr(pack, "ffmpeg_mono", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack.write_pack([good, clip(tmp_path / "missing.wav")], tmp_path / "out")
    assert not (tmp_path / "out.npy").exists()
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("samples", [0, 1, 2**40])
def test_header_has_one_length_and_numpy_reads_it(samples: int, tmp_path: Path) -> None:
    header = pack.npy_header(samples)
    assert len(header) == pack.HEADER_BYTES
    (tmp_path / "a.npy").write_bytes(header)
    with (tmp_path / "a.npy").open("rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        assert np.lib.format.read_array_header_1_0(file) == ((samples,), False, np.dtype("<i2"))


def test_about_one_in_twenty_names_is_held_out() -> None:
    held = sum(sources.held_out(f"package/file-{number}") for number in range(4_000))
    assert 130 < held < 280


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(clips: list[pack.Clip]) -> list[str]:
    return [one.name for one in clips]


def test_the_last_file_of_each_voice_is_held_out(tmp_path: Path) -> None:
    touch(tmp_path, "kathleen-009.opus", "kathleen-0010.opus", "kathleen-008.opus", "vocobox-000.opus")
    touch(tmp_path, "kathleen-notes.txt", "stranger-000.opus")
    split = sources.joined_voices(tmp_path)
    assert names(split.train) == ["kathleen-008", "kathleen-009", "vocobox-000"]
    assert names(split.val) == ["kathleen-0010"]


def test_clones_give_utterances_of_every_voice(tmp_path: Path) -> None:
    touch(tmp_path, *(f"kerstin/audio/de-{number}.webm" for number in range(30)), "kerstin/README.md")
    touch(tmp_path, *(f"vocobox/data/voices/martin/notes/exports/mono/A{number}.wav" for number in range(9)))
    touch(tmp_path, "vocobox/data/voices/martin/notes/exports/stereo/A1.wav")
    split = sources.cloned_voices(tmp_path)
    assert names(split.val) == [f"kerstin/audio/de-{number}.webm" for number in (27, 28, 29)]
    assert len(split.train) == 27 + 9
    assert {one.bandwidth_hz for one in split.val} == {7_500}


def test_packages_are_split_and_unfree_recordings_left_out(tmp_path: Path) -> None:
    it = tmp_path / "asterisk-core-sounds-it-g722/usr/share/asterisk/sounds/it"
    touch(it, "hello.g722", "silence/1.g722", *(f"digits/{number}.g722" for number in range(200)))
    (it / "link.g722").symlink_to(it / "hello.g722")
    for title in ("Feelings", sources.HELD_OUT_SONG):
        touch(tmp_path / sources.SONGS / "songs" / title, "song.ogg", "guitar.ogg")
    touch(
        tmp_path / "endless-sky-data/usr/share/games/endless-sky/sounds", "ion.wav", *sources.NOT_FREE_ENOUGH
    )
    kits = tmp_path / "hydrogen-drumkits/usr/share/hydrogen/data/drumkits"
    touch(kits, "Audiophob/a.wav", "Audiophob/drumkit.xml", "Millo-Drums_v.1/a.wav")

    spoken = sources.prompts(tmp_path)
    assert len(spoken.train) + len(spoken.val) == 201
    assert 1 <= len(spoken.val) <= 25
    assert not set(names(spoken.train)) & set(names(spoken.val))
    music = sources.songs(tmp_path)
    assert [len(one.paths) for one in music.train + music.val] == [2, 2]
    assert names(music.val) == [f"{sources.SONGS}/{sources.HELD_OUT_SONG}"]
    sound = sources.sounds(tmp_path)
    assert {Path(name).name for name in names(sound.train + sound.val)} == {"ion.wav", "a.wav"}
    assert len(sound.train + sound.val) == 2


def test_two_generated_pieces_are_held_out(tmp_path: Path) -> None:
    split = sources.pieces([tmp_path / f"piece-{number:03}.flac" for number in range(6)])
    assert names(split.val) == ["generated/piece-004", "generated/piece-005"]
    assert not set(names(split.train)) & set(names(split.val))


def test_a_collection_is_split_by_its_manifest_and_french_left_out(tmp_path: Path) -> None:
    head = "file,source,speaker,licence,bandwidth_hz,seconds,sample_rate,language,gender,clips\n"
    rows = [f"voices/cv-{i}.opus,github,s{i},CC0-1.0,{9000 + i},4,48000,it,male,1\n" for i in range(300)]
    rows += ["voices/cv-fr-1.opus,github,x,CC0-1.0,14718,4,48000,fr,male,1\n"]
    rows += ["sounds/rain.opus,ESC-10,x,CC-BY-3.0 and CC0,18000,4,48000,,,1\n"]
    (tmp_path / "manifest.csv").write_text(head + "".join(rows))
    splits = sources.collected(tmp_path)
    voices = splits["voices"]
    assert len(voices.train) + len(voices.val) == 300
    assert 1 <= len(voices.val) <= 15
    assert not set(names(voices.train)) & set(names(voices.val))
    assert {one.bandwidth_hz for one in voices.train} <= set(range(9000, 9300))
    (sound,) = splits["sounds"].train + splits["sounds"].val
    assert (sound.bandwidth_hz, sound.kind) == (12_000, "sound"), "no more than 24 kHz samples hold"


def test_clones_of_collections_keep_a_speaker_on_one_side(tmp_path: Path) -> None:
    root = tmp_path / "common-voice"
    for language in ("it", "fr"):
        clips = [f"{language}_{number}.mp3" for number in range(200)]
        touch(root / language / "clips", *clips)
        rows = "".join(f"speaker{number // 4}\t{clip}\n" for number, clip in enumerate(clips))
        (root / language / "validated.tsv").write_text("client_id\tpath\n" + rows)
    touch(tmp_path / "dspspeech", *(f"001/{number}.wav" for number in range(30)))
    naev = tmp_path / "packages" / "naev-data" / "usr"
    touch(naev, "automat.ogg", "not-free.ogg")
    splits = sources.cloned_collections(tmp_path, tmp_path / "packages")
    voices = splits["voices"]
    taken = names(voices.train) + names(voices.val)
    assert sum(name.startswith("dspspeech/") for name in taken) == 10
    assert sum(name.startswith("common-voice/it/") for name in taken) == 200
    assert len(taken) == 210, "no French"
    sides = [
        {
            int(re.findall(r"\d+", name)[-2 if name.endswith("mp3") else -1]) // 4
            for name in names(side)
            if "_" in name
        }
        for side in (voices.train, voices.val)
    ]
    assert not sides[0] & sides[1]
    sounds = splits["sounds"]
    assert names(sounds.train) + names(sounds.val) == ["naev-data/automat.ogg"]


@pytest.mark.parametrize("limit", [3_000, 8_000, 12_000])
def test_bandwidth_is_measured(limit: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000)
    spectrum = np.fft.rfft(noise)
    spectrum[round(limit * 2) :] = 0
    samples = (32767 * np.fft.irfft(spectrum)).astype(np.int16)
    assert pack.measured_bandwidth(samples) == pytest.approx(limit, abs=250)


def test_no_share_alike_or_gpl_source_is_named() -> None:
    text = "".join(path.read_text() for path in (CORPUS / "fetch.sh", CORPUS / "sources.py"))
    forbidden = (
        "-(en|es|fr)-g722|opsound|singularity|hyperrogue|muldjord|freeorion|tuxpaint|klettres|ktuberling"
    )
    assert (
        re.search(forbidden + "|fillets|warzone|wesnoth|planetblupi|voice-datasets|LJSpeech|librosa", text)
        is None
    )
    licences = {voice.licence for voice in sources.VOICES.values()} | {
        licence for *_, licence in sources.SOUNDS
    }
    licences |= {collection.licence for collection in sources.COLLECTIONS.values()}
    assert not any("SA" in licence or "GPL" in licence for licence in licences)


STUBS = {
    "apt-get": '#!/bin/sh\ntouch "$3_1.0_all.deb"\necho "$3" >>"$LOG"\n',
    "dpkg": '#!/bin/sh\nname=$(basename "$2"); mkdir -p "$3"\n'
    'if [ -d "$FIXTURE/${name%%_*}" ]; then cp -R "$FIXTURE/${name%%_*}/." "$3"; fi\n',
    "ffmpeg": "#!/bin/sh\nexit 1\n",
}


def stand_in(tmp_path: Path) -> dict[str, str]:
    """A package archive and GitHub of a few tones; returns the environment that leads there."""
    for name, text in STUBS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    archive = tmp_path / "archive"
    for number in range(60):
        write_tone(archive / f"sonic-pi-samples/usr/share/sonic-pi/samples/s{number}.flac", 0.01)
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    folders = {voice.repository: voice.folder for voice in sources.VOICES.values()}
    # Of Common Voice there is nothing: the stand-in for ffmpeg decodes no MP3.
    folders |= {each.repository: "x" for each in sources.COLLECTIONS.values()}
    for name, folder in folders.items():
        repository = tmp_path / "github" / name
        for number in range(10):
            write_tone(repository / folder / f"{number}.wav", 0.02, rate=16_000)
        for number in range(100 if "DSPSpeech" in name else 0):
            write_tone(repository / f"speaker {number // 10}" / f"{number}.wav", 0.02, rate=16_000)
        subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
        subprocess.run(["git", "-C", str(repository), "add", "."], check=True)
        subprocess.run(["git", "-C", str(repository), *identity, "commit", "--quiet", "-m", "x"], check=True)
    return {
        **os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHON": sys.executable,
        "GITHUB": (tmp_path / "github").as_uri(), "FIXTURE": str(archive), "LOG": str(tmp_path / "log"),
    }  # fmt: skip


@pytest.mark.skipif(shutil.which("git") is None or os.name == "nt", reason="needs git and a POSIX shell")
def test_fetch_builds_once_and_goes_on(tmp_path: Path) -> None:
    environment = stand_in(tmp_path)
    out = tmp_path / "out"
    command = ["bash", str(CORPUS / "fetch.sh"), str(out), "--pieces", "0"]
    first = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert re.search(r"rhasspy/dataset-voice-kathleen +0\.00 h +9 recordings +CC0-1\.0", first.stdout)
    rows = {
        name: json.loads((out / f"{name}.json").read_text())
        for name in ("speech_train", "speech_val", "music_train", "music_val")
    }
    voices, sounds = (
        [json.loads((out / f"{kind}_{part}.json").read_text()) for part in ("train", "val")]
        for kind in ("voices", "sounds")
    )
    assert {row["source"] for part in voices for row in part} == {"zhongyuchen/DSPSpeech-20"}
    assert sum(map(len, voices)) == 110
    assert sum(map(len, sounds)) == 40
    assert all(400 < row["bandwidth_hz"] <= 12_000 for part in sounds for row in part), "measured"
    assert len(rows["speech_train"]) == 45
    assert len(rows["speech_val"]) == 5
    assert len(rows["music_train"]) + len(rows["music_val"]) == 60
    for kind in ("speech", "music"):
        train, val = ({row["name"] for row in rows[f"{kind}_{part}"]} for part in ("train", "val"))
        assert not train & val
        assert len(np.load(out / f"{kind}_train.npy", mmap_mode="r")) == sum(
            row["length"] for row in rows[f"{kind}_train"]
        )
    fetched = (tmp_path / "log").read_text()
    shutil.rmtree(out / "packages" / "sonic-pi-samples")
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert second.stdout == first.stdout
    assert second.stderr.count("kept") == 8
    assert (tmp_path / "log").read_text() == fetched


@pytest.mark.parametrize(
    ("arguments", "status"), [([], 2), (["--help"], 0), (["--nonsense"], 2), (["a", "b"], 2)]
)
@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_fetch_says_how_it_is_used(arguments: list[str], status: int, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(CORPUS / "fetch.sh"), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert "fetch.sh OUT" in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_shipped_recordings_are_clean_and_credited() -> None:
    recordings = sorted(AUDIO.glob("*.flac"))
    readme = (AUDIO / "README.md").read_text()
    assert len(recordings) >= 4
    assert sum(path.stat().st_size for path in recordings) < 12_000_000
    assert sources.HELD_OUT_SONG in readme
    for path in recordings:
        assert f"| {path.name} |" in readme
        samples, rate = soundfile.read(path, always_2d=True)
        assert rate in (44_100, 48_000)
        assert 20 <= len(samples) / rate <= 40
        assert 0.1 < np.abs(samples).max() < 0.95
        step = rate // 10
        level = np.abs(samples[: len(samples) // step * step]).max(axis=1).reshape(-1, step).max(axis=1)
        loud = np.flatnonzero(level > 0.01)
        assert np.diff(loud).max() <= 15, "a silence of more than a second and a half"
