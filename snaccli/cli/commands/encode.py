"""``snac encode``: audio files to ``.snac`` files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snaccli.cli import options
from snaccli.cli.convert import Choices, check_streams, convert
from snaccli.cli.plan import STREAM, find_sources, make_plan
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import waiting
from snaccli.cli.ui.report import Report
from snaccli.errors import ExitStatus
from snaccli.workers import Job, Work

if TYPE_CHECKING:
    from snaccli.codec import EncodeResult

EXAMPLES = """
snac encode song.wav                        writes song.snac beside it
snac encode talk.mp3 -m 24khz -o small.snac
snac encode recordings -o coded -j 2        a folder; its tree is mirrored in coded
ffmpeg -i film.mkv -f wav - | snac encode - > film.snac
"""


Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Audio or video files; folders, of which all audio files are taken but those whose names "
        "begin with a dot; or - for standard input.",
    ),
]
Model = Annotated[
    str, options.model("A model's name (see 'snac models list'), its folder, or owner/name on the Hub.")
]
Channels = Annotated[
    options.ChannelChoice,
    typer.Option("--channels", help="Mix all channels down to mono, or keep them and code each by itself."),
]


def encode(
    context: typer.Context,
    inputs: Inputs,
    model: Model = options.DEFAULT_MODEL,
    output: options.Output = None,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    channels: Channels = options.ChannelChoice.mono,
    jobs: options.Jobs = None,
    device: options.Device = options.CodingDevice.auto,
    threads: options.Threads = None,
) -> ExitStatus:
    """Turn audio into .snac files."""
    console: Console = context.obj
    sources = find_sources(inputs, wanted=_is_audio, kind="audio file")
    plan = make_plan(sources, output, ending=".snac")
    check_streams(console, plan)

    def prepare(_: Sequence[Job], each: int) -> Work[EncodeResult]:
        with waiting(console, f"loading the model {model}"):
            from snaccli.codec import Codec, encode_file

            codec = Codec.load(model, device=device.value, threads=each)
        console.detail(f"model {codec.name}, fingerprint {codec.fingerprint}, on {codec.device}")
        how: dict[str, Any] = {"model": codec, "channels": channels.value, "overwrite": force}
        return lambda job, progress: encode_file(job.source, job.output, progress=progress, **how)

    report = Report(console, batch=plan.batch, verb="encoded", line=_line, total=_total)
    choices = Choices(force, skip_existing, jobs, threads)
    return convert(console, plan, report, prepare, _seconds, choices)


def _is_audio(name: str) -> bool:
    from snaccli.audio import is_audio_name

    return is_audio_name(name)


def _seconds(job: Job) -> float | None:
    from snaccli.audio import probe

    # Standard input can be read only once.
    return None if job.source == STREAM else probe(job.source).duration_s


def _line(result: EncodeResult) -> str:
    return text.joined(
        text.arrow(result.source, result.output),
        text.clock(result.duration_s),
        text.bitrate(result.bitrate_bps),
        text.size(result.bytes),
        f"({result.note})" if result.note else "",
        text.speed(result.duration_s, result.seconds),
    )


def _total(results: Sequence[EncodeResult], wall_seconds: float) -> str:
    audio_seconds = sum(result.duration_s for result in results)
    size = sum(result.bytes for result in results)
    notes = {result.note for result in results if result.note}
    mixed = sum(bool(result.note) for result in results)
    return text.joined(
        f"{text.clock(audio_seconds)} of audio",
        text.bitrate(8 * size / audio_seconds) if audio_seconds else "",
        text.size(size),
        f"({notes.pop()}: {text.count(mixed, 'file')})" if len(notes) == 1 else "",
        text.speed(audio_seconds, wall_seconds),
    )
