"""``snac bench``: what the codec costs and keeps, measured on recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from snaccli.cli import options, process
from snaccli.cli.plan import expand
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import CaptionBar
from snaccli.errors import ExitStatus, UsageError
from snaccli.io.files import check_output, open_output, shown

if TYPE_CHECKING:
    from snaccli.bench import BenchResult, Gallery, Peer

EXAMPLES = """
snac bench                               the recordings shipped in examples/
snac bench talk.wav music -m mini -m 24khz
snac bench talks --html report.html --against opus:6,12 --levels
snac bench music --csv > music.csv
"""

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help="Audio files or folders; without any, the recordings shipped in examples/.",
    ),
]
Models = Annotated[
    list[str] | None,
    options.model("A model to measure; give it several times to compare. [default: mini]"),
]
Against = Annotated[
    list[str] | None,
    typer.Option(
        "--against",
        metavar="CODEC:RATE,...",
        help="Measure these beside the models, too: opus:6,12 and mp3:32 (kbit/s), codec2:3200 (bit/s), by "
        "the programs opusenc, ffmpeg, c2enc on the PATH; may be given several times.",
    ),
]
Levels = Annotated[
    bool,
    typer.Option("--levels", help="Measure decoding from the coarsest 1, 2, ... levels, too."),
]
Html = Annotated[
    str | None,
    typer.Option(
        "--html",
        metavar="PATH",
        help="Write a report, one page that opens from disk: figures, charts, excerpts to see and hear.",
    ),
]
Details = Annotated[
    int,
    typer.Option(
        "--details",
        min=0,
        metavar="N",
        help="Recordings with excerpts in the report: the worst three, then others from the best down.",
    ),
]
Clip = Annotated[
    float,
    typer.Option("--clip", min=0.1, max=60.0, metavar="SECONDS", help="Length of an excerpt in the report."),
]
Csv = Annotated[bool, typer.Option("--csv", help="Print the figures as CSV, one line a file.")]


def bench(
    context: typer.Context,
    inputs: Inputs = None,
    models: Models = None,
    against: Against = None,
    levels: Levels = False,
    html: Html = None,
    details: Details = 12,
    clip: Clip = 5.0,
    force: options.Force = False,
    csv: Csv = False,
    device: options.Device = options.CodingDevice.auto,
    threads: options.Threads = None,
) -> ExitStatus:
    """Measure bit rate, quality and speed on recordings, also beside other codecs."""
    console: Console = context.obj
    printed = _printed({"--json": console.json, "--csv": csv, "--html -": html == "-"})
    if html is not None:
        check_output(html, overwrite=force)
    process.tune(console)
    from snaccli import bench as measuring

    peers, left_out = _present(console, measuring.parse_peers(against or []))
    gallery = measuring.Gallery(details, clip) if html is not None else None
    if remark := measuring.remark():
        console.note(remark)
    with CaptionBar(console) as bar:
        results = measuring.run(
            expand(inputs or []),
            models or [options.DEFAULT_MODEL],
            device.value,
            threads,
            bar.advance,
            against=peers,
            levels=levels,
            gallery=gallery,
        )
    if html is not None and gallery is not None:
        _write_report(console, html, measuring.to_html(results, gallery), gallery, force=force)
    _trace(console, results)
    _print(console, results, printed)
    return ExitStatus.FAILED if left_out or any(result.failed for result in results) else ExitStatus.OK


def _printed(asked: dict[str, bool]) -> str | None:
    """The flag that says what goes to standard output; None for the table.

    Raises:
        UsageError: several do.
    """
    given = [flag for flag, wanted in asked.items() if wanted]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} would both go to standard output; give one of them")
    return given[0] if given else None


def _print(console: Console, results: list[BenchResult], printed: str | None) -> None:
    """Print the figures as the flag says; of what failed the table tells itself."""
    from snaccli import bench as measuring

    if printed is None and not console.quiet:
        console.table(measuring.table(results))
        return
    if printed == "--json":
        console.print(measuring.to_json(results))
    elif printed == "--csv":
        console.print(measuring.to_csv(results).rstrip("\n"))
    for result in results:
        for file in result.failed:
            console.complain(f"{file.failure} (model {result.model})")


def _trace(console: Console, results: list[BenchResult]) -> None:
    """With ``--debug``, tells where what failed came from."""
    if console.debug:
        for result in results:
            for file in result.failed:
                console.complain(f"{shown(file.path)} ({result.model}):\n{file.trace}")


def _present(console: Console, peers: list[Peer]) -> tuple[list[Peer], bool]:
    """Those of `peers` whose programs are there, and whether any is left out; each of these is told of."""
    from snaccli.bench import PeerError

    found = []
    for peer in peers:
        try:
            peer.check()
            found.append(peer)
        except PeerError as error:
            console.error(error)
    return found, len(found) < len(peers)


def _write_report(console: Console, path: str, page: str, gallery: Gallery, *, force: bool) -> None:
    data = page.encode()
    with open_output(path, overwrite=force) as file:
        file.write(data)
    count = len(gallery.exhibits)
    excerpts = f"excerpts of {count} recording{'s' * (count != 1)}, {gallery.clip_s:g} s each at most"
    dropped = f"; {gallery.dropped} more left out for their size: lower --clip" if gallery.dropped else ""
    console.note(f"{shown(path, stdio='report')}: {len(data) / 1e6:.1f} MB, {excerpts}{dropped}")
    for failure in gallery.failures:
        console.complain(failure)
