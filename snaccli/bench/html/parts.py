"""The parts of a report's page: markup that text cannot turn into, tables, and small charts as SVG."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from snaccli.bench.gallery import DIFFERENCE_DB, RANGE_DB, Copy, Exhibit, Take
from snaccli.bench.results import FIGURES, MEASURES, BenchResult, Figure, FileResult, Interval, flat

__all__ = [
    "Markup",
    "compared",
    "element",
    "exhibit_body",
    "explanation",
    "join",
    "levels",
    "rate_quality",
    "recordings",
]

_VOID = frozenset(("br", "img", "input", "meta"))


class Markup(str):
    """Text that is markup already; every other string is escaped where it is put into an element."""


def join(parts: list[Markup]) -> Markup:
    """Returns pieces of markup, one after the other."""
    return Markup("".join(parts))


def element(tag: str, /, *children: str, **attributes: str | float | bool | None) -> Markup:
    """Returns an element with children (escaped unless they are `Markup`) and attributes (always escaped).

    In names of attributes ``_`` stands for ``-``, and one at the end is dropped: ``class_``, ``aria_label``.
    True gives an attribute without a value; None and False leave it out.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written.append(f" {key}" if value is True else f' {key}="{escape(str(value))}"')
    opening = f"<{tag}{''.join(written)}>"
    if tag in _VOID:
        return Markup(opening)
    inner = "".join(child if isinstance(child, Markup) else escape(child) for child in children)
    return Markup(f"{opening}{inner}</{tag}>")


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


def _present(results: Sequence[BenchResult]) -> list[Figure]:
    """Returns the figures that any of the results has."""
    return [
        figure for figure in FIGURES if any(result.summary[figure.key] is not None for result in results)
    ] or [FIGURES[0]]


def _scrolling(table: Markup, name: str) -> Markup:
    """A wide table scrolls by itself, by keyboard, too; the page does not."""
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=name)


# Excerpts

_WAVE_HEIGHT = 100  # of a waveform's drawing, in its own units


def explanation() -> str:
    """Returns how to read the pictures."""
    return (
        "Spectrograms have a mel scale from 0 Hz at the bottom to half the sampling rate, and "
        f"{RANGE_DB:.0f} dB from dark to bright, alike for original and decoded. The difference shows where "
        f"the decoded sound is louder (orange) or softer (blue), up to {DIFFERENCE_DB:.0f} dB; waveforms "
        "share one scale. Starting another player of the same recording goes on at the same place."
    )


def exhibit_body(exhibit: Exhibit, name: str) -> Markup:
    """Returns all versions of one excerpt; `name` is what the recording is called on the page."""
    takes = [exhibit.original, *(copy.decoded for copy in exhibit.copies)]
    peak = max(1e-4, *(float(np.abs(take.outline).max()) for take in takes))
    end = exhibit.start_s + exhibit.duration_s
    where = element("p", f"Seconds {exhibit.start_s:.1f} to {end:.1f}, the loudest stretch.", class_="where")
    original = _version("original", exhibit.original, peak, exhibit, f"{name}, original")
    copies = [_copy(copy, peak, exhibit, name) for copy in exhibit.copies]
    return element("div", where, element("div", original, *copies, class_="versions"), class_="exhibit")


def _version(heading: str, take: Take, peak: float, exhibit: Exhibit, name: str, *below: Markup) -> Markup:
    """Returns what is heard, with its pictures above the player."""
    return element(
        "div",
        element("h4", heading),
        _pictures(take, peak, exhibit, name),
        _player(take, name),
        *below,
        class_="version",
    )


def _copy(copy: Copy, peak: float, exhibit: Exhibit, name: str) -> Markup:
    difference = element(
        "div",
        element("h5", "difference", element("span", f" of {copy.name} from the original", class_="spoken")),
        _pictures(copy.difference, peak, exhibit, f"{name}, {copy.name}, difference"),
        class_="difference",
    )
    return _version(copy.name, copy.decoded, peak, exhibit, f"{name}, {copy.name}", difference)


def _pictures(take: Take, peak: float, exhibit: Exhibit, name: str) -> Markup:
    low, high = np.clip(take.outline / peak, -1, 1)
    middle, count = _WAVE_HEIGHT / 2, len(high)
    # Never thinner than a line, so that silence shows as one.
    top = np.rint(middle - np.maximum(high * middle, 0.5)).astype(int)
    bottom = np.rint(middle - np.minimum(low * middle, -0.5)).astype(int)
    there = " ".join(f"{x},{y}" for x, y in enumerate(top))
    back = " ".join(f"{x},{y}" for x, y in zip(range(count - 1, -1, -1), bottom[::-1], strict=True))
    wave = element(
        "svg",
        element("polygon", points=f"{there} {back}"),
        viewBox=f"0 0 {max(1, count - 1)} {_WAVE_HEIGHT}",
        preserveAspectRatio="none",
        class_="wave",
        role="img",
        aria_label=f"waveform: {name}",
    )
    image = element(
        "img",
        src=_data(take.spectrogram, "image/png"),
        alt=f"log-mel spectrogram: {name}",
        class_="mel",
    )
    top_khz = f"{exhibit.rate / 2000:.3g} kHz"
    scale = element("span", top_khz, class_="khz", aria_hidden="true")
    return element("div", wave, element("div", image, scale, class_="framed"), class_="pictures")


def _player(take: Take, name: str) -> Markup:
    return element(
        "audio",
        controls=True,
        preload="none",
        src=_data(take.sound, "audio/flac"),
        aria_label=f"play: {name}",
    )


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


_WIDTH, _HEIGHT = 360, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 12, 38
_MOST_TICKS = 6
_COLOURS = 7  # that the style sheet has
_SHAPES = ("circle", "square", "diamond", "triangle", "cross")


@dataclass(frozen=True)
class _Point:
    rate: float
    value: float
    interval: Interval | None
    label: str  # beside the point
    full: str  # told when pointed at


@dataclass(frozen=True)
class _Series:
    name: str
    number: int

    @property
    def style(self) -> str:
        return f"s{self.number % _COLOURS}"

    @property
    def shape(self) -> str:
        return _SHAPES[self.number % len(_SHAPES)]


def rate_quality(results: Sequence[BenchResult]) -> Markup:
    """Returns a legend and the charts; empty where there are fewer than two points to compare."""
    points = flat(results)
    if len(points) < 2:
        return Markup()
    names = list(dict.fromkeys(_series_name(result) for result in points))
    series = [_Series(name, number) for number, name in enumerate(names)]
    charts = [chart for figure in MEASURES if (chart := _chart(figure, series, points))]
    legend = element("ul", *(_legend(each) for each in series), class_="legend")
    return join([legend, element("div", *charts, class_="charts")])


def _series_name(result: BenchResult) -> str:
    """Points of one name are joined by a line: a model's levels, a codec's settings."""
    return result.model.partition(":")[0] if result.kind == "peer" else result.model


def _legend(series: _Series) -> Markup:
    mark = element(
        "svg", _mark(series, 8, 8), viewBox="0 0 16 16", class_=f"key {series.style}", aria_hidden="true"
    )
    return element("li", mark, series.name)


def _point(result: BenchResult, figure: Figure) -> _Point | None:
    rate, value = result.summary["bitrate_kbps"], result.summary[figure.key]
    if not rate or value is None:
        return None
    if result.kind == "peer":
        label = result.model.partition(":")[2]
    else:
        label = "" if result.levels is None else f"{result.levels}"
    full = f"{result.label}: {rate:.2f} kbit/s, {figure.name} {figure.text(value)} {figure.unit}".rstrip()
    return _Point(rate, value, result.confidence[figure.key], label, full)


def _chart(figure: Figure, series: Sequence[_Series], results: Sequence[BenchResult]) -> Markup | None:
    lines: list[tuple[_Series, list[_Point]]] = []
    for each in series:
        found = [_point(result, figure) for result in results if _series_name(result) == each.name]
        if points := sorted((point for point in found if point), key=lambda point: point.rate):
            lines.append((each, points))
    every = [point for _, points in lines for point in points]
    if not every:
        return None
    axes = _Axes.around(every)
    spoken = "; ".join(point.full for point in every)
    drawing = element(
        "svg",
        axes.draw(figure),
        *(_line(axes, each, points) for each, points in lines),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{figure.name} over bit rate. {spoken}",
    )
    unit = f", {figure.unit}" if figure.unit else ""
    caption = element("figcaption", element("b", figure.name), f"{unit} ({figure.better} is better)")
    return element("figure", caption, drawing, class_="chart")


