"""Inputs that can be read only once: named pipes, and what a shell makes of ``<(...)``."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli.cli.app import run
from snaccli.cli.ui.console import Console

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes, which this system has not")

RATE = 16000
SAMPLES = 20_800


def call(*arguments: object) -> tuple[int, str, str]:
    console = Console(io.StringIO(), io.StringIO(), {})
    status = run([str(argument) for argument in arguments], console)
    return status, console.stdout.getvalue(), console.stderr.getvalue()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(tiny_model_folder: Path) -> str:
    return str(tiny_model_folder)


@pytest.fixture
def talk(here: Path, model: str) -> bytes:
    """The bytes of talk.snac, made of talk.wav."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(SAMPLES).astype(np.float32)
    soundfile.write("talk.wav", samples, RATE)
    assert call("encode", "-q", "talk.wav", "-m", model) == (0, "", "")
    return Path("talk.snac").read_bytes()


@contextmanager
def pipe(name: str, data: bytes) -> Iterator[str]:
    """A named pipe to which a thread writes `data` once; whoever opens it twice waits for ever."""
    os.mkfifo(name)
    writer = threading.Thread(target=Path(name).write_bytes, args=(data,), daemon=True)
    writer.start()
    yield name
    writer.join(timeout=300)
    assert not writer.is_alive(), "nobody read the pipe"


def test_encode_reads_a_named_pipe_once(talk: bytes, model: str) -> None:
    with pipe("pipe.wav", Path("talk.wav").read_bytes()) as name:
        status, out, err = call("encode", name, "-m", model, "-o", "x.snac")
    assert (status, out) == (0, "")
    assert err.startswith("pipe.wav -> x.snac  1.3 s  ")
    assert Path("x.snac").read_bytes() == talk


def test_decode_reads_a_named_pipe_once(talk: bytes, model: str) -> None:
    assert call("decode", "talk.snac", "-m", model, "-q", "-o", "expected.wav") == (0, "", "")
    with pipe("pipe.snac", talk) as name:
        assert call("decode", name, "-m", model, "-q", "-o", "x.wav") == (0, "", "")
    assert Path("x.wav").read_bytes() == Path("expected.wav").read_bytes()


def test_info_and_verify_read_a_named_pipe_once(talk: bytes) -> None:
    with pipe("one.snac", talk) as name:
        status, out, err = call("info", name, "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert (told["samples"], told["bytes"]) == (SAMPLES, len(talk))
    with pipe("two.snac", talk) as name:
        assert call("verify", name) == (0, "two.snac: ok\n", "")
    with pipe("bad.snac", talk[:-3]) as name:
        status, out, err = call("verify", name)
    assert (status, out) == (1, "")
    assert err.startswith("snac: bad.snac")


def test_tokens_are_exported_from_a_named_pipe_read_once(talk: bytes, model: str) -> None:
    grids = []
    for name, data in (("pipe", talk), ("sound", Path("talk.wav").read_bytes())):
        with pipe(name, data) as source:
            status, out, err = call("tokens", "export", source, "-m", model, "-q", "-o", f"{name}.json")
        assert (status, out, err) == (0, "", "")
        grids.append(json.loads(Path(f"{name}.json").read_text())["codes"])
    assert grids[0] == grids[1]
    with pipe("tokens", Path("pipe.json").read_bytes()) as source:
        assert call("tokens", "import", source, "-m", model, "-q", "-o", "x.snac") == (0, "", "")
    assert Path("x.snac").read_bytes() == talk


@pytest.mark.parametrize("command", ["encode", "decode", "info", "verify"])
def test_an_empty_pipe_is_one_line(talk: bytes, model: str, command: str) -> None:
    options = ["-m", model, "-o", "x"] if command in ("encode", "decode") else []
    with pipe("empty", b"") as name:
        status, out, err = call(command, name, *options)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("snac: empty")
    assert not Path("x").exists()


def test_several_pipes_are_a_batch(talk: bytes, model: str) -> None:
    with pipe("a.snac", talk) as one, pipe("b.snac", talk[:-2]) as other:
        status, _, err = call("decode", one, other, "-m", model, "-o", "out")
    assert status == 1
    assert "1 of 2 files decoded, 1 failed" in err
    assert os.listdir("out") == ["a.wav"]


@pytest.mark.skipif(not shutil.which("bash"), reason="process substitution, for which there is no bash")
def test_process_substitution(talk: bytes, model: str, user_environment: dict[str, str]) -> None:
    script = (
        'set -e; snac tokens export <(cat talk.snac) -m "$1" -q -o x.json; test -s x.json\n'
        'snac encode <(cat talk.wav) -m "$1" -q -o x.snac; snac verify -q <(cat x.snac)\n'
        'snac decode <(cat x.snac) -m "$1" -q -o x.wav; snac info --json <(cat x.snac)'
    )
    done = subprocess.run(
        ["bash", "-c", script, "-", model],
        env=user_environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["samples"] == SAMPLES
    assert Path("x.snac").read_bytes() == talk
    assert soundfile.info("x.wav").frames == SAMPLES
