"""``snac stream``: tokens to audio while they come."""

from __future__ import annotations

import contextlib
import itertools
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Annotated, Any, BinaryIO, cast

import numpy as np
import typer

from snaccli.cli import options
from snaccli.cli.commands import tokens
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import waiting
from snaccli.errors import ExitStatus, UsageError
from snaccli.io.files import OutputFile, cause, is_stdio, open_output
from snaccli.tokens import Form, TokenError, TokenFileError
from snaccli.tokens.stream import CUSTOM_TOKEN, CUSTOM_TOKEN_START, Frames, IdReader, Syntax, guessed

EXAMPLES = """
model | snac stream -m 24khz --offsets --start-id 128266 | aplay     ids as they are generated
llm | snac stream -m 24khz | ffplay -nodisp -autoexit -              text with <custom_token_N>
snac stream ids.txt -o said.wav                                      from a file or a named pipe
snac stream --pcm s16le | sox -t raw -r 44100 -e signed -b 16 -c 1 - out.flac
"""

_READ = 1 << 16
_FRAMES = 32  # decoded at once at most: audio flows even from a file
_OPEN = 0xFFFF_FFFF  # as size in the header of a WAV file of unknown length


class SyntaxChoice(str, Enum):
    """How ids are written."""

    auto = "auto"
    integers = "integers"
    json = "json"
    text = "text"


class ErrorChoice(str, Enum):
    """What becomes of an id that is out of range or out of order."""

    stop = "stop"
    skip_frame = "skip-frame"
    hold = "hold"


class PcmChoice(str, Enum):
    """Samples without a header."""

    s16le = "s16le"
    f32le = "f32le"


Input = Annotated[
    str,
    typer.Argument(
        metavar="[INPUT]",
        show_default=False,
        help="Tokens: standard input by default (-), or a file or a named pipe.",
    ),
]
Model = Annotated[str, options.model("A model's name or folder: whose tokens these are.")]
Output = Annotated[
    str,
    typer.Option(
        "-o", "--output", metavar="PATH", help="A WAV file; by default standard output (-), as WAV too."
    ),
]
Pcm = Annotated[
    PcmChoice | None,
    typer.Option(
        "--pcm", help="Write samples without a header, 16-bit or 32-bit floating-point, little-endian."
    ),
]
SyntaxOption = Annotated[
    SyntaxChoice,
    typer.Option(
        "--syntax",
        help="Of the input: integers separated by white space; JSON lines with ids or codes; text in which "
        "ids stand as --pattern says. By default what the first character suggests.",
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="REGEX",
        show_default=False,
        help="How an id stands in text, the number in the first group. By default <custom_token_N>, with "
        "--offsets and --start-id 10.",
    ),
]
Ignore = Annotated[
    list[int] | None,
    typer.Option("--ignore", metavar="ID", help="Pass over this id, such as the one that ends speech."),
]
OnErrorOption = Annotated[
    ErrorChoice,
    typer.Option(
        "--on-error",
        help="At an id out of range or out of order: stop; leave its frame out; or hold the code that stood "
        "at its place in the frame before.",
    ),
]


def stream(
    context: typer.Context,
    source: Input = "-",
    model: Model = options.DEFAULT_MODEL,
    output: Output = "-",
    pcm: Pcm = None,
    syntax: SyntaxOption = SyntaxChoice.auto,
    pattern: Pattern = None,
    offsets: tokens.Offsets = False,
    start_id: tokens.StartId = 0,
    ignore: Ignore = None,
    on_error: OnErrorOption = ErrorChoice.stop,
    force: options.Force = False,
    device: options.Device = options.CodingDevice.auto,
    threads: options.Threads = None,
) -> ExitStatus:
    """Turn tokens into audio while they come.

    Each sample is written as soon as no later token can change it; the audio is that of decoding all tokens
    at once. docs/tokens.md describes the order and the ids. With -v the end tells how long the first audio
    took, the longest gap, and the speed.
    """
    console: Console = context.obj
    if is_stdio(output):
        if console.json:
            raise UsageError("--json and the audio would both go to standard output; give -o a file")
        if console.stdout.isatty():
            raise UsageError("standard output is a terminal; give -o a file, or send the audio into a pipe")
    elif pcm is None and not output.lower().endswith((".wav", ".wave")):
        raise UsageError(
            f"{text.display(output)}: a stream is written as .wav, or without a header with --pcm"
        )
    with waiting(console, "loading the model"):
        decoder = _Decoder(model, device.value, threads)
    console.detail(f"model {decoder.name}, latency {decoder.latency / decoder.rate:.2f} s of audio")
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_opened(source))
        start = _start(file)
        kind: Syntax = guessed(start) if syntax is SyntaxChoice.auto else syntax.value
        form = Form(True, offsets, start_id)
        if kind == "text" and pattern is None and not (offsets or start_id):
            form = Form(True, True, CUSTOM_TOKEN_START)
        order = form.order(decoder.strides, decoder.codebook_size)
        report = None if on_error is ErrorChoice.stop else lambda error: console.complain(str(error))
        reader = IdReader(order, kind, pattern=pattern or CUSTOM_TOKEN, report=report)
        frames = Frames(order, on_error=on_error.value, report=report, ignore=ignore or ())
        out = stack.enter_context(open_output(output, source=source, overwrite=force))
        sound = _Sound(out, decoder.rate, pcm)
        try:
            _speak(itertools.chain([start], _chunks(file)), reader, frames, decoder, sound)
        except (KeyboardInterrupt, TokenError):
            sound.finish()  # what was said until then is whole
            stack.close()
            raise
        sound.finish()
    if frames.pending:
        console.note(f"the last frame has {frames.pending} of {order.frame_length} tokens and is left out")
    console.detail(sound.told())
    console.emit({"output": output, "model": decoder.name, "errors": frames.errors, **sound.facts()})
    return ExitStatus.OK


