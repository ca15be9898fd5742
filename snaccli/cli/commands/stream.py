"""``snac stream``: tokens to audio while they come."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import numpy as np
import typer

from snaccli.audio import downmix, resample
from snaccli.cli import options, process
from snaccli.cli.commands import tokens
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import waiting
from snaccli.errors import AudioError, ExitStatus, UsageError
from snaccli.io.files import OutputFile, cause, is_stdio, open_output, shown
from snaccli.tokens import Form, TokenError, TokenFileError, flatten
from snaccli.tokens.stream import CUSTOM_TOKEN, CUSTOM_TOKEN_START, Frames, IdReader, Syntax, guessed

if TYPE_CHECKING:
    from snac.engine.streams import DecoderStream, EncoderStream

EXAMPLES = """
model | snac stream -m 24khz --offsets --start-id 128266 | aplay     ids as they are generated
llm | snac stream -m 24khz | ffplay -nodisp -autoexit -              text with <custom_token_N>
snac stream ids.txt -o said.wav                                      from a file or a named pipe
arecord -t raw -f S16_LE -r 48000 | snac stream --encode --pcm s16le --rate 48000 | model
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


class LayoutChoice(str, Enum):
    """How the tokens of a recording are laid out."""

    nested = "nested"
    interleaved = "interleaved"


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
    typer.Option("--pcm", help="Samples without a header, 16-bit or 32-bit floating-point, little-endian."),
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
Encode = Annotated[
    bool,
    typer.Option(
        "--encode",
        help="The other way: samples as --pcm says come in, tokens go out as soon as they are final.",
    ),
]
Rate = Annotated[
    int | None,
    typer.Option(
        "--rate", min=1, metavar="HZ", help="With --encode: of the samples; by default the model's."
    ),
]
Channels = Annotated[
    int,
    typer.Option("--channels", min=1, metavar="N", help="With --encode: of the samples; mixed down to one."),
]
Layout = Annotated[
    LayoutChoice,
    typer.Option(
        "--layout", help="With --encode: ids in depth-first order, or JSON lines with a list for each level."
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
    encode: Encode = False,
    rate: Rate = None,
    channels: Channels = 1,
    layout: Layout = LayoutChoice.interleaved,
    force: options.Force = False,
    device: options.Device = options.CodingDevice.auto,
    threads: options.Threads = None,
) -> ExitStatus:
    """Turn tokens into audio while they come, or with --encode audio into tokens.

    Each sample is written as soon as no later token can change it; the audio is that of decoding all tokens
    at once, and the tokens are those of encoding all samples at once. docs/tokens.md describes the order and
    the ids. With -v the end tells how long the first output took, the longest gap, and the speed.
    """
    console: Console = context.obj
    _check(console, output, pcm, encode, rate, channels)
    process.tune(console)
    with waiting(console, "loading the model"):
        loaded = _Model(model, device.value, threads)
    form = Form(True, offsets, start_id)
    ended: BaseException | None = None
    with _opened(source) as file, contextlib.ExitStack() as stack:
        opened = open_output(output, source=source, overwrite=force)
        work: Callable[[], dict[str, float]]
        if encode and pcm is not None:
            written = _Tokens(stack.enter_context(opened), loaded, form, syntax, layout)
            work = functools.partial(_listen, file, pcm, channels, rate or loaded.rate, loaded, written)
        else:
            start = _start(file)
            kind, form = _read_as(start, syntax, pattern, form)
            order = form.order(loaded.config.vq_strides, loaded.config.codebook_size)
            report = None if on_error is ErrorChoice.stop else lambda error: console.complain(str(error))
            reader = IdReader(order, kind, pattern=pattern or CUSTOM_TOKEN, report=report)
            frames = Frames(order, on_error=on_error.value, report=report, ignore=ignore or ())
            sound = _Sound(stack.enter_context(opened), loaded.rate, pcm)
            chunks = itertools.chain([start], _chunks(file))
            work = functools.partial(_speak, console, chunks, reader, frames, loaded, sound)
        try:
            facts = work()
        except (KeyboardInterrupt, TokenError) as error:
            ended = error  # what came out until then is whole, and stays
    if ended is not None:
        raise ended
    console.emit({"output": output, "model": loaded.name, **facts})
    _tell(console, facts)
    return ExitStatus.OK


def _check(
    console: Console, output: str, pcm: PcmChoice | None, encode: bool, rate: int | None, channels: int
) -> None:
    if is_stdio(output):
        if console.json:
            raise UsageError("--json and the output would both go to standard output; give -o a file")
        if console.stdout.isatty() and not encode:
            raise UsageError("standard output is a terminal; give -o a file, or send the audio into a pipe")
    elif pcm is None and not encode and not output.lower().endswith((".wav", ".wave")):
        raise UsageError(f"{shown(output)}: a stream is written as .wav, or without a header with --pcm")
    if encode and pcm is None:
        raise UsageError("--encode takes samples without a header: say which with --pcm")
    if not encode and (rate is not None or channels != 1):
        raise UsageError("--rate and --channels are of the samples that --encode takes")


def _read_as(start: bytes, syntax: SyntaxChoice, pattern: str | None, form: Form) -> tuple[Syntax, Form]:
    """How the input is to be read; text with <custom_token_N> has offsets, and ids from 10 on."""
    kind: Syntax = guessed(start) if syntax is SyntaxChoice.auto else syntax.value
    if kind == "text" and pattern is None and form == Form(True):
        return kind, Form(True, True, CUSTOM_TOKEN_START)
    return kind, form


def _tell(console: Console, facts: dict[str, float]) -> None:
    console.detail(
        text.joined(
            f"{text.clock(facts['duration_s'])} of audio",
            f"look-ahead {facts['latency_s']:.2f} s",
            f"first output after {facts['first_output_s']:.2f} s",
            f"longest gap {facts['longest_gap_s']:.2f} s",
            f"{facts['x_realtime']:.1f} times real time",
        )
    )


class _Model:
    """A model that streams.

    Attributes:
        name: of the model.
        config: its geometry.
        rate: of its audio, Hz.
    """

    def __init__(self, model: str, device: str, threads: int | None) -> None:
        from snac.engine import build_engine
        from snac.hub.checkpoint import load_checkpoint
        from snaccli.codec.device import Device

        checkpoint = load_checkpoint(model)
        self._engine = build_engine(checkpoint, device=str(Device.parse(device)), threads=threads)
        self.name, self.config = checkpoint.name, checkpoint.config
        self.rate = checkpoint.config.sampling_rate

    def decoder(self) -> DecoderStream:
        """A decoder at the beginning of a stream of one channel."""
        return self._engine.decoder_stream()

    def encoder(self) -> EncoderStream:
        """An encoder at the beginning of a stream of one channel."""
        return self._engine.encoder_stream()


class _Clock:
    """How a stream keeps time: from its first input on."""

    def __init__(self) -> None:
        self._computing = self._gap = self._began = self._first = self._last = 0.0

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """The time of this block is that of the model."""
        started = time.perf_counter()
        self._began = self._began or started
        yield
        self._computing += time.perf_counter() - started

    def out(self) -> None:
        """Some output has gone out."""
        now = time.perf_counter()
        if self._first:
            self._gap = max(self._gap, now - self._last)
        self._first = self._first or now
        self._last = now

    def facts(self, seconds: float, latency: float) -> dict[str, float]:
        """What is told of a stream of so many seconds of audio."""
        return {
            "duration_s": seconds,
            "latency_s": latency,
            "first_output_s": self._first - self._began if self._first else 0.0,
            "longest_gap_s": self._gap,
            "x_realtime": seconds / self._computing if self._computing else 0.0,
        }


def _speak(
    console: Console,
    chunks: Iterable[bytes],
    reader: IdReader,
    frames: Frames,
    model: _Model,
    sound: _Sound,
) -> dict[str, float]:
    """Decodes and writes what is final, chunk by chunk; at an error, first all that came before it."""
    decoder, clock = model.decoder(), _Clock()

    def decode(whole: list[list[int]] | None) -> None:
        with clock.computing():
            levels = None if whole is None else frames.levels(whole)
            block = decoder.push(levels, ended=levels is None)[0]
        if len(block):
            sound.write(block)
            clock.out()

    try:
        for ids in itertools.chain(map(reader.push, chunks), [reader.push(b"", ended=True)]):
            _in_parts(frames.push(ids), decode)
    finally:
        decode(None)
        sound.finish()
    if frames.pending:
        console.note(f"the last frame has {frames.pending} of {frames.length} tokens and is left out")
    seconds = sound.samples / model.rate
    facts = clock.facts(seconds, decoder.latency / model.rate)
    return {"samples": sound.samples, "errors": frames.errors, **facts}


def _in_parts(frames: Iterable[list[int]], decode: Callable[[list[list[int]]], None]) -> None:
    """Decodes frames as they are made, many at once but not all; those before an error too."""
    whole: list[list[int]] = []
    try:
        for frame in frames:
            whole.append(frame)
            if len(whole) == _FRAMES:
                decode(whole)
                whole = []
    finally:
        if whole:
            decode(whole)


def _listen(
    file: BinaryIO, pcm: PcmChoice, channels: int, rate: int, model: _Model, written: _Tokens
) -> dict[str, float]:
    """Encodes and writes what is final, block by block."""
    encoder, clock, samples = model.encoder(), _Clock(), 0

    def encode(block: np.ndarray | None) -> None:
        with clock.computing():
            codes = encoder.push(block, ended=block is None)
        if codes[0].size:
            written.write(codes)
            clock.out()

    for block in resample(downmix(_samples(file, pcm, channels)), rate, model.rate, 1):
        samples += len(block)
        encode(np.ascontiguousarray(block.T))
    if samples:
        encode(None)
    facts = clock.facts(samples / model.rate, encoder.latency / model.rate)
    return {"tokens": written.tokens, "samples": samples, **facts}


def _samples(file: BinaryIO, pcm: PcmChoice, channels: int) -> Iterator[np.ndarray]:
    """Blocks of float32 (n, channels) as they come; a last frame that is not whole is left out."""
    kind = np.dtype("<f4" if pcm is PcmChoice.f32le else "<i2")
    size, rest = kind.itemsize * channels, b""
    for chunk in _chunks(file):
        data = rest + chunk
        whole = len(data) // size * size
        rest = data[whole:]
        block = np.frombuffer(data[:whole], kind).reshape(-1, channels).astype(np.float32)
        if not np.isfinite(block).all():
            raise AudioError("the input holds a sample that is not a finite number; check --pcm")
        if len(block):
            yield block if pcm is PcmChoice.f32le else block / np.float32(32768)


class _Tokens:
    """Codes on their way out: a frame a line of ids, or JSON lines, or text.

    Attributes:
        tokens: written so far.
    """

    def __init__(
        self, out: OutputFile, model: _Model, form: Form, syntax: SyntaxChoice, layout: LayoutChoice
    ) -> None:
        nested = layout is LayoutChoice.nested
        if nested and (form != Form(True) or syntax in (SyntaxChoice.integers, SyntaxChoice.text)):
            raise UsageError("--layout nested gives JSON lines of codes: leave the other options out")
        if syntax is SyntaxChoice.text and form == Form(True):
            form = Form(True, True, CUSTOM_TOKEN_START)
        self._order = form.order(model.config.vq_strides, model.config.codebook_size)
        self._out, self._syntax, self._nested = out, syntax, nested
        self.tokens = 0

    def write(self, codes: Sequence[np.ndarray]) -> None:
        """Writes codes (1, n) a level, of whole frames."""
        self.tokens += sum(level.size for level in codes)
        if self._nested:
            line = json.dumps({"codes": [level[0].tolist() for level in codes]})
        else:
            ids = flatten([level[0].astype(np.int64) for level in codes], self._order).tolist()
            line = {
                SyntaxChoice.json: lambda: json.dumps({"ids": ids}),
                SyntaxChoice.text: lambda: "".join(f"<custom_token_{value}>" for value in ids),
            }.get(self._syntax, lambda: " ".join(map(str, ids)))()
        self._out.write(line.encode() + (b"" if self._syntax is SyntaxChoice.text else b"\n"))
        self._out.flush()


class _Sound:
    """Samples on their way out: none is kept back.

    Args:
        out: where they go.
        rate: in Hz.
        pcm: without a header; None for WAV of 16 bits.

    Attributes:
        samples: written so far.
    """

    def __init__(self, out: OutputFile, rate: int, pcm: PcmChoice | None) -> None:
        self._out, self._rate, self._pcm = out, rate, pcm
        self.samples = 0
        if pcm is None:
            out.write(self._header(_OPEN))
            out.flush()

    def write(self, block: np.ndarray) -> None:
        """Writes float samples (n,)."""
        if self._pcm is PcmChoice.f32le:
            data = block.astype("<f4").tobytes()
        else:
            data = np.rint(np.clip(block * 32768.0, -32768, 32767)).astype("<i2").tobytes()
        self._out.write(data)
        self._out.flush()
        self.samples += len(block)

    def finish(self) -> None:
        """Puts the length into the header, where that can still be reached."""
        if self._pcm is None and self._out.seekable and 2 * self.samples < _OPEN - 36:
            self._out.seek(0)
            self._out.write(self._header(2 * self.samples))
            self._out.seek(0, 2)

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
        raise TokenFileError(f"cannot read {shown(source)}: {cause(error)}") from error
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
