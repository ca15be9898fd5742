"""``snac encode``: audio files to ``.snac`` files."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from snaccli.cli import options
from snaccli.cli.batch import Batch, Choices, FileWork, anywhere, model_anywhere, run_on_cluster
from snaccli.cli.plan import find_sources, is_snac, make_plan
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.errors import STDIO, ExitStatus, UsageError, shown

if TYPE_CHECKING:
    from snaccli.codec import EncodeResult
    from snaccli.codec.cluster import EncodeWork, Place

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
RateDistortion = Annotated[
    float,
    typer.Option(
        "--rate-distortion",
        min=0.0,
        metavar="LAMBDA",
        help="Take codewords a little farther away where that saves bits: 0.05 is careful, 0.2 is much.",
    ),
]
Smaller = Annotated[
    bool, typer.Option("--smaller", help="The same as --rate-distortion 0.15: smaller, and hardly worse.")
]


def encode(
    context: typer.Context,
    inputs: Inputs,
    model: Model = options.DEFAULT_MODEL,
    output: options.Output = None,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    channels: Channels = options.ChannelChoice.mono,
    prior: options.Prior = None,
    no_prior: options.NoPrior = False,
    rate_distortion: RateDistortion = 0.0,
    smaller: Smaller = False,
    jobs: options.Jobs = None,
    device: options.Device = options.CodingDevice.auto,
    threads: options.Threads = None,
    cluster: options.Cluster = None,
    cpus: options.CpusPerWorker = 1,
    gpus: options.GpusPerWorker = 0.0,
) -> ExitStatus:
    """Turn audio into .snac files."""
    console: Console = context.obj
    if prior is not None and no_prior:
        raise UsageError("--prior and --no-prior exclude each other")
    if smaller and rate_distortion:
        raise UsageError("--smaller and --rate-distortion exclude each other")
    if smaller:
        from snaccli.codec.rate_distortion import SMALLER

        rate_distortion = SMALLER
    wanted = not no_prior if prior is None else prior
    sources = find_sources(inputs, wanted=_is_audio, kind="audio file")
    plan = make_plan(sources, output, extension=".snac")
    for job in plan.jobs:  # what is no audio does not go under a name of audio, perhaps over a recording
        if job.output != STDIO and not is_snac(job.output) and _is_audio(job.output):
            raise UsageError(
                f"{shown(job.output)} is a name of audio, and what is written is none: name it .snac with -o"
            )
    batch = Batch(console, plan, Choices(force, skip_existing, jobs, threads))
    if cluster is not None:
        from snaccli.codec.cluster import EncodeWork, Place

        work = EncodeWork(
            model_anywhere(model) or model,
            device.value,
            cpus,
            channels.value,
            prior=anywhere(wanted) if isinstance(wanted, str) else wanted,
            rate_distortion=rate_distortion,
        )
        return _on_cluster(console, batch, work, Place(cluster, cpus, gpus, jobs))

    from snaccli.codec import ModelPool, encode_file

    models = ModelPool(model, device=device.value, threads=batch.threads, prior=wanted)
    convert = functools.partial(
        encode_file,
        model=models,
        channels=channels.value,
        rate_distortion=rate_distortion,
        overwrite=force,
    )
    return batch.run(FileWork("encoded", convert, _facts, _total, models.get), models)


def _on_cluster(console: Console, batch: Batch, work: EncodeWork, place: Place) -> ExitStatus:
    from snaccli.codec.cluster import encode_units

    if any(STDIO in (job.source, job.output) for job in batch.waiting):
        raise UsageError("--cluster reads and writes files: give it no standard stream")
    for remark in batch.remarks:
        console.note(remark)
    files = [(anywhere(job.source), anywhere(job.output)) for job in batch.waiting]
    units = encode_units(files)
    return run_on_cluster(console, batch.told, work, units, len(files), place, verb="encoded")


def _facts(result: EncodeResult) -> Sequence[str]:
    return (
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
    noted = sum(bool(result.note) for result in results)
    return text.joined(
        f"{text.clock(audio_seconds)} of audio",
        text.bitrate(8 * size / audio_seconds) if audio_seconds else "",
        text.size(size),
        f"({notes.pop()}: {text.count(noted, 'file')})" if len(notes) == 1 else "",
        text.speed(audio_seconds, wall_seconds),
    )


def _is_audio(name: str) -> bool:
    from snaccli.audio import is_audio_name

    return is_audio_name(name)
