"""The example scripts run, on real recordings and on what a user's folder may hold besides."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
VENV = ROOT / ".venv"


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path, user_environment: dict[str, str]) -> Run:
    """Runs a script of examples/ from a folder elsewhere."""

    def run(script: str, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", EXAMPLES / script, *arguments],
            cwd=tmp_path,
            env=user_environment | variables,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture
def tree(tmp_path: Path, recording: Path) -> Path:
    """Recordings at two depths, notes of the same name as one of them, and a recording that is none."""
    tree = tmp_path / "my recordings"
    (tree / "day two").mkdir(parents=True)
    samples, rate = soundfile.read(recording, dtype="int16")
    soundfile.write(tree / "a.wav", samples[:rate], rate)
    soundfile.write(tree / "day two" / "b.FLAC", samples[rate : 2 * rate], rate, format="FLAC")
    (tree / "a.txt").write_text("what a.wav is about")
    (tree / "broken.wav").write_bytes(b"RIFF of nothing")
    return tree


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_tree_is_compressed_and_restored(
    run: Run, tree: Path, tmp_path: Path, tiny_model_folder: Path
) -> None:
    small, again = tmp_path / "small tree", tmp_path / "again"
    done = run("compress-tree.sh", tree, small, "--model", tiny_model_folder)
    assert done.returncode == 1
    assert "broken.wav" in done.stderr
    assert below(small) == ["a.snac", "a.txt", "broken.wav", "day two/b.snac"]

    (tree / "broken.wav").unlink()
    (small / "broken.wav").unlink()
    before = (small / "a.snac").stat().st_mtime_ns
    done = run("compress-tree.sh", tree, small, "--model", tiny_model_folder)
    assert done.returncode == 0, done.stderr
    assert (small / "a.snac").stat().st_mtime_ns == before, "a second run encodes nothing again"

    done = run("restore-tree.sh", small, again, "--model", tiny_model_folder)
    assert done.returncode == 0, done.stderr
    assert below(again) == ["a.txt", "a.wav", "day two/b.wav"]
    for restored, original in (("a.wav", "a.wav"), ("day two/b.wav", "day two/b.FLAC")):
        was, now = soundfile.info(tree / original), soundfile.info(again / restored)
        assert (now.samplerate, now.frames) == (was.samplerate, was.frames)


@pytest.mark.parametrize("script", ["compress-tree.sh", "restore-tree.sh"])
def test_trees_are_not_written_into_themselves(script: str, run: Run, tree: Path) -> None:
    done = run(script, tree, tree / "inside")
    assert done.returncode == 2
    assert "elsewhere" in done.stderr


@pytest.mark.parametrize("script", ["compress-tree.sh", "restore-tree.sh"])
def test_tree_scripts_say_how_to_be_called(script: str, run: Run, tmp_path: Path) -> None:
    done = run(script, "missing", "target")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
    assert not (tmp_path / "target").exists()


@pytest.mark.skipif(
    not (VENV / "installed-test").is_file() or Path(sys.prefix).resolve() != VENV.resolve(),
    reason="quickstart.sh, outside the environment of tests/run.sh",
)
@pytest.mark.slow
def test_quickstart_encodes_decodes_and_reports(
    run: Run, recording: Path, tmp_path: Path, tiny_model_folder: Path
) -> None:
    shipped = (ROOT / "snac" / "models" / "mini" / "config.json").is_file()
    model = "mini" if shipped else str(tiny_model_folder)
    done = run("quickstart.sh", recording, tmp_path / "made here", SNAC_MODEL=model)
    assert done.returncode == 0, done.stderr
    assert "installing" not in done.stderr
    was, now = soundfile.info(recording), soundfile.info(tmp_path / "made here" / "speech.wav")
    assert (now.samplerate, now.frames) == (was.samplerate, was.frames)
    assert "speech" in done.stdout


@pytest.mark.slow
def test_a_small_model_of_tokens_generates_audio(
    tmp_path: Path, user_environment: dict[str, str], recording: Path, tiny_model_folder: Path
) -> None:
    def generate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, EXAMPLES / "generate.py", *arguments, "--model", tiny_model_folder],
            cwd=tmp_path,
            env=user_environment,
            capture_output=True,
            text=True,
        )

    sounds = []
    for name, seed in (("a.wav", "1"), ("b.wav", "1"), ("c.wav", "2")):
        done = generate(recording, "-o", name, "--seconds", "0.5", "--seed", seed)
        assert done.returncode == 0, done.stderr
        assert soundfile.info(tmp_path / name).frames == 31 * 8 * 32
        sounds.append((tmp_path / name).read_bytes())
    assert sounds[0] == sounds[1] != sounds[2]
    done = generate("missing.wav")
    assert (done.returncode, done.stdout) == (1, "encoding 1 recordings\n")
    assert done.stderr.startswith("generate.py: ")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck of the scripts: not installed")
def test_scripts_pass_shellcheck() -> None:
    scripts = [
        *EXAMPLES.glob("*.sh"),
        *(ROOT / "docs").rglob("*.sh"),
        ROOT / "tests" / "run.sh",
        ROOT / ".ci" / "run",
    ]
    done = subprocess.run(["shellcheck", "-x", *scripts], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout
