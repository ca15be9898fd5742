"""Bench results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from snaccli.bench.results import FIGURES, WORST, BenchResult, Figure, flat, ranking, short_names
from snaccli.io import files

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

__all__ = ["table"]

_HEADINGS = {  # where they differ from the names
    "duration_s": "s",
    "bitrate_kbps": "kbit/s",
    "raw_bitrate_kbps": "raw\nkbit/s",
    "bits_per_token": "bits/\ntoken",
    "encode_x_realtime": "enc\nx",
    "decode_x_realtime": "dec\nx",
}
_DISPENSABLE = ("raw_bitrate_kbps", "duration_s", "lsd_db", "snr_db", "encode_x_realtime", "pesq")
"""What to leave out first where the names have no room."""
_NAME_WIDTH = 20


def table(results: Sequence[BenchResult]) -> RenderableType:
    """Returns what to print with rich: a table a model, then one of all codecs if there are several.

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


@dataclass(frozen=True)
class _Row:
    """A name and what stands under each figure, by its key; nothing where it has none."""

    name: str
    cells: dict[str, str]
    style: str = ""


@dataclass
class _Grid:
    """A table that leaves columns out, and cuts names, as far as the terminal's width asks for it."""

    title: str
    first: str
    figures: Sequence[Figure]
    rows: list[_Row] = field(default_factory=list)
    averages: list[_Row] = field(default_factory=list)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        widths = {figure.key: self._width(figure) for figure in self.figures}
        wanted = max(_cells(row.name) for row in [*self.rows, *self.averages])
        left_out: list[Figure] = []
        for key in (key for key in _DISPENSABLE if key in widths):
            if options.max_width - sum(widths.values()) >= min(wanted, _NAME_WIDTH):
                break
            del widths[key]
            left_out += [figure for figure in self.figures if figure.key == key]
        kept = [figure for figure in self.figures if figure.key in widths]
        yield self._table(kept, max(1, options.max_width - sum(widths.values())))
        if left_out:
            names = ", ".join(figure.name for figure in left_out)
            yield Text(f"no room for {names}: a wider terminal, CSV and JSON have them", style="dim")

    def _width(self, figure: Figure) -> int:
        """Columns that the figure takes, with the space before it."""
        cells = [row.cells.get(figure.key, "") for row in [*self.rows, *self.averages]]
        return 1 + max(map(len, [*_heading(figure).split("\n"), *cells]))

    def _table(self, figures: Sequence[Figure], names: int) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        grid = Table(
            title=Text(self.title),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            padding=0,
            show_edge=False,
        )
        grid.add_column(self.first, vertical="bottom", no_wrap=True)
        for figure in figures:
            grid.add_column(_heading(figure), justify="right", no_wrap=True)
        for row in self.rows:
            grid.add_row(
                Text(_cut(row.name, names), style=row.style),
                *(row.cells.get(each.key, "") for each in figures),
            )
        if self.averages:
            grid.add_section()
        for row in self.averages:
            cells = (row.cells.get(each.key, "") for each in figures)
            grid.add_row(
                Text(row.name, justify="right" if row.style == "dim" else "left"), *cells, style=row.style
            )
        return grid


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _cut(name: str, width: int) -> str:
    """Returns the name, its middle left out where it is wider than that: both ends tell recordings apart."""
    if _cells(name) <= width:
        return name
    head, tail = name[: len(name) // 2], name[len(name) // 2 :]
    while head and _cells(head) > (width - 1) // 2:
        head = head[:-1]
    while tail and _cells(tail) > width - 1 - _cells(head):
        tail = tail[1:]
    return f"{head}…{tail}"


def _heading(figure: Figure) -> str:
    return _HEADINGS.get(figure.key) or f"{figure.name}\n{figure.unit}".strip()


def _model_parts(result: BenchResult) -> list[RenderableType]:
    threads = f"{result.threads} thread{'s' * (result.threads != 1)}"
    figures = _present([result])
    grid = _Grid(f"{result.model} on {result.device}, {threads}", "file", figures)
    names = short_names([file.path for file in result.files])
    for file, name in zip(result.files, names, strict=True):
        if file.error:
            grid.rows.append(_Row(name, {"bitrate_kbps": "failed"}, "red"))
        else:
            grid.rows.append(
                _Row(name, {figure.key: figure.text(getattr(file, figure.key)) for figure in figures})
            )
    if result.summary["files"] > 1:
        grid.averages += _averages(result, figures)
    worst = [f"{names[number]} {result.files[number].mel_distance:.1f}" for number in ranking(result.files)]
    if len(worst) > WORST:
        from rich.text import Text

        return [grid, Text(f"worst by mel distance: {', '.join(worst[:WORST])}")]
    return [grid]


def _averages(result: BenchResult, figures: Sequence[Figure]) -> list[_Row]:
    """Returns the means and both ends of their intervals."""
    summary = result.summary
    means = {figure.key: figure.text(summary[figure.key]) for figure in figures}
    rows = [_Row(f"mean of {summary['files']}", means, "bold")]
    for label, end in (("95 % from", 0), ("to", 1)):
        ends = {
            figure.key: figure.text(interval[end])
            for figure in figures
            if (interval := result.confidence.get(figure.key)) is not None
        }
        rows.append(_Row(label, ends, "dim"))
    return rows


def _comparison(results: Sequence[BenchResult]) -> RenderableType:
    """Returns averages, a row a codec."""
    figures = [figure for figure in _present(results) if figure.key not in ("duration_s", "raw_bitrate_kbps")]
    grid = _Grid("all codecs, means", "codec", figures)
    for result in results:
        means = {figure.key: figure.text(result.summary[figure.key]) for figure in figures}
        grid.rows.append(_Row(files.shown(result.label), means))
    return grid


def _present(results: Sequence[BenchResult]) -> list[Figure]:
    """Returns the figures to show: STOI and PESQ only where they were measured."""
    extra = ("stoi", "pesq")
    return [
        figure
        for figure in FIGURES
        if figure.key not in extra or any(result.summary[figure.key] is not None for result in results)
    ]
