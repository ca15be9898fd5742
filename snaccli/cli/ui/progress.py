"""Bars on a terminal for the whole run and for the files under way; nothing at all elsewhere."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snaccli.cli.ui.console import Console
from snaccli.cli.ui.text import display
from snaccli.workers import Job

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress, Task, TaskID

__all__ = ["Bars", "Length", "Stages", "waiting"]

Length = Callable[[Job], "float | None"]

_REDRAW_SECONDS = 0.1
_LOOK_SECONDS = 0.5  # spent on lengths of files before the first is begun


class _Display:
    """Bars on standard error, if that is a terminal; redrawn by whoever tells of progress.

    A thread of rich's own would redraw them too, but can come between a message and the bars below it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stack = contextlib.ExitStack()
        self._lock = threading.RLock()
        self._drawn = 0.0
        self._progress: Progress | None = None

    def _open(self) -> None:
        if self._console.interactive and not self._console.quiet:
            rich = self._console.rich(self._console.stderr, terminal=True)
            self._progress = self._stack.enter_context(_progress(rich))
            self._stack.enter_context(self._console.live(rich, self._lock))

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _redraw(self) -> None:
        if self._progress is not None and time.monotonic() - self._drawn >= _REDRAW_SECONDS:
            self._drawn = time.monotonic()
            self._progress.refresh()


@dataclass
class _UnderWay:
    """A file whose bar is shown: its task, length, when it was begun, and how far it is."""

    task: TaskID
    seconds: float
    begun: float
    fraction: float = 0.0


class Bars(_Display):
    """The progress of a run: a bar for all files by their seconds of audio, and one for each under way.

    `length(job)` gives the audio's length in seconds, or None. The lengths of files that could not be asked
    for quickly are guessed by their bytes. Every method may be called from several threads at once.
    """

    def __init__(self, console: Console, jobs: Sequence[Job], length: Length) -> None:
        super().__init__(console)
        self._jobs = jobs
        self._known_length = functools.cache(functools.partial(_ask, length))
        self._whole: TaskID | None = None
        self._under_way: dict[Job, _UnderWay] = {}
        self._weights: dict[Job, float] = {}
        self._ended = 0
        self._ended_weight = 0.0
        self._ended_seconds = 0.0

    def __enter__(self) -> Bars:
        self._open()
        self._begun = time.monotonic()
        if self._progress is not None and len(self._jobs) > 1:
            self._weights = weights(self._jobs, self._known_length)
            self._whole = self._progress.add_task("", total=sum(self._weights.values()), rate="")
            self._update_whole()
        return self

    def begin(self, job: Job) -> None:
        """Show a bar for `job`."""
        if self._progress is None:
            return
        seconds = self._known_length(job)
        with self._lock:
            task = self._progress.add_task(display(os.path.basename(job.source)), total=1.0, rate="")
            self._under_way[job] = _UnderWay(task, seconds or 0.0, time.monotonic())

    def advance(self, job: Job, fraction: float) -> None:
        """Move the bar of `job` to `fraction`, 0 to 1."""
        if self._progress is None:
            return
        with self._lock:
            file = self._under_way[job]
            file.fraction = fraction
            rate = _rate(file.seconds * fraction, time.monotonic() - file.begun)
            self._progress.update(file.task, completed=fraction, rate=rate)
            self._update_whole()
            self._redraw()

    def end(self, job: Job, *, failed: bool) -> None:
        """Take the bar of `job` away and count the file; the speed is that of files which did not fail."""
        if self._progress is None:
            return
        with self._lock:
            file = self._under_way.pop(job)
            self._progress.remove_task(file.task)
            self._ended += 1
            self._ended_weight += self._weights.get(job, 0.0)
            self._ended_seconds += 0.0 if failed else file.seconds
            self._update_whole()
            self._redraw()

    def _update_whole(self) -> None:
        if self._progress is None or self._whole is None:
            return
        files = self._under_way
        seconds = self._ended_seconds + sum(file.seconds * file.fraction for file in files.values())
        weight = sum(self._weights[job] * file.fraction for job, file in files.items())
        self._progress.update(
            self._whole,
            description=f"{self._ended}/{len(self._jobs)} files",
            completed=self._ended_weight + weight,
            rate=_rate(seconds, time.monotonic() - self._begun),
        )


class Stages(_Display):
    """One bar for work that names what it is at, as the bench does."""

    def __enter__(self) -> Stages:
        self._open()
        if self._progress is not None:
            self._progress.add_task("", total=1.0, rate="")
        return self

    def advance(self, fraction: float, stage: str) -> None:
        """Move the bar to `fraction`, 0 to 1, and show the stage beside it."""
        if self._progress is not None:
            with self._lock:
                task = self._progress.task_ids[0]
                self._progress.update(task, completed=fraction, description=display(stage))
                self._redraw()


@contextlib.contextmanager
def waiting(console: Console, text: str) -> Iterator[None]:
    """Show `text` on a terminal while something without measurable progress goes on."""
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


def weights(jobs: Sequence[Job], length: Length, seconds: float = _LOOK_SECONDS) -> dict[Job, float]:
    """The share of each job in the whole: its seconds of audio, as far as `seconds` suffice to ask for them.

    The others get the seconds that their bytes come to, going by the files of the same ending, else by all.
    """
    until = time.monotonic() + seconds
    known: dict[Job, float] = {}
    for job in random.Random(0).sample(
        jobs, len(jobs)
    ):  # not all of one folder, which may be unlike the rest
        if time.monotonic() >= until:
            break
        if found := length(job):
            known[job] = found
    bytes_of = {job: _size(job) for job in jobs}
    rates: dict[str, tuple[float, int]] = {}  # by ending: seconds of audio, bytes
    for job, found in known.items():
        for ending in (_ending(job), ""):
            audio, size = rates.get(ending, (0.0, 0))
            rates[ending] = audio + found, size + bytes_of[job]

    def guessed(job: Job) -> float:
        audio, size = rates.get(_ending(job)) or rates.get("", (1.0, 1))
        return bytes_of[job] * audio / size

    return {job: known.get(job) or guessed(job) for job in jobs}


def _ask(length: Length, job: Job) -> float | None:
    # A file that cannot be opened fails in its own work, where its error is reported.
    with contextlib.suppress(Exception):
        return length(job)
    return None


def _ending(job: Job) -> str:
    return os.path.splitext(job.source)[1].lower() or "."


def _size(job: Job) -> int:
    try:
        return max(os.stat(job.source).st_size, 1)
    except OSError:
        return 1


def _progress(rich: RichConsole) -> Progress:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column, Table

    class Narrower(Progress):
        def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
            table = super().make_tasks_table(tasks)
            # The ^C that a terminal echoes must not begin a line that is never cleared.
            table.width = rich.width - 3
            return table

    narrow = rich.width < 60
    name = Column(width=rich.width * 2 // 5 - (4 if narrow else 0), no_wrap=True, overflow="ellipsis")
    return Narrower(
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(bar_width=None),
        TaskProgressColumn(show_speed=False),
        TextColumn("{task.fields[rate]}", markup=False, justify="right"),
        TimeRemainingColumn(compact=True),
        console=rich,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
