"""examples/speak.py beside a stand-in for a server of a language model, on the loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli.codec import Codec
from snaccli.codec.recording import Recording
from snaccli.codes import Codes
from snaccli.tokens import Interleaving, flatten

ROOT = Path(__file__).resolve().parent.parent
FRAMES = 12


@pytest.fixture(scope="module")
def levels():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, FRAMES * count) for count in (1, 2, 4, 8)]


class Server(ThreadingHTTPServer):
    """Answers with what it is told; keeps what it was asked."""

    answer: list[str]
    status = 200
    asked: list[dict]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []


class Handler(BaseHTTPRequestHandler):
    """Completions as server-sent events, a piece of text each."""

    server: Server

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for text in self.server.answer:
            self.wfile.write(f"data: {text}\n\n".encode())
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def events(text: str, size: int = 7) -> list[str]:
    """A completion cut anywhere, as one event a piece."""
    pieces = [text[low : low + size] for low in range(0, len(text), size)]
    return [json.dumps({"choices": [{"text": piece}]}) for piece in pieces] + ["[DONE]"]


def speak(
    server: Server, environment: dict[str, str], model: Path, folder: Path
) -> subprocess.CompletedProcess[str]:
    url = f"http://127.0.0.1:{server.server_port}/v1"
    command = [sys.executable, ROOT / "examples" / "speak.py", "Hello.", "--url", url, "--model", model]
    return subprocess.run(
        [*command, "-o", "said.wav"], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_what_a_model_says_is_what_decoding_the_whole_gives(
    server: Server, levels, tmp_path: Path, user_environment, tiny_model_folder: Path
) -> None:
    ids = flatten(levels, Interleaving((8, 4, 2, 1), 256, True, 10)).tolist()
    said = "<custom_token_1>" + "".join(f"<custom_token_{value}>" for value in ids) + "<custom_token_2>"
    server.answer = events(said)
    done = speak(server, user_environment, tiny_model_folder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the first sound after" in done.stdout
    assert "Hello." in server.asked[0]["prompt"]
    assert server.asked[0]["stream"] is True
    codec = Codec.load(str(tiny_model_folder), device="cpu")
    grid = Codes(tuple(level[None].astype(np.uint16) for level in levels), codec.strides, 256)
    whole = Recording(grid, "tiny", codec.fingerprint, codec.rate, codec.rate, FRAMES * 256)
    wanted = np.concatenate(list(codec.decode(whole)))[:, 0]
    found = soundfile.read(tmp_path / "said.wav", dtype="float32")[0]
    assert len(found) == len(wanted)
    assert np.abs(found - wanted).max() < 1e-4

    server.answer = events(said.replace(f"<custom_token_{ids[20]}>", "", 1))  # a token is lost
    done = speak(server, user_environment, tiny_model_folder, tmp_path)
    assert done.returncode == 0
    assert "position 20 " in done.stderr
    assert soundfile.info(tmp_path / "said.wav").frames == (FRAMES - 1) * 256


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (500, ["no model"], "the server answers 500"),
        (200, ["what?"], "sends no completion: what?"),
        (200, events("I cannot say that."), "holds no whole frame"),
    ],
)
def test_what_goes_wrong_is_one_line(
    server: Server, status, answer, message, tmp_path: Path, user_environment, tiny_model_folder: Path
) -> None:
    server.status, server.answer = status, answer
    done = speak(server, user_environment, tiny_model_folder, tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert message in done.stderr
