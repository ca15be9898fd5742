"""Bars on a terminal for the whole run and for the files under way; nothing at all elsewhere."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from snaccli.batch import Job
from snaccli.cli.console import Console
from snaccli.cli.text import display

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress, TaskID

__all__ = ["Bars", "Stages", "waiting"]

Length = Callable[[Job], "float | None"]


class Bars:
    """The progress of a run: a bar for all files by their weight in bytes, and one for each under way.

    `length(job)` gives the audio's length in seconds, or None; it is called once a file, from the worker
    that has it. Every method may be called from several threads at once.
    """

    def __init__(self, console: Console, jobs: Sequence[Job], length: Length) -> None:
        self._console = console
        self._length = length
        self._files = len(jobs)
        self._ended = 0
        self._weights = {job: _bytes(job) for job in jobs} if self._shown else {}
        self._seconds: dict[Job, float | None] = {}
        self._fractions: dict[Job, float] = {}
        self._begun: dict[Job, float] = {}
        self._tasks: dict[Job, TaskID] = {}
        self._whole: TaskID | None = None
        self._progress: Progress | None = None
        self._stack = contextlib.ExitStack()

    @property
    def _shown(self) -> bool:
        return self._console.interactive and not self._console.quiet

    def __enter__(self) -> Bars:
        if self._shown:
            rich = self._console.rich(self._console.stderr, terminal=True)
            self._progress = _bars(rich)
            self._start = time.monotonic()
            if self._files > 1:
                self._whole = self._progress.add_task("", total=sum(self._weights.values()), rate="")
                self._describe_whole()
            self._stack.enter_context(self._progress)
            self._stack.enter_context(self._console.live(rich))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, job: Job) -> None:
        """Show a bar for `job`."""
        if self._progress is None:
            return
        self._begun[job] = time.monotonic()
        # A file that cannot be opened fails in its own work, where its error is reported.
        with contextlib.suppress(Exception):
            self._seconds[job] = self._length(job)
        name = display(os.path.basename(job.source))
        self._tasks[job] = self._progress.add_task(name, total=1.0, rate="")

    def advance(self, job: Job, fraction: float) -> None:
        """Move the bar of `job` to `fraction`, 0 to 1."""
        if self._progress is None:
            return
        self._fractions[job] = fraction
        rate = _rate(self._done_seconds(job), time.monotonic() - self._begun[job])
        self._progress.update(self._tasks[job], completed=fraction, rate=rate)
        self._describe_whole()

    def end(self, job: Job, *, failed: bool) -> None:
        """Take the bar of `job` away and count the file; the speed is that of files which did not fail."""
        self._ended += 1
        if self._progress is None:
            return
        if job in self._tasks:
            self._progress.remove_task(self._tasks.pop(job))
        self._fractions[job] = 1.0
        if failed:
            self._seconds[job] = None
        self._describe_whole()

    def _done_seconds(self, job: Job) -> float:
        return (self._seconds.get(job) or 0.0) * self._fractions.get(job, 0.0)

    def _describe_whole(self) -> None:
        if self._progress is None or self._whole is None:
            return
        fractions = dict(self._fractions)
        self._progress.update(
            self._whole,
            description=f"{self._ended}/{self._files} files",
            completed=sum(self._weights[job] * fraction for job, fraction in fractions.items()),
            rate=_rate(sum(map(self._done_seconds, fractions)), time.monotonic() - self._start),
        )


class Stages:
    """One bar for work that names what it is at, as the bench does."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stack = contextlib.ExitStack()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Stages:
        if self._console.interactive and not self._console.quiet:
            rich = self._console.rich(self._console.stderr, terminal=True)
            self._progress = self._stack.enter_context(_bars(rich))
            self._task = self._progress.add_task("", total=1.0, rate="")
            self._stack.enter_context(self._console.live(rich))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def advance(self, fraction: float, stage: str) -> None:
        """Move the bar to `fraction`, 0 to 1, and show the stage beside it."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=fraction, description=display(stage))


@contextlib.contextmanager
def waiting(console: Console, text: str) -> Iterator[None]:
    """Show `text` on a terminal while something without measurable progress goes on."""
    if console.interactive and not console.quiet:
        rich = console.rich(console.stderr, terminal=True)
        with rich.status(_plain(text), spinner="line"), console.live(rich):
            yield
    else:
        yield


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _rate(audio_seconds: float, wall_seconds: float) -> str:
    if not audio_seconds or wall_seconds < 0.5:
        return ""
    factor = audio_seconds / wall_seconds
    return f"{factor:.0f}x" if factor >= 9.95 else f"{factor:.1f}x"


def _bytes(job: Job) -> int:
    try:
        return max(os.stat(job.source).st_size, 1)
    except OSError:
        return 1


def _bars(rich: RichConsole) -> Progress:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column

    narrow = rich.width < 60
    name = Column(width=rich.width * 2 // 5 - (4 if narrow else 0), no_wrap=True, overflow="ellipsis")
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(bar_width=None),
        TaskProgressColumn(show_speed=False),
        TextColumn("{task.fields[rate]}", markup=False, justify="right"),
        TimeRemainingColumn(compact=True),
        console=rich,
        transient=True,
        expand=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