@dataclass(frozen=True)
class _Axes:
    """Logarithmic in bit rate, linear in the measure."""

    rates: tuple[float, float]
    values: tuple[float, float]
    step: float

    @classmethod
    def around(cls, points: Sequence[_Point]) -> _Axes:
        rates = [point.rate for point in points]
        ends = [end for point in points for end in (point.value, *(point.interval or ()))]
        low, high = min(ends), max(ends)
        step = _nice((high - low or abs(high) or 1.0) / (_MOST_TICKS - 2))
        values = math.floor(low / step) * step, math.ceil(high / step) * step
        if values[0] == values[1]:
            values = values[0] - step, values[1] + step
        return cls((min(rates) / 1.25, max(rates) * 1.25), values, step)

    def x(self, rate: float) -> float:
        low, high = self.rates
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(rate / low) / math.log(high / low)

    def y(self, value: float) -> float:
        low, high = self.values
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    def draw(self, figure: Figure) -> Markup:
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        parts = []
        for index in range(round((self.values[1] - self.values[0]) / self.step) + 1):
            value = self.values[0] + index * self.step
            y = f"{self.y(value):.1f}"
            parts.append(element("line", x1=_LEFT, x2=right, y1=y, y2=y, class_="grid"))
            text = f"{value:.{max(0, -math.floor(math.log10(self.step)))}f}"
            parts.append(element("text", text, x=_LEFT - 6, y=y, dy="0.35em", text_anchor="end"))
        for rate in _rate_ticks(*self.rates):
            x = f"{self.x(rate):.1f}"
            parts.append(element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
            parts.append(element("text", f"{rate:g}", x=x, y=bottom + 16, text_anchor="middle"))
        parts.append(element("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"))
        middle = (_LEFT + right) / 2
        parts.append(element("text", "kbit/s", x=middle, y=_HEIGHT - 6, text_anchor="middle"))
        return element("g", *parts, aria_hidden="true")


def _nice(step: float) -> float:
    """Returns the next of 1, 2, 5, 10, … times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def _rate_ticks(low: float, high: float) -> list[float]:
    factors: tuple[float, ...] = (1, 2, 5) if high / low > 4 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    ticks = [factor * 10.0**power for power in range(-2, 4) for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def _line(axes: _Axes, series: _Series, points: Sequence[_Point]) -> Markup:
    path = " ".join(f"{axes.x(point.rate):.1f},{axes.y(point.value):.1f}" for point in points)
    parts = [element("polyline", points=path)] if len(points) > 1 else []
    for point in points:
        x, y = axes.x(point.rate), axes.y(point.value)
        if point.interval:
            low, high = (f"{axes.y(end):.1f}" for end in point.interval)
            parts.append(element("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=low, y2=high, class_="bar"))
        mark = _mark(series, x, y)
        parts.append(element("g", element("title", point.full), mark))
        parts.append(element("text", point.label, x=f"{x + 7:.1f}", y=f"{y - 6:.1f}", aria_hidden="true"))
    return element("g", *parts, class_=series.style)


def _mark(series: _Series, x: float, y: float) -> Markup:
    """Returns a shape of its own, so that colour alone tells nothing."""
    if series.shape == "circle":
        return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=4.5, class_="mark")
    corners = {
        "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "diamond": ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
        "triangle": ((0, -5), (5, 4), (-5, 4)),
        "cross": (
            (-1.5, -5), (1.5, -5), (1.5, -1.5), (5, -1.5), (5, 1.5), (1.5, 1.5),
            (1.5, 5), (-1.5, 5), (-1.5, 1.5), (-5, 1.5), (-5, -1.5), (-1.5, -1.5),
        ),
    }[series.shape]  # fmt: skip
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return element("polygon", points=path, class_="mark")
