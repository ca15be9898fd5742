"""Bars on a terminal for the whole run and for the files under way; nothing at all elsewhere."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snaccli.cli.plan import SHELL_PIPES
from snaccli.cli.ui.console import Console
from snaccli.errors import shown
from snaccli.progress import SILENT, Progress
from snaccli.workers import Job

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress as RichProgress
    from rich.progress import Task, TaskID
    from typing_extensions import Self

__all__ = ["CaptionBar", "FileBars", "Lengths", "waiting"]

_REDRAW_SECONDS = 0.1
_WITH_BARS, _WITH_TIMES = 24, 40  # columns of a terminal


class _Bars:
    """Bars on standard error, if that is a terminal; redrawn by whoever tells of progress.

    A thread of rich's own would redraw them too, but can come between a message and the bars below it.

    Args:
        console: where to.
        jobs: the files whose work is shown, if it is that of files.
    """

    def __init__(self, console: Console, jobs: Sequence[Job] = ()) -> None:
        self._console = console
        self._jobs = jobs
        self._stack = contextlib.ExitStack()
        self._lock = threading.RLock()
        self._drawn = 0.0
        self._rich: RichProgress | None = None

    def __enter__(self) -> Self:
        console = self._console
        if console.interactive and not console.quiet:
            rich = console.rich(console.stderr, terminal=True)
            self._rich = self._stack.enter_context(_progress(rich))
            self._stack.enter_context(console.live(rich, self._lock))
            self._begin(self._rich)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begin(self, rich: RichProgress) -> None:
        """Adds the first bar."""
        rich.add_task("", total=1.0, rate="")

    def _redraw(self) -> None:
        if self._rich is not None and time.monotonic() - self._drawn >= _REDRAW_SECONDS:
            self._drawn = time.monotonic()
            self._rich.refresh()


class FileBars(_Bars):
    """The progress of a run: a bar for all files by their seconds of audio, and one for each under way.

    Every method may be called from several threads at once.
    """

    _whole: TaskID | None = None

    def _begin(self, rich: RichProgress) -> None:
        self._under_way: dict[Job, _FileBar] = {}
        self._ended = 0
        self._ended_seconds = 0.0
        self._begun = time.monotonic()
        if len(self._jobs) > 1:
            self._lengths = Lengths(self._jobs)
            self._whole = rich.add_task("", total=1.0, rate="")
            self._show_whole()

    def begin(self, job: Job) -> Progress:
        """Shows a bar for `job`, and returns what its work tells of itself to."""
        if self._rich is None:
            return SILENT
        with self._lock:
            task = self._rich.add_task(_label(job.source), total=1.0, rate="")
            bar = _FileBar(self, job, task, time.monotonic())
            self._under_way[job] = bar
            self._redraw()
        return bar

    def end(self, job: Job, *, failed: bool) -> None:
        """Takes the bar of `job` away and counts the file; the speed is that of files which did not fail."""
        if self._rich is None:
            return
        with self._lock:
            bar = self._under_way.pop(job)
            self._rich.remove_task(bar.task)
            self._ended += 1
            self._ended_seconds += 0.0 if failed else bar.seconds
            if self._whole is not None:
                self._lengths.advanced(job, 1.0)
            self._show_whole()
            self._redraw()

    def show(self, bar: _FileBar) -> None:
        """Draws what has become of a file's bar."""
        if self._rich is None or bar.job not in self._under_way:
            return
        with self._lock:
            rate = _rate(bar.seconds * bar.fraction, time.monotonic() - bar.begun)
            self._rich.update(bar.task, completed=bar.fraction, rate=rate)
            if self._whole is not None:
                self._lengths.advanced(bar.job, bar.fraction)
                if bar.seconds:
                    self._lengths.known(bar.job, bar.seconds)
            self._show_whole()
            self._redraw()

    def _show_whole(self) -> None:
        if self._rich is None or self._whole is None:
            return
        under_way = sum(bar.seconds * bar.fraction for bar in self._under_way.values())
        self._rich.update(
            self._whole,
            description=f"{self._ended}/{len(self._jobs)} files",
            completed=self._lengths.fraction(),
            rate=_rate(self._ended_seconds + under_way, time.monotonic() - self._begun),
        )


@dataclass
class _FileBar:
    """A file whose bar is shown: the progress of its work.

    Attributes:
        task: the bar's number.
        begun: when, by the monotonic clock.
        seconds: of audio, 0 as long as that is not known.
        fraction: of the work done, 0 to 1.
    """

    bars: FileBars
    job: Job
    task: TaskID
    begun: float
    seconds: float = 0.0
    fraction: float = 0.0

    def started(self, seconds: float | None) -> None:
        """Takes the length of the recording, once the work knows it."""
        self.seconds = seconds or 0.0
        self.bars.show(self)

    def __call__(self, fraction: float) -> None:
        """Takes the fraction of the work that is done."""
        self.fraction = fraction
        self.bars.show(self)


