"""``snac stream``: tokens to audio while they come."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from snaccli.cli import options, process
from snaccli.cli.commands.streaming import Sound, Tokens, chunks, listen, speak
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import waiting
from snaccli.container import MAGIC
from snaccli.errors import ExitStatus, UsageError
from snaccli.io.files import cause, is_stdio, open_output, shown
from snaccli.tokens import Form, Interleaving, TokenError, TokenFileError
from snaccli.tokens.stream import CUSTOM_TOKEN, CUSTOM_TOKEN_START, Frames, IdReader, Syntax, guessed

if TYPE_CHECKING:
    from snaccli.codec import Codec

EXAMPLES = """
model | snac stream -m 24khz --offsets --start-id 128266 | aplay     ids as they are generated
llm | snac stream -m 24khz | ffplay -nodisp -autoexit -              text with <custom_token_N>
snac stream ids.txt -o said.wav                                      from a file or a named pipe
arecord -t raw -f S16_LE -r 48000 | snac stream --encode --pcm s16le --rate 48000 | model
snac stream --pcm s16le | sox -t raw -r 44100 -e signed -b 16 -c 1 - out.flac
"""


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
ModelName = Annotated[str, options.model("A model's name or folder: whose tokens these are.")]
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
    options.LayoutChoice,
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
    model: ModelName = options.DEFAULT_MODEL,
    output: Output = "-",
    pcm: Pcm = None,
    syntax: SyntaxOption = SyntaxChoice.auto,
    pattern: Pattern = None,
    offsets: options.Offsets = False,
    start_id: options.StartId = 0,
    ignore: Ignore = None,
    on_error: OnErrorOption = ErrorChoice.stop,
    encode: Encode = False,
    rate: Rate = None,
    channels: Channels = 1,
    layout: Layout = options.LayoutChoice.interleaved,
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
        from snaccli.codec import Codec

        codec = Codec.load(model, device=device.value, threads=threads, prior=False)
    form = Form(True, offsets, start_id)
    ended: BaseException | None = None
    with _opened(source) as file, contextlib.ExitStack() as stack:
        opened = open_output(output, source=source, overwrite=force)
        work: Callable[[], dict[str, float]]
        reader: IdReader | None = None
        if encode and pcm is not None:
            nested = layout is options.LayoutChoice.nested
            written = Tokens(
                stack.enter_context(opened), codec, _written_as(form, syntax, nested), syntax.value, nested
            )
            work = functools.partial(listen, file, pcm.value, channels, rate or codec.rate, codec, written)
        else:
            blank, start = _start(file)
            _check_text(source, start, syntax)
            kind, order = _read_as(start, syntax, pattern, form, codec)
            report = None if on_error is ErrorChoice.stop else lambda error: console.complain(str(error))
            reader = IdReader(order, kind, pattern=pattern or CUSTOM_TOKEN, report=report)
            frames = Frames(order, on_error=on_error.value, report=report, ignore=ignore or ())
            sound = Sound(stack.enter_context(opened), codec.rate, None if pcm is None else pcm.value)
            parts = itertools.chain(_lines(blank), [start], chunks(file))
            work = functools.partial(speak, parts, reader, frames, codec, sound, console.note)
        try:
            facts = work()
        except (KeyboardInterrupt, TokenError) as error:
            ended = error  # what came out until then is whole, and stays
        else:
            if reader is not None:
                _check_found(source, start, kind, reader)
    if ended is not None:
        raise ended
    console.emit({"output": output, "model": codec.name, **facts})
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


def _read_as(
    start: bytes, syntax: SyntaxChoice, pattern: str | None, form: Form, codec: Codec
) -> tuple[Syntax, Interleaving]:
    """How the input is to be read; text with <custom_token_N> has offsets, and ids from 10 on."""
    kind: Syntax = guessed(start) if syntax is SyntaxChoice.auto else syntax.value
    if kind == "text" and pattern is None and form == Form(True):
        form = Form(True, True, CUSTOM_TOKEN_START)
    return kind, form.order(codec.strides, codec.codebook_size)


def _written_as(form: Form, syntax: SyntaxChoice, nested: bool) -> Form:
    """How tokens are to be written, likewise."""
    if nested and (form != Form(True) or syntax in (SyntaxChoice.integers, SyntaxChoice.text)):
        raise UsageError("--layout nested gives JSON lines of codes: leave the other options out")
    if syntax is SyntaxChoice.text and form == Form(True):
        return Form(True, True, CUSTOM_TOKEN_START)
    return form


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


@contextlib.contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    """The input as it comes: nothing waits for its end."""
    if is_stdio(source):
        stream = getattr(sys.stdin, "buffer", None)
        if stream is None or stream.isatty():
            state = "closed" if sys.stdin is None else "a terminal"
            raise UsageError(f"standard input is {state}: pipe tokens in, or name a file")
        yield cast(BinaryIO, stream)
        return
    try:
        file = open(source, "rb")  # noqa: SIM115 (closed below; failures of reading are not those of opening)
    except (OSError, ValueError) as error:
        raise TokenFileError(f"cannot read {shown(source)}: {cause(error)}") from error
    with file:
        yield file


def _start(file: BinaryIO) -> tuple[int, bytes]:
    """The first bytes that are more than white space, and how many lines of white space were before them.

    The bytes are white space, or none, where the input has no more.
    """
    blank, start = 0, b""
    for chunk in chunks(file):
        if chunk.strip():
            return blank, start + chunk
        blank += start.count(b"\n")
        start = chunk
    return blank, start


_LINES = 1 << 16  # at a time


def _lines(count: int) -> Iterator[bytes]:
    """So many empty lines, some at a time: errors tell the number of a line."""
    while count > 0:
        yield b"\n" * min(count, _LINES)
        count -= _LINES


_AUDIO = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"FORM")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1d\x7f]")
"""No text holds these; white space, escape sequences of a terminal, and separators of JSON it may."""


def _check_text(source: str, start: bytes, syntax: SyntaxChoice) -> None:
    """Refuses what begins as a file of another kind does.

    Raises:
        TokenFileError: it does.
    """
    if not _CONTROL.search(start):
        return
    if start.startswith(MAGIC):
        problem = "is a .snac file: use 'snac decode'"
    elif start.startswith(_AUDIO):
        problem = "is an audio file: use 'snac encode', or give --encode samples without a header"
    elif syntax is SyntaxChoice.auto:
        problem = "is no text: give ids, JSON lines, or text with tokens, in UTF-8"
    else:
        return
    raise TokenFileError(f"{shown(source)} {problem}")


def _check_found(source: str, start: bytes, kind: Syntax, reader: IdReader) -> None:
    """Refuses text in which no token stood; a model that said nothing at all is no error.

    Raises:
        TokenFileError: there was none.
    """
    if kind == "text" and start.strip() and not reader.position:
        raise TokenFileError(
            f"{shown(source)}: no token found in the text; --pattern says how they stand there"
        )
