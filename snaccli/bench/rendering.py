"""Bench results as a table for the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from snaccli import files
from snaccli.bench.results import BenchResult

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["table", "to_csv", "to_json"]

_NUMBERS = (  # key of a file, heading of the table, decimals
    ("duration_s", "s", 1),
    ("bitrate_kbps", "kbit/s", 2),
    ("raw_bitrate_kbps", "raw\nkbit/s", 2),
    ("bits_per_token", "bits/\ntoken", 2),
    ("snr_db", "SNR\ndB", 1),
    ("si_sdr_db", "SI-SDR\ndB", 1),
    ("mel_distance", "mel\ndB", 1),
    ("lsd_db", "LSD\ndB", 1),
    ("encode_x_realtime", "enc\nx", 1),
    ("decode_x_realtime", "dec\nx", 1),
)
_CSV_COLUMNS = ("model", "path", "bytes", *(key for key, _, _ in _NUMBERS), "error")


def to_json(results: Sequence[BenchResult]) -> str:
    """JSON text: one object for one model, a list of them for several. No NaN or Infinity: null instead."""
    objects = [result.to_dict() for result in results]
    return json.dumps(objects[0] if len(objects) == 1 else objects, indent=2, allow_nan=False)


def to_csv(results: Sequence[BenchResult]) -> str:
    """CSV text (RFC 4180 quoting, LF line ends): a header, then a row per model and recording, no summary.

    Columns are keys of a file, led by the model; an undefined figure is an empty field.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for result in results:
        for file in result.files:
            row = {**asdict(file), "model": result.model, "path": files.shown(file.path)}
            writer.writerow(["" if row[key] is None else row[key] for key in _CSV_COLUMNS])
    return text.getvalue()


def table(results: Sequence[BenchResult]) -> RenderableType:
    """What to print with rich: a table a model, its last row the summary, then a line for each failure."""
    from rich.console import Group

    parts: list[RenderableType] = []
    for result in results:
        parts += ([""] if parts else []) + _model_parts(result)
    return Group(*parts)


def _model_parts(result: BenchResult) -> list[RenderableType]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    threads = f"{result.threads} thread{'s' * (result.threads != 1)}"
    grid = Table(
        title=Text(f"{result.model} on {result.device}, {threads}"),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    grid.add_column("file", overflow="fold", vertical="bottom")
    for _, heading, _ in _NUMBERS:
        grid.add_column(heading, justify="right", no_wrap=True)
    names = _short_names([file.path for file in result.files])
    for file, name in zip(result.files, names, strict=True):
        cells = [_cell(getattr(file, key), decimals) for key, _, decimals in _NUMBERS]
        grid.add_row(
            Text(name, style="red" if file.error else ""), *(["failed", *cells[1:]] if file.error else cells)
        )
    summary = result.summary
    if summary["files"] > 1:
        grid.add_section()
        label = f"mean of {summary['files']}"
        grid.add_row(label, *(_cell(summary[key], decimals) for key, _, decimals in _NUMBERS), style="bold")
    failures = [Text(f"failed: {file.failure}", style="red") for file in result.failed]
    return [grid, *failures]


def _cell(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _short_names(paths: Sequence[str]) -> list[str]:
    """Paths without the folders that all of them share."""
    parents = [Path(path).parent.parts for path in paths]
    shared = 0
    while parents and all(len(p) > shared and p[shared] == parents[0][shared] for p in parents):
        shared += 1
    return [files.shown(str(Path(*Path(path).parts[shared:]))) for path in paths]
