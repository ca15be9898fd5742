"""``snac prior``: learns what a model's tokens are like, for smaller files, and tells what a prior holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snaccli.cli import options
from snaccli.cli.plan import find_sources
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import CaptionBar
from snaccli.errors import ExitStatus, ModelMismatchError, SnacError, UsageError, printable, shown

if TYPE_CHECKING:
    from snaccli.codec import Codec
    from snaccli.codes import Codes
    from snaccli.entropy.prior import Prior
    from snaccli.training.prior import PriorConfig, Report

TRAIN_EXAMPLES = """
snac prior train recordings -o prior.safetensors
snac prior train coded/ -m runs/speech/model -o runs/speech/model/prior.safetensors --minutes 40
"""
SHOW_EXAMPLES = """
snac prior show prior.safetensors
"""

_HELD_OUT = 20  # every so manieth recording is measured by, not learned from
_LINE_SECONDS = 10.0
_TOKEN_FILES = (".json", ".npz", ".jsonl")
_PACKED = ".npy"


def train(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Recordings, packed sets (.npy), .snac files, tokens (.json, .npz, .jsonl), or folders.",
        ),
    ],
    output: Annotated[str, typer.Option("-o", "--output", metavar="PRIOR", help="The file to write.")],
    model: Annotated[
        str, options.model("The model whose tokens to learn: a name, a folder, or owner/name on the Hub.")
    ] = options.DEFAULT_MODEL,
    force: options.Force = False,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.01, metavar="N", help="How long to learn.")
    ] = 20.0,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, metavar="N", help="How many steps to learn instead.")
    ] = None,
    speeds: Annotated[
        list[float] | None,
        typer.Option(
            "--speed",
            min=0.5,
            max=2.0,
            metavar="X",
            help="Learn audio played at this speed too, as of other voices; may be given several times.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init", metavar="PRIOR", help="Begin from this one, of the model before it was tuned."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of the random numbers.")] = 0,
    device: options.Device = options.CodingDevice.auto,
    threads: options.Threads = None,
) -> ExitStatus:
    """Learn an entropy model for a model's tokens.

    Ctrl-C keeps what is learned so far in PRIOR.state; the same command goes on from there. Every twentieth
    recording is not learned from: the bits a token that are shown are of these.
    """
    console: Console = context.obj
    from snaccli.codec import Codec
    from snaccli.entropy.prior import load, save
    from snaccli.io.files import check_output

    check_output(output, overwrite=force)
    earlier = None if init is None else load(init)
    sources = find_sources(inputs, wanted=_is_wanted, kind="recording")
    for name, error in sources.problems:
        console.error(error, name)
    if not sources.files:
        return ExitStatus.FAILED
    codec = Codec.load(model, device=device.value, threads=threads, prior=False)
    with CaptionBar(console) as bar:
        told = _Terminal(console, bar)
        names = [name for name, _ in sources.files]
        recordings = [grids for grids in _recordings(names, codec, speeds or (), told) if grids[0].frames]
        if told.failures and len(recordings) < 2:  # those have been told of
            return ExitStatus.FAILED
        from snaccli.training.prior import PriorConfig

        # What another has learned is not to be unlearned at first.
        rate = PriorConfig.rate if earlier is None else PriorConfig.rate / 2
        config = PriorConfig(minutes=minutes, steps=steps, seed=seed, rate=rate)
        state = Path(f"{output}.state")
        try:
            prior = _learn(recordings, codec, config, earlier, state, told)
        except KeyboardInterrupt as error:
            if state.exists():
                ended = str(error) or "interrupted"
                error.args = (f"{ended}: what was learned is in {shown(state)}; the same command goes on",)
            raise
    save(prior, output)
    _tell(console, prior, output)
    return ExitStatus.FAILED if told.failures or sources.problems else ExitStatus.OK


def show(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="PRIOR", help="A file that 'snac prior train' wrote.")],
) -> ExitStatus:
    """Tell which model a prior is for, and how it was learned."""
    from snaccli.entropy.prior import load

    _tell(context.obj, load(file), file)
    return ExitStatus.OK


def _learn(
    recordings: list[list[Codes]],
    codec: Codec,
    config: PriorConfig,
    init: Prior | None,
    state: Path,
    told: _Terminal,
) -> Prior:
    """Trains a prior on all but every twentieth recording, which is measured as it is.

    Args:
        recordings: of each its tokens, then those at other speeds.
        codec: of the tokens.
        config: of the training.
        init: to begin from.
        state: where the training is kept.
        told: how it goes.

    Raises:
        UsageError: there are fewer than two recordings.
    """
    every = max(2, min(_HELD_OUT, len(recordings)))
    held_out = [grids[0] for grids in recordings[::every]]
    learned = [grid for number, grids in enumerate(recordings) if number % every for grid in grids]
    if not learned:
        raise UsageError("a prior needs at least two recordings: one to learn from, one to measure by")
    from snaccli.training.prior import train_prior

    return train_prior(
        learned,
        held_out,
        codec.codebooks,
        model=codec.name,
        fingerprint=codec.fingerprint,
        config=config,
        init=init,
        state=state,
        report=told.report,
    )


def _recordings(
    names: list[str], codec: Codec, speeds: Sequence[float], told: _Terminal
) -> Iterator[list[Codes]]:
    """Yields the tokens of each recording, channel by channel as they are stored, audio mixed down.

    Those of audio are followed by its tokens at other speeds. What cannot be read is named and left out.
    """
    for number, name in enumerate(names):
        told.advance(number / len(names), f"reading {number + 1} of {len(names)}")
        try:
            for grids in _grids_of(name, codec, speeds, told.within(number, len(names))):
                if len(grids[0].levels) != len(codec.strides):
                    raise ModelMismatchError(
                        f"has {len(grids[0].levels)} levels of {len(codec.strides)}; take whole ones", name
                    )
                yield grids
        except (SnacError, OSError) as error:  # one bad file stops nothing
            told.left_out(name, error)


def _grids_of(
    name: str, codec: Codec, speeds: Sequence[float], told: Callable[[float, str], None]
) -> Iterator[list[Codes]]:
    """Yields of each recording in a file its tokens, and of audio those at other speeds, if any."""
    ending = Path(name).suffix.lower()
    if ending in _READERS:
        yield from ([grid] for grid in _READERS[ending](name, codec))
        return
    found = (
        _of_packed(name, codec, speeds, told) if ending == _PACKED else iter([_of_audio(name, codec, speeds)])
    )
    for first, *others in found:
        yield [first, *(grid for grid in others if grid.frames)]


def _of_audio(name: str, codec: Codec, speeds: Sequence[float]) -> list[Codes]:
    """The tokens of audio as it is, then at other speeds."""
    from snaccli.audio import downmix, open_audio

    grids = []
    for speed in (1.0, *speeds):
        with open_audio(name) as reader:
            # Samples that are taken for faster ones are faster.
            grids.append(codec.encode(downmix(reader.blocks()), round(reader.rate * speed), 1).codes)
    return grids


def _of_packed(
    name: str, codec: Codec, speeds: Sequence[float], told: Callable[[float, str], None]
) -> Iterator[list[Codes]]:
    """Likewise of each recording of a packed set."""
    from snaccli.training.data.sources import PackedAudio

    packed, done = PackedAudio(name, codec.rate), 0
    for start, length in zip(packed.starts, packed.lengths, strict=True):
        told(done / packed.samples, f"reading {printable(name)}")
        done += length
        samples = packed.stretch(start, length, length)[:, None]
        yield [codec.encode([samples], round(codec.rate * speed), 1).codes for speed in (1.0, *speeds)]


def _of_snac(name: str, codec: Codec) -> Iterator[Codes]:
    from snaccli.codec.recording import loads
    from snaccli.errors import ContainerError
    from snaccli.io.files import open_input

    with open_input(name, error=ContainerError) as file:
        yield loads(file, path=name).decode(codec).codes


def _of_tokens(name: str, codec: Codec) -> Iterator[Codes]:
    from snaccli.tokens.files import read
    from snaccli.tokens.recording import PLAIN

    yield read(name).complete(codec, PLAIN).codes


def _of_lines(name: str, codec: Codec) -> Iterator[Codes]:
    from snaccli.tokens.files import lines, read_line
    from snaccli.tokens.recording import PLAIN

    for line in lines(name):
        yield read_line(name, line).complete(codec, PLAIN).codes


_READERS: dict[str, Callable[[str, Any], Iterator[Any]]] = {
    ".snac": _of_snac,
    ".json": _of_tokens,
    ".npz": _of_tokens,
    ".jsonl": _of_lines,
}


def _is_wanted(name: str) -> bool:
    from snaccli.audio import is_audio_name

    return name.lower().endswith((".snac", _PACKED, *_TOKEN_FILES)) or is_audio_name(name)


class _Terminal:
    """Tells on the terminal how reading and learning go."""

    def __init__(self, console: Console, bar: CaptionBar) -> None:
        self._console, self._bar = console, bar
        self._last = time.monotonic()
        self.failures = 0

    def within(self, number: int, count: int) -> Callable[[float, str], None]:
        """What tells how far part ``number`` of ``count`` is."""
        return lambda fraction, caption: self.advance((number + fraction) / count, caption)

    def advance(self, fraction: float, caption: str) -> None:
        """Moves the bar; without one, a line every ten seconds."""
        self._bar.advance(fraction, caption)
        if not self._console.interactive and time.monotonic() - self._last >= _LINE_SECONDS:
            self._last = time.monotonic()
            self._console.note(f"{caption} ({fraction:.0%})")

    def left_out(self, name: str, error: Exception) -> None:
        """Tells why a file is not learned from."""
        self.failures += 1
        self._console.error(error, name)

    def report(self, report: Report) -> None:
        """Tells how far the learning is."""
        bits = _bits(report.bits) if report.bits else "not measured yet"
        self.advance(report.fraction, f"learning, step {report.steps:,}; held out: {bits}")


def _bits(bits: tuple[float, ...] | list[float]) -> str:
    return " ".join(f"{each:.2f}" for each in bits) + " bits a token by level"


def _tell(console: Console, prior: Prior, path: str) -> None:
    """Prints what a prior is."""
    size = Path(path).stat().st_size
    console.emit(
        {
            "path": path,
            "model": prior.model,
            "model_fingerprint": prior.model_fingerprint,
            "fingerprint": prior.fingerprint,
            "strides": list(prior.strides),
            "codebook_size": prior.codebook_size,
            "bytes": size,
            "summary": dict(prior.summary),
        }
    )
    if console.quiet:
        return
    console.result(f"{printable(path)}: prior {prior.fingerprint}, {text.size(size)}")
    console.result(f"  for the model {printable(prior.model)}, weights {prior.model_fingerprint}")
    bits = prior.summary.get("held_out_bits")
    if isinstance(bits, list) and all(isinstance(each, float | int) for each in bits):
        console.result(f"  on recordings held out, by itself: {_bits(bits)}")
