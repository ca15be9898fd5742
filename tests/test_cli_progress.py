"""How far a batch is: by seconds of audio as far as files have told theirs, else by bytes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import FileBars, Lengths
from snaccli.workers import Job


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """Files of 100, 200, ... bytes; the last one is not there."""
    names = ["a.wav", "b.WAV", "c.mp3", "d.mp3", "e.ogg", "gone"]
    for number, name in enumerate(names[:-1]):
        (tmp_path / name).write_bytes(bytes(100 * (number + 1)))
    return [Job(str(tmp_path / name), "-") for name in names]


def weighed(jobs: list[Job], lengths: dict[str, float]) -> list[float]:
    found = Lengths(jobs)
    for job in jobs:
        if Path(job.source).name in lengths:
            found.known(job, lengths[Path(job.source).name])
    return [found.seconds(job) for job in jobs]


def test_known_lengths_count_as_they_are(jobs: list[Job]) -> None:
    lengths = {"a.wav": 5.0, "b.WAV": 1.0, "c.mp3": 7.0, "d.mp3": 2.5, "e.ogg": 9.0, "gone": 3.0}
    assert weighed(jobs, lengths) == list(lengths.values())


def test_others_are_guessed_by_the_bytes_of_their_kind_else_of_all(jobs: list[Job]) -> None:
    found = weighed(jobs, {"a.wav": 1.0, "c.mp3": 30.0})
    assert found == pytest.approx([1.0, 2.0, 30.0, 40.0, 500 * 31 / 400, 31 / 400])


def test_without_any_length_bytes_count(jobs: list[Job]) -> None:
    assert weighed(jobs, {}) == [100, 200, 300, 400, 500, 1]
    assert Lengths([]).fraction() == 0.0


def test_the_whole_is_what_is_done_of_all(jobs: list[Job]) -> None:
    first, second, *rest = jobs
    lengths = Lengths(jobs)
    lengths.advanced(first, 0.5)  # before its length is known: by bytes
    assert lengths.fraction() == pytest.approx(50 / 1501)
    lengths.known(first, 2.0)
    lengths.known(second, 7.0)
    lengths.advanced(second, 1.0)
    assert lengths.fraction() == pytest.approx((1.0 + 7.0) / (9.0 + 1201 * 9 / 300))
    for job in [first, *rest]:
        lengths.advanced(job, 1.0)
    assert lengths.fraction() == pytest.approx(1.0)


def test_the_whole_never_falls(jobs: list[Job]) -> None:
    lengths = Lengths(jobs)
    lengths.advanced(jobs[4], 1.0)
    before = lengths.fraction()
    lengths.known(jobs[0], 1000.0)  # far longer than its bytes made believe
    assert lengths.fraction() == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> str:
    """What bars show while each of the jobs tells its length and half of its work; two at once."""
    monkeypatch.setattr("snaccli.cli.ui.progress._REDRAW_SECONDS", 0.0)
    console = Console(io.StringIO(), Terminal(), {"TERM": "xterm", "COLUMNS": "80"})
    with FileBars(console, jobs) as bars:
        for one, other in zip(jobs[::2], jobs[1::2], strict=True):
            for job, seconds in ((one, 20.0), (other, None)):
                progress = bars.begin(job)
                progress.started(seconds)
                progress(0.5)
            bars.end(one, failed=False)
            bars.end(other, failed=True)
    return console.stderr.getvalue()


def test_bars_name_the_files_under_way_and_count_those_that_ended(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = drawn(jobs, monkeypatch)
    for word in ("0/6 files", "1/6 files", "6/6 files", "a.wav", "gone", "50%"):
        assert word in text


def test_a_lone_file_has_a_bar_of_its_own_only(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snaccli.cli.ui.progress._REDRAW_SECONDS", 0.0)
    console = Console(io.StringIO(), Terminal(), {"TERM": "xterm", "COLUMNS": "80"})
    with FileBars(console, jobs[:1]) as bars:
        bars.begin(jobs[0])(0.25)
        bars.end(jobs[0], failed=False)
    assert "a.wav" in console.stderr.getvalue()
    assert "25%" in console.stderr.getvalue()
    assert "files" not in console.stderr.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_drawn_where_it_is_not_wanted(jobs: list[Job], terminal: bool) -> None:
    console = Console(io.StringIO(), Terminal() if terminal else io.StringIO(), {"TERM": "xterm"})
    console.quiet = terminal
    with FileBars(console, jobs) as bars:
        progress = bars.begin(jobs[0])
        progress.started(1.0)
        progress(1.0)
        bars.end(jobs[0], failed=False)
    assert console.stderr.getvalue() == ""


@pytest.mark.parametrize("columns", [12, 20, 23, 24, 30, 39, 40, 60])
def test_a_narrow_terminal_has_fewer_fields_and_none_of_them_cut(
    columns: int, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snaccli.cli.ui.progress._REDRAW_SECONDS", 0.0)
    console = Console(io.StringIO(), Terminal(), {"TERM": "xterm", "COLUMNS": str(columns)})
    with FileBars(console, [Job("a", "-")]) as bars:
        progress = bars.begin(Job("a", "-"))
        progress.started(20.0)
        progress(0.5)
    text = console.stderr.getvalue()
    assert "50%" in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert ("\N{BOX DRAWINGS HEAVY HORIZONTAL}" in text) == (columns >= 24)
    assert ("-:--" in text) == (columns >= 40)


def test_the_pipe_of_a_shell_is_called_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snaccli.cli.ui.progress._REDRAW_SECONDS", 0.0)
    console = Console(io.StringIO(), Terminal(), {"TERM": "xterm", "COLUMNS": "80"})
    job = Job("/dev/fd/63", "x.snac")
    with FileBars(console, [job]) as bars:
        bars.begin(job)(0.5)
    assert "/dev/fd/63" in console.stderr.getvalue()
