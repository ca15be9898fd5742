"""The tables of a report: codecs compared, levels, recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from snaccli.bench.figures import FIGURES, Figure
from snaccli.bench.html.markup import Markup, element
from snaccli.bench.results import BenchResult, FileResult

__all__ = ["compared", "levels", "recordings"]


def compared(results: Sequence[BenchResult]) -> Markup:
    """Returns a row a codec with its averages and their intervals."""
    figures = [figure for figure in _present(results) if figure.key != "duration_s"]
    rows = []
    for result in results:
        cells = [_average(result, figure) for figure in figures]
        rows.append(element("tr", element("th", result.label, scope="row"), *cells))
    head = element("tr", element("th", "codec", scope="col"), *(_heading(figure) for figure in figures))
    return _scrolling(
        element("table", element("thead", head), element("tbody", *rows), class_="figures"), "codecs compared"
    )


def levels(result: BenchResult) -> Markup:
    """Returns what each level of a model's codes costs."""
    rows = result.by_level()
    seconds = result.summary["total_duration_s"]
    most = max((row["bitrate_kbps"] or 0.0 for row in rows), default=0.0) or 1.0
    names = ("level", "stride", "tokens/s", "bits/token", "kbit/s")
    head = element(
        "tr", *(element("th", name, scope="col") for name in names), element("th", "", scope="col")
    )
    body = []
    for number, row in enumerate(rows, 1):
        rate = row["bitrate_kbps"] or 0.0
        bar = element("span", class_="bar", style=f"width:{100 * rate / most:.1f}%")
        values = (
            f"{row['stride']}",
            f"{row['tokens'] / seconds:.2f}" if seconds else "-",
            "-" if row["bits_per_token"] is None else f"{row['bits_per_token']:.2f}",
            f"{rate:.3f}",
        )
        name = f"{number}" + (" (coarsest)" if number == 1 else " (finest)" if number == len(rows) else "")
        cells = [element("td", value) for value in values]
        body.append(
            element("tr", element("th", name, scope="row"), *cells, element("td", bar, class_="bars"))
        )
    return _scrolling(
        element("table", element("thead", head), element("tbody", *body), class_="figures levels"),
        f"levels of {result.model}",
    )


def recordings(
    result: BenchResult, names: Sequence[str], number: int, bodies: Mapping[int, Markup]
) -> Markup:
    """Returns a row a recording; under those that have one, their excerpt.

    Args:
        result: the codec.
        names: what the recordings are called.
        number: number of this table on the page; the excerpts stand in table 0.
        bodies: excerpts by number of the recording.
    """
    figures = _present([result])
    headings = [element("th", element("span", "recording", class_="by"), scope="col")]
    headings += [_heading(figure) for figure in figures]
    rows = []
    for index, (file, name) in enumerate(zip(result.files, names, strict=True)):
        rows.append(_recording(file, name, index, number, figures))
        if number == 0 and index in bodies:
            inside = element("details", element("summary", f"excerpt of {name}"), bodies[index])
            cell = element("td", inside, colspan=len(figures) + 1)
            rows.append(element("tr", cell, class_="detail", data_n=index, id=f"detail-{index}"))
    caption = element("caption", f"Every recording through {result.label}", class_="spoken")
    table = element(
        "table", caption, element("thead", element("tr", *headings)), element("tbody", *rows),
        class_="figures files",
    )  # fmt: skip
    return _scrolling(table, f"recordings through {result.label}")


def _recording(file: FileResult, name: str, index: int, number: int, figures: Sequence[Figure]) -> Markup:
    first = element("th", name, scope="row")
    anchor = f"r{index}" if number == 0 else None
    if file.error is not None:
        cells = [element("td", f"failed: {file.error}", colspan=len(figures), class_="failed")]
    else:
        cells = [element("td", figure.text(getattr(file, figure.key))) for figure in figures]
    return element("tr", first, *cells, data_n=index, id=anchor, title=file.note or None)


def _present(results: Sequence[BenchResult]) -> list[Figure]:
    """Returns the figures that any of the results has."""
    return [
        figure for figure in FIGURES if any(result.summary[figure.key] is not None for result in results)
    ] or [FIGURES[0]]


def _heading(figure: Figure) -> Markup:
    sign = {"higher": " ↑", "lower": " ↓", "": ""}[figure.better]
    title = figure.meaning + (f" {figure.better.capitalize()} is better." if figure.better else "")
    by = element("span", figure.name, class_="by")
    unit = element("span", (figure.unit or "") + sign, class_="unit")
    return element("th", by, " ", unit, scope="col", title=title)


def _average(result: BenchResult, figure: Figure) -> Markup:
    value = element("span", figure.text(result.summary[figure.key]))
    interval = result.confidence.get(figure.key)
    if interval is None:
        return element("td", value)
    low, high = (figure.text(end) for end in interval)
    return element("td", value, element("span", f"{low} to {high}", class_="interval"))


def _scrolling(table: Markup, name: str) -> Markup:
    """A wide table scrolls by itself, by keyboard, too; the page does not."""
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=name)
