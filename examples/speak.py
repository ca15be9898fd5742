"""A language model that speaks, heard while it speaks.

    python examples/speak.py "Hello there." --url http://127.0.0.1:8000/v1 [--llm NAME] [-o said.wav]

The text goes to an OpenAI-compatible completions endpoint (vLLM, llama.cpp's server, LM Studio, ...) that
serves a model such as Orpheus, which answers with ``<custom_token_N>``, seven to a frame of ``24khz``. The
answer is read as it comes, and each sample is written as soon as no later token can change it: to a WAV
file, or to the sound card through the first of aplay, ffplay and play (of sox) that is installed. Only
Python's own HTTP client is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from snac.engine import build_engine
from snac.hub.checkpoint import load_checkpoint
from snac.streaming import StreamingDecoder, stream
from snaccli.audio import AudioWriter
from snaccli.errors import SnacError
from snaccli.tokens import Interleaving, TokenError
from snaccli.tokens.stream import CUSTOM_TOKEN_START, frames

PROMPT = (
    "<custom_token_3><|begin_of_text|>{voice}: {text}<|eot_id|>"
    "<custom_token_4><custom_token_5><custom_token_1>"
)
PLAYERS = {
    "aplay": ["-q", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", "{rate}"],
    "ffplay": ["-v", "error", "-nodisp", "-autoexit", "-f", "s16le", "-ar", "{rate}", "-i", "-"],
    "play": ["-q", "-t", "raw", "-e", "signed", "-b", "16", "-c", "1", "-r", "{rate}", "-"],
}


class SpeechError(Exception):
    """What a user can mend, on one line."""


def completions(options: argparse.Namespace) -> Iterator[str]:
    """The pieces of text of a completion, each as it comes."""
    url = urlsplit(options.url.rstrip("/") + "/completions")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise SpeechError(f"{options.url} is no address of a server, such as http://127.0.0.1:8000/v1")
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    question = {
        "model": options.llm,
        "prompt": options.prompt.format(voice=options.voice, text=options.text),
        "max_tokens": options.most,
        "temperature": options.temperature,
        "stream": True,
    }
    headers = {"Content-Type": "application/json"}
    if options.key:
        headers["Authorization"] = f"Bearer {options.key}"
    connection = kind(url.hostname, url.port, timeout=options.timeout)
    with contextlib.closing(connection):
        try:
            connection.request("POST", url.path, json.dumps(question), headers)
            answer = connection.getresponse()
            if answer.status != 200:
                words = " ".join(answer.read(200).decode(errors="replace").split())
                raise SpeechError(f"the server answers {answer.status}: {words}")
            for line in answer:  # server-sent events
                name, _, data = line.decode("utf-8", "replace").strip().partition(":")
                if name == "data" and data.strip() == "[DONE]":
                    return
                if name == "data":
                    yield piece(data)
        except (OSError, http.client.HTTPException) as error:
            raise SpeechError(f"{options.url}: {error or type(error).__name__}") from error


def piece(data: str) -> str:
    """The text of one event."""
    try:
        choice: dict[str, Any] = json.loads(data)["choices"][0]
        return str(choice.get("text") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise SpeechError(f"the server sends no completion: {data.strip()[:80]}") from error


@contextlib.contextmanager
def sound_card(rate: int) -> Iterator[Any]:
    """What takes blocks of float32 samples (n,) and plays them."""
    player = next((name for name in PLAYERS if shutil.which(name)), None)
    if player is None:
        raise SpeechError(f"none of {', '.join(PLAYERS)} is installed: name a file with -o")
    command = [player, *(part.format(rate=rate) for part in PLAYERS[player])]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:

        def write(block: np.ndarray) -> None:
            assert process.stdin is not None
            process.stdin.write(np.rint(np.clip(block * 32768, -32768, 32767)).astype("<i2").tobytes())
            process.stdin.flush()

        yield write


@contextlib.contextmanager
def wav_file(path: str, rate: int) -> Iterator[Any]:
    """The same to a file."""
    with AudioWriter(path, rate, 1, overwrite=True) as writer:
        yield lambda block: writer.write(block[:, None])


def speak(options: argparse.Namespace) -> None:
    engine = build_engine(load_checkpoint(options.model), threads=1)
    config = engine.config
    rate = config.sampling_rate
    order = Interleaving(config.vq_strides, config.codebook_size, offsets=True, start_id=CUSTOM_TOKEN_START)

    def complain(error: TokenError) -> None:
        print(f"speak.py: {error}", file=sys.stderr)

    began, first, samples = time.perf_counter(), None, 0
    pieces = completions(options)
    codes = frames(pieces, order, on_error="skip-frame", report=complain)
    out = wav_file(options.output, rate) if options.output else sound_card(rate)
    with out as write, stream(codes, StreamingDecoder(engine)) as blocks:
        for block in blocks:
            if first is None:
                first = time.perf_counter() - began
            write(block[0])
            samples += block.shape[-1]
        if first is None:
            raise SpeechError("the server's answer holds no whole frame of tokens")
    seconds = time.perf_counter() - began
    print(f"{samples / rate:.1f} s said in {seconds:.1f} s; the first sound after {first:.2f} s")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text")
    parser.add_argument("--url", required=True, help="of the endpoint, without /completions")
    parser.add_argument("--llm", default="orpheus", help="the language model's name at the server")
    parser.add_argument("--key", default="", help="of the server, if it wants one")
    parser.add_argument("--voice", default="tara")
    parser.add_argument("--prompt", default=PROMPT, help="with {voice} and {text}")
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--most", type=int, default=8192, help="tokens")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds without any answer")
    parser.add_argument("--model", default="24khz", help="of SNAC, whose tokens the language model speaks")
    parser.add_argument("-o", "--output", help="a WAV file; without it, the sound card")
    try:
        speak(parser.parse_args())
    except (SpeechError, SnacError, OSError) as error:
        print(f"speak.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
