"""Bench results as a table for the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from snaccli import files
from snaccli.bench.figures import FIGURES, Figure
from snaccli.bench.names import short_names
from snaccli.bench.results import BenchResult, flat
from snaccli.bench.statistics import ranking

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["table", "to_csv", "to_json"]

_HEADINGS = {  # over the columns of a terminal, where they differ from the names
    "duration_s": "s",
    "bitrate_kbps": "kbit/s",
    "raw_bitrate_kbps": "raw\nkbit/s",
    "bits_per_token": "bits/\ntoken",
    "encode_x_realtime": "enc\nx",
    "decode_x_realtime": "dec\nx",
}
_CSV_COLUMNS = ("model", "levels", "path", "bytes", *(figure.key for figure in FIGURES), "error")
_WORST = 3


def to_json(results: Sequence[BenchResult]) -> str:
    """JSON text: one object for one model, a list of them for several. No NaN or Infinity: null instead."""
    objects = [result.to_dict() for result in results]
    return json.dumps(objects[0] if len(objects) == 1 else objects, indent=2, allow_nan=False)


def to_csv(results: Sequence[BenchResult]) -> str:
    """CSV text (RFC 4180 quoting, LF line ends): a header, then a row per codec and recording, no summary.

    Columns are keys of a file, led by the codec and the number of levels decoded, empty for all; an undefined
    figure is an empty field.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for result in flat(results):
        for file in result.files:
            row = {
                **asdict(file), "model": result.model, "levels": result.levels, "path": files.shown(file.path)
            }  # fmt: skip
            writer.writerow(["" if row[key] is None else row[key] for key in _CSV_COLUMNS])
    return text.getvalue()


def table(results: Sequence[BenchResult]) -> RenderableType:
    """What to print with rich: a table a model, then one of all codecs if there are several.

    A model's last rows are its averages and their 95 % intervals; its worst recordings are named, and then
    whatever failed.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for result in results:
        if result.kind == "model":
            parts += ([""] if parts else []) + _model_parts(result)
    every = flat(results)
    if len(every) > 1:
        parts += ["", _comparison(every)]
    failures = [f"failed: {file.failure} ({result.model})" for result in results for file in result.failed]
    return Group(*parts, *(Text(failure, style="red") for failure in failures))


def _grid(title: str, first: str, figures: Sequence[Figure]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        title=Text(title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    grid.add_column(first, overflow="fold", vertical="bottom")
    for figure in figures:
        heading = _HEADINGS.get(figure.key) or f"{figure.name}\n{figure.unit}".strip()
        grid.add_column(heading, justify="right", no_wrap=True)
    return grid


def _model_parts(result: BenchResult) -> list[RenderableType]:
    from rich.text import Text

    threads = f"{result.threads} thread{'s' * (result.threads != 1)}"
    figures = _present([result])
    grid = _grid(f"{result.model} on {result.device}, {threads}", "file", figures)
    names = short_names([file.path for file in result.files])
    for file, name in zip(result.files, names, strict=True):
        cells = [figure.text(getattr(file, figure.key)) for figure in figures]
        grid.add_row(
            Text(name, style="red" if file.error else ""), *(["failed", *cells[1:]] if file.error else cells)
        )
    summary = result.summary
    if summary["files"] > 1:
        grid.add_section()
        grid.add_row(
            f"mean of {summary['files']}",
            *(figure.text(summary[figure.key]) for figure in figures),
            style="bold",
        )
        for label, end in (("95 % from", 0), ("to", 1)):
            intervals = [result.confidence.get(figure.key) for figure in figures]
            cells = [
                "" if interval is None else figure.text(interval[end])
                for figure, interval in zip(figures, intervals, strict=True)
            ]
            grid.add_row(Text(label, justify="right"), *cells, style="dim")
    worst = [f"{names[number]} {result.files[number].mel_distance:.1f}" for number in ranking(result.files)]
    if len(worst) > _WORST:
        return [grid, Text(f"worst by mel distance: {', '.join(worst[:_WORST])}")]
    return [grid]


def _comparison(results: Sequence[BenchResult]) -> RenderableType:
    """Averages, a row a codec."""
    from rich.text import Text

    figures = [figure for figure in _present(results) if figure.key not in ("duration_s", "raw_bitrate_kbps")]
    grid = _grid("all codecs, means", "codec", figures)
    for result in results:
        cells = [figure.text(result.summary[figure.key]) for figure in figures]
        grid.add_row(Text(files.shown(result.label)), *cells)
    return grid


def _present(results: Sequence[BenchResult]) -> list[Figure]:
    """The figures to show: STOI and PESQ only where they were measured."""
    extra = ("stoi", "pesq")
    return [
        figure
        for figure in FIGURES
        if figure.key not in extra or any(result.summary[figure.key] is not None for result in results)
    ]
