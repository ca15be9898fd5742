"""The HTML report: complete, inert whatever files are called, bounded, and alive in a real browser."""

from __future__ import annotations

import io
import re
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli import bench
from snaccli.bench import BenchResult, FileResult, Gallery, gallery
from snaccli.bench.gallery import choose
from snaccli.bench.html.parts import Markup, element
from tests.pcm_codec import RATE, install, tone, write
from tests.webdriver import Browser

VOID = ("br", "img", "input", "meta")
HOSTILE = "<img src=x onerror=alert(1)>&amp;\"' .wav"


@pytest.fixture(autouse=True)
def pcm_codec(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    return install(monkeypatch)


class Page(HTMLParser):
    """Checks that elements nest, and counts them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: Counter[str] = Counter()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.outside: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"a handler: {name}"
            if name == "id":
                self.ids.append(str(value))
            if name == "href":
                self.targets.append(str(value))
            if name in ("src", "href") and not str(value).startswith(("data:", "#")):
                self.outside.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def many(folder: Path, count: int, seconds: float = 0.3) -> list[Path]:
    """Recordings that fare the worse the higher their number."""
    loud = [tone(seconds, seed=n) * (0.5 + 0.4 * n / count) for n in range(count)]
    return [write(folder / f"{n:04}.wav", samples) for n, samples in enumerate(loud)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[BenchResult], Gallery, Path]:
    """Five recordings through two codecs: one of a hostile name, one that fails, one longer than a clip."""
    folder = tmp_path_factory.mktemp("report")
    paths = [write(folder / name, tone(1.5, seed=len(name))) for name in (HOSTILE, "b.wav", "c long.wav")]
    paths += [write(folder / "below" / "d.flac", tone(0.4, 44100, channels=2), 44100)]
    (folder / "broken.wav").write_text("hardly audio")
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        shown = Gallery(count=12, clip_s=1.0)
        results = bench.run([*paths, folder / "broken.wav"], ["one", "small"], gallery=shown)
    page = folder / "page.html"
    page.write_text(bench.to_html(results, shown), encoding="utf-8")
    return results, shown, page


# The gallery


def test_excerpts_hold_original_and_every_copy(
    report: tuple[list[BenchResult], Gallery, Path], tmp_path: Path
) -> None:
    results, shown, _ = report
    assert [exhibit.number for exhibit in shown.exhibits] == [0, 1, 2, 3]  # all but the broken one
    for exhibit in shown.exhibits:
        path = results[0].files[exhibit.number].path
        assert exhibit.duration_s == (0.4 if path.endswith("d.flac") else 1.0)
        heard, rate = soundfile.read(io.BytesIO(exhibit.original.sound))
        whole = soundfile.read(path, always_2d=True)[0].mean(axis=1)
        first = round(exhibit.start_s * rate)
        np.testing.assert_allclose(heard, whole[first : first + len(heard)], atol=1.01 / 32768)
        assert [copy.name for copy in exhibit.copies] == ["one", "small"]
        decoded, _ = soundfile.read(io.BytesIO(exhibit.copies[0].decoded.sound))
        assert len(decoded) == len(heard)
        assert 0 < np.abs(decoded - heard).max() < 1 / 128


def test_the_loudest_stretch_is_shown(tmp_path: Path) -> None:
    samples = tone(3.0) * 0.01
    samples[2 * RATE :] = tone(1.0)
    shown = Gallery(clip_s=0.5)
    bench.run([write(tmp_path / "a.wav", samples)], ["one"], gallery=shown)
    assert 1.9 <= shown.exhibits[0].start_s <= 2.5


def test_the_worst_are_shown_and_the_rest_sampled() -> None:
    files = tuple(FileResult(str(n), mel_distance=float(n)) for n in range(100))
    result = BenchResult("m", "f", "cpu", 1, (*files, FileResult("x", error="broken")))
    assert choose(result, 6) == [99, 98, 97, 0, 48, 96]
    assert choose(result, 2) == [99, 98]
    assert choose(result, 0) == []
    assert sorted(choose(result, 1000)) == list(range(100))


def test_a_gallery_stops_at_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "MOST_BYTES", 60_000)
    shown = Gallery(count=5)
    bench.run(many(tmp_path, 5), ["one"], gallery=shown)
    assert 1 <= len(shown.exhibits) < 5
    assert shown.dropped == 5 - len(shown.exhibits)
    assert shown.exhibits[-1].number == 4 or shown.exhibits[0].number == 0


# Pictures


def decode_png(png: bytes) -> np.ndarray:
    """Shades (rows, columns), read by the rules of the format."""
    import struct
    import zlib

    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, size = 8, b"", (0, 0)
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        content = png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + content) == struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0]
        if kind == b"IHDR":
            size = struct.unpack(">II", content[:8])
        data += content if kind == b"IDAT" else b""
        at += 12 + length
    lines = np.frombuffer(zlib.decompress(data), np.uint8).reshape(size[1], size[0] + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:]


@pytest.mark.parametrize("rate", [8000, 24000, 48000])
def test_a_spectrogram_shows_a_tone_at_its_height(rate: int) -> None:
    low, high = (np.sin(2 * np.pi * f * np.arange(rate) / rate).astype(np.float32) for f in (200, 3000))
    rows = []
    for samples in (low, high):
        mel = gallery.log_mel(samples, rate)
        shades = decode_png(gallery.spectrogram_png(mel, float(mel.max())))
        assert shades.shape == mel.shape
        assert shades.shape[1] <= 400
        rows.append(int(shades[:, shades.shape[1] // 2].argmax()))
    assert rows[1] < rows[0]  # higher up


def test_equal_sounds_differ_nowhere() -> None:
    mel = gallery.log_mel(tone(0.5)[:, 0].astype(np.float32), RATE)
    same = decode_png(gallery.difference_png(mel, mel, float(mel.max())))
    louder = decode_png(gallery.difference_png(mel + 10, mel, float(mel.max())))
    assert set(np.unique(same)) <= {23, 24}  # the middle of the colours
    assert louder.max() > 30


# The page


def test_the_page_is_whole_and_stands_alone(report: tuple[list[BenchResult], Gallery, Path]) -> None:
    text = report[2].read_text(encoding="utf-8")
    page = Page(text)
    assert page.outside == []
    assert "://" not in text
    assert "default-src 'none'" in text.replace("&#x27;", "'")
    assert page.count["audio"] == 4 * 3
    assert page.count["img"] == 4 * 5
    assert len(set(page.ids)) == len(page.ids)
    assert {target[1:] for target in page.targets} <= set(page.ids)
    for heading in ("one in short", "Codecs compared", "Quality over bit rate", "Bits per token by level",
                    "The worst 3 of one", "Recordings", "Machine"):  # fmt: skip
        assert heading in text


def test_names_stay_text(report: tuple[list[BenchResult], Gallery, Path]) -> None:
    results, shown, _ = report
    evil = "</script><script>alert(2)</script>\u202e"
    worse = [
        replace(result, model=evil, tool=evil, kind="peer" if n else "model", files=(
            *result.files, FileResult(f"/x/{evil}.wav", error=evil), FileResult("/x/y.wav", note=f'"{evil}'),
        ))
        for n, result in enumerate(results)
    ]  # fmt: skip
    page = Page(bench.to_html(worse, shown))
    assert page.count["script"] == 1
    assert page.count["img"] == 4 * 5


def test_elements_escape_by_themselves() -> None:
    assert element("b", "<i>", Markup("<br>"), title='"&', data_n=1, hidden=True, id=None) == (
        '<b title="&quot;&amp;" data-n="1" hidden>&lt;i&gt;<br></b>'
    )


def test_a_single_failed_recording_still_makes_a_page(tmp_path: Path) -> None:
    shown = Gallery()
    results = bench.run([tmp_path / "missing.wav"], ["one"], gallery=shown)
    page = bench.to_html(results, shown, datetime(2026, 1, 2, tzinfo=timezone.utc))
    Page(page)
    assert "missing.wav" in page
    assert "2026-01-02" in page
    assert shown.exhibits == []


def test_levels_are_measured_and_told(tiny_model_folder: Path, recording: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.undo()  # the real codec
    shown = Gallery(clip_s=1.0)
    (result,) = bench.run([recording], [str(tiny_model_folder)], device="cpu", threads=1, levels=True,
                          gallery=shown)  # fmt: skip
    assert [part.levels for part in result.parts] == [1, 2, 3]
    rates = [part.summary["bitrate_kbps"] for part in (*result.parts, result)]
    assert rates == sorted(rates)
    file = result.files[0]
    assert result.parts[0].files[0].bytes == file.bytes - sum(level["bytes"] for level in file.levels[1:])
    assert [row["stride"] for row in result.by_level()] == [8, 4, 2, 1]
    # An excerpt is decoded by itself, and yet is a part of the whole.
    assert (
        len(soundfile.read(io.BytesIO(shown.exhibits[0].copies[0].decoded.sound))[0])
        == soundfile.info(recording).samplerate
    )
    assert "1 level" in bench.to_html([result], shown)
    assert [part["levels"] for part in result.to_dict()["by_levels_used"]] == [1, 2, 3]
    assert bench.to_csv([result]).count("\n") == 1 + 4


def uniform(count: int) -> BenchResult:
    """So many recordings that all fared alike."""
    values = dict.fromkeys(
        ("duration_s", "bitrate_kbps", "raw_bitrate_kbps", "bits_per_token", "snr_db", "si_sdr_db",
         "mel_distance", "lsd_db", "stoi", "pesq", "encode_x_realtime", "decode_x_realtime"), 12.345,
    )  # fmt: skip
    files = tuple(FileResult(f"/some/folder/recording {n:04}.flac", **values) for n in range(count))
    return BenchResult("m", "f", "cpu", 1, files)


def test_a_thousand_recordings_make_a_small_page() -> None:
    page = bench.to_html([replace(uniform(1000), model=f"model {n}") for n in range(2)], Gallery())
    Page(page)
    # Beside it a full gallery: base64 makes four bytes of three.
    assert len(page) + gallery.MOST_BYTES * 4 / 3 < 50e6


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    window = Browser(tmp_path_factory.mktemp("profile"))
    yield window
    window.close()


NAMES = "[...document.querySelectorAll('.codec:not([hidden]) tbody th')].map(th => th.textContent)"


def test_a_browser_opens_and_sorts(browser: Browser, report: tuple[list[BenchResult], Gallery, Path]) -> None:
    results, _, page = report
    browser.open(page)
    assert browser.complaints() == []
    names = browser.run(f"return {NAMES}")
    assert len(names) == 5
    assert HOSTILE in names
    heading = (
        "[...document.querySelectorAll('.files thead th')].find(th => th.textContent.startsWith('SI-SDR'))"
    )
    for direction in (1, -1):
        browser.run(f"{heading}.querySelector('button').click()")
        order = browser.run(f"return {NAMES}")
        told = {Path(file.path).name: file for file in results[0].files}
        values = [told[Path(name).name].si_sdr_db for name in order]
        assert values[-1] is None  # what failed stays at the end
        rounded = [round(value, 1) for value in values[:-1]]
        assert rounded == sorted(rounded, reverse=direction < 0)
    assert browser.run(f"return {heading}.getAttribute('aria-sort')") == "descending"
    assert browser.complaints() == []


def test_a_browser_opens_excerpts_by_keyboard_and_plays_them(
    browser: Browser, report: tuple[list[BenchResult], Gallery, Path]
) -> None:
    browser.open(report[2])
    assert browser.run("return [...document.querySelectorAll('.detail')].every(row => row.hidden)")
    browser.run("document.querySelectorAll('.codec:not([hidden]) .open')[1].focus()")
    browser.press("\ue007")  # Enter
    opened = "[...document.querySelectorAll('.detail')].filter(row => !row.hidden)"
    assert browser.run(f"return {opened}.length") == 1
    assert browser.run("return document.activeElement.getAttribute('aria-expanded')") == "true"
    pictures_loaded = f"[...{opened}[0].querySelectorAll('img')].every(img => img.naturalWidth > 10)"
    assert browser.run(f"return {pictures_loaded}")
    played = browser.run(
        f"""const players = [...{opened}[0].querySelectorAll('audio')];
        return (async () => {{
            const seconds = [];
            for (const player of players) {{
                await player.play();
                seconds.push(player.duration);
            }}
            return [seconds, players.map(player => player.paused)];
        }})();"""
    )
    assert played[0] == pytest.approx([1.0, 1.0, 1.0])
    assert played[1] == [True, True, False]  # one at a time
    assert browser.complaints() == []


def test_a_browser_shows_other_codecs_figures(
    browser: Browser, report: tuple[list[BenchResult], Gallery, Path]
) -> None:
    browser.open(report[2])
    browser.run("document.querySelectorAll('input[name=codec]')[1].click()")
    shown = "document.querySelectorAll('.codec:not([hidden])')"
    assert browser.run(f"return [{shown}.length, {shown}[0].dataset.codec]") == [1, "1"]
    assert browser.run(f"return {shown}[0].querySelectorAll('.detail').length") == 4
    browser.run("document.querySelector('.worst a').click()")
    assert browser.run(f"return {shown}[0].dataset.codec") == "0"
    assert browser.run("return document.querySelectorAll('.detail:not([hidden])').length") == 1
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_needs_no_sideways_scrolling_of_the_page(
    browser: Browser, report: tuple[list[BenchResult], Gallery, Path], width: int
) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.command("Emulation.setDeviceMetricsOverride", **size)
    browser.open(report[2])
    browser.run("document.querySelector('.open').click()")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run("return document.querySelector('.exhibit').getBoundingClientRect().width") <= width
    browser.command("Emulation.clearDeviceMetricsOverride")


@pytest.mark.parametrize("width", [390, 1300])
def test_a_browser_keeps_the_headings_of_many_rows_in_sight(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    page = tmp_path / "page.html"
    page.write_text(bench.to_html([uniform(100)]), encoding="utf-8")
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.command("Emulation.setDeviceMetricsOverride", **size)
    browser.open(page)
    browser.run("document.getElementById('r80').scrollIntoView({behavior: 'instant', block: 'center'})")
    top = "document.querySelector('{}').getBoundingClientRect().top"
    heading, row = (browser.run("return " + top.format(which)) for which in (".files thead th", "#r80"))
    assert 0 <= heading < row < 800
    browser.command("Emulation.clearDeviceMetricsOverride")


def test_without_scripts_the_page_is_there_to_read(
    browser: Browser, report: tuple[list[BenchResult], Gallery, Path], tmp_path: Path
) -> None:
    silent = tmp_path / "silent.html"
    silent.write_text(
        re.sub(r"<script>.*</script>", "", report[2].read_text(encoding="utf-8"), flags=re.DOTALL),
        encoding="utf-8",
    )
    browser.open(silent)
    assert browser.run("return document.querySelectorAll('tr[hidden], div[hidden]').length") == 0
    text = browser.run("return document.body.innerText")
    assert "Headings sort" not in text
    assert f"excerpt of {HOSTILE}" in text  # opens by the browser's own means