class _Decoder:
    """A model's streaming decoder: frames of codes in, float32 samples out."""

    def __init__(self, model: str, device: str, threads: int | None) -> None:
        import torch

        from snac.streaming import StreamingDecoder
        from snaccli.codec import Codec

        self._codec = Codec.load(model, device=device, threads=threads)
        self._decoder = StreamingDecoder(self._codec.engine.model)
        self._tensor = torch.from_numpy
        self.name, self.rate, self.latency = self._codec.name, self._codec.rate, self._decoder.latency
        self.strides, self.codebook_size = self._codec.strides, self._codec.codebook_size

    def push(self, levels: list[np.ndarray]) -> np.ndarray:
        return self._decoder.push([self._tensor(level) for level in levels]).numpy().reshape(-1)

    def finish(self) -> np.ndarray:
        return self._decoder.finish().numpy().reshape(-1)


def _speak(
    chunks: Iterable[bytes], reader: IdReader, frames: Frames, decoder: _Decoder, sound: _Sound
) -> None:
    """Decodes and writes what is final, chunk by chunk; at an error, first all that came before it."""
    try:
        for ids in itertools.chain(map(reader.push, chunks), [reader.push(b"", ended=True)]):
            whole: list[list[int]] = []
            try:
                for frame in frames.push(ids):
                    whole.append(frame)
                    if len(whole) == _FRAMES:
                        sound.write(decoder.push, frames.levels(whole))
                        whole = []
            finally:
                if whole:
                    sound.write(decoder.push, frames.levels(whole))
    finally:
        sound.write(decoder.finish)


class _Sound:
    """Samples on their way out, and how they keep time.

    Args:
        out: where they go: at once, none is kept back.
        rate: in Hz.
        pcm: without a header; None for WAV of 16 bits.
    """

    def __init__(self, out: OutputFile, rate: int, pcm: PcmChoice | None) -> None:
        self._out, self._rate, self._pcm = out, rate, pcm
        self._samples, self._computing, self._gap = 0, 0.0, 0.0
        self._began = self._first = self._last = 0.0
        if pcm is None:
            out.write(self._header(_OPEN))
            out.flush()

    def write(self, decode: Callable[..., np.ndarray], *codes: Any) -> None:
        """Decodes, and writes what comes of it."""
        started = time.perf_counter()
        self._began = self._began or started
        block = decode(*codes)
        self._computing += time.perf_counter() - started
        if not len(block):
            return
        if self._pcm is PcmChoice.f32le:
            data = block.astype("<f4").tobytes()
        else:
            data = np.rint(np.clip(block * 32768.0, -32768, 32767)).astype("<i2").tobytes()
        self._out.write(data)
        self._out.flush()
        now = time.perf_counter()
        if self._samples:
            self._gap = max(self._gap, now - self._last)
        else:
            self._first = now
        self._last = now
        self._samples += len(block)

    def finish(self) -> None:
        """Puts the length into the header, where that can still be reached."""
        if self._pcm is None and self._out.seekable and 2 * self._samples < _OPEN - 36:
            self._out.seek(0)
            self._out.write(self._header(2 * self._samples))
            self._out.seek(0, 2)

    def facts(self) -> dict[str, float]:
        """Samples, seconds of audio, seconds to the first audio, the longest gap, times real time."""
        seconds = self._samples / self._rate
        return {
            "samples": self._samples,
            "duration_s": seconds,
            "first_audio_s": self._first - self._began if self._samples else 0.0,
            "longest_gap_s": self._gap,
            "x_realtime": seconds / self._computing if self._computing else 0.0,
        }

    def told(self) -> str:
        """The same on one line."""
        facts = self.facts()
        return text.joined(
            f"{text.clock(facts['duration_s'])} of audio",
            f"first after {facts['first_audio_s']:.2f} s",
            f"longest gap {facts['longest_gap_s']:.2f} s",
            f"{facts['x_realtime']:.1f} times real time",
        )

    def _header(self, size: int) -> bytes:
        whole = min(size + 36, _OPEN)
        form = struct.pack("<HHIIHH", 1, 1, self._rate, 2 * self._rate, 2, 16)
        head = b"RIFF" + struct.pack("<I", whole) + b"WAVEfmt " + struct.pack("<I", 16) + form
        return head + b"data" + struct.pack("<I", size)


@contextlib.contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    """The input as it comes: nothing waits for its end."""
    if is_stdio(source):
        stream = getattr(sys.stdin, "buffer", None)
        if stream is None or stream.isatty():
            raise UsageError("standard input is a terminal: pipe tokens in, or name a file")
        yield cast(BinaryIO, stream)
        return
    try:
        file = open(source, "rb")  # noqa: SIM115 (closed below; failures of reading are not those of opening)
    except (OSError, ValueError) as error:
        raise TokenFileError(f"cannot read {text.display(source)}: {cause(error)}") from error
    with file:
        yield file


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """What is there, as soon as it is there."""
    while data := file.read1(_READ):  # type: ignore[attr-defined]
        yield data


def _start(file: BinaryIO) -> bytes:
    """The first bytes that are more than white space; white space or none where the input has no more."""
    start = b""
    for chunk in _chunks(file):
        start += chunk
        if start.strip():
            break
    return start
