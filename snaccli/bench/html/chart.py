"""Quality over bit rate, a small chart a measure, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from snaccli.bench.html.markup import Markup, element, join
from snaccli.bench.results import MEASURES, BenchResult, Figure, Interval, flat

__all__ = ["rate_quality"]

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
