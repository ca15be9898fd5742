"""``snac decode``: ``.snac`` files to audio files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snac.hub.registry import MODELS
from snaccli.cli import options
from snaccli.cli.jobs import Batch, Choices
from snaccli.cli.plan import find_sources, is_snac, make_plan
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import waiting
from snaccli.errors import ExitStatus, ModelError, SnacError
from snaccli.io.names import STDIO
from snaccli.progress import Progress
from snaccli.workers import Job

if TYPE_CHECKING:
    from snaccli.codec import Codec, DecodeResult
    from snaccli.container import Header

EXAMPLES = """
snac decode song.snac                   writes song.wav beside it
snac decode song.snac -o song.flac      the file extension says the format
snac decode coded -o restored --format flac
snac decode talk.snac --start 1:30 --duration 10
snac decode - < song.snac | aplay
"""


AudioFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="wav, flac, ogg, opus, mp3, ... for outputs whose names you do not give; wav by default.",
    ),
]
Model = Annotated[
    str | None,
    options.model("Take this model, by name or folder, instead of the one that the file names."),
]
AnyWeights = Annotated[
    bool,
    typer.Option(
        "--any-weights",
        help="Decode even if the file was made with other weights; right if only their decoder differs.",
    ),
]
Rate = Annotated[
    options.RateChoice, typer.Option("--rate", help="The recording's own sample rate, or the model's.")
]
Levels = Annotated[
    int | None,
    typer.Option("--levels", min=1, metavar="N", help="Use the N coarsest levels only; all by default."),
]
Salvage = Annotated[
    bool, typer.Option("--salvage", help="Decode what is intact of a damaged or cut-off file.")
]
Start = Annotated[
    float | None,
    typer.Option(
        "--start", parser=options.seconds, metavar="TIME", help="Begin here: 90, or 1:30; by default at 0."
    ),
]
Duration = Annotated[
    float | None,
    typer.Option(
        "--duration",
        parser=options.seconds,
        metavar="TIME",
        help="Decode this much: 10, or 1:30; by default all.",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Of the model's noise: one seed, one sound.")
]
NoNoise = Annotated[bool, typer.Option("--no-noise", help="Leave the model's noise out.")]


def decode(
    context: typer.Context,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help=options.SNAC_FILES)],
    output: options.Output = None,
    audio_format: AudioFormat = None,
    model: Model = None,
    any_weights: AnyWeights = False,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    rate: Rate = options.RateChoice.original,
    levels: Levels = None,
    salvage: Salvage = False,
    start: Start = None,
    duration: Duration = None,
    seed: Seed = 0,
    no_noise: NoNoise = False,
    jobs: options.Jobs = None,
    device: options.Device = options.CodingDevice.auto,
    threads: options.Threads = None,
) -> ExitStatus:
    """Turn .snac files back into audio."""
    console: Console = context.obj
    extension = "." + (audio_format or "wav").lower().lstrip(".")
    sources = find_sources(inputs, wanted=is_snac, kind=".snac file")
    plan = make_plan(sources, output, extension=extension, replaces=".snac")
    if plan.jobs:
        _check_format(plan.jobs[0].output, audio_format)  # a batch has one format
    how = {
        "rate": rate.value,
        "levels": levels,
        "salvage": salvage,
        "start": start or 0.0,
        "duration": duration,
        "seed": seed,
        "noise": not no_noise,
        "any_weights": any_weights,
        "audio_format": audio_format,
        "device": device.value,
        "overwrite": force,
    }
    batch = Batch(console, plan, Choices(force, skip_existing, jobs, threads))
    return batch.run(_Decoding(console, model, batch, how))


class _Decoding:
    """Decodes files, each with the model that the user or the file names."""

    verb = "decoded"

    def __init__(self, console: Console, model: str | None, batch: Batch, how: Mapping[str, Any]) -> None:
        self._console = console
        self._model = model
        self._batch = batch
        self._how = how
        self._models: _Models | None = None

    def prepare(self) -> None:
        """Loads the models that the files name."""
        models = _Models(self._model, self._how["device"], self._batch.threads)
        with waiting(self._console, "loading the model"):
            models.load_for(self._batch.waiting)
        for codec in models.loaded:
            self._console.detail(f"model {codec.name}, fingerprint {codec.fingerprint}, on {codec.device}")
        self._models = models

    def __call__(self, job: Job, progress: Progress) -> DecodeResult:
        """Decodes one file."""
        from snaccli.codec import decode_file

        model = self._model if self._models is None else self._models.of(job)
        threads = self._batch.threads
        return decode_file(
            job.source, job.output, model=model, progress=progress, threads=threads, **self._how
        )

    def line(self, result: DecodeResult) -> str:
        """Words what became of one file."""
        return text.joined(
            text.arrow(result.source, result.output),
            text.clock(result.duration_s),
            f"{result.sample_rate} Hz",
            "mono" if result.channels == 1 else f"{result.channels} channels",
            f"({result.note})" if result.note else "",
            text.speed(result.duration_s, result.seconds),
        )

    def total(self, results: Sequence[DecodeResult], wall_seconds: float) -> str:
        """Words the sum of several results."""
        audio_seconds = sum(result.duration_s for result in results)
        noted = sum(bool(result.note) for result in results)
        return text.joined(
            f"{text.clock(audio_seconds)} of audio",
            f"({text.count(noted, 'file')} with a remark)" if noted else "",
            text.speed(audio_seconds, wall_seconds),
        )


class _Models:
    """The models that the files of a run name, each loaded once before the first file is decoded."""

    def __init__(self, choice: str | None, device: str, threads: int | None) -> None:
        self._choice = choice
        self._device = device
        self._threads = threads
        self._codecs: dict[str, Codec] = {}
        self._errors: dict[str, ModelError] = {}

    @property
    def loaded(self) -> list[Codec]:
        return list(self._codecs.values())

    def load_for(self, jobs: Sequence[Job]) -> None:
        """Load the models of `jobs`.

        Raises:
            ModelError: none of the models can be had, so that no file can be decoded.
        """
        for name in dict.fromkeys(map(self._name, jobs)):
            if name is not None:
                self._load(name)
        if self._errors and not self._codecs:
            raise next(iter(self._errors.values()))

    def of(self, job: Job) -> Codec | None:
        """Return the model for `job`; None leaves it to the decoder, which says what is wrong with the file.

        Raises:
            ModelError: it cannot be had.
        """
        name = self._name(job)
        if name in self._errors:
            raise self._errors[name]
        return None if name is None else self._codecs[name]

    def _name(self, job: Job) -> str | None:
        if self._choice is not None or job.source == STDIO:
            return self._choice
        try:
            name = _header(job).model
        except (SnacError, OSError):
            return None
        # A stranger's file must not choose what is downloaded, or which folder is read.
        return name if name in MODELS else None

    def _load(self, name: str) -> None:
        from snaccli.codec import Codec

        try:
            self._codecs[name] = Codec.load(name, device=self._device, threads=self._threads)
        except ModelError as error:
            self._errors[name] = error


def _header(job: Job) -> Header:
    from snaccli.container import read_header

    with open(job.source, "rb") as file:
        return read_header(file).header


def _check_format(output: str, audio_format: str | None) -> None:
    from snaccli.audio import named_format

    named_format(output, audio_format)
