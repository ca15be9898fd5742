"""``snac info`` and ``snac verify``: what is in ``.snac`` files, and whether they are whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from snaccli.cli import options
from snaccli.cli.plan import find_sources, is_snac
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.errors import ContainerError, ExitStatus, SnacError, shown

INFO_EXAMPLES = """
snac info song.snac
snac info --json coded/*.snac | jq '.[].bitrate_bps'
"""

VERIFY_EXAMPLES = """
snac verify song.snac
snac verify -q archive && echo all whole
"""


def info(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help=options.SNAC_FILES)],
) -> ExitStatus:
    """Tell what .snac files hold: model, length, bit rate.

    Needs no model.
    """
    console: Console = context.obj
    sources = find_sources(files, wanted=is_snac, kind=".snac file")
    values: list[dict[str, Any]] = []
    failed = list(sources.problems)
    for name, _ in sources.files:
        try:
            values.append(_describe(name))
        except (SnacError, OSError) as error:
            failed.append((name, error))
            continue
        if not console.quiet:
            _show(console, values[-1])
    for name, problem in failed:
        console.error(problem, name)
        values.append({"path": name, "error": text.explain(problem)})
    console.emit(values if sources.batch else values[0])
    return ExitStatus.FAILED if failed else ExitStatus.OK


def verify(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help=options.SNAC_FILES)],
) -> ExitStatus:
    """Check that .snac files are whole.

    Reads every byte, writes nothing, needs no model.
    """
    console: Console = context.obj
    sources = find_sources(files, wanted=is_snac, kind=".snac file")
    values: list[dict[str, Any]] = []

    def damaged(name: str, error: Exception) -> None:
        console.error(error, name)
        values.append({"path": name, "ok": False, "error": text.explain(error)})

    for name, error in sources.problems:
        damaged(name, error)
    for name, _ in sources.files:
        try:
            _verify(name)
        except (SnacError, OSError) as error:
            damaged(name, error)
            continue
        values.append({"path": name, "ok": True})
        if not console.quiet:
            console.result(f"{shown(name)}: ok")
    bad = sum(not value["ok"] for value in values)
    if sources.batch:
        console.note(
            f"{len(values) - bad} of {text.count(len(values), 'file')} whole"
            + (f", {bad} not" if bad else "")
        )
    console.emit(values if sources.batch else values[0])
    return ExitStatus.FAILED if bad else ExitStatus.OK


def _describe(name: str) -> dict[str, Any]:
    from snaccli.container import describe, read_header
    from snaccli.io.files import open_input

    with open_input(name, error=ContainerError) as file:
        value = {"path": name, **describe(read_header(file))}
        wanted, found = value["bytes"], value["bytes"]
        with suppress(OSError):  # of a pipe only the header is read
            found = file.seek(0, os.SEEK_END)
        return {**value, "bytes": found, "missing_bytes": wanted - found}


def _show(console: Console, value: dict[str, Any]) -> None:
    seconds = value["duration_s"]
    channels = value["channels"]
    console.result(shown(value["path"]))
    rate = f"{value['sample_rate']} Hz"
    if value["model_rate"] != value["sample_rate"]:
        rate += f" (model {value['model_rate']} Hz)"
    size = f"{text.size(value['bytes'])}, {text.bitrate(value['bitrate_bps'])}"
    if value["missing_bytes"] > 0:
        size += f", cut off ({value['missing_bytes']:,} bytes are missing)"
    elif value["missing_bytes"]:
        size += f", {-value['missing_bytes']:,} bytes too many"
    rows = [
        ("model", f"{value['model']}, fingerprint {value['fingerprint']}"),
        ("audio", f"{text.clock(seconds)}, {'mono' if channels == 1 else f'{channels} channels'}, {rate}"),
        ("samples", f"{value['samples']:,}"),
        ("size", f"{size}, {value['overhead_bytes']} bytes of it header"),
        ("format", f"version {value['format_version']}"),
    ]
    for title, told in rows:
        console.result(f"  {title + ':':<9}{told}")
    for line in _streams(value["levels"], channels):
        console.result(line)


def _streams(levels: Sequence[dict[str, Any]], channels: int) -> list[str]:
    form = "  {:>5}  {:>7}  {:>6}  {:>9}  {:>9}  {:>10}  {}"
    lines = [form.format("level", "channel", "stride", "tokens", "bytes", "bits/token", "coder")]
    for number, row in enumerate(levels):
        bits = f"{row['bits_per_token']:.2f}"
        place = number // channels + 1, number % channels + 1
        lines.append(form.format(*place, row["stride"], row["tokens"], row["bytes"], bits, row["coder"]))
    return lines


def _verify(name: str) -> None:
    from snaccli.container import verify as verify_container
    from snaccli.io.files import open_input

    with open_input(name, error=ContainerError) as file:
        verify_container(file)
