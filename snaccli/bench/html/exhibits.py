"""The excerpt of one recording in a report: waveforms, spectrograms, players."""

from __future__ import annotations

import base64

import numpy as np

from snaccli.bench.gallery import Copy, Exhibit, Take
from snaccli.bench.html.markup import Markup, element
from snaccli.bench.pictures import DIFFERENCE_DB, RANGE_DB

__all__ = ["exhibit_body", "explanation"]

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
