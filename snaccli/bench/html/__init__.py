"""A bench as one HTML page that needs nothing but itself: no network, and to be read, no scripts either.

Here its head, its sections, and the machine it was made on.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from snac import __version__
from snaccli.bench.gallery import Gallery
from snaccli.bench.html.parts import (
    Markup,
    compared,
    element,
    exhibit_body,
    explanation,
    join,
    levels,
    rate_quality,
    recordings,
)
from snaccli.bench.perceptual import remark
from snaccli.bench.results import (
    FIGURES,
    MEASURES,
    RESAMPLES,
    WORST,
    BenchResult,
    flat,
    ranking,
    short_names,
)
from snaccli.io.files import shown
from snaccli.workers import available

__all__ = ["to_html"]

_LONG = 40  # recordings, from which a narrow window scrolls the table in a frame of its own
_IN_TILES = ("bitrate_kbps", "bits_per_token", "mel_distance", "si_sdr_db", "stoi", "pesq")
_TILES = [figure for figure in FIGURES if figure.key in _IN_TILES]


def to_html(
    results: Sequence[BenchResult], gallery: Gallery | None = None, now: datetime | None = None
) -> str:
    """Returns the whole page.

    Args:
        results: one or more, of the same recordings.
        gallery: the excerpts to show.
        now: the date on it, by default today.
    """
    every = flat(results)
    names = short_names([file.path for file in results[0].files])
    exhibits = gallery.exhibits if gallery is not None else []
    bodies = {each.number: exhibit_body(each, names[each.number]) for each in exhibits}
    title = "snac bench: " + ", ".join(result.model for result in results)
    sections = [
        _summary(results[0]),
        _section("Codecs compared", compared(every), _note(_comparison_note(results))),
        _charts(results),
        *(_levels(result) for result in results if result.kind == "model"),
        _worst(results[0], names),
        _recordings(results, names, bodies, gallery),
        _method(results),
    ]
    main = element("main", _header(results, title, now or datetime.now(timezone.utc)), *sections)
    return _page(title, main)


def _page(title: str, main: Markup) -> str:
    style, script = (
        Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    # Nothing is loaded from anywhere, and no script runs but this one.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup(style)),
    )
    body = element("body", main, element("script", Markup(script)))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _header(results: Sequence[BenchResult], title: str, now: datetime) -> Markup:
    first = results[0]
    count, minutes = len(first.files), first.summary["total_duration_s"] / 60
    facts = f"{count} recording{'s' * (count != 1)}, {minutes:.1f} minutes in all, measured on {now:%Y-%m-%d}"
    if failed := sum(len(result.failed) for result in results):
        facts += f"; {failed} failed"
    return element("header", element("h1", title), element("p", facts))


def _section(heading: str, *parts: Markup) -> Markup:
    return element("section", element("h2", heading), *parts)


def _note(*texts: str) -> Markup:
    return element("p", " ".join(text for text in texts if text), class_="note")


def _summary(result: BenchResult) -> Markup:
    summary, tiles = result.summary, []
    for figure in _TILES:
        value = summary[figure.key]
        if value is None:
            continue
        interval = result.confidence.get(figure.key)
        range_text = "" if interval is None else " to ".join(figure.text(end) for end in interval)
        tiles.append(_tile(figure.name, figure.text(value), figure.unit, range_text))
    for name, key in (("encodes", "encode_x_realtime"), ("decodes", "decode_x_realtime")):
        if summary[key] is not None:
            where = f"real time, {result.device}, {result.threads} thread{'s' * (result.threads != 1)}"
            tiles.append(_tile(name, f"{summary[key]:.1f}", "x", where))
    return element(
        "section", element("h2", f"{result.model} in short"), element("dl", *tiles, class_="tiles")
    )


def _tile(name: str, value: str, unit: str, below: str) -> Markup:
    shown_value = element("dd", element("b", value), f" {unit}" if unit else "")
    parts = [element("dt", name), shown_value]
    if below:
        parts.append(element("dd", below, class_="interval"))
    return element("div", *parts)


def _comparison_note(results: Sequence[BenchResult]) -> str:
    text = (
        "Means over the recordings; below them 95 % intervals, by bootstrap over the recordings "
        f"({RESAMPLES} samples). Bit rates count every byte of the files, containers included. "
    )
    if any(result.kind == "peer" for result in results):
        text += "Decoded audio of other codecs was brought to the recording's rate and freed from its delay."
    return text


def _charts(results: Sequence[BenchResult]) -> Markup:
    charts = rate_quality(results)
    if not charts:
        return Markup()
    hint = "Bars are the 95 % intervals."
    if any(result.parts for result in results):
        hint += " Small numbers beside a model's points say how many of its coarsest levels were decoded."
    return _section("Quality over bit rate", charts, _note(hint))


def _levels(result: BenchResult) -> Markup:
    heading = f"Bits per token by level, {result.model}"
    raw, tokens = result.summary["raw_bitrate_kbps"], result.summary["tokens"]
    note = ""
    if raw and tokens:
        bits = raw * 1000 * result.summary["total_duration_s"] / tokens
        note = f"Uncoded, every token takes {bits:.4g} bits."
    return _section(heading, levels(result), _note(note))


def _worst(result: BenchResult, names: Sequence[str]) -> Markup:
    order = ranking(result.files)
    if len(order) <= WORST:
        return Markup()
    items = []
    for number in order[:WORST]:
        distance = result.files[number].mel_distance
        link = element("a", names[number], href=f"#r{number}")
        items.append(element("li", link, f": mel distance {distance:.1f} dB"))
    return _section(f"The worst {WORST} of {result.model}", element("ol", *items, class_="worst"))


def _recordings(
    results: Sequence[BenchResult],
    names: Sequence[str],
    bodies: dict[int, Markup],
    gallery: Gallery | None,
) -> Markup:
    shown_results = flat(results)
    # The first model's whole first: under its rows stand the excerpts.
    ordered = [results[0], *(result for result in shown_results if result is not results[0])]
    parts = []
    if len(ordered) > 1:
        choices = [
            element(
                "label",
                element("input", type="radio", name="codec", value=number, checked=number == 0),
                result.label,
            )
            for number, result in enumerate(ordered)
        ]
        parts.append(
            element("fieldset", element("legend", "Figures of"), *choices, class_="choice needs-script")
        )
    for number, result in enumerate(ordered):
        heading = element("h3", result.label, class_="codec-name")
        table = recordings(result, names, number, bodies)
        kind = "codec long" if len(names) > _LONG else "codec"
        parts.append(element("div", heading, table, class_=kind, data_codec=number))
    hints = [element("span", "Headings sort. ", class_="needs-script")]
    if bodies:
        hints.append(element("span", "Underlined recordings open. ", class_="needs-script"))
        hints.append(element("span", f"{_shown_of(len(bodies), len(names), gallery)} {explanation()}"))
    return _section("Recordings", element("p", *hints, class_="note"), *parts)


def _shown_of(count: int, total: int, gallery: Gallery | None) -> str:
    if count == total:
        return "Each has an excerpt."
    text = f"{count} of {total} have an excerpt: the worst by mel distance, and some from the best down."
    if gallery is not None and gallery.dropped:
        text += f" {gallery.dropped} more were wanted, but would have made the page too large."
    return text


def _method(results: Sequence[BenchResult]) -> Markup:
    rows = _machine_rows()
    for result in results:
        if result.kind == "model":
            rows.append((result.model, f"weights {result.fingerprint}, on {result.device}"))
        else:
            rows.append((result.model, f"by {result.tool}"))
    machine = element(
        "dl",
        *(element("div", element("dt", name), element("dd", shown(value))) for name, value in rows),
        class_="facts",
    )
    meanings = []
    for figure in MEASURES:
        if all(result.summary[figure.key] is None for result in results):
            continue
        better = f" {figure.better.capitalize()} is better."
        meanings.append(element("div", element("dt", figure.name), element("dd", figure.meaning + better)))
    measures = element("dl", *meanings, class_="facts")
    words = "STOI and PESQ are made for speech and say nothing of music."
    note = remark() or (words if results[0].summary["stoi"] is not None else "")
    return join([_section("Measures", measures, _note(note)), _section("Machine", machine)])


def _machine_rows() -> list[tuple[str, str]]:
    """Returns pairs of what and which: processor, system, versions."""
    rows = [
        ("processor", f"{_processor()}, {available()} processors to use"),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("Python", platform.python_version()),
        ("snac", __version__),
    ]
    for package in ("torch", "numpy", "pystoi", "pesq"):
        with contextlib.suppress(PackageNotFoundError):
            rows.append((package, version(package)))
    return [(name, shown(value)) for name, value in rows]


def _processor() -> str:
    """Returns the maker's name of it, which Python tells on some systems only."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"
