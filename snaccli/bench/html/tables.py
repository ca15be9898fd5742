"""The tables of a report: codecs compared, levels, recordings with their excerpts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import numpy as np

from snaccli.bench.gallery import DIFFERENCE_DB, RANGE_DB, Copy, Exhibit, Take
from snaccli.bench.html.markup import Markup, element
from snaccli.bench.results import FIGURES, BenchResult, Figure, FileResult

__all__ = ["compared", "exhibit_body", "explanation", "levels", "recordings"]


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

_HEIGHT = 100  # of a waveform's drawing, in its own units


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
    middle, count = _HEIGHT / 2, len(high)
    # Never thinner than a line, so that silence shows as one.
    top = np.rint(middle - np.maximum(high * middle, 0.5)).astype(int)
    bottom = np.rint(middle - np.minimum(low * middle, -0.5)).astype(int)
    there = " ".join(f"{x},{y}" for x, y in enumerate(top))
    back = " ".join(f"{x},{y}" for x, y in zip(range(count - 1, -1, -1), bottom[::-1], strict=True))
    wave = element(
        "svg",
        element("polygon", points=f"{there} {back}"),
        viewBox=f"0 0 {max(1, count - 1)} {_HEIGHT}",
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