@dataclass
class _Kind:
    """The files of one file extension: seconds of audio where these are known, bytes of the others.

    The fields that begin with ``done`` say how much of it is done.
    """

    seconds: float = 0.0
    bytes: int = 0
    done_seconds: float = 0.0
    other_bytes: int = 0
    done_bytes: float = 0.0


@dataclass
class _Share:
    """A job's part in the whole."""

    kind: _Kind
    bytes: int
    seconds: float | None = None
    fraction: float = 0.0


class Lengths:
    """How much of a whole run is done, by seconds of audio as far as files have told theirs.

    The other files are taken to be as long as their bytes come to, going by those of the same file extension,
    else by all. No file is opened for it.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._shares: dict[Job, _Share] = {}
        self._fraction = 0.0
        for job in jobs:
            kind = self._kinds.setdefault(os.path.splitext(job.source)[1].lower(), _Kind())
            self._shares[job] = _Share(kind, _size(job))
            kind.other_bytes += self._shares[job].bytes

    def known(self, job: Job, seconds: float) -> None:
        """Takes note of the length of a job's recording."""
        share = self._shares[job]
        if share.seconds is None:
            share.seconds = seconds
            share.kind.other_bytes -= share.bytes
            share.kind.done_bytes -= share.bytes * share.fraction
            share.kind.bytes += share.bytes
            share.kind.seconds += seconds
            share.kind.done_seconds += seconds * share.fraction

    def advanced(self, job: Job, fraction: float) -> None:
        """Takes note of how far a job is, 0 to 1."""
        share = self._shares[job]
        more = fraction - share.fraction
        share.fraction = fraction
        if share.seconds is None:
            share.kind.done_bytes += more * share.bytes
        else:
            share.kind.done_seconds += more * share.seconds

    def seconds(self, job: Job) -> float:
        """Returns the length of a job's recording, known or guessed; bytes where no length is known."""
        share = self._shares[job]
        return share.bytes * self._rate(share.kind) if share.seconds is None else share.seconds

    def fraction(self) -> float:
        """Returns how much of the whole is done, 0 to 1; it never falls, whatever lengths become known."""
        whole = done = 0.0
        for kind in self._kinds.values():
            rate = self._rate(kind)
            whole += kind.seconds + kind.other_bytes * rate
            done += kind.done_seconds + kind.done_bytes * rate
        self._fraction = max(self._fraction, min(done / whole, 1.0) if whole else 0.0)
        return self._fraction

    def _rate(self, kind: _Kind) -> float:
        """Seconds a byte, going by the files of this kind, else by all; 1 where no length is known."""
        for kinds in ([kind], self._kinds.values()):
            seconds, size = sum(each.seconds for each in kinds), sum(each.bytes for each in kinds)
            if seconds and size:
                return seconds / size
        return 1.0


class CaptionBar(_Bars):
    """One bar for work that names what it is at, as the bench does."""

    def advance(self, fraction: float, caption: str) -> None:
        """Moves the bar to `fraction`, 0 to 1, and shows the caption beside it."""
        if self._rich is not None:
            with self._lock:
                task = self._rich.task_ids[0]
                self._rich.update(task, completed=fraction, description=shown(caption))
                self._redraw()


@contextlib.contextmanager
def waiting(console: Console, text: str) -> Iterator[None]:
    """Shows `text` on a terminal while something without measurable progress goes on."""
    if console.interactive and not console.quiet:
        from rich.markup import escape

        rich = console.rich(console.stderr, terminal=True)
        with rich.status(escape(text), spinner="line"):
            yield
    else:
        yield


def _rate(audio_seconds: float, wall_seconds: float) -> str:
    if not audio_seconds or wall_seconds < 0.5:
        return ""
    factor = audio_seconds / wall_seconds
    return f"{factor:.0f}x" if factor >= 9.95 else f"{factor:.1f}x"


def _label(source: str) -> str:
    """What a file's bar calls it: its name, but of a shell's pipe the path."""
    return shown(source if os.path.dirname(source) in SHELL_PIPES else os.path.basename(source))


def _size(job: Job) -> int:
    try:
        return max(os.stat(job.source).st_size, 1)
    except OSError:
        return 1


def _progress(rich: RichConsole) -> RichProgress:
    from rich.progress import BarColumn, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column, Table

    class Narrower(RichProgress):
        def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
            table = super().make_tasks_table(tasks)
            # The ^C that a terminal echoes must not begin a line that is never cleared.
            table.width = rich.width - 3
            return table

    # Where there is no room for all, fields are left out rather than cut.
    narrow, bars = rich.width < 60, rich.width >= _WITH_BARS
    wide = rich.width * 2 // 5 - (4 if narrow else 0) if bars else rich.width - 9
    name = Column(width=max(1, wide), no_wrap=True, overflow="ellipsis")
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False, table_column=name)]
    if bars:
        columns.append(BarColumn(bar_width=None))
    columns.append(TaskProgressColumn(show_speed=False))
    if rich.width >= _WITH_TIMES:
        columns.append(TextColumn("{task.fields[rate]}", markup=False, justify="right"))
        columns.append(TimeRemainingColumn(compact=True))
    return Narrower(
        *columns,
        console=rich,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
